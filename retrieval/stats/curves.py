"""Precision-recall curves and confusion matrices as JSON-ready lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def precision_recall(hits: NDArray[np.bool_], relevant: NDArray[np.int64]) -> dict[str, list[float]]:
    """Mean precision and recall at every depth searched."""
    kept = relevant > 0
    found = hits[kept].cumsum(axis=1)
    depth = np.arange(1, hits.shape[1] + 1)
    if not kept.any():
        return {"recall": [], "precision": []}
    return {
        "recall": (found / relevant[kept, None]).mean(axis=0).round(6).tolist(),
        "precision": (found / depth).mean(axis=0).round(6).tolist(),
    }


def confusion(truth: NDArray[np.int64], answer: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Count how often each class was answered for each; queries without an answer (-1) are left out."""
    given, size = answer >= 0, len(classes)
    counts = np.bincount(truth[given] * size + answer[given], minlength=size**2).reshape(size, size)
    return {"classes": list(classes), "counts": counts.tolist()}


def class_curves(
    probabilities: NDArray[np.float64], member: NDArray[np.bool_], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision against recall of each class, thinned to what a plot can show."""
    with needed():
        from sklearn.metrics import precision_recall_curve

    curves = []
    for c, name in enumerate(classes):
        if not 0 < member[:, c].sum() < len(member):
            continue
        precision, recall, _ = precision_recall_curve(member[:, c], probabilities[:, c])
        at = np.unique(np.linspace(0, len(recall) - 1, 60).astype(int))
        curves.append(
            {"class": name, "recall": recall[at].round(4).tolist(), "precision": precision[at].round(4).tolist()}
        )
    return curves


def number(value: float) -> float | None:
    """Return a plain number, ``None`` where it is not finite: JSON holds no NaN."""
    return float(value) if np.isfinite(value) else None
