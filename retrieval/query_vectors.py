"""Embed queries: pictures by the encoder, words by its text side or a bridge, rows by their stored vectors.

Where the index scores by cosine, each part becomes a unit vector, so that weights mean the same for pictures
and words, and the sum is made a unit vector again. Where it scores by dot product nothing is rescaled, and
the score of a sum is the weighted sum of its parts' scores. Marked rows then move the sum (`retr.retrieval.feedback`).

Pictures are embedded by the encoder as its authors made it, and then put where the index's rows lie: what a picture is
like at all is asked of the first (`retr.retrieval.novelty`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from retr.index.errors import UsageError
from retr.index.rows.row_ids import unknown_id
from retr.index.vectors import unit
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.query import EmbeddedPart
from retr.retrieval.query_pictures import one_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.encoder import Encoder, EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Part, Query

_NONE = np.empty((0, 0))


class TextEncoder(Protocol):
    """Turns words into vectors of the image space: an encoder's own text side, or a bridge."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 ``(n, dim)``."""


class Resolved(NamedTuple):
    """What queries came to.

    Attributes
    ----------
    vectors
        float32 ``(n, dim)``; of unit length where the encoder's similarity is cosine.
    own
        Of each query that is one picture, row or vector, the encoder's own vector ``(d,)``; ``None`` where there is
        none: of a sum, of words, of a vector that is given as it comes out of the index's transform.
    """

    vectors: NDArray[np.float32]
    own: list[NDArray[Any] | None]


class _Part(NamedTuple):
    """The vector of a part, where the index's rows lie, and the encoder's own, where that is known."""

    vector: NDArray[Any]
    own: NDArray[Any] | None = None


def resolve(
    queries: Sequence[Query], encoder: Encoder, store: Store, *, text_encoder: TextEncoder | None = None
) -> Resolved:
    """Return the queries' vectors; all pictures go through in one batch.

    Parameters
    ----------
    text_encoder
        Embeds the words instead of ``encoder`` (a bridge, for encoders without a text side).

    Raises
    ------
    UsageError
        For an id that is not in the index, a vector of another length, or parts that cancel out.
    NoTextSideError
        For text where neither the encoder nor ``text_encoder`` can embed it.
    """
    cosine = encoder.info.similarity == "cosine"
    # refused before a picture is read
    marks = [_marked_vectors(query, store, cosine=cosine) for query in queries]
    parts = [part for query in queries for part in query.parts]
    embedded = _embed(parts, encoder, store, text_encoder or encoder)
    vectors = [unit(part.vector) if cosine else part.vector for part in embedded]
    owns = iter(part.own for part in embedded)
    own: list[NDArray[Any] | None] = []
    out = np.zeros((len(queries), encoder.info.dim), dtype=np.float32)
    found = iter(vectors)
    for row, (query, (like, unlike)) in enumerate(zip(queries, marks, strict=True)):
        known = list(islice(owns, len(query.parts)))
        own.append(known[0] if len(known) == 1 and query.parts[0].weight == 1 and not query.marked else None)
        if len(query.parts) == 1 and query.parts[0].weight == 1 and not query.marked:
            # nothing to be added up, and a sum of one is the same to the last bit
            vector = next(found)
            if not vector[0] and not vector.any():
                raise _cancelled()
            out[row] = unit(vector) if cosine else vector
            continue
        total = np.zeros(encoder.info.dim, dtype=np.float64)
        for part in query.parts:
            total += part.weight * next(found)
        # A tenth of a millionth of the weights is float32 rounding, not a direction.
        if query.parts and np.linalg.norm(total) <= 1e-7 * sum(abs(part.weight) for part in query.parts):
            raise _cancelled()
        if query.marked:
            total = _refined(total, like, unlike, cosine=cosine, asked=bool(query.parts))
        out[row] = unit(total) if cosine else total
    return Resolved(out, own)


def _marked_vectors(query: Query, store: Store, *, cosine: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the vectors of the rows marked as like and as unlike."""
    if not query.marked:
        return _NONE, _NONE
    ids = [*query.like, *query.unlike]
    rows = store.rows_of(ids)
    for name, row in zip(ids, rows.tolist(), strict=True):
        if row < 0:
            raise unknown_id(store, name)
    vectors = np.asarray(store.vectors(rows), np.float32)
    exact = np.asarray(unit(vectors) if cosine else vectors, np.float64)
    return exact[: len(query.like)], exact[len(query.like) :]


def _refined(
    total: NDArray[np.float64],
    like: NDArray[np.float64],
    unlike: NDArray[np.float64],
    *,
    cosine: bool,
    asked: bool,
) -> NDArray[np.float64]:
    from retr.retrieval.feedback import moved

    if not asked:
        # what is right is the question where nothing else is
        if not len(like):
            raise UsageError("rows marked as unlike are no question by themselves", hint="give what they are unlike")
        total = like.mean(axis=0)
    refined = moved(np.asarray(unit(total), np.float64) if cosine else total, like, unlike)
    if np.linalg.norm(refined) <= 1e-7 * np.linalg.norm(total):
        raise _cancelled()
    return refined


def _cancelled() -> UsageError:
    return UsageError("the parts of the query cancel out", hint="change a weight or leave a part out")


def embed(index: IndexLike, queries: Sequence[Query]) -> list[Query]:
    """Return queries with their pictures and words embedded, so that asking them again costs a search only.

    They are asked as the queries they were made of, with other filters and another ``k`` as often as wanted. An index
    with another encoder, or another bridge, embeds them anew.

    Raises
    ------
    ImageReadError, NoTextSideError
        A picture cannot be read; words for an encoder without a text side, and no bridge.

    Examples
    --------
    >>> from retr import Query
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> [query] = index.embed([Query.image(index.path.parent / "healthy/P01-left.png")])
    >>> [index.search(query, k=1, where=where).ids for where in ("age < 50", "age >= 50")]
    [['healthy/P09-left.png'], ['healthy/P11-right.png']]
    """
    index = index.snapshot()
    store = index.store
    encoder = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    bridge = index.bridge if any(query.uses_text for query in queries) else None
    by = _side(encoder, store)
    parts = [part for query in queries for part in query.parts if part.kind in {"image", "text"}]
    found = iter(_embed(parts, encoder, store, bridge or encoder))

    def known(part: Part) -> Part:
        one = next(found)
        # a copy: a row of a batch would hold all of it
        return replace(
            part, embedded=EmbeddedPart(by, np.array(one.vector if one.own is None else one.own, np.float32))
        )

    return [
        replace(query, parts=tuple(known(part) if part.kind in {"image", "text"} else part for part in query.parts))
        for query in queries
    ]


def _side(encoder: Encoder, store: Store) -> tuple[Any, ...]:
    """Return what a part's vector depends on beside the part: vectors of another are not taken."""
    from retr.retrieval.archive.provenance import BuildNotes
    from retr.retrieval.labels.trained_rows import BRIDGE_FILE

    return encoder.info, store.manifest.files.get(BRIDGE_FILE), BuildNotes.of(store).reading


def _embed(parts: Sequence[Part], encoder: Encoder, store: Store, text_encoder: TextEncoder) -> list[_Part]:
    by = _side(encoder, store) if any(part.embedded is not None for part in parts) else ()
    known = [part.embedded.vector if part.embedded is not None and part.embedded.by == by else None for part in parts]
    pictures = iter(_pictures(parts, known, encoder, store))
    out: list[_Part] = []
    for part, vector in zip(parts, known, strict=True):
        if _is_read(part):
            out.append(next(pictures))
        elif part.kind == "text":
            # One at a time: with text towers that average over padding, a text's vector depends on its batch.
            out.append(_Part(text_encoder.encode_texts([part.value])[0] if vector is None else vector))
        elif part.kind == "id":
            from retr.retrieval.transforms.transform import own_vectors

            row = store.rows_of([part.value])
            if row[0] < 0:
                raise unknown_id(store, part.value, part.weight_hint())
            out.append(_Part(np.asarray(store.vectors(row)[0], dtype=np.float32), own_vectors(store, row)[0]))
        else:
            out.append(_given(part.value, encoder.info, store))
    return out


def _is_read(part: Part) -> bool:
    """Return whether the picture of a part is read: of a row only where a region of it is meant."""
    return part.kind == "image" or (part.kind == "id" and part.region is not None)


def _pictures(
    parts: Sequence[Part], known: Sequence[NDArray[np.float32] | None], encoder: Encoder, store: Store
) -> list[_Part]:
    """Embed the parts that are pictures, those that are known apart, in one batch."""
    own = [vector for part, vector in zip(parts, known, strict=True) if _is_read(part)]
    asked = [part for part, vector in zip(parts, known, strict=True) if _is_read(part) and vector is None]
    if asked:
        from retr.retrieval.archive.provenance import BuildNotes
        from retr.retrieval.archive.row_pictures import picture_of
        from retr.retrieval.raw_vectors import encode_own

        reading = BuildNotes.of(store).reading
        images = [
            picture_of(store, part.value, grey16=encoder.info.grey16).region(*part.region or (0, 0, 1, 1)).image
            if part.kind == "id"
            else one_picture(part.value, encoder.info, reading, part.region)
            for part in asked
        ]
        embedded = iter(encode_own(encoder, images))
        own = [next(embedded) if vector is None else vector for vector in own]
    if not own:
        return []
    from retr.retrieval.raw_vectors import placed

    return list(map(_Part, placed(store, np.stack(own)), own))  # type: ignore[arg-type]


def _given(vector: NDArray[np.float32], info: EncoderInfo, store: Store) -> _Part:
    """Return a vector that was given: where the index's rows lie, or the encoder's own, which its length tells."""
    if info.transform is not None and vector.shape == (info.own.dim,):
        from retr.retrieval.raw_vectors import placed

        return _Part(placed(store, vector[None])[0], vector)
    if vector.shape == (info.dim,):
        return _Part(vector, vector if info.transform is None else None)
    of_own = "" if info.transform is None else f" (of the encoder's own {info.own.dim})"
    raise UsageError(f"the index holds vectors of length {info.dim}{of_own}, got one of {len(vector)}")
