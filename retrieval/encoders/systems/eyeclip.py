"""EyeCLIP: OpenAI's CLIP ViT-B/32, trained further on 2.77 million eye pictures of eleven kinds.

Its files hold the decoder of its masked training too, which is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

_WEIGHTS = WeightFile(
    name="eyeclip_visual_new.pt",
    where="the Google Drive folder that https://github.com/Michi-3000/EyeCLIP links to",
)
CARD = Card(
    name="eyeclip",
    summary="EyeCLIP, CLIP ViT-B/32 on 2.77 million eye pictures (fundus, OCT, angiography, ...)",
    modality="fundus, OCT",
    dim=512,
    text=True,
    licence="none stated",
    source="https://github.com/Michi-3000/EyeCLIP",
    noncommercial=True,
    files=(_WEIGHTS,),
)


def _load(
    *, weights: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto"
) -> BaseEncoder:
    """Load EyeCLIP.

    Parameters
    ----------
    weights
        The authors' file (``{"model_state_dict": ...}``), or a folder with it.
    device, precision
        As in ``load_encoder``.
    """
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    from retr.retrieval.encoders.networks import openai_clip

    with reading(f"the checkpoint {file.name!r}"):
        return openai_clip.load(
            openai_clip.EyeClipEncoder, file, CARD, left_out=("visual.decoder.",), device=device, precision=precision
        )


SPEC = Spec(card=CARD, load=_load)
