"""RAD-DINO: DINOv2's ViT-B/14 at 518 pixels, trained on 882,775 chest X-rays.

Reads the hub folder as it is published; the preprocessing is that of its ``preprocessor_config.json``, or the folder
is refused. The embedding is CLS after the final LayerNorm, or the mean of the patch tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.options import check_choice, local
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

FOLDER = WeightFile(
    name="rad-dino",
    where="https://huggingface.co/microsoft/rad-dino (config.json, preprocessor_config.json, model.safetensors)",
    hub="microsoft/rad-dino",
    hub_files=("config.json", "preprocessor_config.json", "model.safetensors"),
    folder=True,
)
CARD = Card(
    name="rad-dino",
    summary="DINOv2 ViT-B/14 at 518 pixels, 882,775 chest X-rays",
    modality="chest X-ray",
    dim=768,
    text=False,
    licence="MIT",
    source="https://huggingface.co/microsoft/rad-dino",
    files=(FOLDER,),
    parameters=86_580_480,
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    feature: str = "cls",
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load RAD-DINO.

    Parameters
    ----------
    weights
        The hub folder: ``config.json``, ``preprocessor_config.json``, ``model.safetensors``.
    feature
        ``"cls"`` (the CLS token) or ``"patches"`` (mean of the 37 x 37 patch tokens); both 768-d.
    device, precision
        As in ``load_encoder``.
    """
    check_choice("feature", feature, ("cls", "patches"))
    given = local(weights)
    if given is not None and given.name == "model.safetensors":
        given = given.parent
    folder = find(FOLDER, given, encoder=CARD.name)
    from retr.retrieval.encoders.networks.rad_dino import load_rad_dino

    with reading(f"the folder {folder.name!r}", folder=folder):
        return load_rad_dino(folder, card=CARD, feature=feature, device=device, precision=precision)


SPEC = Spec(card=CARD, load=_load)
