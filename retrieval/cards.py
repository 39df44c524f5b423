"""Pictures with captions: what a contact sheet holds of each, and the gallery of a notebook as HTML.

All text is escaped, thumbnails are held in the page, and nothing is fetched. What a gallery shows of a path is its last
part: a notebook travels, the folders of this machine need not.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import itertools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from retr.index.errors import RetrError
from retr.retrieval.archive.row_pictures import picture_of
from retr.retrieval.pages import shown_value
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import PIL.Image

    from retr.index.store import Store

# Columns that say how a row is kept, not what it shows.
HOUSEKEEPING = {"path", "size", "mtime", "sha256", "width", "height", "mode"}
NOT_HERE = "not on this machine"
# What a gallery shows at most: hits, facts of each, signs of a fact, and pixels of a side.
_HITS, _FACTS, _SIGNS, _SIDE = 12, 8, 60, 128
# A quoted absolute path, up to its last part.
_FOLDERS = re.compile(r"""(?<=['"])(?:[/\\]|[A-Za-z]:[/\\])[^'"]*[/\\](?=[^/\\'"]*['"])""")
_BOX = f"width:{_SIDE}px;height:{_SIDE}px"


def thumbnail(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """Return a picture in RGB, at most ``side`` pixels wide and high."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    return small


class Held(NamedTuple):
    """A thumbnail that a page holds: its address, which is all of its bytes, and its size."""

    url: str
    width: int
    height: int


def held(picture: PIL.Image.Image, side: int) -> Held:
    """Return the thumbnail of a picture, as a page holds it."""
    sink = io.BytesIO()
    small = thumbnail(picture, side)
    small.save(sink, "JPEG", quality=85)
    return Held(f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}", *small.size)


def row_facts(metadata: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of a row's metadata, under the names that an answer gives its columns."""
    return {names[key]: value for key, value in metadata.items() if value is not None and key not in HOUSEKEEPING}


def facts(shown: Mapping[str, Any]) -> str:
    """Return a ``<table>`` of names and values."""
    rows = (f"<tr><td>{escape(key)}</td><td>{escape(shown_value(value))}</td></tr>" for key, value in shown.items())
    return f"<table>{''.join(rows)}</table>"


def escape(text: str) -> str:
    """Return a text of others as a page may hold it."""
    return html.escape(visible(text))


def without_folders(text: str) -> str:
    """Cut quoted absolute paths to their last part.

    >>> without_folders("no row has the patient of the query image '/home/ann/x y.png'")
    "no row has the patient of the query image 'x y.png'"
    """
    return _FOLDERS.sub("", text)


class GalleryRow(NamedTuple):
    """One row of a gallery: its id, what stands before the id, and what is said of it."""

    id: str
    before: str
    facts: Mapping[str, Any]


def gallery(
    title: str,
    note: str | None,
    rows: Iterable[GalleryRow],
    store: Store | None,
    *,
    asked: Sequence[PIL.Image.Image] = (),
) -> str:
    """Return the first rows of an answer with their pictures, as one piece of HTML.

    Parameters
    ----------
    store
        Where the pictures' archive is known from; ``None`` shows none.
    asked
        Pictures of the question, which stand in front of its answer.
    """
    waiting = iter(rows)
    style = f"{_BOX};object-fit:contain;outline:3px solid #2a6fb0;outline-offset:-3px"
    question = "".join(
        f"<div style='width:{_SIDE}px;font-size:11px'>"
        f"<img alt='asked with' style='{style}' src='{held(one, _SIDE).url}'><div><b>asked with</b></div></div>"
        for one in asked
    )
    cards = "".join(_card(row, store) for row in itertools.islice(waiting, _HITS))
    left = sum(1 for _ in waiting)
    said = [without_folders(note)] if note else []
    said += [f"and {left} more"] if left else []
    said += [] if cards else ["no hits"]
    notes = "".join(f"<div style='color:#666'>{escape(text)}</div>" for text in said)
    box = f"<div style='display:flex;flex-wrap:wrap;gap:8px'>{question}{cards}</div>"
    return f"<div><b>{escape(without_folders(title))}</b>{box}{notes}</div>"


def _card(row: GalleryRow, store: Store | None) -> str:
    title = f"{row.before} {_short(row.id)}"
    picture = f"<div style='{_BOX};background:#eee;color:#666'>{NOT_HERE}</div>"
    if store is not None:
        # which archive is missing, and why, `Index.picture` says
        with contextlib.suppress(RetrError, OSError):
            url = held(picture_of(store, row.id).image, _SIDE).url
            picture = f"<img alt='{escape(title)}' style='{_BOX};object-fit:contain' src='{url}'>"
    brief = {key: _short(shown_value(value)) for key, value in itertools.islice(row.facts.items(), _FACTS)}
    return (
        f"<div style='width:{_SIDE}px;font-size:11px;overflow-wrap:anywhere'>{picture}"
        f"<div><b>{escape(title)}</b></div>{facts(brief)}</div>"
    )


def _short(text: str) -> str:
    return text if len(text) <= _SIGNS else f"{text[: _SIGNS - 3]}..."
