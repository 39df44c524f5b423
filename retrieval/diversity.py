"""Put hits in an order in which each is near the query and unlike those before it: maximal marginal relevance.

Of the `CANDIDATES` nearest rows the nearest comes first; then, again and again, the one for which

    (1 - share) * relevance - share * redundancy

is greatest. Relevance is a row's score, redundancy its greatest cosine with a row that was taken before; both are
brought to a scale from 0 (the least among the candidates) to 1, so that a share means the same for every encoder, for
words and for dot products. Rows beyond the candidates follow by score. The order depends on neither ``k`` nor the
page: pages are parts of one order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.index.types import Neighbours

#: So many of the nearest rows are put in order.
CANDIDATES = 200


def require_share(share: float | None) -> None:
    """Raise `UsageError` where the share of diversity is not a number from 0 to 1."""
    if share is not None and not 0 <= share <= 1:
        shown = "nan" if math.isnan(share) else f"{share:g}"
        raise UsageError(f"diverse is a share from 0 (by score alone) to 1, got: {shown}", hint="for example 0.3")


def diversify(store: Store, found: Neighbours, share: float) -> Neighbours:
    """Return the answers in the order of maximal marginal relevance; each row keeps its score.

    Parameters
    ----------
    store
        The snapshot that was searched.
    found
        Of each query at least the `CANDIDATES` nearest rows that are allowed, best first.
    share
        Of diversity, from 0 (nothing moves) to 1.
    """
    rows, scores = found.rows.copy(), found.scores.copy()
    for at in range(len(rows)):
        best = rows[at, :CANDIDATES]
        best = best[best >= 0]
        if len(best) < 3:
            # the nearest comes first whatever the share
            continue
        vectors = np.asarray(store.vectors(best), np.float64)
        order = marginal_relevance(scores[at, : len(best)].astype(np.float64), vectors, share)
        rows[at, : len(best)], scores[at, : len(best)] = best[order], scores[at, : len(best)][order]
    return replace(found, rows=rows, scores=scores)


def marginal_relevance(scores: NDArray[np.float64], vectors: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Order candidates by maximal marginal relevance; of equals the nearer comes first.

    Parameters
    ----------
    scores
        float64 ``(n,)``, descending.
    vectors
        float64 ``(n, d)``, of any length but zero.

    Returns
    -------
    int64 ``(n,)``
        Places of the candidates.

    Examples
    --------
    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.01], [0.6, 0.8]])
    >>> marginal_relevance(np.array([0.9, 0.89, 0.5]), vectors, 0.6).tolist()
    [0, 2, 1]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(lengths > 0, lengths, 1)
    alike = vectors @ vectors.T
    pairs = alike[np.triu_indices(len(alike), 1)]
    alike = _scaled(alike, float(pairs.min()), float(pairs.max()))
    relevance = (1 - share) * _scaled(scores, float(scores.min()), float(scores.max()))
    order = np.empty(len(scores), np.int64)
    redundancy = np.zeros(len(scores))
    open_ = np.ones(len(scores), bool)
    taken = 0  # the nearest, first
    for place in range(len(scores)):
        order[place], open_[taken] = taken, False
        redundancy = np.maximum(redundancy, alike[taken])
        taken = int(np.argmax(np.where(open_, relevance - share * redundancy, -np.inf)))
    return order


def _scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
