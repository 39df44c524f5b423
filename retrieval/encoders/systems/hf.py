"""``hf:ORG/NAME``: model folders of transformers, from the hub or from a local folder (``weights=FOLDER``).

What the embedding is, by family (``model_type`` of ``config.json``):

==================================  =====================================================================  ====
family                              picture                                                                text
==================================  =====================================================================  ====
clip, metaclip_2, chinese_clip      projected pooled CLS token (``get_image_features``)                    yes
siglip, siglip2                     attention-pooled head (``get_image_features``); ``pooling="mean"``:    yes
                                    mean of the patch tokens, without texts
dinov2, dinov2_with_registers,      CLS token after the final norm; ``pooling="mean"``: mean of the patch  no
dinov3_vit, vit                     tokens after it (registers left out); ``"cls+mean"``: one after the
                                    other
dinov3_convnext                     as DINOv2, of the last map
vit_mae                             mean of the patch tokens after the final norm, nothing masked (as      no
                                    RETFound pools); ``pooling="cls"``: the CLS token
swin, convnext, beit                what transformers calls the pooled output                              no
==================================  =====================================================================  ====

The preprocessing is the folder's (``preprocessor_config.json``, or the ``image_processor`` within the
``processor_config.json`` that transformers 5 writes), in transformers' Pillow arithmetic; a folder without one is
refused, unless the model's card states them (`pathology`). A folder of open_clip's (``open_clip_config.json``, as
BiomedCLIP's) is read by `open_clip`, one of timm's (``architecture`` in ``config.json``) by `timm`. The hub is asked
where its name is all that was given, and only for files; folders are read as data (`untrusted`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError, WeightsError
from retr.index.machine.home import home
from retr.retrieval.encoders.options import check_choice, check_folder_name, local
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.systems import open_clip, pathology, timm, vision_language
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights import locations, open_clip_files
from retr.retrieval.encoders.weights.checkpoints import WeightFile
from retr.retrieval.encoders.weights.untrusted import (
    PROCESSORS,
    TOKENIZER,
    check_folder,
    config_digest,
    read_json,
    read_processor,
    reading,
)

if TYPE_CHECKING:
    from pathlib import Path

    from retr.retrieval.encoders.base import BaseEncoder

# model_type -> the poolings it can be asked for, its own first; none: the family has one way only
_TOKENS = ("cls", "mean", "cls+mean")
FAMILIES: dict[str, tuple[str, ...]] = {
    "clip": (),
    "metaclip_2": (),
    "chinese_clip": (),
    "siglip": ("map", "mean"),
    "siglip2": ("map", "mean"),
    "dinov2": _TOKENS,
    "dinov2_with_registers": _TOKENS,
    "dinov3_vit": _TOKENS,
    "dinov3_convnext": ("cls", "mean"),
    "vit": _TOKENS,
    "vit_mae": ("mean", "cls", "cls+mean"),
    "swin": (),
    "convnext": (),
    "beit": (),
}
MODELS = {
    **{name: model for name, model in pathology.MODELS.items() if not model.timm},
    **{name: model for name, model in vision_language.MODELS.items() if model.card.name.startswith("hf:")},
}
# as transformers prefers them: the file, or the list of its shards
CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")
_HUB_CHECKPOINTS = ("model*.safetensors", "pytorch_model*.bin")
_OTHERS = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX", ".bin": "PyTorch"}

CARD = Card(
    name="hf:ORG/NAME",
    summary="CLIP, SigLIP, DINO, ViT, MAE, Swin, ConvNeXt, BEiT of transformers; folders of open_clip and timm",
    modality="as trained",
    dim=None,
    text=None,
    licence="the checkpoint's",
    source="https://github.com/huggingface/transformers",
    files=(
        WeightFile(
            name="ORG/NAME",
            where="the Hugging Face hub (config.json, preprocessor_config.json, weights, tokenizer)",
            folder=True,
            optional=True,
        ),
    ),
)


def _load(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    pooling: str | None = None,
    resize: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load a model folder of transformers.

    Parameters
    ----------
    name
        ``"facebook/dinov2-base"``, or the path of a folder; with `weights` any name.
    weights
        The folder, with ``config.json``, ``preprocessor_config.json`` and the weights.
    text_model
        Folder with the tokenizer, where the weights' folder has none.
    pooling
        ``"cls"``, ``"mean"`` or ``"cls+mean"`` for DINO, ViT and MAE, ``"map"`` or ``"mean"`` for SigLIP; None is the
        family's own, or the model card's.
    resize
        ``"processor"``: the folder's image processor gets the picture as it is; ``"tensorflow"``: TensorFlow's
        bilinear resize (not smoothed) to the processor's size comes first. None is the model card's, else the first.
    device, precision
        As in ``load_encoder``.
    """
    if resize is not None:
        check_choice("resize", resize, ("processor", "tensorflow"))
    if weights is None:
        check_folder_name(name, "hf")
    given = home(name)
    if weights is None and given.is_dir():
        # as transformers reads it; the index gets the folder's name only, and this machine remembers the place
        asked: dict[str, Any] = {"text_model": text_model, "pooling": pooling, "resize": resize}
        found = _load(given.resolve().name, weights=given.resolve(), device=device, precision=precision, **asked)
        locations.remember_files(found.info, {"weights": given})
        return found
    folder, from_hub = _folder(name, weights)
    check_folder(folder)
    config = _read(folder / "config.json")
    where: dict[str, Any] = {"device": device, "precision": precision}
    if "model_type" not in config and (folder / open_clip_files.CONFIG).is_file():
        if pooling is not None:
            raise UsageError(f"'hf:{name}' is an open_clip model, which has no pooling to choose")
        return open_clip.SPEC.load(open_clip_files.HUB + name, weights=folder, text_model=text_model, **where)
    if config.get("model_type") in {None, timm.WRAPPER} and "architecture" in config:
        return timm.SPEC.load(name, weights=folder, pooling=pooling, **where)
    known_model = MODELS.get(name.lower())
    family, known = _family(name, config, pooling)
    own = dict(known_model.preprocess) if known_model else {}
    processor = own or read_processor(folder)
    if processor is None:
        raise WeightsError(
            f"no {PROCESSORS[1]} in the folder of 'hf:{name}', and no image_processor in a {PROCESSORS[0]}: nothing "
            "states how its pictures are prepared",
            hint="get it from where the weights come from",
        )
    parts = checkpoints(folder)
    from retr.retrieval.encoders.networks import hf as network

    with reading(f"the folder {folder.name!r}", folder=folder):
        return network.HfEncoder(
            name,
            folder,
            family,
            parts,
            card=known_model.card if known_model else CARD,
            config_sha256=config_digest(config, processor),
            text_model=local(text_model),
            hub=name if from_hub else None,
            pooling=pooling,
            own_pooling=(known_model.pooling if known_model else None) or (known[0] if known else None),
            transform=own,
            resize=resize,
            own_resize=known_model.resize if known_model else None,
            **where,
        )


def _family(name: str, config: dict[str, Any], pooling: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the family of a folder and its poolings, of which the one asked for must be one."""
    family = config.get("model_type")
    if not isinstance(family, str):
        raise WeightsError(
            f"the config.json of 'hf:{name}' names no family of models (model_type)",
            hint="hf: takes folders as transformers' save_pretrained writes them",
        )
    if family not in FAMILIES:
        raise UsageError(f"'hf:{name}' is of the family {family!r}", hint=f"supported: {', '.join(FAMILIES)}")
    known = FAMILIES[family]
    if pooling is not None and pooling not in known:
        hint = f"use {' or '.join(known)}" if known else f"a {family} model has one way only"
        raise UsageError(f"unknown pooling {pooling!r} for 'hf:{name}'", hint=hint)
    return family, known


def checkpoints(folder: Path) -> list[Path]:
    """Return the weight files that transformers loads: a whole file before shards, safetensors before pickles.

    Raises
    ------
    WeightsError
        There is none, or a list of shards names what does not lie in the folder.
    """
    if found := files.weight_files(folder, CHECKPOINTS):
        return found
    other = next((path for path in sorted(folder.iterdir()) if path.suffix in _OTHERS), None)
    has = f"; {other.name!r} ({_OTHERS[other.suffix]}) is not read" if other else ""
    raise WeightsError(
        f"no weights in the folder {folder.name!r}{has}",
        hint=f"it should hold {' or '.join(CHECKPOINTS)}, as transformers' save_pretrained writes",
    )


def _folder(name: str, weights: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Find the model's folder: given, in ``RETR_WEIGHTS``, in the hub's cache or fetched; and whether the hub's."""
    if weights is not None:
        folder = home(weights)
        if not folder.is_dir():
            raise WeightsError(
                f"no folder at {os.fspath(weights)!r}, weights of 'hf:{name}'",
                hint="give the folder that holds config.json and the weights",
            )
        return folder, False
    where = f"https://huggingface.co/{name} (some models want their licence accepted there first)"
    also = (*TOKENIZER, "*.index.json")
    kinds = [WeightFile(name, where, folder=True)]
    kinds += [
        WeightFile(
            name, where, hub=name, hub_files=("config.json", pattern), hub_any=PROCESSORS, hub_also=also, folder=True
        )
        for pattern in _HUB_CHECKPOINTS
    ]
    kinds += [
        WeightFile(name, where, hub=name, hub_files=(open_clip_files.CONFIG, pattern), hub_also=TOKENIZER, folder=True)
        for pattern in open_clip_files.CHECKPOINTS[:3]
    ]
    problem: WeightsError | None = None
    for network in (False, True):
        for wanted in kinds:
            try:
                return files.find(wanted, encoder="hf", network=network), wanted.hub is not None
            except WeightsError as error:
                problem = error
    assert problem is not None
    raise problem


def _read(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if config is None and not (path.parent / open_clip_files.CONFIG).is_file():
        raise WeightsError(
            f"no config.json in the folder {path.parent.name!r}",
            hint="hf: takes folders as transformers saves them, or open_clip's with open_clip_config.json",
        )
    return config or {}


SPEC = Spec(
    card=CARD,
    load=_load,
    family=True,
    members=tuple(model.card for model in MODELS.values()),
)
