"""Ridge regression from texts to the vectors of their images, whitened, with its strength chosen over groups.

What is whitened by is the spread of the images around what their texts predict: a direction in which images of one text
differ much says little of the text, however much all images differ in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.vectors import unit
from retr.retrieval.labels.folds import deal
from retr.retrieval.text.bag_of_words import WordBag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.retrieval.query_vectors import TextEncoder

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
# How much the spread of the images around their texts is levelled before whitening; None leaves it alone.
LEVELS = (None, 1.0, 0.3)


@dataclass(frozen=True)
class Texts:
    """The texts of some rows.

    ``rows`` int64 ``(n,)`` in the store, ``groups`` int64 ``(n,)``; ``texts[i]`` belongs to row ``rows[owner[i]]``.
    """

    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    texts: tuple[str, ...]
    owner: NDArray[np.int64]

    def part(self, keep: NDArray[np.bool_]) -> Texts:
        """Keep some of the rows, with their texts."""
        place = np.cumsum(keep) - 1
        of_text = keep[self.owner]
        texts = tuple(text for text, kept in zip(self.texts, of_text, strict=True) if kept)
        return Texts(self.rows[keep], self.groups[keep], texts, place[self.owner[of_text]])


def text_recall(
    predicted: NDArray[Any], texts: Texts, vectors: NDArray[np.float32], depths: Sequence[int]
) -> list[float]:
    """Return the share of texts that find a row of the same text among the first ``k`` rows, for each ``k``.

    Parameters
    ----------
    predicted
        float ``(m, dim)``, one for each text.
    vectors
        float32 ``(n, dim)``: the rows that are searched.
    """
    codes: dict[str, int] = {}
    number = np.array([codes.setdefault(text, len(codes)) for text in texts.texts])
    _, first = np.unique(number, return_index=True)
    relevant = np.zeros((len(codes), len(vectors)), dtype=bool)
    relevant[number, texts.owner] = True
    scores = predicted[first] @ vectors.T
    deepest = min(max(depths), len(vectors))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :deepest]
    hits = np.take_along_axis(relevant, order, axis=1)
    weight = np.bincount(number) / len(number)
    return [float(hits[:, :depth].any(axis=1) @ weight) for depth in depths]


def fit_chosen(
    texts: Texts,
    vectors: NDArray[np.float32],
    text_encoder: TextEncoder | None,
    strengths: tuple[float, float | None] | None = None,
) -> tuple[TextEncoder, NDArray[np.float64], NDArray[np.float64], tuple[float, float | None]]:
    """Fit on some rows, and choose the strengths on them where none are given.

    Returns
    -------
    tuple
        What embeds words, the mean text, the matrix, and the strengths.
    """
    side: TextEncoder = text_encoder or WordBag.fit(texts.texts)
    features = text_features(side, texts.texts)
    ridge, level = strengths or _choose(texts, vectors, features)
    mean, matrix = fit_all(texts, vectors, features, [ridge], [level])[ridge, level]
    return side, mean, matrix, (ridge, level)


def _choose(texts: Texts, vectors: NDArray[np.float32], features: NDArray[Any]) -> tuple[float, float | None]:
    """Choose ridge and level by the R@10 of three folds of groups (R@1 breaks ties)."""
    folds = deal(texts.groups, 3)
    scores: dict[tuple[float, float | None], float] = {}
    for fold in np.unique(folds):
        inside = folds != fold
        of_text = inside[texts.owner]
        train, test = texts.part(inside), texts.part(~inside)
        fitted = fit_all(train, vectors[inside], features[of_text], RIDGES, LEVELS)
        for setting, (mean, matrix) in fitted.items():
            at_1, at_10 = text_recall((features[~of_text] - mean) @ matrix, test, vectors[~inside], (1, 10))
            scores[setting] = scores.get(setting, 0.0) + at_10 + 0.1 * at_1
    return max(scores, key=scores.__getitem__)


def fit_all(
    texts: Texts,
    vectors: NDArray[np.float32],
    features: NDArray[Any],
    ridges: Sequence[float],
    levels: Sequence[float | None],
) -> dict[tuple[float, float | None], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Fit every ridge and level at once: the mean text ``(k,)`` and the matrix ``(k, dim)`` of each."""
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    centre = vectors.mean(axis=0, dtype=np.float64)
    y = vectors.astype(np.float64) - centre
    values, axes = np.linalg.eigh(x.T @ x)
    shared = axes.T @ (x.T @ y[texts.owner])
    owned = np.maximum(np.bincount(texts.owner, minlength=len(y)), 1)[:, None]
    out: dict[tuple[float, float | None], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for ridge in ridges:
        matrix = axes @ (shared / (np.maximum(values, 0) + ridge)[:, None])
        predicted = np.zeros_like(y)
        np.add.at(predicted, texts.owner, x @ matrix)
        around = y - predicted / owned
        spread, directions = np.linalg.eigh(around.T @ around)
        spread = np.maximum(spread, 0) / max(spread.sum() / max(min(len(y) - 1, y.shape[1]), 1), 1e-12)
        for level in levels:
            if level is None:
                out[ridge, level] = mean, matrix
            else:
                out[ridge, level] = mean, ((matrix @ directions) / np.sqrt(spread + level)) @ directions.T
    return out


def text_features(side: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts for the regression: a bag as it is, another encoder's as unit vectors."""
    found = side.encode_texts(list(texts))
    return found if isinstance(side, WordBag) else unit(found)
