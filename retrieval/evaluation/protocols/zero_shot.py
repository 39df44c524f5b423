"""Zero-shot Top-1, 3 and 5 of a label set's prompts on the pictures whose class the set knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.evaluation.protocols.names import in_words, unknown_names
from retr.retrieval.stats.intervals import mean_interval
from retr.retrieval.stats.metrics import in_top_k, top_k_accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.labels.label_set import LabelSet

KS = (1, 3, 5)


def require_some(counts: dict[str, int], labels: LabelSet) -> None:
    """Refuse a label set that knows none of the classes."""
    unknown = unknown_names(counts, labels)
    if len(unknown) == len(counts):
        raise UsageError(
            f"the label set {labels.name!r} knows none of the classes: {in_words(unknown)}",
            hint="give a label file whose names or aliases are these, or leave --labels out",
        )


def zero_shot(
    data: ClassFolder, encoder: BaseEncoder, labels: LabelSet | None, vectors: NDArray[np.float32], unasked: str
) -> dict[str, Any]:
    """Top-1, 3 and 5 of the true class among the set's prompts, for the images whose class the set knows.

    Null with a reason where it cannot be asked.
    """
    if unasked or labels is None:
        return {**{str(k): None for k in KS}, "reason": unasked}
    unknown = unknown_names(data.counts(), labels)
    place = np.array([-1 if (at := labels.class_of(name)) is None else at for name in data.classes], np.int64)
    truth = place[data.labels]
    known = truth >= 0
    if not known.any():
        return {**{str(k): None for k in KS}, "reason": f"the label set {labels.name!r} knows no class that is left"}
    texts = class_vectors(encoder, [one.prompts for one in labels.classes])
    logits = encoder.similarity_logits(vectors[known], texts)
    asked = len(labels.classes)
    return {
        # of k classes every one is among the first k
        **{str(k): top_k_accuracy(logits, truth[known], k) if k < asked else None for k in KS},
        "intervals": {
            str(k): mean_interval(in_top_k(logits, truth[known], k), data.groups[known]).to_json()
            for k in KS
            if k < asked
        },
        "label_set": labels.name,
        "classes_asked": asked,
        "images": int(known.sum()),
        "of_images": len(known),
        "classes": [name for name, at in zip(data.classes, place.tolist(), strict=True) if at >= 0],
        "not_in_the_label_set": unknown,
    }
