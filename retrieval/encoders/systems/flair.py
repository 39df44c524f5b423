"""FLAIR: ResNet-50 and Bio_ClinicalBERT, trained on 38 open retinal datasets with expert descriptions.

Reads ``flair_resnet.pth`` and the hub form (``model.safetensors`` beside its ``config.json``). A picture is fitted
into the top left of a black 512 x 512 canvas, aspect kept, and is not normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError
from retr.index.machine.home import home
from retr.retrieval.encoders.options import check_choice, local, together
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import read_json, reading

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from retr.retrieval.encoders.base import BaseEncoder

BIO_CLINICAL_BERT = WeightFile(
    name="Bio_ClinicalBERT",
    where="https://huggingface.co/emilyalsentzer/Bio_ClinicalBERT (config.json and vocab.txt)",
    option="text_model",
    hub="emilyalsentzer/Bio_ClinicalBERT",
    hub_files=("config.json", "vocab.txt"),
    folder=True,
    optional=True,
)
_WHERE = "https://huggingface.co/jusiro2/FLAIR, or flair_resnet.pth as linked from https://github.com/jusiro/FLAIR"
_FLAT = WeightFile(name="flair_resnet.pth", where=_WHERE, optional=True)
_HUB = WeightFile(
    name="FLAIR", where=_WHERE, hub="jusiro2/FLAIR", hub_files=("config.json", "model.safetensors"), folder=True
)

CARD = Card(
    name="flair",
    summary="ResNet-50 and Bio_ClinicalBERT, 38 open retinal datasets with expert descriptions",
    modality="fundus",
    dim=512,
    text=True,
    licence="Apache-2.0",
    source="https://github.com/jusiro/FLAIR",
    files=(_HUB, _FLAT, BIO_CLINICAL_BERT),
    parameters=24_556_608,
)
_HUB_CHECKPOINT = "model.safetensors"
# What the authors' class does when no configuration is stored: flair_resnet.pth has none.
_PUBLISHED: dict[str, Any] = {
    "vision_type": "resnet_v1",
    "image_size": 512,
    "caption": "A fundus photograph of [CLS]",
    "projection": True,
    "norm_features": True,
}


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    feature: str = "projected",
    text_batching: str = "single",
    template: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load FLAIR.

    Parameters
    ----------
    weights
        ``flair_resnet.pth``, ``model.safetensors`` with ``config.json`` beside it, or a folder with either.
    text_model
        Folder of Bio_ClinicalBERT with ``config.json`` and ``vocab.txt``; needed for texts only.
    feature
        ``"projected"`` (512-d, beside the texts) or ``"backbone"`` (2048-d, images only).
    text_batching
        ``"single"`` or ``"reference"`` (pad the texts of one call together, as the authors do).
    template
        What a text is put into in place of ``[CLS]``; the default is the checkpoint's caption, ``"[CLS]"`` leaves
        texts alone.
    device, precision
        As in ``load_encoder``.
    """
    check_choice("feature", feature, ("projected", "backbone"))
    file = _checkpoint(weights)
    config: dict[str, Any] = _PUBLISHED | (
        _read_config(file.with_name("config.json")) if file.suffix == ".safetensors" else {}
    )
    if config["vision_type"] not in {"resnet_v1", "resnet_v2"} or not config["projection"]:
        raise WeightsError(
            f"config.json asks for vision_type {config['vision_type']!r} with projection {config['projection']!r}",
            hint="only the published resnet_v1 and resnet_v2 with projection are supported",
        )
    from retr.retrieval.encoders.networks.flair import load_flair

    with reading(f"the checkpoint {file.name!r}"):
        return load_flair(
            file,
            local(text_model),
            card=CARD,
            text_file=BIO_CLINICAL_BERT,
            config=config,
            feature=feature,
            together=together(text_batching),
            template=template,
            device=device,
            precision=precision,
        )


def _checkpoint(weights: str | os.PathLike[str] | None, *, network: bool = True) -> Path:
    """Find the checkpoint in either form; the flat file first, as only a person can have put it there."""
    if weights is not None:
        given = home(weights)
        hub_form = given / _HUB_CHECKPOINT
        if hub_form.is_file() and not (given / _FLAT.name).is_file():
            return hub_form
        return find(_FLAT, given, encoder=CARD.name)
    try:
        return find(_FLAT, encoder=CARD.name, network=False)
    except WeightsError:
        return find(_HUB, encoder=CARD.name, network=network) / _HUB_CHECKPOINT


def _available() -> bool:
    try:
        return _checkpoint(None, network=False).is_file()
    except WeightsError:
        return False


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if config is None:
        raise WeightsError(
            f"no config.json beside {_HUB_CHECKPOINT!r}",
            hint="the hub form needs both files in one folder; flair_resnet.pth needs none",
        )
    return {key: config[key] for key in _PUBLISHED if key in config}


SPEC = Spec(card=CARD, load=_load, available=_available)
