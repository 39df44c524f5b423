"""CLIPs in OpenAI's layout that were trained further: CheXzero and EyeCLIP.

* **CheXzero**: ViT-B/32, 377,110 chest X-rays and their reports (MIMIC-CXR).
* **EyeCLIP**: ViT-B/32, 2.77 million eye pictures of eleven kinds. Its files hold the decoder of its masked training
  too, which is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder


def _spec(encoder: str, file: WeightFile, *, left_out: tuple[str, ...] = (), **card: Any) -> Spec:
    """Return how one is loaded.

    Parameters
    ----------
    encoder
        Its class in `retr.retrieval.encoders.networks.openai_clip`.
    file
        Its checkpoint.
    left_out
        Openings of keys that are no part of it.
    **card
        What `Card` takes beside.
    """
    known = Card(dim=512, text=True, noncommercial=True, files=(file,), parameters=87_849_216, **card)

    def load(
        *, weights: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto"
    ) -> BaseEncoder:
        """Load it.

        Parameters
        ----------
        weights
            The authors' file, or a folder with it. Of the several files of CheXzero any: the authors average their
            probabilities, which is not done here.
        device, precision
            As in ``load_encoder``.
        """
        found = find(file, weights, encoder=known.name)
        from retr.retrieval.encoders.networks import openai_clip

        with reading(f"the checkpoint {found.name!r}"):
            return openai_clip.load(
                getattr(openai_clip, encoder), found, known, left_out=left_out, device=device, precision=precision
            )

    return Spec(card=known, load=load)


CHEXZERO = _spec(
    "CheXzeroEncoder",
    WeightFile(
        name="best_64_5e-05_original_22000_0.864.pt",
        where="the Google Drive folder that https://github.com/rajpurkarlab/CheXzero links to (any of its files)",
    ),
    name="chexzero",
    summary="CheXzero, CLIP ViT-B/32 on 377,110 chest X-rays with reports",
    modality="chest X-ray",
    licence="MIT (code); none stated for the weights",
    source="https://github.com/rajpurkarlab/CheXzero",
)
EYECLIP = _spec(
    "EyeClipEncoder",
    WeightFile(
        name="eyeclip_visual_new.pt",
        where="the Google Drive folder that https://github.com/Michi-3000/EyeCLIP links to",
    ),
    left_out=("visual.decoder.",),
    name="eyeclip",
    summary="EyeCLIP, CLIP ViT-B/32 on 2.77 million eye pictures (fundus, OCT, angiography, ...)",
    modality="fundus, OCT",
    licence="none stated",
    source="https://github.com/Michi-3000/EyeCLIP",
)
