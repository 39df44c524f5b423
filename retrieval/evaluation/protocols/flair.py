"""FLAIR's evaluation: zero-shot over class prototypes with expert descriptions, a linear probe, and a few shots.

Published (jusiro/FLAIR: main_transferability.py): one label an image; the class is that of the nearest prototype, the
mean of the unit vectors of its descriptions; scored by ACA (mean recall of the classes), quadratic kappa and macro F1.
Quadratic kappa needs grades: it is measured where their order is declared, by a list or an ordered label set; folder
names in alphabetical order are no grades.
The probe is logistic regression, C = 0.316, balanced, on features before the projection, five folds by image. Strict:
the same probe with whole patients in a fold. With 1 to 16 shots of each class: `protocols.few_shot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.evaluation.protocols import few_shot
from retr.retrieval.evaluation.protocols.linear import held_out, require_fits
from retr.retrieval.evaluation.protocols.names import in_words, no_words, unknown_names
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.labels.folds import by_patient, by_row
from retr.retrieval.labels.label_set import LabelSet, load_labels
from retr.retrieval.stats.confidence import softmax
from retr.retrieval.stats.intervals import jackknife_intervals
from retr.retrieval.stats.metrics import classification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder
    from retr.retrieval.labels.folds import Fold

PROTOCOL = (
    "zero-shot: one label an image, that of the nearest class prototype; ACA is the mean recall of the classes, kappa "
    "is quadratic. Linear probe: logistic regression (C = 0.316, balanced) on features before the projection, 5 folds "
    "by image. Few-shot: ACA over draws of pictures"
)
STRENGTH = 0.316
FOLDS = 5
NO_ORDER = "the order of the grades is not declared; give it with --grades A,B,C or with a label set that is ordered"
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
    grades: Sequence[str] | None = None,
    vectors: Embedder = WORK,
    seed: int = 0,
) -> dict[str, Any]:
    """Run all parts on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who answers zero-shot.
    probe_encoder
        Who gives the features before the projection; by default ``encoder``.
    labels
        The classes and their expert descriptions; without them there is no zero-shot.
    grades
        The classes from the least grade to the most, for the published quadratic kappa; by default those of ``labels``
        where it is ordered.
    vectors
        Where the vectors come from.
    seed
        Of folds and intervals.

    Raises
    ------
    UsageError
        The label set, or the grades, do not know a class, or have one for several; or there are too few pictures to fit
        a probe. Said before anything is embedded.
    """
    unasked = no_words(encoder.info, labels)
    if labels is not None:
        _require_known(data.counts(), labels)
    order = _order(data.counts(), labels, grades)
    for folds in _folds(data, seed):
        require_fits(data.labels, folds)
    probe = probe_encoder or encoder
    embedded = vectors.embed(data, [probe] if unasked else [probe, encoder])
    data, features = embedded.data, embedded.vectors[0]
    by_row, by_patient = (
        held_out(features, data.labels, len(data.classes), folds, strength=STRENGTH) for folds in _folds(data, seed)
    )
    zero: dict[str, Any] = {"reason": unasked}
    words = None
    if labels is not None and not unasked:
        chosen = [labels.classes[at] for name in data.classes if (at := labels.class_of(name)) is not None]
        texts = class_vectors(encoder, [one.prompts for one in chosen])
        logits = encoder.similarity_logits(embedded.vectors[1], texts).astype(np.float64)
        zero = _scores(softmax(logits), data, order, seed)
        words = embedded.vectors[1], texts, encoder.info.logit_scale
    measured = {
        "zero-shot": zero,
        "linear probe, published (folds by image)": _scores(by_row, data, order, seed),
        "linear probe, strict (folds by group)": _scores(by_patient, data, order, seed),
        **few_shot.measure(data.labels, data.groups, features, words, seed),
    }
    return data.outcome(
        "flair",
        encoder.info,
        embedding=embedded.how() + _feature(probe.info),
        measured=measured,
        published=PUBLISHED,
        published_protocol=PROTOCOL,
        because="the published cells are of MESSIDOR; name your set when you compare",
    )


def _folds(data: ClassFolder, seed: int) -> tuple[list[Fold], list[Fold]]:
    return by_row(len(data.labels), FOLDS, seed), by_patient(data.groups, FOLDS, seed)


def _feature(info: EncoderInfo) -> str:
    feature = info.options.get("feature")
    return f"; the probe's are of feature {feature!r}" if feature else ""


def _require_known(counts: dict[str, int], labels: LabelSet) -> None:
    unknown = unknown_names(counts, labels)
    if unknown:
        raise UsageError(
            f"the label set {labels.name!r} does not know {in_words(unknown)}", hint="add it, or an alias of it"
        )
    _require_one_each(counts, labels, f"of the label set {labels.name!r}")


def _require_one_each(counts: dict[str, int], labels: LabelSet, what: str) -> None:
    """Refuse two classes of the data that are one of the set: no answer could tell them apart."""
    named: dict[int | None, str] = {}
    for name in counts:
        other = named.setdefault(labels.class_of(name), name)
        if other != name:
            raise UsageError(
                f"{other!r} and {name!r} are one class {what}",
                hint="name them alike in the data, or name a class for each",
            )


def _order(counts: dict[str, int], labels: LabelSet | None, grades: Sequence[str] | None) -> LabelSet | None:
    """Return the set whose order is that of the grades; None where none was declared."""
    if grades is None:
        return labels if labels is not None and labels.ordered else None
    plain = [grade.casefold() for grade in grades]
    if "" in plain or len({*plain}) < len(plain):
        raise UsageError(
            f"the grades {', '.join(grades)!r} name one twice, or none",
            hint="name every class once, from the least grade to the most",
        )
    declared = load_labels(list(grades))
    unknown = unknown_names(counts, declared)
    if unknown:
        raise UsageError(
            f"the grades {', '.join(grades)} do not name {in_words(unknown)}",
            hint="name every class once, from the least grade to the most",
        )
    _require_one_each(counts, declared, "of the grades")
    return declared


def _scores(probabilities: NDArray[np.float64], data: ClassFolder, order: LabelSet | None, seed: int) -> dict[str, Any]:
    """ACA, kappa and macro F1 with intervals over patients; quadratic kappa where the classes' order is declared."""
    places = [] if order is None else [at for name in data.classes if (at := order.class_of(name)) is not None]
    grades = np.array(places, np.int64) if len(places) == len(data.classes) else None

    def measured(rows: NDArray[np.int64]) -> dict[str, float]:
        found = classification(probabilities[rows], data.labels[rows], topk=(1,), grades=grades)
        graded = {} if grades is None else {"kappa_quadratic": found["kappa_quadratic"]}
        return {"ACA": found["balanced_accuracy"], "kappa": found["kappa"], **graded, "macro F1": found["macro_f1"]}

    macro, agreement = data.labels[:, None] == np.arange(len(data.classes)), {"kappa": -1.0, "kappa_quadratic": -1.0}
    estimates = jackknife_intervals(
        measured, data.groups, member={"ACA": macro, "macro F1": macro}, lowest=agreement, seed=seed
    )
    found: dict[str, Any] = {name: one.to_json() for name, one in estimates.items()}
    if grades is None:
        found["kappa_quadratic"] = {"value": None, "low": None, "high": None, "reason": NO_ORDER}
    return found
