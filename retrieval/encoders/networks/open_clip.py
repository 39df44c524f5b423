"""The network of an `open_clip` encoder: built from its configuration, loaded strictly, run as open_clip runs it."""

from __future__ import annotations

import copy
import difflib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.base import LONGEST_ASPECT, limit_aspect
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.towers.open_clip_text import (
    OPTIONS,
    config_folder,
    count_tokens,
    described,
    make_tokenizer,
    tokenized,
)
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights.checkpoints import WeightFile
from retr.retrieval.encoders.weights.fitting import CheckpointContents
from retr.retrieval.encoders.weights.open_clip_files import (
    CHECKPOINTS,
    CONFIG,
    HUB,
    ResolvedModel,
    find_checkpoint,
    from_hub,
)
from retr.retrieval.encoders.weights.untrusted import (
    check_folder,
    check_repository,
    read_json,
    reading,
    refuse_adapter,
    sealed,
)
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()

import open_clip  # noqa: E402
from open_clip.factory import convert_state_dict, convert_to_custom_text_state_dict  # noqa: E402
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo, Option
    from retr.retrieval.encoders.spec import Card

_STATED = ("mean", "std", "interpolation", "resize_mode")
# Kept by transformers before 4.31; the network has no place for it.
_DROPPED = ("text.transformer.embeddings.position_ids",)
_TEXTS = 64
# Of a text: the mask over its tokens is made before the weights are looked at.
_LONGEST = 8192
_PARTS = ("vision_cfg", "text_cfg")


class OpenClipEncoder(TorchEncoder):
    """An open_clip model: `visual` embeds pictures, the model its texts; neither is normalised."""

    def __init__(
        self, source: ResolvedModel, info: EncoderInfo, *, text_model: Path | None, device: str, precision: str
    ) -> None:
        self._source, self._text_model = source, text_model
        self._model, taken = _build(source, text_model)
        config = merge_preprocess_dict(source.preprocess, {"size": self._model.visual.image_size})
        self._transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
        size = config["size"]
        shorter = size if isinstance(size, int) else min(size)
        # Where the longer side is scaled to the network's, less than half a pixel would be left of a shorter one.
        self._aspects = {"longest": 2 * shorter - 2, "squash": None}.get(config["resize_mode"], LONGEST_ASPECT)
        info = replace(
            info,
            dim=int(source.model["embed_dim"]),
            preprocessing=_describe(PreprocessCfg(**config)),
            logit_scale=float(self._model.logit_scale.exp()),
            draft_size=2 * (size if isinstance(size, int) else max(size)),
        )
        self.prepare(picture())  # a transform that cannot prepare pictures shows here
        super().__init__(info, self._model.visual, device=device, precision=precision)
        self.notes += taken
        left_out = sorted((source.model["text_cfg"].get("tokenizer_kwargs") or {}).keys() - set(OPTIONS))
        if left_out:
            self.notes.append(f"its configuration gives the tokenizer {', '.join(map(repr, left_out))}: not passed on")
        # one image side only: the model's own is the one that runs
        self._model.visual = self.network
        self._model.to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        return make_tokenizer(self._source, self._text_model)

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Run the checkpoint's evaluation transform on one RGB picture: float32 ``(3, h, w)``."""
        image = image if self._aspects is None else limit_aspect(image, self._aspects)
        return cast("NDArray[np.float32]", self._transform(image).numpy())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``."""
        output = self.network(pixels)
        return cast("torch.Tensor", output[0] if isinstance(output, tuple) else output)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the model's tokenizer and text side in float32: ``(n, dim)``."""
        rows = [np.empty((0, self.info.dim), dtype=np.float32)]
        with reading(f"the text side of {self.info.name!r}"):
            for start in range(0, len(texts), _TEXTS):
                tokens = self._tokenizer(list(texts[start : start + _TEXTS])).to(self.device)
                rows.append(self._model.encode_text(tokens).float().cpu().numpy())
        return np.concatenate(rows)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        with reading(f"the text side of {self.info.name!r}"):
            return count_tokens(self._tokenizer, texts)

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Project the last layer's patch tokens as the pooled one is: ``(h, w, dim)``; None for other towers."""
        visual = self.network
        if not isinstance(visual, open_clip.transformer.VisionTransformer) or visual.attn_pool is not None:
            return None
        tokens = visual.ln_post(visual.transformer(visual._embeds(pixels)))[:, 1:]
        projected = tokens if visual.proj is None else tokens @ visual.proj
        return cast("torch.Tensor", projected[0].reshape(*visual.grid_size, -1))


def load_open_clip(
    model: str,
    weights: Path | None,
    *,
    card: Card,
    text_model: Path | None,
    stated: dict[str, Any],
    device: str,
    precision: str,
) -> OpenClipEncoder:
    """Find everything a name and its options ask for, and load it."""
    with reading(f"'open_clip:{model}'", folder=weights):
        source = _resolve(model, weights, stated)
        options: dict[str, Option] = {
            key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in stated.items()
        }
        info = card.info(
            name=f"open_clip:{model}",
            dim=0,
            similarity="cosine",
            text=True,
            weights_sha256=files.digest(source.checkpoint),
            config_sha256=described(source, text_model),
            text_sha256=tokenized(source, text_model),
            preprocessing="",
            options=options,
            source=source.where,
        )
        return OpenClipEncoder(source, info, text_model=text_model, device=device, precision=precision)


def _resolve(model: str, weights: Path | None, stated: dict[str, Any]) -> ResolvedModel:
    """Turn a name, a path and the stated preprocessing into one `ResolvedModel`."""
    if model.startswith(HUB):
        repository = model.removeprefix(HUB)
        folder = weights or from_hub(repository)
        source = _from_path(repository, folder, stated, f"https://huggingface.co/{repository}")
        return replace(source, hub=weights is None)
    architecture, _, tag = model.partition("/")
    if not tag:
        weights = weights or _own_folder(architecture)
        if weights is None:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none published"
            raise UsageError(
                f"'open_clip:{model}' names no weights",
                hint=f"say open_clip:{model}/TAG ({tags}) or give weights=FILE",
            )
        return _from_path(architecture, weights, stated, "a file of the user's")
    table = open_clip.get_pretrained_cfg(architecture, tag)
    config = _model_config(architecture)
    if not table:
        known = open_clip.list_pretrained_tags_by_model(architecture)
        raise UsageError(
            f"open_clip knows no tag {tag!r} of {architecture!r}",
            hint=f"known: {', '.join(known)}" if known else "none is published; give weights=FILE",
        )
    # open_clip only warns where the architecture's activation is not the one the tag was trained with
    config["quick_gelu"] = bool(table.get("quick_gelu", False))
    preprocess = merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), table), stated)
    where = f"https://huggingface.co/{table['hf_hub'].rpartition('/')[0]}" if "hf_hub" in table else table["url"]
    checkpoint = weights or _tag_checkpoint(architecture, tag, table, where)
    if not checkpoint.is_file():
        raise WeightsError(f"no file at {str(checkpoint)!r}, weights of 'open_clip:{model}'", hint=f"see {where}")
    return ResolvedModel(architecture, config, preprocess, checkpoint, None, where, hub=weights is None)


def _own_folder(architecture: str) -> Path | None:
    """Find ``open_clip/MODEL`` in the folder ``RETR_WEIGHTS`` names."""
    wanted = WeightFile(f"open_clip/{architecture}", where="", folder=True)
    try:
        return files.find(wanted, encoder="open_clip", network=False)
    except WeightsError:
        return None


def _from_path(architecture: str, path: Path, stated: dict[str, Any], where: str) -> ResolvedModel:
    """Read a folder or file; the preprocessing is what its configuration or the options state, or it is refused."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        check_folder(folder)
    config = read_json(folder / CONFIG) or {}
    checkpoint = find_checkpoint(path) if path.is_dir() else path
    refuse_adapter(checkpoint)
    _check_configuration(config, folder)
    own = config.get("preprocess_cfg") or {}
    if own.get("mean") is not None and own.get("std") is not None:
        preprocess = merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), own), stated)
    else:
        preprocess = {**own, **stated}
        missing = [key for key in _STATED if preprocess.get(key) is None]
        if missing:
            raise UsageError(
                f"nothing states how pictures are prepared for {checkpoint.name!r}",
                hint=f"put its {CONFIG} (with preprocess_cfg) beside it, or give {', '.join(missing)}",
            )
        preprocess = merge_preprocess_dict(PreprocessCfg(), preprocess)
    model = config.get("model_cfg") or _model_config(architecture)
    return ResolvedModel(architecture, model, preprocess, checkpoint, folder, where)


def _check_configuration(config: dict[str, Any], folder: Path) -> None:
    """Refuse a configuration whose parts are not what they should be, or name anything but a model."""
    where = f"{CONFIG} in {folder.name!r}"
    model = config.get("model_cfg")
    parts = [
        config.get("preprocess_cfg"),
        model,
        *(model[key] for key in _PARTS if isinstance(model, dict) and key in model),
    ]
    if not all(isinstance(part, dict | None) for part in parts) or (model and not all(key in model for key in _PARTS)):
        raise WeightsError(f"{where} is not the configuration of an open_clip model", hint="get it again")
    for part, key in (
        ("vision_cfg", "timm_model_name"),
        ("text_cfg", "hf_model_name"),
        ("text_cfg", "hf_tokenizer_name"),
    ):
        if model and model[part].get(key):
            check_repository(model[part][key], where)


def _model_config(architecture: str) -> dict[str, Any]:
    # a colon would make open_clip look elsewhere for the architecture
    config = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if config is None:
        near = difflib.get_close_matches(architecture, open_clip.list_models(), n=3, cutoff=0.5)
        raise UsageError(
            f"open_clip knows no architecture {architecture!r}",
            hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "see open_clip.list_models()",
        )
    return cast("dict[str, Any]", config)


def _tag_checkpoint(architecture: str, tag: str, table: dict[str, Any], where: str) -> Path:
    """Find a tag's checkpoint: in ``RETR_WEIGHTS``, in the hub's cache, else on the hub."""
    encoder = f"open_clip:{architecture}/{tag}"
    hub, _, name = table.get("hf_hub", "").rpartition("/")
    names = (name,) if name else CHECKPOINTS[:-1]
    for suffix in (".safetensors", ".bin", ".pt", ".pth"):
        own = WeightFile(f"open_clip/{architecture}/{tag}{suffix}", where=where)
        try:
            return files.find(own, encoder=encoder, network=False)
        except WeightsError:
            continue
    for network in (False, True) if hub else ():
        for each in names:
            try:
                return files.find(WeightFile(each, where=where, hub=hub), encoder=encoder, network=network)
            except WeightsError:
                continue
    raise WeightsError(
        f"{encoder!r} is not on this machine, and its place is not in reach",
        hint=f"get {' or '.join(names[:3])} from {where}, then pass weights=FILE (--weights FILE)",
    )


def _build(source: ResolvedModel, text_model: Path | None) -> tuple[Any, list[str]]:
    """Build the network and load its checkpoint strictly; return it, and what was taken off the checkpoint."""
    config = copy.deepcopy(source.model)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
        text["hf_model_name"] = str(config_folder(text["hf_model_name"], source, text_model))
    where = "its configuration"
    contents = CheckpointContents([source.checkpoint])
    contents.require_depth(config, where)
    if "hf_model_name" in text:
        named = Path(text["hf_model_name"])
        contents.require_depth(read_json(named / "config.json") or {}, f"config.json in {named.name!r}")
    if not all(isinstance(n, int) and n <= _LONGEST for n in (text.get("context_length", 1),)):
        raise WeightsError(f"{where} states texts of more than {_LONGEST} tokens", hint="get it again")
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with sealed(), contents.bounding(where):
        model = _network(kind, config)
    unwrapped = unwrap(files.load_state_dict(source.checkpoint), file=source.checkpoint.name)
    state = convert_state_dict(model, unwrapped.state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        if name in state and getattr(model, name, None) is not None:
            state[name] = state[name].reshape(getattr(model, name).shape)
    files.load_strictly(model, state, file=source.checkpoint.name, dropped=_DROPPED)
    return model.eval().requires_grad_(requires_grad=False), unwrapped.notes(source.checkpoint.name)


def _network(kind: Any, config: dict[str, Any]) -> Any:
    """Build the network without drawing the random values that the checkpoint replaces (10 s for a ViT-H).

    That is possible where every buffer is in the checkpoint but the causal mask, which is known.
    """
    if kind is open_clip.CLIP and "timm_model_name" not in config["vision_cfg"]:
        model = files.uninitialised(lambda: kind(**config))
        if {name for name, _ in model.named_buffers()} - model.state_dict().keys() == {"attn_mask"}:
            length = model.attn_mask.shape[0]
            model.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
            return model
    return kind(**config)


def _describe(config: PreprocessCfg) -> str:
    mean, std = (",".join(f"{value:g}" for value in values) for values in (config.mean, config.std))
    sides = {config.size} if isinstance(config.size, int) else dict.fromkeys(config.size)
    size = "x".join(map(str, sides))
    return f"RGB, {config.resize_mode} {size} {config.interpolation} (open_clip), /255, mean {mean}, std {std}"
