"""RETFound: ViT-L, trained by masking (MAE) or self-distillation (DINOv2) on 1.6 million fundus and OCT pictures.

Reads the published files: ``{"model": ...}`` of the MAE ones, ``{"teacher": backbone.*}`` of the DINOv2 ones, and what
the authors' fine-tuning saves of either. The picture's vector is their global pooling, or CLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.options import check_choice
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

# As the authors name them on the hub.
VARIANTS = ("mae_natureCFP", "mae_natureOCT", "mae_meh", "mae_shanghai", "dinov2_meh", "dinov2_shanghai")


def _file(variant: str) -> WeightFile:
    name = f"RETFound_{variant}"
    return WeightFile(
        name=f"{name}.pth",
        where=f"https://huggingface.co/YukunZhou/{name} (its terms are accepted there first)",
        hub=f"YukunZhou/{name}",
    )


CARD = Card(
    name="retfound",
    summary="RETFound, ViT-L by MAE or DINOv2, 1.6 million fundus and OCT pictures",
    modality="fundus, OCT",
    dim=1024,
    text=False,
    licence="CC BY-NC 4.0",
    source="https://github.com/rmaphoh/RETFound",
    noncommercial=True,
    files=(_file(VARIANTS[0]),),
    parameters=303_301_632,
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    variant: str = VARIANTS[0],
    feature: str = "global_pool",
    protocol: str = "finetune",
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load RETFound.

    Parameters
    ----------
    weights
        The file, such as ``RETFound_mae_natureCFP.pth``, of whichever form, or a folder with it.
    variant
        Which of the published files is looked for where no path is given: `VARIANTS`.
    feature
        ``"global_pool"``: of MAE files the mean of the patch tokens, then the LayerNorm behind the pooling (of files
        that hold none, without scale and shift, as the authors' loading leaves it); of DINOv2 files the mean of the
        patch tokens after the final LayerNorm, then one without scale and shift, as their notebook does. ``"cls"``:
        the CLS token after the final LayerNorm.
    protocol
        ``"finetune"``: their evaluation transform, short side 256 bicubic, crop 224, ImageNet mean and std;
        ``"latent"``: their notebook's, squashed to 224 and each channel brought to mean 0 and variance 1.
    device, precision
        As in ``load_encoder``.
    """
    check_choice("variant", variant, VARIANTS)
    check_choice("feature", feature, ("global_pool", "cls"))
    check_choice("protocol", protocol, ("finetune", "latent"))
    file = find(_file(variant), weights, encoder=CARD.name)
    from retr.retrieval.encoders.networks.retfound import load_retfound

    with reading(f"the checkpoint {file.name!r}"):
        return load_retfound(file, CARD, feature=feature, protocol=protocol, device=device, precision=precision)


SPEC = Spec(card=CARD, load=_load)
