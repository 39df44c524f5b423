"""FLAIR's adaptation to a few examples: a linear probe, and three ways to blend words with examples.

Of each class 1, 2, 4, 8 and 16 pictures are shots, each of another patient and of at most half of the class's patients;
the pictures of all other patients are named. The published script draws pictures, whoever they are of. Stated is the
mean recall of the classes that are left to be named (ACA).

* Linear probe: FLAIR's, on the features before the projection.
* Tip-Adapter as FLAIR runs it: ``100 x.t + sum exp(-5 (1 - x.k))`` over the shots ``k`` of a class.
* SS-Text (Silva-Rodriguez et al. 2025): prototypes of words and of shots, blended as `retr classify --shots` does.
* LP+text (Shakeri et al. 2024, arXiv 2409.03868): ``W x + b + a (x.t)``, as its released code fits it, which keeps the
  step that is best on further labelled pictures. There are none here: the last step counts, and ``b`` begins at 0.

Vectors and prototypes are of unit length; a fit draws nothing, so a draw of shots decides the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.vectors import unit
from retr.retrieval.classify.few_shot import SHARPNESS, class_weights
from retr.retrieval.evaluation.protocols.linear import held_out
from retr.retrieval.stats.confidence import softmax
from retr.retrieval.stats.intervals import FEWEST, LEVEL, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Answer = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]

SHOTS, DRAWS = (1, 2, 4, 8, 16), 5
_STRENGTH = 0.316
_AGAIN, _TOGETHER = 1000, 100
_STEPS, _MOMENTUM, _TEXT_EVERY, _TEXT_WEIGHT = 300, 0.9, 10, 250


def measure(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    features: NDArray[Any],
    words: tuple[NDArray[Any], NDArray[Any], float | None] | None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the ACA of each way and number of shots, with intervals over draws and patients.

    Parameters
    ----------
    labels, groups
        int64 ``(n,)``: classes from 0 on, each with pictures; and patients.
    features
        float ``(n, d)``, before the projection.
    words
        Vectors ``(n, e)``, the prototypes of the classes ``(c, e)`` and the encoder's logit scale; ``None``: no blend.
    seed
        Of the draws.
    """
    classes, found = int(labels.max()) + 1, dict[str, Any]()
    most = max(len(np.unique(groups[labels == code])) // 2 for code in range(classes))
    for name, answer in _ways(labels, classes, features, words).items():
        for shots in [one for one in SHOTS if one <= max(most, 1)]:
            right = np.full((DRAWS, len(labels)), np.nan)
            for number in range(DRAWS):
                inside = draw(labels, groups, shots, seed + number)
                outside = np.flatnonzero(~np.isin(groups, groups[inside]))
                if len(outside):
                    right[number, outside] = answer(inside, outside).argmax(axis=1) == labels[outside]
            shown = f"few-shot, {name}, {shots} of each class"
            found[shown] = {"ACA": recall_interval(right, labels, groups).to_json()}
    return found


def _ways(
    labels: NDArray[np.int64],
    classes: int,
    features: NDArray[Any],
    words: tuple[NDArray[Any], NDArray[Any], float | None] | None,
) -> Mapping[str, Answer]:
    """Return what answers rows ``outside`` by shots ``inside``, by name."""

    def probe(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> Floats:
        return held_out(features, labels, classes, [(inside, outside)], strength=_STRENGTH)[outside]

    if words is None:
        return {"linear probe": probe}
    x, texts, scale = unit(words[0]), unit(words[1]), words[2] or SHARPNESS

    def blend(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> NDArray[Any]:
        coef, intercept = class_weights(x[inside], labels[inside], classes, scale, texts)
        return x[outside] @ coef.T + intercept

    return {
        "linear probe": probe,
        "Tip-Adapter": lambda inside, outside: tip_adapter(x[outside], x[inside], labels[inside], texts),
        "SS-Text": blend,
        "LP+text": lambda inside, outside: lp_text(x[outside], x[inside], labels[inside], texts),
    }


def tip_adapter(x: NDArray[Any], keys: NDArray[Any], codes: NDArray[np.int64], texts: NDArray[Any]) -> NDArray[Any]:
    """Return Tip-Adapter's logits ``(n, c)`` of unit vectors ``x``, by shots ``keys`` of classes ``codes``.

    >>> texts, keys = np.eye(2), np.array([[0.0, 1.0], [0.0, 1.0]])
    >>> tip_adapter(np.array([[0.0, 1.0]]), keys, np.array([1, 1]), texts).tolist()
    [[0.0, 102.0]]
    """
    logits: NDArray[Any] = 100 * x @ texts.T + np.exp(5 * (x @ keys.T - 1)) @ np.eye(len(texts))[codes]
    return logits


def lp_text(x: NDArray[Any], keys: NDArray[Any], codes: NDArray[np.int64], texts: NDArray[Any]) -> Floats:
    """Return the logits ``(n, c)`` of LP+text, fitted on shots ``keys`` of classes ``codes``, each of which has some.

    Gradient descent on all shots at once. The classes' weights of the text are moved at every tenth step, by the sum of
    all gradients so far, as the released code does.
    """
    keys, texts = keys.astype(np.float64), texts.astype(np.float64)
    member, near = np.eye(len(texts))[codes], keys @ texts.T
    rate = np.log(max(len(codes) // len(texts), 1) + 1)
    text_rate = len(codes) / (4 * max((near**2).sum(axis=0).max(), np.finfo(np.float64).tiny))
    w, b = member.T @ keys, np.zeros(len(texts))
    a = np.full(len(texts), _TEXT_WEIGHT * ((member * near).sum(axis=0) / member.sum(axis=0)).mean())
    speed_w, speed_b, slope = np.zeros_like(w), np.zeros_like(b), np.zeros_like(a)
    for step in range(1, _STEPS + 1):
        residual = (softmax(keys @ w.T + b + a * near) - member) / len(codes)
        slope += (residual * near).sum(axis=0)
        speed_w = _MOMENTUM * speed_w + residual.T @ keys
        speed_b = _MOMENTUM * speed_b + residual.sum(axis=0)
        w, b = w - rate * speed_w, b - rate * speed_b
        if step % _TEXT_EVERY == 0:
            a = a - text_rate * slope
    logits: Floats = x @ w.T + b + a * (x @ texts.T)
    return logits


def draw(codes: NDArray[np.int64], groups: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Return the places of shots of each class, one a patient, of at most half of its patients, but of one at least.

    >>> draw(np.array([0, 0, 0, 1, 1]), np.array([1, 1, 2, 3, 4]), 2, 0).size
    2
    """
    rng, chosen = np.random.default_rng(seed), []
    for code in range(int(codes.max()) + 1):
        own = rng.permutation(np.flatnonzero(codes == code))
        first = own[np.sort(np.unique(groups[own], return_index=True)[1])]
        chosen.append(first[: min(shots, max(1, len(first) // 2))])
    return np.concatenate(chosen)


def recall_interval(right: Floats, codes: NDArray[np.int64], groups: NDArray[np.int64]) -> Estimate:
    """Return the mean recall of the classes with its interval: draws and patients are drawn again at the same time.

    Parameters
    ----------
    right
        float64 ``(draws, n)``: 1 where a row was named rightly, 0 where not, ``nan`` where it was not asked.
    codes, groups
        int64 ``(n,)``: classes, and patients.

    Examples
    --------
    >>> right = np.array([[1.0, 0.0, np.nan, 1.0], [1.0, np.nan, 1.0, 1.0]])
    >>> round(float(recall_interval(right, np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])).value), 3)
    0.833
    """
    groups = np.unique(groups, return_inverse=True)[1]
    n, m, classes = len(right), int(groups.max()) + 1, int(codes.max()) + 1
    # by draw, patient and class: how many were named rightly, and how many were asked
    sums = np.zeros((2, n, m * classes))
    for number, row in enumerate(right):
        asked, at = ~np.isnan(row), groups * classes + codes
        sums[0, number] = np.bincount(at[asked], row[asked], m * classes)
        sums[1, number] = np.bincount(at[asked], minlength=m * classes)
    parts = sums.reshape(2, n, m, classes)

    def recall(draws: Floats, patients: Floats) -> Floats:
        """Return the mean recall by weights of draws ``(k, n)`` and patients ``(k, m)``: ``(k,)``."""
        of = np.zeros((2, len(draws), classes))
        for number in range(n):
            of += draws[:, number, None] * (patients @ parts[:, number])
        shares = np.divide(of[0], of[1], out=np.zeros_like(of[0]), where=of[1] > 0)
        met = (of[1] > 0).sum(axis=1)
        mean: Floats = np.divide(shares.sum(axis=1), met, out=np.full(len(met), np.nan), where=met > 0)
        return mean

    value, rng = recall(np.ones((1, n)), np.ones((1, m)))[0], np.random.default_rng(0)
    rows = int((~np.isnan(right)).any(axis=0).sum())
    if np.isnan(value) or m < FEWEST:
        return Estimate(float(value), float("nan"), float("nan"), rows, m)
    again = [
        recall(*(rng.multinomial(k, np.full(k, 1 / k), _TOGETHER).astype(np.float64) for k in (n, m)))
        for _ in range(_AGAIN // _TOGETHER)
    ]
    low, high = np.nanquantile(np.concatenate(again), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), rows, m)
