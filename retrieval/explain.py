"""Similarity maps: which parts of a hit match the query, in the picture's own shape.

Three ways, the first that is at hand:

``places``
    Each place of the hit is compared with every place of the query's picture and of its mirror image
    (`retr.retrieval.correspondence`): for questions that hold a picture, and encoders that describe places. It shows
    what the two pictures share and others do not (measured by ``benchmarks/pointing.py``).
``patches``
    What each patch adds to the score, for encoders whose patches are comparable with pictures or words, less what the
    same patch adds in other pictures.
``blurring``
    What the score loses when a part is blurred away (occlusion), less what the mean score of other pictures loses. It
    needs no map and works for any encoder, and through whatever is done to its vectors afterwards, in some eighty
    passes of the network. A vector is of the whole picture: a small region that two pictures share need not stand out.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL.Image
import PIL.ImageFilter
import PIL.ImageOps

from retr.index.errors import RetrError
from retr.index.vectors import unit
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_of
from retr.retrieval.correspondence import Correspondence
from retr.retrieval.query_pictures import one_picture
from retr.retrieval.query_vectors import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Part, Query

    #: Pictures in, float ``(n, dim)`` out: vectors whose product with a query is its score.
    Embed = Callable[[Sequence[PIL.Image.Image]], NDArray[Any]]
    Way = Literal["places", "patches", "blurring"]

# Cells of the longer side, and how many of them a window covers.
CELLS, WINDOW = 12, 2
#: Pixels of the longer side that is looked at, rows whose mean vector stands for the archive, and rows whose places do.
SIDE, OTHERS, PICTURES = 448, 512, 16
_BATCH = 32
# What is not part of the reason is shown at this brightness.
_DIM = 0.35
_LINE = (64, 255, 220)


class HitMaps:
    """Maps of the hits of one query; its pictures are read, and some of the archive.

    Parameters
    ----------
    index
        A snapshot, so that its rows stay.
    vector
        float ``(dim,)``: the query, embedded.
    archive
        What was read of the archive for another query of the same index.
    """

    def __init__(self, index: IndexLike, query: Query, vector: NDArray[Any], archive: Archive | None = None) -> None:
        self._index, self._query, self._vector = index, query, vector
        self._archive = archive or Archive(index)
        self._shared = self._correspondence()
        self._least = 0.0
        if self._shared is not None:
            self._least = self._shared.usual_peak(self._archive.places, _asked_rows(query))

    def of(self, row_id: str, picture: PIL.Image.Image) -> HitMap:
        """Return the map of a hit.

        The scale of places ends no lower than with what pictures that are no hits reach at their best.
        """
        encoder = self._index.encoder
        if self._shared is not None:
            places = encoder.place_descriptors(_small(picture))
            if places is not None:
                scores = self._shared.heat(places, {row_id, *_asked_rows(self._query)})
                return HitMap("places", scores, self._least, picture)
        patches = encoder.patch_embeddings(_small(picture))
        if patches is not None:
            others = [map_ for name, map_ in self._archive.patches.items() if name != row_id]
            cosine = encoder.info.similarity == "cosine"
            return HitMap("patches", contributions(patches, self._vector, others, cosine=cosine), 0.0, picture)
        return HitMap("blurring", heat(embedding(encoder), picture, self._vector, self._archive.mean), 0.0, picture)

    def _correspondence(self) -> Correspondence | None:
        asked = []
        for part in self._query.parts:
            if part.weight > 0 and part.kind in {"image", "id"}:
                # another part may be at hand
                with suppress(RetrError, OSError):
                    asked.append(_small(asked_picture(self._index, part)))
        found = [described(self._index.encoder, picture) for picture in asked]
        places = [one for one in found if one is not None]
        if not places or not self._archive.places.keys() - _asked_rows(self._query):
            return None
        return Correspondence.of(places, self._archive.places)


@dataclass(frozen=True, eq=False)
class HitMap:
    """Which parts of a hit match a question.

    Attributes
    ----------
    way
        In which way it was looked at; see `retr.retrieval.explain`.
    scores
        float32 ``(h, w)``, row-major from the top left of the picture: high where it matches.
    least
        What the scale ends with at least. ``scores`` that stay below have nothing in particular in common.
    picture
        The hit's.
    """

    way: Way
    scores: NDArray[np.float32]
    least: float
    picture: PIL.Image.Image

    @property
    def peak(self) -> float:
        """The best score as a share of the scale, 0 to 1.

        >>> HitMap("places", np.float32([[0, 1]]), 4.0, PIL.Image.new("RGB", (2, 1))).peak
        0.25
        """
        top = float(self.scores.max(initial=0))
        return top / max(top, self.least) if top > 0 else 0.0

    def overlay(self, side: int = SIDE) -> PIL.Image.Image:
        """Return the picture, mode ``RGB``, the longer side at most so long, dark where nothing matches.

        >>> HitMap("places", np.float32([[0, 1]]), 0.0, PIL.Image.new("RGB", (64, 32))).overlay(32).size
        (32, 16)
        """
        return overlay(self.picture, self.scores, side, least=self.least)

    def layer(self, side: int = SIDE) -> PIL.Image.Image:
        """Return what `overlay` lays over the picture, mode ``RGBA``, the longer side so long.

        >>> HitMap("places", np.float32([[0, 1]]), 0.0, PIL.Image.new("RGB", (64, 32))).layer(128).size
        (128, 64)
        """
        longer = max(self.picture.size)
        width, height = (max(1, round(side * one / longer)) for one in self.picture.size)
        return layer(self.scores, (width, height), self.least)


def explain(index: IndexLike, query: Query, id: str) -> HitMap:  # noqa: A002
    """Show which parts of a row's picture match a question.

    What is read of the archive for it is read once a version of the index.

    Parameters
    ----------
    query
        The question that the row answered.
    id
        The row's.

    Raises
    ------
    UnknownIdError, ImageReadError
        There is no such row, or its file or a picture of the query cannot be read.

    Examples
    --------
    >>> from retr import Query
    >>> from retr.sample import sample_index
    >>> sample_index().explain(Query.id("healthy/P01-left.png"), "healthy/P11-right.png").overlay().size
    (32, 32)
    """
    index = index.snapshot()
    picture = picture_of(index.store, id).image
    bridge = index.bridge if query.uses_text else None
    vector = resolve([query], index.encoder, index.store, text_encoder=bridge).vectors[0]
    archive = Archive(index, index.store.once("other pictures", dict))
    return HitMaps(index, query, vector, archive).of(id, picture)


class Archive:
    """What other pictures of an archive have, read once, when it is first needed.

    Parameters
    ----------
    index
        The index.
    read
        Where what was read is kept, for who asks again.
    """

    def __init__(self, index: IndexLike, read: dict[str, Any] | None = None) -> None:
        self._index, self._read = index, {} if read is None else read

    @property
    def places(self) -> dict[str, NDArray[np.float32]]:
        """As `described`, by row, of up to `PICTURES` rows; none where the encoder describes no places."""
        return self._maps("places", lambda picture: described(self._index.encoder, picture))

    @property
    def patches(self) -> dict[str, NDArray[np.float32]]:
        """Embeddings of patches ``(h, w, dim)`` by row, likewise."""
        return self._maps("patches", self._index.encoder.patch_embeddings)

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean vector of the archive."""
        if "mean" not in self._read:
            self._read["mean"] = usual(self._index)
        mean: NDArray[np.float32] = self._read["mean"]
        return mean

    def _maps(self, kind: str, describe: Callable[[PIL.Image.Image], Any]) -> dict[str, NDArray[np.float32]]:
        if kind not in self._read:
            found: dict[str, NDArray[np.float32]] = {}
            store = self._index.store
            for row_id in store.ids(_spread(store.live_rows(), PICTURES)):
                picture = None
                with suppress(RetrError, OSError):
                    picture = _small(picture_of(store, row_id, draft_size=2 * SIDE).image)
                map_ = None if picture is None else describe(picture)
                if map_ is not None:
                    found[row_id] = map_
            self._read[kind] = found
        maps: dict[str, NDArray[np.float32]] = self._read[kind]
        return maps


def described(encoder: BaseEncoder, picture: PIL.Image.Image) -> NDArray[np.float32] | None:
    """Describe the places of a picture and of its mirror image (as the other eye is): float32 ``(2 h, w, d)``."""
    places = encoder.place_descriptors(picture)
    mirrored = None if places is None else encoder.place_descriptors(PIL.ImageOps.mirror(picture))
    return None if places is None or mirrored is None else np.concatenate([places, mirrored])


def asked_picture(index: IndexLike, part: Part) -> PIL.Image.Image:
    """Return the picture of a part of a query that is an image or a row.

    Raises
    ------
    RetrError
        It cannot be read, or is not on this machine.
    """
    from retr.retrieval.images import read_image

    if part.kind == "id":
        picture = picture_of(index.store, part.value)
        return (picture if part.region is None else picture.region(*part.region)).image
    reading = BuildNotes.of(index.store).reading
    return read_image(one_picture(part.value, index.store.manifest.encoder, reading, part.region)).image


def contributions(
    patches: NDArray[np.float32], vector: NDArray[Any], others: Sequence[NDArray[np.float32]] = (), *, cosine: bool
) -> NDArray[np.float32]:
    """Tell what each patch ``(h, w, dim)`` adds to a score whose vector is their mean: float32 ``(h, w)``.

    Less the mean of what the patch of the same place adds in other pictures, where they have one.
    """

    def added(map_: NDArray[np.float32]) -> NDArray[np.float32]:
        length = float(np.linalg.norm(map_.mean(axis=(0, 1)))) if cosine else 1.0
        return np.asarray(map_ @ vector / max(length, 1e-12), np.float32)

    usual_ones = [added(other) for other in others if other.shape == patches.shape]
    own = added(patches)
    return np.asarray(own - np.mean(usual_ones, axis=0), np.float32) if usual_ones else own


def _asked_rows(query: Query) -> set[str]:
    return {part.value for part in query.parts if part.kind == "id"}


def _small(picture: PIL.Image.Image) -> PIL.Image.Image:
    small = picture.convert("RGB")
    # twice what is looked at: the encoder's own reduction follows
    small.thumbnail((2 * SIDE, 2 * SIDE))
    return small


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Choose rows evenly."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)] if len(rows) else rows


def embedding(encoder: BaseEncoder) -> Embed:
    """Return how an encoder scores pictures: unit vectors where its score is cosine."""
    cosine = encoder.info.similarity == "cosine"

    def embed(pictures: Sequence[PIL.Image.Image]) -> NDArray[Any]:
        vectors = encoder.encode_images(pictures)
        return unit(vectors) if cosine else vectors

    return embed


def usual(index: IndexLike) -> NDArray[np.float32]:
    """Return the mean vector of an index, of `OTHERS` rows evenly spread over it: float32 ``(dim,)``."""
    vectors = np.asarray(index.store.vectors(_spread(index.store.live_rows(), OTHERS)), np.float32)
    return vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1], np.float32)


def heat(
    embed: Embed, image: PIL.Image.Image, vector: NDArray[Any], others: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Tell how much each part of an RGB picture adds to a query's score.

    Parameters
    ----------
    embed
        As `embedding` makes it.
    vector
        float ``(dim,)``, the query, as `embed` gives pictures.
    others
        float ``(dim,)``, the mean of other pictures' vectors; None takes the score as it is.

    Returns
    -------
    float32 ``(h, w)``, row-major from the top left of the picture: cells nearly square, the longer side `CELLS` long.
    Positive where a part makes the hit likelier than other pictures, negative where it speaks against it.
    """
    direction = np.asarray(vector, np.float32) - (0 if others is None else np.asarray(others, np.float32))
    return losses(embed, image, direction[:, None])[..., 0]


def losses(
    embed: Embed, image: PIL.Image.Image, directions: NDArray[Any], *, cells: int = CELLS, window: int = WINDOW
) -> NDArray[np.float32]:
    """Tell what products with some directions, float ``(dim, m)``, lose as parts are blurred: float32 ``(h, w, m)``.

    ``window`` cells are blurred at once in both axes; a cell has the mean of the windows that cover it.
    """
    picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    longer = max(picture.size)
    across, down = (max(window, round(cells * side / longer)) for side in picture.size)
    blurred = picture.filter(PIL.ImageFilter.GaussianBlur(longer / 8))
    xs = np.linspace(0, picture.width, across + 1).round().astype(int).tolist()
    ys = np.linspace(0, picture.height, down + 1).round().astype(int).tolist()
    corners = [(x, y) for y in range(down - window + 1) for x in range(across - window + 1)]

    def covered(x: int, y: int) -> PIL.Image.Image:
        box = (xs[x], ys[y], xs[x + window], ys[y + window])
        shown = picture.copy()
        shown.paste(blurred.crop(box), box[:2])
        return shown

    whole = np.asarray(embed([picture])[0] @ directions, np.float64)
    total, count = np.zeros((down, across, directions.shape[1])), np.zeros((down, across, 1))
    for start in range(0, len(corners), _BATCH):
        some = corners[start : start + _BATCH]
        lost = whole - np.asarray(embed([covered(x, y) for x, y in some]) @ directions, np.float64)
        for (x, y), loss in zip(some, lost, strict=True):
            total[y : y + window, x : x + window] += loss
            count[y : y + window, x : x + window] += 1
    return np.asarray(total / count, np.float32)


def overlay(
    image: PIL.Image.Image, scores: NDArray[np.float32], side: int = SIDE, *, least: float = 0.0
) -> PIL.Image.Image:
    """Show an RGB picture, in its own shape and colours, bright where scores ``(h, w)`` are high.

    What adds nothing is dark; a line goes around what adds at least half of what the best part does. Where no part adds
    anything the picture is dark without a line. The brightest is ``least`` at least.
    """
    picture = image.convert("RGB")
    picture.thumbnail((side, side))
    picture.paste(laid := layer(scores, picture.size, least), mask=laid)
    return picture


def layer(scores: NDArray[np.float32], size: tuple[int, int], least: float = 0.0) -> PIL.Image.Image:
    """Return what `overlay` lays over a picture ``(width, height)``: mode ``RGBA``, clear where scores are high."""
    share = shares(scores, size, least)
    pixels = np.zeros((*share.shape, 4), np.float32)
    pixels[..., 3] = 255 * (1 - _DIM) * (1 - share)
    pixels[_outline(share >= 0.5, max(1, max(size) // 150))] = (*_LINE, 255)
    return PIL.Image.fromarray(pixels.round().astype(np.uint8))


def shares(scores: NDArray[np.float32], size: tuple[int, int], least: float = 0.0) -> NDArray[np.float32]:
    """Return what each pixel adds as a share of what the best adds, 0 to 1: float32 ``(h, w)`` for ``(w, h)``.

    Where the best adds less than ``least``, as a share of that.
    """
    added = np.maximum(scores, 0)
    top = max(float(added.max()), least)
    small = PIL.Image.fromarray((added / top if top > 0 else added).astype(np.float32))
    return np.clip(np.asarray(small.resize(size, PIL.Image.Resampling.BICUBIC), np.float32), 0, 1)


def _outline(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the edge of a region, on its inner side."""
    kept = inside.copy()
    for _ in range(width):
        padded = np.pad(kept, 1, mode="edge")
        kept = kept & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~kept
