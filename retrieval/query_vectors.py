"""Embed queries: pictures by the encoder, words by its text side or a bridge, rows by their stored vectors.

Where the index scores by cosine, each part becomes a unit vector, so that weights mean the same for pictures
and words, and the sum is made a unit vector again. Where it scores by dot product nothing is rescaled, and
the score of a sum is the weighted sum of its parts' scores. Marked rows then move the sum (`retr.retrieval.feedback`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retr.index.errors import UsageError
from retr.index.rows.row_ids import unknown_id
from retr.index.vectors import unit
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.labels.trained_rows import BRIDGE_FILE
from retr.retrieval.query import Embedded
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


def resolve(
    queries: Sequence[Query], encoder: Encoder, store: Store, *, text_encoder: TextEncoder | None = None
) -> NDArray[np.float32]:
    """Return the queries' vectors; all pictures go through in one batch.

    Parameters
    ----------
    text_encoder
        Embeds the words instead of ``encoder`` (a bridge, for encoders without a text side).

    Returns
    -------
    float32 ``(n, dim)``; of unit length where the encoder's similarity is cosine.

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
    vectors = _embed(parts, encoder, store, text_encoder or encoder)
    if cosine:
        vectors = [unit(vector) for vector in vectors]
    out = np.zeros((len(queries), encoder.info.dim), dtype=np.float32)
    found = iter(vectors)
    for row, (query, (like, unlike)) in enumerate(zip(queries, marks, strict=True)):
        if len(query.parts) == 1 and query.parts[0].weight == 1 and not query.marked:
            # nothing to be added up, and a sum of one is the same to the last bit
            vector = next(found)
            if not vector.any():
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
    return out


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
    vectors = iter(_embed(parts, encoder, store, bridge or encoder))

    def known(part: Part) -> Part:
        # a copy: a row of a batch would hold all of it
        return replace(part, embedded=Embedded(by, np.array(next(vectors), np.float32)))

    return [
        replace(query, parts=tuple(known(part) if part.kind in {"image", "text"} else part for part in query.parts))
        for query in queries
    ]


def _side(encoder: Encoder, store: Store) -> tuple[Any, ...]:
    """Return what a part's vector depends on beside the part: vectors of another are not taken."""
    return encoder.info, store.manifest.files.get(BRIDGE_FILE), BuildNotes.of(store).reading


def _embed(parts: Sequence[Part], encoder: Encoder, store: Store, text_encoder: TextEncoder) -> list[NDArray[Any]]:
    by = _side(encoder, store) if any(part.embedded is not None for part in parts) else ()
    known = [part.embedded.vector if part.embedded is not None and part.embedded.by == by else None for part in parts]
    images = [part.value for part, vector in zip(parts, known, strict=True) if part.kind == "image" and vector is None]
    if images:
        reading = BuildNotes.of(store).reading
        images = [one_picture(image, encoder.info, reading) for image in images]
    pictures = iter(encoder.encode_images(images)) if images else iter(())
    out: list[NDArray[Any]] = []
    for part, vector in zip(parts, known, strict=True):
        if vector is not None:
            out.append(vector)
        elif part.kind == "image":
            out.append(next(pictures))
        elif part.kind == "text":
            # One at a time: with text towers that average over padding, a text's vector depends on its batch.
            out.append(text_encoder.encode_texts([part.value])[0])
        elif part.kind == "id":
            row = store.rows_of([part.value])
            if row[0] < 0:
                raise unknown_id(store, part.value, part.weight_hint())
            out.append(np.asarray(store.vectors(row)[0], dtype=np.float32))
        else:
            out.append(_placed(part.value, encoder.info, store))
    return out


def _placed(vector: NDArray[np.float32], info: EncoderInfo, store: Store) -> NDArray[Any]:
    """Return a vector where the index's rows lie: put through its transform where it is the encoder's own."""
    if vector.shape == (info.dim,):
        return vector
    lengths = f"{info.dim}"
    if info.transform is not None:
        from retr.retrieval.transforms.transform import find_transform

        transform = find_transform(store)
        if transform is not None and vector.shape == (info.own.dim,):
            placed: NDArray[np.float32] = transform(vector[None])[0]
            return placed
        lengths += f" (of the encoder's own {info.own.dim})"
    raise UsageError(f"the index holds vectors of length {lengths}, got one of {len(vector)}")
