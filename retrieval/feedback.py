"""Relevance feedback: a question moved by rows that were marked as right and as wrong.

Where rows of both kinds are marked, a logistic regression tells them apart. It is regularised towards the question
itself: with ``q`` and the rows of unit length it is the minimum over ``w`` and ``b`` of

    |w - q|^2 / 2 + b^2 / 2 + sum of weight * log(1 + exp(-y (w x + b)))

where ``y`` is 1 or -1 and each kind weighs half of the rows. Where one kind alone is marked there is nothing to tell
apart, and the mean of those rows is added or subtracted (Rocchio). `retr.benchmarks.feedback` compares the two, and
measures the constants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: How much of the mean of the rows is added where all are right, and subtracted where all are wrong.
TOWARDS, AWAY = 2.0, 0.5
_STEPS, _HALVINGS, _ENOUGH = 50, 20, 1e-10


def moved(question: NDArray[np.float64], like: NDArray[np.float64], unlike: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the question as the marked rows move it.

    Parameters
    ----------
    question
        float64 ``(d,)``, not zero.
    like, unlike
        float64 ``(n, d)`` and ``(m, d)``: the rows marked as right and as wrong; either may be empty.

    Returns
    -------
    float64 ``(d,)``
        Not of unit length. Where all lengths are scaled alike it is scaled alike.

    Examples
    --------
    >>> right, wrong = np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]])
    >>> np.round(moved(np.array([1.0, 0.0]), right, wrong), 2).tolist()
    [1.0, 0.67]
    >>> moved(np.array([1.0, 0.0]), right, wrong[:0]).tolist()
    [1.0, 2.0]
    """
    if not len(like) or not len(unlike):
        toward = TOWARDS * like.mean(axis=0) if len(like) else np.zeros_like(question)
        return question + toward - (AWAY * unlike.mean(axis=0) if len(unlike) else 0)
    # of unit length where cosine is compared; dot products are brought to such a size
    size = float(np.linalg.norm(np.vstack([like, unlike]), axis=1).mean()) or 1.0
    rows, length = np.vstack([like, unlike]) / size, float(np.linalg.norm(question))
    signs = np.repeat([1.0, -1.0], [len(like), len(unlike)])
    weights = np.repeat([0.5 / len(like), 0.5 / len(unlike)], [len(like), len(unlike)]) * len(rows)
    return question + length * (rows.T @ separated(rows, signs, weights, rows @ question / length))


def separated(
    rows: NDArray[np.float64], signs: NDArray[np.float64], weights: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit the regression by Newton's method: the weight of each row in the solution, float64 ``(n,)``.

    Parameters
    ----------
    rows
        float64 ``(n, d)``.
    signs, weights
        float64 ``(n,)``: 1 or -1, and how much each row counts.
    start
        float64 ``(n,)``: the score of each row before.
    """
    kernel = rows @ rows.T + 1  # the one is that of the intercept
    solution = np.zeros(len(rows))

    def loss(at: NDArray[np.float64]) -> float:
        return float(at @ kernel @ at / 2 + (weights * np.logaddexp(0, -signs * (kernel @ at + start))).sum())

    best = loss(solution)
    for _ in range(_STEPS):
        wrong = 1 / (1 + np.exp(signs * (kernel @ solution + start)))
        curvature = weights * wrong * (1 - wrong)
        step = np.linalg.solve(np.eye(len(rows)) + curvature[:, None] * kernel, solution - weights * signs * wrong)
        size = next((0.5**n for n in range(_HALVINGS) if loss(solution - 0.5**n * step) <= best), 0.0)
        solution = solution - size * step
        before, best = best, loss(solution)
        if before - best <= _ENOUGH * before:
            break
    return solution
