"""What a search was asked: one of several arguments, as queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.query import Query, as_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def gather_queries(
    query: Query | Sequence[Query] | None,
    *,
    image: Any,
    text: str | None,
    id: str | None,  # noqa: A002
    vector: ArrayLike | None,
    vectors: ArrayLike | None = None,
) -> tuple[list[Query], bool]:
    """Turn what was asked into queries, and say whether one or several answers are expected."""
    asked = {"query": query, "image": image, "text": text, "id": id, "vector": vector, "vectors": vectors}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise UsageError(
            f"a search takes one of {', '.join(asked)}, got: {what}",
            hint="mix them with `retr.Query`",
        )
    if isinstance(query, Query):
        return [query], True
    if query is not None:
        return _several(query), False
    if image is not None:
        return [Query.image(image)], True
    if text is not None:
        return [Query.text(text)], True
    if id is not None:
        return [Query.id(id)], True
    rows = as_numbers(vector if vectors is None else vectors)
    if vectors is not None and rows.ndim != 2:
        raise UsageError(f"vectors must have the shape (n, dim), got {rows.shape}", hint="one vector is vector=")
    if rows.ndim == 2:
        return [Query.vector(row) for row in rows], False
    return [Query.vector(rows)], True


def _several(queries: Any) -> list[Query]:
    """Return a list of queries; `UsageError` for anything else."""
    found = (
        list(queries)
        if isinstance(queries, Iterable) and not isinstance(queries, str | bytes) and _may_hold_queries(queries)
        else [queries]
    )
    others = [one for one in found if not isinstance(one, Query)]
    if others:
        raise UsageError(
            f"a question is a retr.Query or a list of them, got {type(others[0]).__name__}",
            hint="say what it is: image=, text=, id=, vector= or vectors=",
        )
    return found


def _may_hold_queries(queries: Any) -> bool:
    # an array of numbers is no list of questions, however many rows it has
    return not isinstance(queries, np.ndarray) or (queries.dtype == object and queries.ndim > 0)
