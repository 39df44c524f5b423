"""KAD's zero-shot evaluation: the AUROC of each finding, with F1 and MCC at the threshold of the best MCC.

Published (xiaoman-zhang/KAD): the probability that the disease query network gives each finding, scored by AUROC; F1
and MCC at the threshold that maximises MCC on the tested data itself; intervals from 1,000 bootstrap resamples of
images (here: by patient, `retr.retrieval.stats.intervals`). The published script drops the last partial batch; here
every image counts. Threshold-based scores are optimistic by construction, since the threshold is chosen on what is
scored; they are given because the paper gives them.

A name that the label set does not know is an error, since a misspelt finding would count as absent; or it is stated to
be another finding, which is not asked about, and the result lists it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import NoTextSideError, UsageError
from retr.index.machine.extras import needed
from retr.retrieval.classify.findings import log_odds
from retr.retrieval.encoders.registry import text_option
from retr.retrieval.evaluation.protocols.names import in_words, unknown_names
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.stats.metrics import auroc_per_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder
    from retr.retrieval.labels.label_set import LabelSet

PROTOCOL = (
    "each finding by itself, asked by its bare name: AUROC; F1 and MCC at the threshold of the best MCC on the tested "
    "data; intervals by group"
)
#: What says of a picture that none of the findings is present, in small letters.
NOTHING = frozenset({"no finding", "no findings", "none", "normal", "healthy", "negative"})
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
    ignore_unknown: bool = False,
    vectors: Embedder = WORK,
    seed: int = 0,
) -> dict[str, Any]:
    """Score findings on one set.

    Parameters
    ----------
    data
        The images. A class is a finding, or several joined by ``separator``, or one of `NOTHING` ("No Finding").
    encoder
        Who scores: by its own query network, or by prompts with and without "no".
    labels
        The findings.
    separator
        What joins several findings in the name of a class.
    ignore_unknown
        Take names that the label set does not know for other findings, which are not asked about.
    vectors
        Where the scores, or the vectors, come from.
    seed
        Of the intervals.

    Raises
    ------
    UsageError
        No class names a finding, or one names what the label set does not know; said before anything is embedded.
    NoTextSideError
        The encoder has neither findings nor words.
    """
    with needed():
        from scipy.special import expit

    unknown = _unknown(data, labels, separator)
    if unknown and not ignore_unknown:
        joined = separator is None and any(mark in one["name"] for one in unknown for mark in "|;,")
        hint = "correct them or add aliases to the label file; --ignore-unknown takes them for findings not asked about"
        raise UsageError(
            f"the label set {labels.name!r} does not know {in_words(unknown)}",
            hint='several findings in one name are separated with --separator, e.g. "|"' if joined else hint,
        )
    _members(data, labels, separator)
    asked = hasattr(encoder, "encode_and_score")
    if not asked and not encoder.info.text:
        other = text_option(encoder.info)
        raise NoTextSideError(
            f"encoder {encoder.info.name!r} knows neither findings nor words",
            hint=f"it has words with {other}" if other else "use kad, or one with a text side",
        )
    embedded = vectors.embed(data, [encoder], labels.names if asked else ())
    data = embedded.data
    member = _members(data, labels, separator)
    # probabilities of a query network; of words log-odds, which do not round to 1
    scores = embedded.scores if asked else log_odds(encoder, embedded.vectors[0], labels)
    area = partial(data.areas, of={"AUROC": auroc_per_class}, seed=seed)
    areas = {"mean": area(scores, member)}
    for c, name in enumerate(labels.names):
        one = area(scores[:, [c]], member[:, [c]])
        best = best_threshold(scores[:, c], member[:, c])
        if not asked and best["threshold"] is not None:
            best["threshold"] = float(expit(best["threshold"]))
        areas[name] = {**one, **best, "positives": int(member[:, c].sum())}
    found = data.outcome(
        "kad",
        encoder.info,
        embedding="its own query network" if asked else embedded.how(),
        measured=areas,
        published=PUBLISHED,
        published_protocol=PROTOCOL,
        because="the published cells are of the sets they name; name yours when you compare",
    )
    return found | {"names_not_asked_about": unknown}


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


def _parts(name: str, separator: str | None) -> list[str]:
    parts = name.split(separator) if separator else [name]
    return [part.strip() for part in parts if part.strip()] or [name]  # of nothing but separators: an unknown name


def _unknown(data: ClassFolder, labels: LabelSet, separator: str | None) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for name, count in data.counts().items():
        for part in dict.fromkeys(_parts(name, separator)):
            if part.casefold().replace("_", " ") not in NOTHING:
                counts[part] += count
    return unknown_names(counts, labels)


def _members(data: ClassFolder, labels: LabelSet, separator: str | None) -> NDArray[np.bool_]:
    of_class = np.zeros((len(data.classes), len(labels.classes)), dtype=bool)
    for c, name in enumerate(data.classes):
        for part in _parts(name, separator):
            place = labels.class_of(part)
            if place is not None:
                of_class[c, place] = True
    if not of_class.any():
        raise UsageError(
            f"no class names a finding of {labels.name!r}",
            hint=f"its findings are {', '.join(labels.names[:6])}; add aliases to the label file",
        )
    return of_class[data.labels]
