"""FLAIR's evaluation: zero-shot over class prototypes with expert descriptions, and a linear probe.

Published (jusiro/FLAIR: main_transferability.py): one label an image; the class is that of the nearest prototype, the
mean of the unit vectors of its descriptions; scored by ACA (mean recall of the classes), quadratic kappa and macro F1.
Quadratic kappa needs grades: it is measured where the label set declares their order, beside the unweighted one.
The probe is logistic regression, C = 0.316, balanced, on features before the projection, five folds by image. Strict:
the same probe with whole patients in a fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.evaluation.protocols.linear import folds_by_patient, folds_by_row, held_out
from retr.retrieval.stats.bootstrap import intervals
from retr.retrieval.stats.confidence import softmax
from retr.retrieval.stats.metrics import classification

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.labels.label_set import LabelSet

STRENGTH = 0.316
FOLDS = 5
#: What is known of the published numbers; the other cells of the paper's tables stay empty.
PUBLISHED = (
    {"cell": "MESSIDOR, zero-shot ACA, expert descriptions", "value": 0.604, "source": "paper, Table 3"},
    {"cell": "MESSIDOR, zero-shot ACA, rerun by a user without cropping", "value": 0.490, "source": "issue FLAIR#7"},
    {"cell": "MESSIDOR, zero-shot quadratic kappa, the same rerun", "value": 0.578, "source": "issue FLAIR#7"},
    {"cell": "MESSIDOR, zero-shot macro F1, the same rerun", "value": 0.505, "source": "issue FLAIR#7"},
)


def run(
    data: ClassFolder,
    encoder: BaseEncoder,
    *,
    probe_encoder: BaseEncoder | None = None,
    labels: LabelSet | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Run both parts on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who answers zero-shot.
    probe_encoder
        Who gives the features before the projection; by default ``encoder``.
    labels
        The classes and their expert descriptions; without them there is no zero-shot. Where the set is ordered, the
        published quadratic kappa is measured, too.
    seed
        Of folds and intervals.
    progress
        Show progress on standard error.
    """
    features = data.embed(probe_encoder or encoder, progress=progress)
    count = len(data.classes)
    by_row = held_out(features, data.labels, count, folds_by_row(len(data.labels), FOLDS, seed), strength=STRENGTH)
    by_patient = held_out(features, data.labels, count, folds_by_patient(data.groups, FOLDS, seed), strength=STRENGTH)
    measured = {
        "zero-shot": _zero_shot(data, encoder, labels, seed, progress),
        "linear probe, published (folds by image)": _scores(by_row, data, labels, seed),
        "linear probe, strict (folds by patient)": _scores(by_patient, data, labels, seed),
    }
    because = "the published cells are of MESSIDOR; name your set when you compare"
    return data.outcome("flair", encoder, measured=measured, published=PUBLISHED, because=because)


def _zero_shot(
    data: ClassFolder, encoder: BaseEncoder, labels: LabelSet | None, seed: int, progress: bool
) -> dict[str, Any]:
    if not encoder.info.text:
        return {"reason": f"encoder {encoder.info.name!r} has no text side"}
    if labels is None:
        return {"reason": "no label file was given (--labels)"}
    place = [labels.class_of(name) for name in data.classes]
    if None in place:
        missing = data.classes[place.index(None)]
        raise UsageError(f"the label set {labels.name!r} does not know {missing!r}", hint="add it, or an alias of it")
    chosen = [labels.classes[at] for at in place if at is not None]
    texts = class_vectors(encoder, [one.prompts for one in chosen])
    logits = encoder.similarity_logits(data.embed(encoder, progress=progress), texts).astype(np.float64)
    return _scores(softmax(logits), data, labels, seed)


def _scores(
    probabilities: NDArray[np.float64], data: ClassFolder, labels: LabelSet | None, seed: int
) -> dict[str, Any]:
    """ACA, kappa and macro F1 with intervals over patients; quadratic kappa where the classes' order is declared."""
    places = [labels.class_of(name) for name in data.classes] if labels is not None and labels.ordered else [None]
    grades = None if None in places else np.array(places, np.int64)

    def measured(rows: NDArray[np.int64]) -> dict[str, float]:
        found = classification(probabilities[rows], data.labels[rows], topk=(1,), grades=grades)
        graded = {} if grades is None else {"kappa_quadratic": found["kappa_quadratic"]}
        return {"ACA": found["balanced_accuracy"], "kappa": found["kappa"], **graded, "macro F1": found["macro_f1"]}

    return {name: one.to_json() for name, one in intervals(measured, data.groups, seed=seed).items()}
