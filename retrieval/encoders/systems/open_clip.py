"""``open_clip:MODEL/TAG``, ``open_clip:MODEL`` with a checkpoint file, ``open_clip:hf-hub:ORG/NAME``.

The preprocessing is always one that somebody stated for these weights, never open_clip's silent default
(open_clip issue 1068):

* of a tag, the tag's own in open_clip's table;
* of a file or folder, the ``preprocess_cfg`` of the ``open_clip_config.json`` beside it (``mean`` and ``std`` at
  least; open_clip's reading of the file completes it), which also gives the architecture (``model_cfg``);
* or all of ``mean``, ``std``, ``interpolation`` and ``resize_mode``, given as options;
* a file given together with a tag (fine-tuned from it) gets the tag's.

Anything else is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.options import local, triple
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.systems import vision_language
from retr.retrieval.encoders.weights.checkpoints import WeightFile

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from retr.retrieval.encoders.base import BaseEncoder

_CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}

CARD = Card(
    name="open_clip:MODEL/TAG",
    summary="any model of open_clip: a published tag, a checkpoint file, or hf-hub:ORG/NAME (BiomedCLIP and others)",
    modality="as trained",
    dim=None,
    text=True,
    licence="the checkpoint's",
    source="https://github.com/mlfoundations/open_clip",
    files=(
        WeightFile(
            name="MODEL/TAG.safetensors",
            where="the Hugging Face hub, by open_clip itself",
            optional=True,
        ),
        WeightFile(
            name="text_model",
            where="the Hugging Face hub, for models whose text side is a transformers model",
            option="text_model",
            folder=True,
            optional=True,
        ),
    ),
)


def _load(
    model: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load an open_clip model.

    Parameters
    ----------
    model
        ``"ViT-B-32/laion2b_s34b_b79k"``, ``"ViT-B-32"`` (with `weights`) or ``"hf-hub:ORG/NAME"``.
    weights
        A checkpoint file, or a folder with ``open_clip_config.json`` and a checkpoint.
    text_model
        Folder with the tokenizer (and ``config.json``) of models whose text side is a transformers model.
    mean, std
        One number or three, ``"0.48,0.46,0.41"`` or a sequence.
    interpolation
        ``"bicubic"`` or ``"bilinear"``.
    resize_mode
        ``"shortest"`` (then centre crop), ``"longest"`` (then pad) or ``"squash"``.
    device, precision
        As in ``load_encoder``.
    """
    stated: dict[str, Any] = {
        "mean": triple("mean", mean),
        "std": triple("std", std),
        "interpolation": interpolation,
        "resize_mode": resize_mode,
    }
    for option, known in _CHOICES.items():
        if stated[option] not in {*known, None}:
            raise UsageError(f"unknown {option} {stated[option]!r}", hint=f"use {' or '.join(known)}")
    path = local(weights)
    # before torch and open_clip are imported, which takes a while
    if path is not None and not (path.is_file() or path.is_dir()):
        raise WeightsError(f"no file or folder at {str(path)!r}, weights of open_clip", hint="check the path")
    from retr.retrieval.encoders.networks import open_clip as network

    return network.load_open_clip(
        model,
        path,
        card=MODELS[model.lower()].card if model.lower() in MODELS else CARD,
        text_model=local(text_model),
        stated={key: value for key, value in stated.items() if value is not None},
        device=device,
        precision=precision,
    )


MODELS = {
    name.removeprefix("open_clip:"): model
    for name, model in vision_language.MODELS.items()
    if name.startswith("open_clip:")
}
SPEC = Spec(card=CARD, load=_load, family=True, members=tuple(model.card for model in MODELS.values()))
