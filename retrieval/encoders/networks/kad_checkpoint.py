"""Load KAD's checkpoint: duplicated tensors are compared and loaded once, unused ones are named and dropped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.networks.kad import KadEncoder, KadImage, KnowledgeSide, QueryNetwork
from retr.retrieval.encoders.towers.bert import text_digest
from retr.retrieval.encoders.weights.checkpoints import digest, load_state_dict, load_strictly, uninitialised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from retr.retrieval.encoders.spec import Card
    from retr.retrieval.encoders.weights.checkpoints import WeightFile


def load_kad(
    file: Path,
    knowledge: Path | None,
    text_model: Path | None,
    *,
    card: Card,
    text_file: WeightFile,
    protocol: str,
    resolution: int | None,
    together: bool,
    device: str,
    precision: str,
) -> KadEncoder:
    """Read ``best_valid.pt`` and, if given, ``epoch_latest.pt``, and build the encoder."""
    stored = load_state_dict(file)
    image_state = _without_aliases(_part(stored, "image_encoder", file), _resnet_name, file)
    query_state = _without_aliases(_part(stored, "model", file), _norm_name, file)
    text_state = _part(stored, "text_encoder", file)
    image, queries = _image(image_state, file), _queries(query_state, file)

    files, notes = [file], []
    if knowledge is not None:
        other = _part(load_state_dict(knowledge), "state_dict", knowledge)
        if not _equal(other, text_state):
            files.append(knowledge)
            notes.append(
                f"{knowledge.name!r} differs from the text encoder in {file.name!r}, which the authors' test scripts "
                "use: texts are embedded with the given one"
            )
            text_state = other
    side, doubt = _resolution(stored.get("config"), image.res_l1.in_features, resolution)
    info = card.info(
        dim=image.res_l2.out_features,
        similarity="dot",
        text=True,
        weights_sha256=digest(*files),
        text_sha256=text_digest(text_model, text_file, encoder=card.name),
        preprocessing=_PREPROCESSING[protocol].format(side=side),
        options={"protocol": protocol, "resolution": side},
        grey16="max" if protocol == "padchest" else "minmax",
    )
    text = KnowledgeSide(
        text_state, text_model, wanted=text_file, encoder=card.name, file=files[-1].name, together=together
    )
    encoder = KadEncoder(info, image, queries=queries, text=text, device=device, precision=precision)
    encoder.notes += notes + doubt
    return encoder


_PREPROCESSING = {
    "chexpert": "{side}x{side} bicubic (aspect not kept); /255; mean and std imagenet",
    "nih": "short side to {side} bicubic (ends cut beyond 4:1); /255; mean and std imagenet",
    "padchest": "/ brightest; {side}x{side} bicubic (aspect not kept); /255; mean and std imagenet",
}


def _part(stored: Mapping[str, Any], name: str, file: Path) -> dict[str, Tensor]:
    part = stored.get(name)
    if not isinstance(part, dict):
        raise WeightsError(
            f"{file.name!r} has no {name!r} (it has {', '.join(map(repr, sorted(stored)[:4]))}, ...)",
            hint="is it the file this encoder asks for?",
        )
    return part


def _image(state: Mapping[str, Tensor], file: Path) -> KadImage:
    if not {"res_l1.weight", "res_l2.weight"} <= state.keys():
        raise WeightsError(f"{file.name!r} has no ResNet image encoder", hint="only KAD's ResNet-50 was published")
    dim, channels = state["res_l2.weight"].shape
    image = uninitialised(lambda: KadImage(channels, dim))
    # the ResNet's ImageNet classifier is stored and never run
    load_strictly(image, state, file=file.name, dropped=["resnet.fc.*"])
    return image


def _queries(state: Mapping[str, Tensor], file: Path) -> QueryNetwork:
    layers = {match[1] for key in state if (match := re.match(r"decoder\.layers\.(\d+)\.", key))}
    hidden = state.get("decoder.layers.0.linear1.bias")
    norm = state.get("decoder_norm.weight")
    if hidden is None or norm is None:
        raise WeightsError(f"{file.name!r} has no disease query network", hint="get best_valid.pt as published")
    queries = uninitialised(lambda: QueryNetwork(len(norm), len(layers), len(hidden)))
    load_strictly(queries, state, file=file.name, dropped=["logit_scale"])
    return queries


def _without_aliases(state: Mapping[str, Tensor], own_name: Callable[[str], str], file: Path) -> dict[str, Tensor]:
    """Keep each tensor once, under the name `own_name` gives; copies must be equal."""
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        own = own_name(key)
        if own in kept and not torch.equal(kept[own], value):
            raise WeightsError(
                f"{file.name!r} stores {own!r} twice with different values",
                hint="the file was altered: get it again",
            )
        kept[own] = value
    return kept


def _resnet_name(key: str) -> str:
    """``res_features`` is a Sequential of the ResNet's own children."""
    match = re.fullmatch(r"res_features\.(\d)\.(.*)", key)
    if match is None:
        return key
    child = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    return f"resnet.{child[match[1]]}.{match[2]}" if match[1] in child else key


def _norm_name(key: str) -> str:
    """The decoder's final norm is the one that both inputs pass."""
    return key.replace("decoder.norm.", "decoder_norm.", 1) if key.startswith("decoder.norm.") else key


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    keys = [{key for key in state if not key.endswith("position_ids")} for state in (one, other)]
    return keys[0] == keys[1] and all(torch.equal(one[key], other[key]) for key in keys[0])


def _resolution(config: Any, channels: int, given: int | None) -> tuple[int, list[str]]:
    """Settle the input size: the given one, else the stored one where the network was made for it."""
    trained = 512 if channels == 2048 else 224
    if given is not None:
        return given, []
    stored = config.get("image_res", trained) if isinstance(config, dict) else trained
    # the authors' configuration says 224 whatever their loaders resize to
    if isinstance(stored, int) and stored >= trained and stored % 32 == 0:
        return stored, []
    note = f"the checkpoint says image_res {stored!r}, but its network was made for {trained}: prepared at {trained}"
    return trained, [note]
