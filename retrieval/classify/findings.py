"""Multi-label zero-shot classification: a probability for each finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.machine.extras import needed
from retr.retrieval.classify.prompts import class_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.retrieval.classify.prompts import WordEncoder
    from retr.retrieval.labels.label_set import LabelSet


@dataclass(frozen=True)
class PictureFindings:
    """The findings of one picture, most probable first."""

    query: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    note: str | None = None

    def to_json(self, top: int) -> dict[str, Any]:
        """Return one JSON-ready object with the ``top`` most probable findings."""
        best = zip(self.names[:top], self.probabilities, strict=False)
        return {
            "query": self.query,
            "findings": [{"label": name, "probability": p} for name, p in best],
            "method": "findings",
            "calibrated": False,
            "note": self.note,
        }


def present(
    scores: NDArray[Any], labels: LabelSet, names: Sequence[str], note: str | None = None
) -> list[PictureFindings]:
    """Order the findings of each picture; ``scores`` float ``(n, c)``, ``note`` what to know of all of them."""
    out = []
    for name, row in zip(names, scores, strict=True):
        order = np.argsort(-row, kind="stable")
        classes = tuple(labels.names[i] for i in order)
        out.append(PictureFindings(name, classes, tuple(round(float(row[i]), 6) for i in order), note))
    return out


def from_pictures(encoder: Any, pictures: Sequence[Any], labels: LabelSet) -> NDArray[np.float64] | None:
    """Let an encoder with a ``score`` method (KAD's query network) answer: float64 ``(n, c)``, else ``None``."""
    if not hasattr(encoder, "score"):
        return None
    return np.asarray(encoder.score(list(pictures), labels.names), dtype=np.float64)


def from_vectors(side: WordEncoder, vectors: NDArray[np.float32], labels: LabelSet) -> NDArray[np.float64]:
    """Return the probability of each finding against its denial, ``no FINDING``: float64 ``(n, c)``."""
    with needed():
        from scipy.special import expit

    return np.asarray(expit(log_odds(side, vectors, labels)), np.float64)


def log_odds(side: WordEncoder, vectors: NDArray[np.float32], labels: LabelSet) -> NDArray[np.float64]:
    """Compare each finding with its denial in the encoder's own scale: log-odds, float64 ``(n, c)``.

    They order pictures where probabilities round to 1.
    """
    present = class_vectors(side, [one.prompts for one in labels.classes])
    absent = class_vectors(side, [[f"no {prompt}" for prompt in one.prompts] for one in labels.classes])
    pairs = np.stack([present, absent], axis=1)
    logits = [np.asarray(side.similarity_logits(vectors, pair), np.float64) for pair in pairs]
    return np.stack([one[:, 0] - one[:, 1] for one in logits], axis=1)
