"""The network of a `timm` encoder: built from its configuration, loaded strictly, pooled as asked."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.preprocess import table
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights.fitting import CheckpointContents
from retr.retrieval.encoders.weights.untrusted import config_digest, first_line
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()

import timm  # noqa: E402
from timm.data import create_transform  # noqa: E402

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.networks.timm_model import TimmModel

# Layers that a configuration, which is JSON, or a card can only name.
_LAYERS = {name: getattr(timm.layers, name) for name in ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")}
# What timm.create_model takes that is no property of the network: locations, and what loads from them.
_REFUSED = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "device", "dtype"),
    *("features_only", "out_indices", "scriptable", "exportable", "no_jit", "num_classes", "pretrained_model_args"),
)
# Of a configuration: where timm would load the weights from.
_PLACES = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}
# What this timm's configurations hold: a newer one's may say more, of which nothing decides a vector.
_CONFIGURATION = {one.name for one in fields(timm.models.PretrainedCfg)}
# What timm resamples where a network takes pictures of another size.
_POSITIONS = ("pos_embed", "relative_position_bias_table")
_LARGEST = 4096


class Pooled(torch.nn.Module):
    """A network of timm and which of its tokens are the embedding.

    Parameters
    ----------
    body
        Without a classifier.
    pooling
        One of `retr.retrieval.encoders.options.POOLINGS`, or None: the network's own.
    """

    def __init__(self, body: torch.nn.Module, pooling: str | None) -> None:
        super().__init__()
        self.body, self.pooling = body, pooling

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``."""
        if self.pooling is None:
            return cast("torch.Tensor", self.body(pixels))
        body: Any = self.body
        tokens = body.forward_features(pixels)
        if self.pooling == "map":
            return cast("torch.Tensor", body.forward_head(tokens))
        kinds = {"cls": ("token",), "mean": ("avg",), "cls+mean": ("token", "avg")}[self.pooling]
        pooled = [self._finish(tokens[:, 0] if kind == "token" else self.patches(tokens).mean(1)) for kind in kinds]
        return torch.cat(pooled, dim=-1)

    def patches(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens among all: those after CLS and the registers."""
        return tokens[:, int(cast("Any", self.body).num_prefix_tokens) :]

    def _finish(self, pooled: torch.Tensor) -> torch.Tensor:
        """Apply the norm that networks pooled by the mean keep behind the pooling."""
        norm = getattr(self.body, "fc_norm", None)
        return pooled if norm is None else cast("torch.Tensor", norm(pooled))


class TimmEncoder(TorchEncoder):
    """A model of timm; images only.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`.
    preprocess
        What ``timm.data.create_transform`` takes.
    """

    batch_size = 8

    def __init__(
        self, info: EncoderInfo, network: Pooled, preprocess: dict[str, Any], *, device: str, precision: str
    ) -> None:
        # what crops would first scale a picture one pixel wide to gigabytes; what squashes or pads would not
        self._crops = preprocess.get("crop_mode", "center") == "center"
        self._transform = create_transform(**preprocess, is_training=False, normalize=False)
        self.table = table(preprocess["mean"], preprocess["std"])
        super().__init__(info, network, device=device, precision=precision)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize and crop as the model's configuration says: uint8 ``(3, h, w)``."""
        return cast("NDArray[np.uint8]", self._transform(limit_aspect(image) if self._crops else image).numpy())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``; `WeightsError` where the network takes another size."""
        try:
            return cast("torch.Tensor", self.network(pixels))
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"the pictures that its configuration asks for do not fit {self.info.name!r}: {first_line(error)}",
                hint="is it the configuration of these weights?",
            ) from error

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Return the patch tokens after the final norm, where the embedding is one of them or their mean."""
        network = cast("Pooled", self.network)
        body: Any = network.body
        own = {"token": "cls", "avg": "mean"}.get(getattr(body, "global_pool", ""))
        if (network.pooling or own) not in {"cls", "mean"} or not hasattr(body, "num_prefix_tokens"):
            return None
        tokens = body.forward_features(pixels)
        if tokens.ndim != 3:
            return None
        patches = network._finish(network.patches(tokens)[0])
        stride = round((pixels.shape[-1] * pixels.shape[-2] / len(patches)) ** 0.5)
        return patches.reshape(pixels.shape[-2] // stride, pixels.shape[-1] // stride, -1)


def architecture(name: str) -> tuple[str, dict[str, Any]]:
    """Check ``ARCH`` or ``ARCH.TAG``; return the architecture and the preprocessing of the tag, if one is named."""
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3, cutoff=0.5)
        raise UsageError(
            f"timm knows no architecture {arch!r}",
            hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "see timm.list_models()",
        )
    if not tag:
        return arch, {}
    if tag not in timm.list_pretrained(f"{arch}.*") and f"{arch}.{tag}" not in timm.list_pretrained(f"{arch}.*"):
        known = [one.partition(".")[2] for one in timm.list_pretrained(f"{arch}.*")]
        raise UsageError(f"timm knows no tag {tag!r} of {arch!r}", hint=f"known: {', '.join(known) or 'none'}")
    return arch, timm.get_pretrained_cfg(f"{arch}.{tag}").to_dict()


def load_timm(source: TimmModel, *, device: str, precision: str) -> TimmEncoder:
    """Build the network and load its checkpoint strictly."""
    held = {key: value for path in source.checkpoints for key, value in files.load_state_dict(path).items()}
    unwrapped = unwrap(held, file=source.file)
    body = _build(source, unwrapped.state)
    preprocess = _preprocess(source, body)
    network = Pooled(body, _pooling(source, body))
    network.eval().requires_grad_(requires_grad=False)
    info = source.card.info(
        name=f"timm:{source.name}",
        dim=_dim(network),
        similarity="cosine",
        text=False,
        weights_sha256=files.digest(*source.checkpoints),
        config_sha256=config_digest(
            {"architecture": source.architecture}, dict(source.arguments), {"p": network.pooling}
        ),
        preprocessing=_describe(preprocess),
        options=dict(source.options),
        draft_size=2 * max(preprocess["input_size"][-2:]),
    )
    info = replace(info, source=f"https://huggingface.co/{source.name}" if "/" in source.name else info.source)
    encoder = TimmEncoder(info, network, preprocess, device=device, precision=precision)
    encoder.notes += [*unwrapped.notes(source.file), *_changed(source, unwrapped.state, body)]
    return encoder


def _changed(source: TimmModel, state: dict[str, torch.Tensor], body: torch.nn.Module) -> list[str]:
    """Return what timm made of the checkpoint beyond its tensors, a line each."""
    own, said = body.state_dict(), source.stated_pooling
    resampled = [key for key in state if key.endswith(_POSITIONS) and key in own and state[key].shape != own[key].shape]
    lines = [
        f"{source.file!r}: {key} was resampled from {list(state[key].shape)} to {list(own[key].shape)}, as timm does; "
        "where the weights are for pictures of another size, --set model_args='{\"img_size\": N}' says so"
        for key in resampled[:1]
    ]
    pools = getattr(body, "global_pool", None)
    if source.pooling is None and isinstance(pools, str) and said not in {None, "", pools}:
        lines.append(
            f"config.json says global_pool {said!r} beside its model_args, which timm leaves unread: what is embedded "
            f"is {pools!r}; --set pooling= says which"
        )
    return lines


def _build(source: TimmModel, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Make the network, and let timm put its checkpoint's names into its own."""
    if not timm.is_model(source.architecture.partition(".")[0]):
        raise WeightsError(
            f"timm has no architecture {source.architecture!r}", hint="a newer timm may: pip install -U timm"
        )
    where = f"the configuration of {source.name!r}"
    arguments = _layers(dict(source.arguments), where)
    contents = CheckpointContents(source.checkpoints)
    contents.require_depth(arguments, where)
    arch = source.architecture.partition(".")[0]
    classifier = source.pretrained.get("classifier") or timm.get_pretrained_cfg(arch).classifier or "head"
    heads = tuple(f"{one}." for one in ((classifier,) if isinstance(classifier, str) else classifier))
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    # timm's own loading, with its translation of other programs' names; nothing is fetched
    configuration = dict(source.pretrained) or timm.get_pretrained_cfg(arch).to_dict()
    handed = {key: value for key, value in configuration.items() if key in _CONFIGURATION - _PLACES}
    handed |= {"state_dict": state, "num_classes": 0}
    try:
        with contents.bounding(where):
            model = timm.create_model(arch, pretrained=True, pretrained_cfg=handed, num_classes=0, **arguments)
    except RuntimeError as error:
        raise WeightsError(
            f"{source.file!r} does not fit {arch!r}: {_differences(error)}",
            hint="name a model of the hub as timm:ORG/NAME, whose card may hand more to timm.create_model, or say it "
            "with --set model_args='{\"init_values\": 1e-5}'",
        ) from error
    except TypeError as error:
        raise WeightsError(
            f"{where} does not fit {arch!r}: {first_line(error)}", hint="is it the configuration of this architecture?"
        ) from error
    return cast("torch.nn.Module", model)


def _layers(arguments: dict[str, Any], where: str) -> dict[str, Any]:
    refused = sorted(arguments.keys() & set(_REFUSED) - {"num_classes"})
    if refused:
        raise WeightsError(f"{where} states {refused[0]!r}, which is no property of a network", hint="take it out")
    arguments.pop("num_classes", None)
    layer = arguments.get("mlp_layer")
    if layer is not None:
        if not isinstance(layer, str) or layer not in _LAYERS:
            raise WeightsError(f"{where} names an unknown layer {layer!r}", hint=f"known: {', '.join(_LAYERS)}")
        arguments["mlp_layer"] = _LAYERS[layer]
    for key, find in (("act_layer", timm.layers.get_act_layer), ("norm_layer", timm.layers.get_norm_layer)):
        try:
            find(arguments.get(key))
        except (LookupError, TypeError, AttributeError, AssertionError) as error:
            raise WeightsError(
                f"{where} names an unknown {key} {arguments[key]!r}", hint=f"timm.layers.get_{key} says which there are"
            ) from error
    return arguments


def _differences(error: RuntimeError) -> str:
    """Return what differs, of torch's many lines: each kind with its first names."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
    shown = [", ".join(line.split(", ")[:3]) + (", ..." if line.count(", ") > 2 else "") for line in lines[:3]]
    return "; ".join(shown) or first_line(error)


def _preprocess(source: TimmModel, body: torch.nn.Module) -> dict[str, Any]:
    """Complete what is stated by the size of the network's pictures."""
    side = source.arguments.get("img_size")
    size = source.preprocess.get("input_size") or (
        cast("Any", body).pretrained_cfg["input_size"] if side is None else (3, side, side)
    )
    if not (isinstance(size, list | tuple) and len(size) == 3 and all(0 < n <= _LARGEST for n in size)):
        raise WeightsError(
            f"the configuration of {source.name!r} asks for pictures of the size {size!r}", hint="get it again"
        )
    if max(size) > _LARGEST * source.preprocess["crop_pct"]:
        raise WeightsError(
            f"the configuration of {source.name!r} asks for a crop of {source.preprocess['crop_pct']:g} of a picture, "
            f"to the size {size!r}: it would first be scaled to more than {_LARGEST} pixels",
            hint="crop_pct is the share of the side that the network sees, 0.875 or 1",
        )
    return {**source.preprocess, "input_size": tuple(size)}


def _pooling(source: TimmModel, body: torch.nn.Module) -> str | None:
    """Return the pooling, checked against what the network has."""
    asked, own = source.pooling, getattr(body, "global_pool", None)
    if asked is None:
        if own == "":
            raise UsageError(
                f"'timm:{source.name}' pools nothing of its own", hint="say --set pooling=cls, mean or cls+mean"
            )
        return None
    tokens = hasattr(body, "num_prefix_tokens") and callable(getattr(body, "forward_features", None))
    if not tokens:
        raise UsageError(
            f"'timm:{source.name}' has no tokens to pool", hint="leave the pooling out: it has one way only"
        )
    if asked == "map" and getattr(body, "attn_pool", None) is None:
        raise UsageError(f"'timm:{source.name}' has no attention pooling", hint="use cls, mean or cls+mean")
    if "cls" in asked and getattr(body, "cls_token", None) is None:
        raise UsageError(f"'timm:{source.name}' has no CLS token", hint="use mean")
    return asked


def _dim(network: Pooled) -> int:
    body: Any = network.body
    width = int(getattr(body, "head_hidden_size", body.num_features))
    return 2 * width if network.pooling == "cls+mean" else width


def _describe(preprocess: dict[str, Any]) -> str:
    return "RGB, timm: " + json.dumps({**preprocess, "mean": list(preprocess["mean"])}, sort_keys=True)
