"""MedImageInsight: DaViT over pixels, a transformer over CLIP's tokens; each projected and brought to unit length."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from retr.index.errors import WeightsError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.preprocess import table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.towers.davit import DaViT
from retr.retrieval.encoders.weights.checkpoints import digest, load_state_dict, load_strictly
from retr.retrieval.encoders.weights.fitting import CheckpointContents
from retr.retrieval.encoders.weights.untrusted import config_digest, reading, sealed, tokenizer_digest
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()

import transformers  # noqa: E402
from torchvision import transforms  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card

_TEXTS = 64
_INTERPOLATIONS = {"bilinear": "BILINEAR", "bicubic": "BICUBIC", "nearest": "NEAREST"}
# Names of before, in the order in which the authors' loading replaces them.
_OLDER = {"visual.": "image_encoder.", "text.": "lang_encoder."}
_OLDER_PROJECTIONS = {"vision_projection": "image_projection", "text_projection": "lang_projection"}
_OLDER_BLOCKS = {
    "conv_embeds": "convs",
    "main_blocks": "blocks",
    "0.cpe.0.proj": "spatial_block.conv1.fn.dw",
    "0.attn": "spatial_block.window_attn.fn",
    "0.cpe.1.proj": "spatial_block.conv2.fn.dw",
    "0.mlp": "spatial_block.ffn.fn.net",
    "1.cpe.0.proj": "channel_block.conv1.fn.dw",
    "1.attn": "channel_block.channel_attn.fn",
    "1.cpe.1.proj": "channel_block.conv2.fn.dw",
    "1.mlp": "channel_block.ffn.fn.net",
    "0.norm1": "spatial_block.window_attn.norm",
    "0.norm2": "spatial_block.ffn.norm",
    "1.norm1": "channel_block.channel_attn.norm",
    "1.norm2": "channel_block.ffn.norm",
}


class _Block(nn.Module):
    """A layer of the text side: attention and a perceptron with QuickGELU, each behind its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        # as BERT's: the epsilon is inside the root
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.attn = nn.MultiheadAttention(width, heads)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, width * 4), "c_proj": nn.Linear(width * 4, width)})

    def forward(self, x: Tensor, padding: Tensor | None, causal: Tensor | None) -> Tensor:
        """Map ``(length, n, width)``."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, key_padding_mask=padding, attn_mask=causal, need_weights=False)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + cast("Tensor", self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden)))


class TextTransformer(nn.Module):
    """The text side: tokens to the vector of the first token of the highest number, which ends a text."""

    def __init__(self, words: int, length: int, width: int, layers: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width, eps=1e-12)
        self.causal = causal

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed int64 ``(n, length)`` tokens: ``(n, width)``."""
        x = (self.token_embedding(ids) + self.positional_embedding).permute(1, 0, 2)
        causal = None
        if self.causal:
            causal = torch.full((ids.shape[1], ids.shape[1]), -math.inf, device=ids.device).triu_(1)
        for block in self.resblocks:
            x = block(x, None if self.causal else mask == 0, causal)
        x = self.ln_final(x.permute(1, 0, 2))
        return cast("Tensor", x)[torch.arange(len(x)), ids.argmax(dim=-1)]


class ImageSide(nn.Module):
    """DaViT and the projection."""

    def __init__(self, encoder: DaViT, dim: int) -> None:
        super().__init__()
        self.image_encoder = encoder
        self.image_projection = nn.Parameter(torch.empty(encoder.dim, dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, h, w)``: unit vectors ``(n, dim)``."""
        x = cast("Tensor", self.image_encoder(pixels)) @ self.image_projection
        return cast("Tensor", x / x.norm(dim=-1, keepdim=True))


class TextSide(nn.Module):
    """The text transformer and its projection."""

    def __init__(self, encoder: TextTransformer, width: int, dim: int) -> None:
        super().__init__()
        self.lang_encoder = encoder
        self.lang_projection = nn.Parameter(torch.empty(width, dim))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed tokens: unit vectors ``(n, dim)``."""
        x = self.lang_encoder(ids, mask) @ self.lang_projection
        return cast("Tensor", x / x.norm(dim=-1, keepdim=True))


class MedImageInsightEncoder(TorchEncoder):
    """MedImageInsight.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`.
    text
        The text side, kept in float32.
    tokenizer
        Folder of the tokenizer.
    config
        As ``config.yaml`` has it.
    """

    batch_size = 4

    def __init__(
        self,
        info: EncoderInfo,
        network: ImageSide,
        text: TextSide,
        tokenizer: Path,
        config: Mapping[str, Any],
        *,
        device: str,
        precision: str,
    ) -> None:
        image = config["IMAGE_ENCODER"]
        self._resize, self._crops = _transform(config), bool(config["TEST"]["CENTER_CROP"])
        self.table = table(image["IMAGE_MEAN"], image["IMAGE_STD"])
        self._folder, self._length = tokenizer, int(config["LANG_ENCODER"]["CONTEXT_LENGTH"])
        super().__init__(info, network, device=device, precision=precision)
        self.text = text.eval().requires_grad_(requires_grad=False).to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        with sealed(), reading(f"the tokenizer in {self._folder.name!r}", folder=self._folder):
            return transformers.CLIPTokenizer.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Bring one RGB picture to the network's size: uint8 ``(3, h, w)``."""
        return to_bytes(self._resize(limit_aspect(image) if self._crops else image))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, h, w)``: unit vectors ``(n, dim)``."""
        return cast("Tensor", self.network(pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts, each padded to the model's length, in float32: unit vectors ``(n, dim)``."""
        rows = [np.empty((0, self.info.dim), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS):
            tokens = self._tokenizer(
                list(texts[start : start + _TEXTS]),
                padding="max_length",
                max_length=self._length,
                truncation=True,
                return_tensors="pt",
            )
            parts = (tokens[name].to(self.device) for name in ("input_ids", "attention_mask"))
            rows.append(self.text(*parts).cpu().numpy())
        return np.concatenate(rows)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts with the marks of beginning and end, and how many of them are read."""
        with sealed():
            counts = [len(ids) for ids in self._tokenizer(list(texts))["input_ids"]]
        return [(count, min(count, self._length)) for count in counts]


def _transform(config: Mapping[str, Any]) -> Any:
    width, height = config["IMAGE_ENCODER"]["IMAGE_SIZE"]
    mode = getattr(transforms.InterpolationMode, _INTERPOLATIONS[config["AUG"]["INTERPOLATION"]])
    if config["TEST"]["CENTER_CROP"]:
        resize = transforms.Resize(int(width / 0.875), interpolation=mode)
        return transforms.Compose([resize, transforms.CenterCrop(width)])
    return transforms.Resize((height, width), interpolation=mode)


def load_medimageinsight(
    folder: Path, file: Path, tokenizer: Path, config: Mapping[str, Any], card: Card, *, device: str, precision: str
) -> MedImageInsightEncoder:
    """Build the networks that ``config.yaml`` describes, load the weights strictly, and make the encoder."""
    where = f"config.yaml in {folder.name!r}"
    contents = CheckpointContents([file])
    contents.require_depth({key.lower(): value for key, value in _flat(config)}, where)
    image, lang = config["IMAGE_ENCODER"], config["LANG_ENCODER"]
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    state = {_name(key): value for key, value in unwrapped.state.items()}
    try:
        words = int(state["lang_encoder.token_embedding.weight"].shape[0])
        dim, width = int(config["UNICL_MODEL"]["DIM_PROJECTION"]), int(lang["WIDTH"])
        with contents.bounding(where):
            network = ImageSide(DaViT.from_config(image["SPEC"]), dim)
            text = TextTransformer(
                words,
                int(lang["CONTEXT_LENGTH"]),
                width,
                int(lang["LAYERS"]),
                int(lang["HEADS"]),
                causal=bool(lang.get("AUTOGRESSIVE", True)),
            )
            texts = TextSide(text, width, dim)
    except KeyError as error:
        raise WeightsError(f"{where}, or {file.name!r}, has no {error}", hint="get the folder again") from error
    whole = nn.Module()
    whole.logit_scale = nn.Parameter(torch.ones([]))
    parts = ("image_encoder", "image_projection"), ("lang_encoder", "lang_projection")
    for side, names in zip((network, texts), parts, strict=True):
        for name in names:
            setattr(whole, name, getattr(side, name))
    load_strictly(whole, state, file=file.name)
    info = card.info(
        dim=dim,
        similarity="cosine",
        text=True,
        weights_sha256=digest(file),
        config_sha256=config_digest({key: config[key] for key in ("IMAGE_ENCODER", "LANG_ENCODER", "UNICL_MODEL")}),
        text_sha256=tokenizer_digest(tokenizer),
        preprocessing=_describe(config),
        logit_scale=float(state["logit_scale"].float().exp()),
    )
    encoder = MedImageInsightEncoder(info, network, texts, tokenizer, config, device=device, precision=precision)
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _name(key: str) -> str:
    """Return today's name of a tensor."""
    for old, new in _OLDER.items():
        if key.startswith(old):
            key = new + key.removeprefix(old)
    key = _OLDER_PROJECTIONS.get(key, key)
    if key.startswith("image_encoder."):
        for old, new in _OLDER_BLOCKS.items():
            key = key.replace(old, new)
    return key


def _describe(config: Mapping[str, Any]) -> str:
    image, interpolation = config["IMAGE_ENCODER"], config["AUG"]["INTERPOLATION"]
    how = "short side and centre crop" if config["TEST"]["CENTER_CROP"] else "aspect not kept"
    width, height = image["IMAGE_SIZE"]
    mean, std = (",".join(f"{value:g}" for value in image[key]) for key in ("IMAGE_MEAN", "IMAGE_STD"))
    return f"{width}x{height} {interpolation} ({how}); /255; mean {mean} std {std}"


def _flat(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the entries of a configuration at any depth."""
    out: list[tuple[str, Any]] = []
    for key, value in config.items():
        out += _flat(value) if isinstance(value, dict) else [(str(key), value)]
    return out
