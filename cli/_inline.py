"""Pictures in the terminal itself: kitty's, iTerm's and sixel graphics, where the terminal says that it has them.

Kitty, Ghostty, iTerm and WezTerm say so in the environment; others are asked once for their attributes (DA1), of which
4 is sixel. In tmux and screen, which stand between, and where output goes to a pipe or a file, nothing is drawn.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from retr import system
from retr.index.errors import RetrError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.retrieval.hits import Hits
    from retr.retrieval.index import Index
    from retr.retrieval.query import Query

Way = Literal["kitty", "iterm", "sixel"]
# pixels of a side, and between two
SIDE, GAP = 128, 8
# hits that are drawn at most
MOST = 12
# of a cell, where the terminal does not tell
_CELL = 8
_CHUNK = 4096


def way() -> Way | None:
    """Return how the terminal that is printed to shows pictures; ``None`` where it does not say that it can."""
    if not sys.stdout.isatty() or os.environ.get("TMUX") or os.environ.get("STY"):
        return None
    program, term = os.environ.get("TERM_PROGRAM", ""), os.environ.get("TERM", "")
    if term.startswith("screen") or term in {"", "dumb", "linux"}:
        return None
    if "KITTY_WINDOW_ID" in os.environ or term in {"xterm-kitty", "xterm-ghostty"} or program == "ghostty":
        return "kitty"
    if program in {"iTerm.app", "WezTerm"} or os.environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if "4" in _attributes() else None


def _attributes(patience: float = 0.2) -> set[str]:
    """Ask the terminal what it can; nothing where it does not answer in time."""
    try:
        import select
        import termios
        import tty
    except ImportError:
        return set()
    if not sys.stdin.isatty():
        return set()
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):
        return set()
    answer = b""
    try:
        tty.setcbreak(number)
        sys.stdout.write("\x1b[c")
        sys.stdout.flush()
        while not answer.endswith(b"c") and select.select([number], [], [], patience)[0]:
            answer += os.read(number, 64)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
    found = re.search(rb"\x1b\[\?([0-9;]*)c", answer)
    return set(found[1].decode().split(";")) if found else set()


def width() -> int:
    """Return how many pixels wide the terminal is, as it says or as its columns let guess."""
    import shutil

    with suppress(OSError):
        wide = system.terminal_pixels(sys.stdout.fileno())
        if wide:
            return wide
    return shutil.get_terminal_size().columns * _CELL


def of_hits(index: Index, query: Query, hits: Hits) -> list[Image.Image | None]:
    """Return the pictures of a question, and of its first hits; None for one that is not here."""
    from retr.retrieval.explain import asked_picture

    shown: list[Image.Image | None] = []
    for part in query.parts:
        if part.kind in {"image", "id"}:
            with suppress(RetrError, OSError):
                shown.append(asked_picture(index, part))
    return [*shown, *(of_row(index, row) for row in hits.ids[:MOST])]


def of_row(index: Index, row: str) -> Image.Image | None:
    """Return the picture of a row, where it is on this machine."""
    try:
        return index.picture(row).image
    except (RetrError, OSError):
        return None


def strip(pictures: Sequence[Image.Image | None], wide: int) -> Image.Image:
    """Draw thumbnails side by side, in as many rows as it takes; a picture that is not here is a grey field."""
    across = max(min((wide - GAP) // (SIDE + GAP), len(pictures)), 1)
    rows = -(-len(pictures) // across)
    canvas = Image.new("RGB", (across * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), "black")
    for place, picture in enumerate(pictures):
        x, y = place % across * (SIDE + GAP), place // across * (SIDE + GAP)
        small = Image.new("RGB", (SIDE, SIDE), "#555555") if picture is None else picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        canvas.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
    return canvas


def drawn(picture: Image.Image, how: Way) -> str:
    """Return what a terminal must be sent to show a picture, and go to the next line."""
    if how == "sixel":
        return f"{_sixel(picture)}\n"
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    data = base64.b64encode(sink.getvalue()).decode()
    if how == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(sink.getvalue())};preserveAspectRatio=1:{data}\a\n"
    parts = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    last = len(parts) - 1
    # q=2: the terminal answers nothing, which would be read as typed
    sent = [
        f"\x1b_G{'a=T,f=100,q=2,' if number == 0 else ''}m={int(number < last)};{part}\x1b\\"
        for number, part in enumerate(parts)
    ]
    return "".join(sent) + "\n"


def _sixel(picture: Image.Image) -> str:
    """Return a picture in sixels: six rows at a time, a colour at a time, runs counted."""
    few = picture.convert("RGB").quantize(255, dither=Image.Dither.NONE)
    colours = np.array(few.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
    pixels = np.asarray(few)
    high, wide = pixels.shape
    parts = [f'\x1bPq"1;1;{wide};{high}']
    parts += ["#{};2;{};{};{}".format(number, *(rgb * 100 // 255)) for number, rgb in enumerate(colours)]
    for top in range(0, high, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band)))[:, None]
        for colour in np.unique(band):
            signs = ((band == colour) * weights).sum(axis=0)
            parts.append(f"#{colour}{_runs(signs)}$")
        parts.append("-")
    return "".join(parts) + "\x1b\\"


def _runs(signs: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    starts = np.flatnonzero(np.r_[True, signs[1:] != signs[:-1]])
    lengths = np.diff(np.r_[starts, len(signs)])
    return "".join(
        f"!{length}{chr(63 + sign)}" if length > 3 else chr(63 + sign) * length
        for sign, length in zip(signs[starts].tolist(), lengths.tolist(), strict=True)
    )
