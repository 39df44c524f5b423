"""``timm:ORG/NAME``: model folders of timm, from the hub or from a local folder; ``timm:ARCH`` with a weights file.

The network is what the folder's ``config.json`` names (``architecture``, ``model_args``), completed by what the
model's card hands to ``timm.create_model`` (`pathology`). The preprocessing is the folder's ``pretrained_cfg``, or the
card's, or what is stated as options; timm would silently take the defaults of ImageNet, here the folder is refused.

* ``timm:MahmoodLab/UNI2-h`` is a repository of the hub; ``--weights`` a folder, or a file, that holds it.
* ``timm:FOLDER`` is a folder on this machine.
* ``timm:vit_base_patch16_224 --weights FILE`` is a file of that architecture: its preprocessing is stated
  (``mean``, ``std``, ``interpolation``, ``crop_pct``). With a tag, ``timm:vit_base_patch16_224.dino``, it is the tag's.

What the embedding is, is the network's own pooling, or ``pooling=`` of networks that have tokens.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError, WeightsError
from retr.index.machine.home import home
from retr.retrieval.encoders.networks.timm_model import TimmModel
from retr.retrieval.encoders.options import POOLINGS, check_choice, check_folder_name, triple
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.systems.pathology import MODELS
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights import locations
from retr.retrieval.encoders.weights.checkpoints import WeightFile
from retr.retrieval.encoders.weights.untrusted import check_folder, read_json, reading

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from retr.index.encoder import Option
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.encoders.systems.known import Known

CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".tar", ".ckpt")
_CHOICES = {
    "interpolation": ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"),
    "crop_mode": ("center", "squash", "border"),
}
# Before the name of a repository, as cards hand it to ``timm.create_model``.
_HUB = ("hf-hub:", "hf_hub:")
# ``model_type`` of the folders that transformers writes of a model of timm.
WRAPPER = "timm_wrapper"
# What must be said of a model's pictures, by the folder, the card or the user.
STATED = ("mean", "std", "interpolation", "crop_pct")

CARD = Card(
    name="timm:ORG/NAME",
    summary="any model of timm: a hub repository, a folder, or ARCH with a weights file",
    modality="as trained",
    dim=None,
    text=False,
    licence="the checkpoint's",
    source="https://github.com/huggingface/pytorch-image-models",
    files=(
        WeightFile(
            name="ORG/NAME",
            where="the Hugging Face hub (config.json and the weights)",
            folder=True,
            optional=True,
        ),
    ),
)


def _load(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    pooling: str | None = None,
    model_args: str | Mapping[str, Any] | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | str | None = None,
    crop_mode: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load a model of timm.

    Parameters
    ----------
    name
        ``"MahmoodLab/UNI2-h"``, the path of a folder, or an architecture of timm with `weights`.
    weights
        The folder with ``config.json`` and the weights, or the weights file alone.
    pooling
        ``"cls"``, ``"mean"`` (of the patch tokens, registers left out), ``"cls+mean"`` (one after the other) or
        ``"map"`` (the network's attention pooling); None is the network's own, or the model card's.
    model_args
        Further arguments of ``timm.create_model``, as JSON or a mapping: ``{"init_values": 1e-5, "reg_tokens": 4,
        "mlp_layer": "SwiGLUPacked", "act_layer": "silu"}``.
    mean, std
        One number or three, ``"0.48,0.46,0.41"`` or a sequence.
    interpolation
        ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
    crop_pct
        What share of the resized picture's side the network sees, 0.875 or 1.
    crop_mode
        ``"center"`` (shorter side, then centre crop), ``"squash"`` or ``"border"``.
    device, precision
        As in ``load_encoder``.
    """
    if pooling is not None:
        check_choice("pooling", pooling, POOLINGS)
    stated: dict[str, Any] = {
        "mean": triple("mean", mean),
        "std": triple("std", std),
        "interpolation": interpolation,
        "crop_pct": _share(crop_pct),
        "crop_mode": crop_mode,
    }
    for option, known in _CHOICES.items():
        if stated[option] is not None:
            check_choice(option, stated[option], known)
    stated = {key: value for key, value in stated.items() if value is not None}
    name = next((name.removeprefix(one) for one in _HUB if name.startswith(one)), name)
    place = None if weights is None else home(weights)
    shown = name
    if place is None:
        check_folder_name(name, "timm")
        if home(name).is_dir():
            place = home(name)
            shown = place.resolve().name
        if place is not None and _configuration(place).get("architecture") is None:
            missing = "names no architecture of timm" if (place / "config.json").exists() else "is missing"
            raise WeightsError(
                f"config.json in the folder {shown!r} {missing}",
                hint="get the whole folder, or name the architecture: timm:ARCH --weights FILE",
            )
    source = _resolve(shown, place, stated, _arguments(model_args), pooling)
    from retr.retrieval.encoders.networks import timm as timm_network

    with reading(f"'timm:{shown}'", folder=source.checkpoints[0].parent):
        encoder = timm_network.load_timm(source, device=device, precision=precision)
    if place is not None and weights is None:
        locations.remember_files(encoder.info, {"weights": place})
    return encoder


def _resolve(
    name: str, place: Path | None, stated: dict[str, Any], arguments: dict[str, Any], pooling: str | None
) -> TimmModel:
    """Find everything a name, a path and options ask for."""
    known = MODELS.get(name.lower())
    if place is None:
        place = _from_hub(name, known)
    if not place.exists():
        raise WeightsError(
            f"no file or folder at {str(place)!r}, weights of 'timm:{name}'",
            hint="give the folder that holds config.json and the weights, or the weights file",
        )
    folder = place if place.is_dir() else place.parent
    if place.is_dir():
        check_folder(folder)
        config = _configuration(folder)
        checkpoints = _checkpoints(folder, known)
    else:
        checkpoints = [place]
        config = _configuration(folder) if place.name in CHECKPOINTS else {}
    architecture = config.get("architecture") or (known.architecture if known else None)
    tagged: dict[str, Any] = {}
    if architecture is None:
        architecture, tagged = _architecture(name)
    elif not isinstance(architecture, str) or ":" in architecture:
        raise WeightsError(f"config.json in {folder.name!r} names no architecture of timm", hint="get it again")
    own = dict(config.get("pretrained_cfg") or {})
    card = dict(known.preprocess) if known else {}
    fallback = dict(known.fallback) if known else {}
    preprocess = {**fallback, **tagged, **_checked(own, folder), **card, **stated}
    missing = [key for key in STATED if preprocess.get(key) is None]
    if missing:
        raise UsageError(
            f"nothing states how pictures are prepared for 'timm:{name}': {', '.join(missing)}",
            hint="put the config.json with its pretrained_cfg beside the weights, or give "
            + ", ".join(f"--set {key}=..." for key in missing),
        )
    options: dict[str, Option] = {
        key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in stated.items()
    }
    if arguments:
        options["model_args"] = json.dumps(arguments, sort_keys=True)
    if pooling is not None:
        options["pooling"] = pooling
    return TimmModel(
        name=name,
        architecture=architecture,
        checkpoints=tuple(checkpoints),
        card=known.card if known else CARD,
        # the card's own arguments complete the folder's, which say the sizes
        arguments={**(known.arguments if known else {}), **(config.get("model_args") or {}), **arguments},
        pretrained=own or tagged,
        preprocess={
            key: preprocess[key] for key in (*STATED, "crop_mode", "input_size") if preprocess.get(key) is not None
        },
        pooling=pooling or (known.pooling if known else None),
        options=options,
        stated_pooling=config.get("global_pool"),
    )


def _configuration(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``, in today's form or in that of before 2023; empty where there is none."""
    config = read_json(folder / "config.json") or {}
    if config.get("model_type", WRAPPER) != WRAPPER:
        raise WeightsError(
            f"{folder.name!r} is a folder of transformers, not of timm", hint="name it hf:ORG/NAME or hf:FOLDER"
        )
    if config and "pretrained_cfg" not in config and "mean" in config:
        config = {"pretrained_cfg": config, "architecture": config.get("architecture")}
    for key in ("pretrained_cfg", "model_args"):
        if not isinstance(config.get(key, {}), dict | None):
            raise WeightsError(f"config.json in {folder.name!r} has a {key} that is no object", hint="get it again")
    return config


def _checked(own: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a folder's ``pretrained_cfg``, of which what decides the pictures is well formed.

    timm believes it: a share that is too small fills the memory, a mode that it does not know is another.
    """
    checks: dict[str, Callable[[Any], object]] = {
        "mean": lambda value: triple("mean", value),
        "std": lambda value: triple("std", value),
        "crop_pct": _share,
        "input_size": _size,
        **{key: partial(_known, key) for key in _CHOICES},
    }
    for key, check in checks.items():
        if own.get(key) is None:
            continue
        try:
            own = {**own, key: check(own[key])}
        except UsageError as error:
            raise WeightsError(
                f"config.json in {folder.name!r} states {key} {own[key]!r}: {error.message}", hint="get it again"
            ) from error
    return own


def _known(option: str, value: Any) -> str:
    check_choice(option, value, _CHOICES[option])
    return str(value)


def _size(value: Any) -> tuple[int, ...]:
    if not (isinstance(value, list | tuple) and len(value) == 3 and all(type(n) is int and n > 0 for n in value)):
        raise UsageError("three whole numbers are wanted: channels, height, width")
    return tuple(value)


def _checkpoints(folder: Path, known: Known | None) -> list[Path]:
    if found := files.weight_files(folder, (*CHECKPOINTS, *(known.files if known else ()))):
        return found
    raise WeightsError(f"no weights in the folder {folder.name!r}", hint=f"it should hold {' or '.join(CHECKPOINTS)}")


def _architecture(name: str) -> tuple[str, dict[str, Any]]:
    """Read ``ARCH`` or ``ARCH.TAG``: the architecture, and the tag's preprocessing."""
    if "/" in name:
        raise WeightsError(
            f"nothing names the architecture of 'timm:{name}'",
            hint="put its config.json beside the weights, or name the architecture: timm:ARCH --weights FILE",
        )
    from retr.retrieval.encoders.networks import timm as timm_network

    return timm_network.architecture(name)


def _from_hub(name: str, known: Known | None) -> Path:
    """Find a repository's folder: in ``RETR_WEIGHTS``, in the hub's cache, else fetched."""
    repository = name if "/" in name else f"timm/{name}"
    where = f"https://huggingface.co/{repository} (some models want their licence accepted there first)"
    wanted = [WeightFile(name, where, folder=True)]
    if known:
        wanted += [WeightFile(f"{name}/{file}", where) for file in known.files]
    wanted += [
        WeightFile(name, where, hub=repository, hub_files=("config.json", file), folder=True) for file in CHECKPOINTS
    ]
    if known:
        wanted += [WeightFile(file, where, hub=repository) for file in known.files]
    problem: WeightsError | None = None
    for network in (False, True):
        for one in wanted:
            try:
                return files.find(one, encoder="timm", network=network)
            except WeightsError as error:
                problem = problem or error
    assert problem is not None
    raise problem


def _share(value: float | str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number <= 1:
        raise UsageError(f"crop_pct is a share, above 0 and up to 1, got: {value!r}", hint="for example 0.875")
    return number


def _arguments(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        found = json.loads(given) if isinstance(given, str) else dict(given or {})
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"model_args is a JSON object, got: {given!r}", hint="""for example '{"init_values": 1e-5}'""")
    return found


SPEC = Spec(card=CARD, load=_load, family=True, members=tuple(model.card for model in MODELS.values() if model.timm))
