"""RAD-DINO's evaluation: a linear probe on frozen features, AUPRC and AUROC of each class.

Published: a linear classifier on the frozen encoder, macro and per-finding AUPRC. The tables' numbers are not known
here, so every published cell is empty. Ours: logistic regression on standardised features, five folds of whole
patients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.evaluation.protocols.linear import held_out, require_fits
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.labels.folds import by_patient
from retr.retrieval.stats.metrics import auprc_per_class, auroc_per_class

if TYPE_CHECKING:
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder

FOLDS = 5
STRENGTH = 0.01
PROTOCOL = "a linear classifier on the frozen encoder; AUPRC of each finding and their mean, on the sets' own splits"
PUBLISHED = ({"cell": "VinDr-CXR, CANDID-PTX, RSNA: linear probe", "value": None, "source": "not known here"},)


def run(data: ClassFolder, encoder: BaseEncoder, *, vectors: Embedder = WORK, seed: int = 0) -> dict[str, Any]:
    """Run the probe on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who embeds them.
    vectors
        Where their vectors come from.
    seed
        Of folds and intervals.

    Raises
    ------
    UsageError
        There are too few pictures to fit a probe; said before anything is embedded.
    """
    require_fits(data.labels, by_patient(data.groups, FOLDS, seed))
    embedded = vectors.embed(data, [encoder])
    data, features = embedded.data, embedded.vectors[0]
    folds = by_patient(data.groups, FOLDS, seed)
    answers = held_out(features, data.labels, len(data.classes), folds, strength=STRENGTH, standardise=True)
    member = data.labels[:, None] == np.arange(len(data.classes))
    area = partial(data.areas, of={"AUPRC": auprc_per_class, "AUROC": auroc_per_class}, seed=seed)
    areas = {"macro": area(answers, member)}
    for c, name in enumerate(data.classes):
        areas[name] = area(answers[:, [c]], member[:, [c]])
    return data.outcome(
        "rad-dino",
        encoder.info,
        embedding=embedded.how(),
        measured=areas,
        published=PUBLISHED,
        published_protocol=PROTOCOL,
        because="no published cell is known here",
    )
