"""RAD-DINO's evaluation: a linear probe on frozen features, AUPRC and AUROC of each class.

Published: a linear classifier on the frozen encoder, macro and per-finding AUPRC. The tables' numbers are not known
here, so every published cell is empty. Ours: logistic regression on standardised features, five folds of whole
patients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.retrieval.evaluation.protocols.linear import folds_by_patient, held_out
from retr.retrieval.stats.metrics import auprc_per_class, auroc_per_class

if TYPE_CHECKING:
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder

FOLDS = 5
STRENGTH = 0.01
PUBLISHED = ({"cell": "VinDr-CXR, CANDID-PTX, RSNA: linear probe", "value": None, "source": "not known here"},)


def run(data: ClassFolder, encoder: BaseEncoder, *, seed: int = 0, progress: bool = False) -> dict[str, Any]:
    """Run the probe on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who embeds them.
    seed
        Of folds and intervals.
    progress
        Show progress on standard error.
    """
    features = data.embed(encoder, progress=progress)
    folds = folds_by_patient(data.groups, FOLDS, seed)
    answers = held_out(features, data.labels, len(data.classes), folds, strength=STRENGTH, standardise=True)
    member = data.labels[:, None] == np.arange(len(data.classes))
    area = partial(data.areas, of={"AUPRC": auprc_per_class, "AUROC": auroc_per_class}, seed=seed)
    areas = {"macro": area(answers, member)}
    for c, name in enumerate(data.classes):
        areas[name] = area(answers[:, [c]], member[:, [c]])
    because = "no published cell is known here"
    return data.outcome("rad-dino", encoder, measured=areas, published=PUBLISHED, because=because)
