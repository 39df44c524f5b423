"""CheXzero: OpenAI's CLIP ViT-B/32, trained further on 377,110 chest X-rays and their reports (MIMIC-CXR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

_WEIGHTS = WeightFile(
    name="best_64_5e-05_original_22000_0.864.pt",
    where="the Google Drive folder that https://github.com/rajpurkarlab/CheXzero links to (any of its files)",
)
CARD = Card(
    name="chexzero",
    summary="CheXzero, CLIP ViT-B/32 on 377,110 chest X-rays with reports",
    modality="chest X-ray",
    dim=512,
    text=True,
    licence="MIT (code); none stated for the weights",
    source="https://github.com/rajpurkarlab/CheXzero",
    noncommercial=True,
    files=(_WEIGHTS,),
)


def _load(
    *, weights: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto"
) -> BaseEncoder:
    """Load CheXzero.

    Parameters
    ----------
    weights
        One of the authors' ``.pt`` files; the authors average the probabilities of several, which is not done here.
    device, precision
        As in ``load_encoder``.
    """
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    from retr.retrieval.encoders.networks import openai_clip

    with reading(f"the checkpoint {file.name!r}"):
        return openai_clip.load(
            openai_clip.CheXzeroEncoder, file, CARD, left_out=(), device=device, precision=precision
        )


SPEC = Spec(card=CARD, load=_load)
