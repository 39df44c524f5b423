"""What one hit's score rests on, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.archive.row_pictures import picture_of
from retr.retrieval.explain import SIDE, embedding, heat, overlay, usual
from retr.retrieval.query_vectors import resolve

if TYPE_CHECKING:
    from PIL import Image

    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Query


def explain(index: IndexLike, query: Query, id: str, *, side: int = SIDE) -> Image.Image:  # noqa: A002
    """Show what a row's score for a query rests on: its picture, bright where it counts (`overlay`).

    Parameters
    ----------
    query
        The question that the row answered.
    id
        The row's.
    side
        Pixels of the longer side, at most.

    Returns
    -------
    PIL.Image.Image
        Mode ``RGB``.

    Raises
    ------
    UnknownIdError, ImageReadError
        There is no such row, or its file or a picture of the query cannot be read.

    Examples
    --------
    >>> from retr import Query
    >>> from retr.sample import sample_index
    >>> sample_index().explain(Query.id("healthy/P01-left.png"), "healthy/P11-right.png").size
    (32, 32)
    """
    index = index.snapshot()
    picture = picture_of(index.store, id).image
    bridge = index.bridge if query.uses_text else None
    vector = resolve([query], index.encoder, index.store, text_encoder=bridge).vectors[0]
    scores = heat(embedding(index.encoder), picture, vector, usual(index))
    return overlay(picture, scores, side)
