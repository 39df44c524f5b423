"""KAD's zero-shot evaluation: the AUROC of each finding, with F1 and MCC at the threshold of the best MCC.

Published (xiaoman-zhang/KAD): the probability that the disease query network gives each finding, scored by AUROC; F1
and MCC at the threshold that maximises MCC on the tested data itself; intervals from 1,000 bootstrap resamples. The
published script drops the last partial batch; here every image counts. Threshold-based scores are optimistic by
construction, since the threshold is chosen on what is scored; they are given because the paper gives them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import NoTextSideError, UsageError
from retr.retrieval.classify.findings import from_vectors
from retr.retrieval.stats.metrics import auroc_per_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.labels.label_set import LabelSet

RESAMPLES = 1000
_BLOCK = 64
PUBLISHED = (
    {"cell": "ChestX-ray14, zero-shot mean AUROC", "value": 0.789, "source": "paper; issue KAD#9"},
    {"cell": "ChestX-ray14, released files, rerun by users", "value": 0.7033, "source": "issue KAD#19"},
    {"cell": "ChestX-ray14, released files, rerun by users", "value": 0.7029, "source": "issue KAD#19"},
    {"cell": "CheXpert, mean of 5", "value": 0.905, "source": "leaderboard, second hand"},
    {"cell": "PadChest", "value": 0.750, "source": "leaderboard, second hand"},
    {"cell": "ChestX-Det10", "value": 0.735, "source": "leaderboard, second hand"},
)


def run(
    data: ClassFolder,
    encoder: BaseEncoder,
    labels: LabelSet,
    *,
    separator: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score findings on one set.

    Parameters
    ----------
    data
        The images. A class is a finding, or several joined by ``separator``; one that the label set does not know
        ("No Finding") says that all findings are absent.
    encoder
        Who scores: by its own query network, or by prompts with and without "no".
    labels
        The findings.
    separator
        What joins several findings in the name of a class.
    seed
        Of the intervals.

    Raises
    ------
    UsageError
        No class names a finding.
    NoTextSideError
        The encoder has neither findings nor words.
    """
    member = _members(data, labels, separator)
    scores = _score(data, encoder, labels)
    area = partial(data.areas, of={"AUROC": auroc_per_class}, resamples=RESAMPLES, seed=seed)
    areas = {"mean": area(scores, member)}
    for c, name in enumerate(labels.names):
        one = area(scores[:, [c]], member[:, [c]])
        areas[name] = {**one, **best_threshold(scores[:, c], member[:, c]), "positives": int(member[:, c].sum())}
    because = "the published cells are of the sets they name; name yours when you compare"
    return data.outcome("kad", encoder, measured=areas, published=PUBLISHED, because=because)


def best_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, float | None]:
    """Find the threshold of the best MCC, and F1 and MCC there; nothing where only one answer occurs.

    >>> best_threshold(np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]))
    {'threshold': 0.6, 'MCC': 1.0, 'F1': 1.0}
    """
    if truth.all() or not truth.any():
        return {"threshold": None, "MCC": None, "F1": None}
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of equal scores all are above, or none
    true = truth[order].cumsum()[last].astype(np.float64)
    called = (last + 1).astype(np.float64)
    positive, n = float(truth.sum()), float(len(truth))
    spread = np.sqrt(called * (n - called) * positive * (n - positive))
    mcc = np.divide(true * n - called * positive, spread, out=np.zeros_like(true), where=spread > 0)
    best = int(mcc.argmax())
    return {
        "threshold": float(scores[order][last[best]]),
        "MCC": float(mcc[best]),
        "F1": float(2 * true[best] / (called[best] + positive)),
    }


def _members(data: ClassFolder, labels: LabelSet, separator: str | None) -> NDArray[np.bool_]:
    of_class = np.zeros((len(data.classes), len(labels.classes)), dtype=bool)
    for c, name in enumerate(data.classes):
        for part in name.split(separator) if separator else [name]:
            place = labels.class_of(part)
            if place is not None:
                of_class[c, place] = True
    if not of_class.any():
        raise UsageError(
            f"no class names a finding of {labels.name!r}",
            hint=f"its findings are {', '.join(labels.names[:6])}; add aliases to the label file",
        )
    return of_class[data.labels]


def _score(data: ClassFolder, encoder: BaseEncoder, labels: LabelSet) -> NDArray[np.float64]:
    """Ask for the probability of every finding: float64 ``(n, findings)``."""
    blocks = [data.paths[start : start + _BLOCK] for start in range(0, len(data.paths), _BLOCK)]
    ask = getattr(encoder, "score", None)
    if ask is not None:
        pictures = ([data.picture(path, encoder) for path in block] for block in blocks)
        return np.concatenate([np.asarray(ask(part, labels.names), np.float64) for part in pictures])
    if not encoder.info.text:
        raise NoTextSideError(
            f"encoder {encoder.info.name!r} knows neither findings nor words", hint="use kad, or one with a text side"
        )
    return from_vectors(encoder, data.embed(encoder), labels)
