"""LVM-Med: a ResNet-50 and SAM's image encoder ViT-B, trained on 1.3 million medical pictures of 55 public sets.

Reads ``lvmmed_resnet.torch`` or ``lvmmed_vit.pth`` and prepares pictures as the authors' brain tumour classification
does. The embedding is what their classifiers take: the mean of the last map, for the ViT before SAM's neck.
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

_WHERE = "(linked from https://github.com/duyhominhnguyen/LVM-Med)"
FILES = {
    "resnet50": WeightFile(
        name="lvmmed_resnet.torch",
        where=f"https://drive.google.com/file/d/1p31IGo97g3ng9bOaq3eL8JaljfoCcBx0 {_WHERE}",
    ),
    "vit-b": WeightFile(
        name="lvmmed_vit.pth",
        where=f"https://drive.google.com/file/d/1DOM3uyK8SGE5XRF1L6K6K_BWPfpPePRD {_WHERE}; not the Hugging Face port, "
        "which is another network",
        optional=True,
    ),
}
CARD = Card(
    name="lvm-med",
    summary="ResNet-50 (2048-d) or SAM's ViT-B (768-d), 1.3 million pictures of 55 medical sets",
    modality="many",
    dim=2048,
    text=False,
    licence="CC BY-NC-SA 4.0 (elsewhere CC BY-NC-ND 2.0), academic research only",
    source="https://github.com/duyhominhnguyen/LVM-Med",
    noncommercial=True,
    files=tuple(FILES.values()),
    parameters=23_508_032,
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    arch: str = "resnet50",
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load LVM-Med.

    Parameters
    ----------
    weights
        ``lvmmed_resnet.torch`` or ``lvmmed_vit.pth``, or a folder with it.
    arch
        ``"resnet50"`` (2048-d) or ``"vit-b"`` (768-d).
    device, precision
        As in ``load_encoder``.
    """
    check_choice("arch", arch, tuple(FILES))
    file = find(FILES[arch], weights, encoder=CARD.name)
    from retr.retrieval.encoders.networks.lvm_med import load_lvm_med

    with reading(f"the checkpoint {file.name!r}"):
        return load_lvm_med(file, card=CARD, arch=arch, device=device, precision=precision)


SPEC = Spec(card=CARD, load=_load)
