"""Render hits as one self-contained HTML page, or one contact sheet as a picture.

The page holds its thumbnails, opens without a server and fetches nothing. Pictures come out of the archive; where
that is not on this machine, a card says so and shows the rest.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import PIL.ImageDraw

from retr.index.errors import ImageReadError, RetrError, UsageError
from retr.index.machine.home import home
from retr.index.machine.waiting import waiting
from retr.index.machine.whole_file import write_output
from retr.retrieval import explain
from retr.retrieval.cards import NOT_HERE, held, row_facts, thumbnail
from retr.retrieval.hits import shown_names
from retr.retrieval.pages import render
from retr.retrieval.query import Part, Query
from retr.retrieval.query_vectors import resolve
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retr.retrieval.curation.findings import Findings
    from retr.retrieval.hits import Hits
    from retr.retrieval.index_like import IndexLike

SIDE = 224
# Around a region: light, and dark outside of it, so that it shows on any picture.
_FRAME, _FRAME_EDGE = "#40ffdc", "#1b1b1b"
# The page's pictures are larger than they are shown: a screen may have several pixels for one.
_PAGE_SIDE = 448
# What is said of the second picture of a hit, by the way in which it was found.
_KEYS = {
    "places": {
        "what": "it looks like some place of the query's picture, more than like places of other pictures of the "
        "archive",
        "least": "no more",
        "most": "most",
        "limit": "Each hit has a scale of its own, which ends no lower than with what other pictures reach at "
        "their best. It shows what the two pictures share and others do not, in structures of about a lesion's size; "
        "the score is of the whole pictures and may rest on more.",
    },
    "patches": {
        "what": "a patch adds more to the score of this query than the same patch of other pictures of the archive",
        "least": "adds no more",
        "most": "adds most",
        "limit": "Each hit has a scale of its own. A patch knows of the whole picture; what is bright need not be "
        "what the query shows.",
    },
    "blurring": {
        "what": "blurring a part lowers the score of this query more than that of other pictures of the archive",
        "least": "lowers nothing",
        "most": "lowers most",
        "limit": "Each hit has a scale of its own. It shows what the score rests on. "
        "It does not point at small regions that the two pictures share: where "
        "that was measured it found them no more often than chance.",
    },
}


@dataclass(frozen=True)
class SheetPicture:
    """One picture with what is said of it; ``overlay`` shows what of it matched, found in the way ``way``."""

    title: str
    picture: PIL.Image.Image | None
    facts: dict[str, Any]
    overlay: PIL.Image.Image | None = None
    way: explain.Way | None = None


@dataclass(frozen=True)
class Sheet:
    """One query and its hits."""

    query: str
    asked: list[SheetPicture]
    hits: list[SheetPicture]
    notes: list[str]


def make(index: IndexLike, queries: Sequence[Query], found: Sequence[Hits], *, explained: bool = False) -> list[Sheet]:
    """Gather the pictures of queries and hits.

    Parameters
    ----------
    explained
        Also show of each hit which of its parts match the query (`retr.retrieval.explain`).
    """
    index = index.snapshot()
    vectors: Any = [None] * len(queries)
    if explained:
        bridge = index.bridge if any(query.uses_text for query in queries) else None
        vectors = resolve(queries, index.encoder, index.store, text_encoder=bridge).vectors
    archive = explain.Archive(index)
    sheets = []
    for query, hits, vector in zip(queries, found, vectors, strict=True):
        notes = [hits.note] if hits.note else []
        maps = explain.HitMaps(index, query, vector, archive) if explained and len(hits) else None
        cards = [_hit(index, hit, maps) for hit in hits]
        if hits.cases is not None:
            told = zip(cards, hits.cases, hits.parts or (), strict=True)
            cards = [replace(card, facts={"case": case, **_matched(parts), **card.facts}) for card, case, parts in told]
        asked = [_asked(index, part) for part in query.parts if part.kind in {"image", "id"}]
        sheets.append(Sheet(_named(query).describe(), asked, cards, notes))
    return sheets


def of_findings(index: IndexLike, found: Findings) -> list[Sheet]:
    """Gather the pictures of rows that a look through the archive found; beside each its evidence, where it has any."""
    index = index.snapshot()
    rows = []
    for record in found:
        facts = {key: value for key, value in record.items() if key not in {"rank", "id", "evidence"}}
        title, given = f"{record['rank']}. {record['id']}", {"label": record.get("likely")}
        evidence = [SheetPicture(name, _from_archive(index, name), given) for name in record.get("evidence", ())]
        rows.append([SheetPicture(title, _from_archive(index, record["id"]), facts), *evidence])
    head = Sheet(found.title, [], [], list(found.notes))
    if all(len(cards) == 1 for cards in rows):
        return [replace(head, hits=[card for (card,) in rows])]
    return [head, *(Sheet(cards[0].title, [], cards, []) for cards in rows)]


def write(sheets: Sequence[Sheet], path: Path) -> None:
    """Write the sheets to one ``.html`` or ``.png`` file.

    Raises
    ------
    UsageError
        For another ending.
    """
    path = home(path)
    ending = path.suffix.lower()
    if ending not in {".html", ".htm", ".png"}:
        raise UsageError(f"a sheet is written as .html or .png, got {path.name!r}", hint="change the file's ending")
    if ending == ".png":
        data = io.BytesIO()
        contact_sheet(sheets).save(data, "PNG")
        write_output(path, data.getvalue())
    else:
        write_output(path, page(sheets).encode())


def page(sheets: Sequence[Sheet]) -> str:
    """Write the HTML page."""
    shown = [
        {
            "query": sheet.query,
            "notes": sheet.notes,
            "asked": [_card(card) for card in sheet.asked],
            "scales": [_KEYS[way] for way in _KEYS if any(card.way == way for card in sheet.hits)],
            "hits": [_card(card) for card in sheet.hits],
        }
        for sheet in sheets
    ]
    return render("sheet.html", sheets=shown, not_here=NOT_HERE)


def contact_sheet(sheets: Sequence[Sheet], *, columns: int = 6) -> PIL.Image.Image:
    """Draw the thumbnails in rows, queries first, with rank, score and label below each."""
    rows: list[list[SheetPicture]] = []
    for sheet in sheets:
        if sheet.asked:
            rows.append(sheet.asked[:columns])
        rows += [sheet.hits[start : start + columns] for start in range(0, len(sheet.hits), columns)]
    gap, text = 8, 44
    width = gap + (SIDE + gap) * max([len(row) for row in rows], default=1)
    canvas = PIL.Image.new("RGB", (width, gap + (SIDE + text + gap) * max(len(rows), 1)), "white")
    draw = PIL.ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        for j, card in enumerate(row):
            x, y = gap + j * (SIDE + gap), gap + i * (SIDE + text + gap)
            picture = card.overlay or card.picture
            if picture is None:
                draw.rectangle((x, y, x + SIDE, y + SIDE), fill="#eeeeee")
            else:
                small = thumbnail(picture, SIDE)
                canvas.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
            label = card.facts.get("label")
            for line, words in enumerate((card.title, "" if label is None else str(label))):
                draw.text((x, y + SIDE + 4 + 18 * line), _latin(_shorten(visible(words))), fill="black")
    return canvas


def _hit(index: IndexLike, hit: Any, maps: explain.HitMaps | None) -> SheetPicture:
    shown = row_facts(hit.metadata, shown_names(list(hit.metadata)))
    picture = _from_archive(index, hit.id)
    if picture is not None and hit.region is not None:
        picture = framed(picture, hit.region)
    if maps is None or picture is None:
        return SheetPicture(f"{hit.rank}. {hit.score:.4f} {hit.id}", picture, shown)
    with waiting(f"looking for the parts of {hit.id!r} that match"):
        found = maps.of(hit.id, picture)
    return SheetPicture(f"{hit.rank}. {hit.score:.4f} {hit.id}", picture, shown, found.overlay(_PAGE_SIDE), found.way)


def framed(picture: PIL.Image.Image, region: tuple[int, int, int, int]) -> PIL.Image.Image:
    """Return a picture with a frame around a region of it: left, top, width and height in pixels."""
    shown = picture.copy()
    left, top, width, height = region
    # seen in a thumbnail, too
    line = max(1, max(picture.size) // 150)
    draw = PIL.ImageDraw.Draw(shown)
    for colour, grown in ((_FRAME_EDGE, line), (_FRAME, 0)):
        right, bottom = left + width - 1 + grown, top + height - 1 + grown
        draw.rectangle((left - grown, top - grown, max(right, left), max(bottom, top)), outline=colour, width=line)
    return shown


def _matched(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return, for the parts of a question, which of a case's parts are most like them."""
    return {f"part {one['part']}": f"{one['id']} ({one['score']:.4f})" for one in parts}


def _asked(index: IndexLike, part: Any) -> SheetPicture:
    # of a case the folder is named, and its files are too many to be shown
    several = part.kind == "image" and isinstance(part.value, str | Path) and home(part.value).is_dir()
    if part.kind == "id" or several:
        picture = None if several else _from_archive(index, part.value)
    else:
        picture = explain.asked_picture(index, part)
    return SheetPicture(f"query: {_named(Query((part,))).describe()}", picture, {})


def _named(query: Query) -> Query:
    """Keep of a picture's path its last part: a sheet travels, the folders of this machine need not."""

    def named(part: Part) -> Part:
        is_path = part.kind == "image" and isinstance(part.value, str | Path)
        return replace(part, value=Path(part.value).name) if is_path else part

    return replace(query, parts=tuple(named(part) for part in query.parts))


def _from_archive(index: IndexLike, row_id: str) -> PIL.Image.Image | None:
    try:
        return index.picture(row_id).image
    except (RetrError, ImageReadError, OSError):
        return None


def _card(card: SheetPicture) -> dict[str, Any]:
    """Return what the template shows of one picture: below it, where there is one, the map of what matched."""
    titled = [(card.picture, card.title), (card.overlay, f"{card.title}: what its score rests on")]
    pictures = [(held(picture, _PAGE_SIDE), title) for picture, title in titled if picture is not None]
    shape = pictures[0][0].width / pictures[0][0].height if pictures else None
    return {"title": card.title, "facts": card.facts, "pictures": pictures, "shape": shape}


def _shorten(words: str, most: int = 34) -> str:
    """Leave out the middle of what is too long: the end of a path tells more than its folders.

    >>> _shorten("2. 0.9423 diabetic_retinopathy/11_dr.jpg")
    '2. 0.9423 diab...nopathy/11_dr.jpg'
    """
    if len(words) <= most:
        return words
    head = most // 2 - 3
    return f"{words[:head]}...{words[len(words) - (most - head - 3) :]}"


def _latin(words: str) -> str:
    """Keep what the built-in font can draw."""
    return words.encode("latin-1", "replace").decode("latin-1")
