"""Which slices of a volume become rows, and through which windows, as `ReadOptions` says.

Each slice is judged by itself, from its own picture and its own place. So the same slices are taken from a series of
files and from one file, in whatever order they come and however often a build is interrupted.

Windows of CT, centre and width in Hounsfield units, are those that Radiopaedia lists under "Windowing (CT)".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.retrieval.read_options import CT_WINDOWS, slice_step, window_names

if TYPE_CHECKING:
    from PIL.Image import Image

    from retr.retrieval.images.geometry import Slice
    from retr.retrieval.images.picture import Reading

# A slice has content if so large a share of a reduced picture differs so much from the middle grey of its edge.
_CELLS = 32
_LEVELS = 16.0
_SHARE = 0.05


def content(image: Image) -> float:
    """Return the share of a picture that stands out from its edge, from 0 to 1.

    Examples
    --------
    >>> import PIL.Image
    >>> blank = PIL.Image.new("L", (64, 64))
    >>> square = blank.copy()
    >>> square.paste(200, (16, 16, 48, 48))
    >>> content(blank), content(square)
    (0.0, 0.25)
    """
    import PIL.Image

    # a box filter averages noise away
    cells = np.asarray(image.convert("L").resize((_CELLS, _CELLS), PIL.Image.Resampling.BOX), np.float64)
    edge = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
    return float((np.abs(cells - np.median(edge)) > _LEVELS).mean())


def by_place(place: Slice | None, options: Reading) -> bool:
    """Return whether a slice is wanted as far as its place tells; one that has none always is."""
    step = slice_step(options.slices)
    return step is None or options.frame is not None or place is None or place.holds_multiple(step)


def by_content(image: Image, options: Reading) -> bool:
    """Return whether a slice is wanted as far as its picture tells."""
    return options.slices != "content" or options.frame is not None or content(image) >= _SHARE


def windows(options: Reading, *, hounsfield: bool) -> list[tuple[str | None, tuple[float, float] | None]]:
    """Return the name of each window that is wanted of a slice, and its centre and width.

    Both are ``None`` for what the file says itself. A window that is asked for by numbers counts in place of all, under
    their names.
    """
    names = window_names(options.windows) if hounsfield else ()
    if not names:
        return [(None, options.window)]
    return [(name, options.window or CT_WINDOWS[name]) for name in names]


def named(suffix: str, window: str | None) -> str:
    """Return what an id has behind the file's path, of a slice and a window.

    >>> named("#3", "lung"), named("", "lung"), named("#3", None)
    ('#3-lung', '#lung', '#3')
    """
    if window is None:
        return suffix
    return f"{suffix}-{window}" if suffix else f"#{window}"
