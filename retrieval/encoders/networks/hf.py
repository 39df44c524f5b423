"""The network of an `hf` encoder: a transformers model, loaded strictly, pooled as its family is."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch

from retr.index.errors import NoTextSideError, UsageError, WeightsError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.tensorflow_resize import resize_bilinear
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights.checkpoints import WeightFile
from retr.retrieval.encoders.weights.fitting import CheckpointContents
from retr.retrieval.encoders.weights.untrusted import (
    TOKENIZER,
    check_folder,
    first_line,
    has_tokenizer,
    read_json,
    reading,
    sealed,
    tokenizer_digest,
)

ensure_torchvision()

import transformers  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import Option
    from retr.retrieval.encoders.spec import Card

_TEXTS = 64
# Of prepared pictures: a network that takes larger ones would not run on any machine.
_SIDE = 8192
# What a checkpoint may hold beyond the encoder: heads it was trained or fine-tuned with, and the buffer that
# transformers before 4.31 saved.
_NO_CLS = {"siglip", "siglip2"}
_DROPPED = ("decoder.", "mask_token", "classifier.", "position_ids", "pooler.dense.")


class ImageSide(torch.nn.Module):
    """The image side of a model: pixels to the embedding and, beside it, the patch tokens."""

    def __init__(self, model: Any, family: str, pooling: str | None) -> None:
        super().__init__()
        self.family, self.pooling = family, pooling
        self.body = model.vision_model if hasattr(model, "vision_model") else model
        self.projection = getattr(model, "visual_projection", None)
        self.prefix = 0 if family in _NO_CLS else 1 + int(getattr(model.config, "num_register_tokens", 0) or 0)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed pixels: ``(n, dim)``, and the tokens after the final norm ``(n, k, width)``."""
        if self.family == "siglip2":
            output = self.body(**_unpack(pixels))
        elif self.family == "vit_mae":
            # nothing is masked; ascending noise keeps the patches in their order
            patches = self.body.embeddings.position_embeddings.shape[1] - 1
            noise = torch.arange(patches, device=pixels.device).expand(len(pixels), -1)
            output = self.body(pixels, noise=noise)
        else:
            output = self.body(pixels)
        tokens = output.last_hidden_state
        if self.pooling not in {None, "map"}:
            patches = tokens[:, self.prefix :]
            pooled = {"cls": tokens[:, :1], "mean": patches.mean(1, keepdim=True)}
            return torch.cat([pooled[kind][:, 0] for kind in self.pooling.split("+")], dim=-1), patches
        pooled = output.pooler_output
        if self.projection is not None:
            pooled = self.projection(pooled)
        return pooled, tokens


class HfEncoder(TorchEncoder):
    """A model folder of transformers, images and, where there is one, its text side; nothing is normalised."""

    def __init__(
        self,
        name: str,
        folder: Path,
        family: str,
        checkpoints: Sequence[Path],
        *,
        card: Card,
        config_sha256: str,
        text_model: Path | None,
        hub: str | None,
        pooling: str | None,
        own_pooling: str | None,
        transform: dict[str, Any],
        resize: str | None,
        own_resize: str | None,
        device: str,
        precision: str,
    ) -> None:
        self._name, self._tokenizer_locations = name, (text_model, folder, hub)
        self._model = _read_model(folder, family, checkpoints)
        self._processor = CardTransform(transform) if transform else _read_processor(folder)
        self._squashes = {"height", "width"} <= (_settings(self._processor).get("size") or {}).keys()
        words = text_model or folder
        chosen = pooling or own_pooling
        # texts lie beside the family's own pooling
        text = hasattr(self._model, "get_text_features") and chosen in {None, "map"}
        given = {"pooling": pooling, "resize": resize}
        options: dict[str, Option] = {key: value for key, value in given.items() if value is not None}
        self._first = _first_size(self._processor, name) if (resize or own_resize) == "tensorflow" else None
        info = card.info(
            name=f"hf:{name}",
            dim=_dim(self._model.config, family) * (2 if chosen == "cls+mean" else 1),
            similarity="cosine",
            text=text,
            weights_sha256=files.digest(*checkpoints),
            config_sha256=config_sha256,
            # the class of a tokenizer may follow from the configuration beside it
            text_sha256=tokenizer_digest(words, "config.json") if text and has_tokenizer(words) else None,
            preprocessing=("TensorFlow's bilinear, truncated; " if self._first else "") + _describe(self._processor),
            options=options,
            source=f"https://huggingface.co/{name}",
            logit_scale=float(self._model.logit_scale.exp()) if hasattr(self._model, "logit_scale") else None,
            # what is not smoothed takes its pixels from the whole picture
            draft_size=None if self._first else 2 * _largest(self._processor),
        )
        if info.draft_size is not None and info.draft_size > 2 * _SIDE:
            raise WeightsError(
                f"the image processor of {folder.name!r} makes pictures of more than {_SIDE} pixels a side",
                hint="is it the image processor of these weights?",
            )
        super().__init__(info, ImageSide(self._model, family, chosen), device=device, precision=precision)
        if text:
            # the image side runs as `network`, perhaps in another precision: keep one
            self._model.vision_model = None
            self._model.to(self.device)
        else:
            self._model = None

    @cached_property
    def _tokenizer(self) -> Any:
        return _read_tokenizer(self._name, _find_tokenizer(self._name, *self._tokenizer_locations))

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Run the folder's image processor on one RGB picture.

        float32 ``(3, h, w)``; of SigLIP 2 with its own aspect ``(patches, values + 3)``: a patch's pixels, whether it
        is one, and the height and width of the grid.
        """
        if self._first is not None:
            image = PIL.Image.fromarray(resize_bilinear(np.asarray(image), *self._first).astype(np.uint8))
        # what crops would first scale a picture one pixel wide to gigabytes; what squashes would not
        inputs = self._processor(images=image if self._squashes else limit_aspect(image), return_tensors="np")
        pixels = np.asarray(inputs["pixel_values"][0], dtype=np.float32)
        if "spatial_shapes" not in inputs:
            return pixels
        mask = np.asarray(inputs["pixel_attention_mask"][0], dtype=np.float32)[:, None]
        shape = np.broadcast_to(np.asarray(inputs["spatial_shapes"][0], dtype=np.float32), (len(pixels), 2))
        return np.concatenate([pixels, mask, shape], axis=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed prepared pictures: ``(n, dim)``; `WeightsError` where the network takes pictures of another size."""
        try:
            return cast("torch.Tensor", self.network(pixels)[0])
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:
            raise WeightsError(
                f"the pictures that its image processor makes do not fit 'hf:{self._name}': {first_line(error)}",
                hint="is it the image processor of these weights?",
            ) from error

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the folder's tokenizer, padded to the model's length, in float32: ``(n, dim)``."""
        if self._model is None:
            raise NoTextSideError(f"encoder {self.info.name!r} embeds images only", hint="query with an image")
        rows = [np.empty((0, self.info.dim), dtype=np.float32)]
        with reading(f"the text side of {self.info.name!r}"):
            rows += [self._embed(texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS)]
        return np.concatenate(rows)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        with sealed(), reading(f"the text side of {self.info.name!r}"):
            ids = self._tokenizer(self._said(texts))["input_ids"]
        return [(len(row), min(len(row), self._length)) for row in ids]

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        inputs = self._tokenizer(
            self._said(texts), padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        # SigLIP was trained without a mask over the padding
        names = ("input_ids",) if self._siglip else ("input_ids", "attention_mask")
        output = self._model.get_text_features(**{name: inputs[name].to(self.device) for name in names})
        return cast("NDArray[np.float32]", getattr(output, "pooler_output", output).float().cpu().numpy())

    def _said(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._siglip else list(texts)

    @property
    def _siglip(self) -> bool:
        return str(self._model.config.model_type).startswith("siglip")

    @property
    def _length(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Return the patch tokens after the final norm ``(h, w, dim)``, where the embedding pools exactly these."""
        if self.network.pooling not in {"cls", "mean"} or self.network.prefix == 0:
            return None
        patches = self.network(pixels)[1][0]
        stride = round((pixels.shape[-1] * pixels.shape[-2] / len(patches)) ** 0.5)
        grid = (pixels.shape[-2] // stride, pixels.shape[-1] // stride)
        return cast("torch.Tensor", patches.reshape(*grid, -1))


class CardTransform:
    """The transform that a model's card states in torchvision's terms, in the form of an image processor.

    Parameters
    ----------
    stated
        What ``timm.data.create_transform`` takes, which makes torchvision's; pictures of 224 x 224 come out.
    """

    def __init__(self, stated: dict[str, Any]) -> None:
        from timm.data import create_transform

        self._stated = stated
        self._transform = create_transform(input_size=(3, 224, 224), **stated, is_training=False)

    def __call__(self, images: PIL.Image.Image, **_: Any) -> dict[str, Any]:
        """Prepare one RGB picture: ``pixel_values`` float32 ``(1, 3, 224, 224)``."""
        return {"pixel_values": self._transform(images).numpy()[None]}

    def to_json_string(self) -> str:
        """Return what is stated, in the words of transformers' image processors."""
        shown: dict[str, Any] = {"size": {"shortest_edge": 224}, "crop_size": 224}
        shown |= {"resample": self._stated["interpolation"], "rescale_factor": 1 / 255}
        shown |= {"image_mean": list(self._stated["mean"]), "image_std": list(self._stated["std"])}
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        return json.dumps(shown | dict.fromkeys(steps, True))


def _unpack(packed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Take apart what `HfEncoder.prepare` packed for SigLIP 2."""
    return {
        "pixel_values": packed[..., :-3],
        "pixel_attention_mask": packed[..., -3].to(torch.int64),
        "spatial_shapes": packed[:, 0, -2:].round().to(torch.int64),
    }


def _read_model(folder: Path, family: str, checkpoints: Sequence[Path]) -> Any:
    """Load a model strictly from a folder, in float32."""
    where = f"config.json in {folder.name!r}"
    contents = CheckpointContents(checkpoints)
    contents.require_depth(read_json(folder / "config.json") or {}, where)
    with sealed(), reading(f"the folder {folder.name!r}", folder=folder), contents.bounding(where):
        model, report = transformers.AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=checkpoints[0].suffix == ".safetensors",
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the other differences
            **({"mask_ratio": 0.0} if family == "vit_mae" else {"add_pooling_layer": False} if family == "vit" else {}),
        )
    left = [key for key in report["unexpected_keys"] if not any(part in key for part in _DROPPED)]
    reshaped = [str(key[0]) for key in report["mismatched_keys"]]
    for word, keys in (("missing", report["missing_keys"]), ("unknown", left), ("of another shape", reshaped)):
        if keys:
            raise WeightsError(
                f"the weights in {folder.name!r} do not fit config.json: {len(keys)} {word} ({min(keys)}, ...)",
                hint="is it a folder of this family, saved by transformers?",
            )
    return model.eval().requires_grad_(requires_grad=False)


def _read_processor(folder: Path) -> Any:
    with sealed(), reading(f"the image processor of {folder.name!r}", folder=folder):
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )


def _find_tokenizer(name: str, text_model: Path | None, folder: Path, hub: str | None) -> Path:
    """Find the tokenizer's folder: the one given, else the model's, else what the hub has under the model's name."""
    if text_model is not None and not has_tokenizer(text_model):
        raise WeightsError(
            f"no tokenizer in {str(text_model)!r}, text_model of 'hf:{name}'",
            hint="give the folder that holds tokenizer.json, or vocab.txt",
        )
    place = text_model or folder
    if has_tokenizer(place):
        return place
    where = f"https://huggingface.co/{name}"
    try:
        wanted = WeightFile(name, where, "text_model", hub=hub, hub_any=TOKENIZER, folder=True)
        return files.find(wanted, encoder=f"hf:{name}")
    except WeightsError as error:
        raise WeightsError(
            f"the tokenizer of 'hf:{name}' is not on this machine",
            hint=f"get its files from {where} and pass text_model=FOLDER (--text-model FOLDER)",
        ) from error


def _read_tokenizer(name: str, folder: Path) -> Any:
    check_folder(folder)
    with sealed(), reading(f"the tokenizer of 'hf:{name}'", folder=folder):
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _dim(config: Any, family: str) -> int:
    if family in {"clip", "metaclip_2", "chinese_clip"}:
        return int(config.projection_dim)
    if family.startswith("siglip"):
        return int(config.vision_config.hidden_size)
    return int(config.hidden_sizes[-1] if family in {"dinov3_convnext", "convnext"} else config.hidden_size)


def _settings(processor: Any) -> dict[str, Any]:
    """Return what the processor does, as plain values; only the steps that are on."""
    stated = json.loads(processor.to_json_string())
    on = {
        "do_resize": ("size", "resample"),
        "do_center_crop": ("crop_size",),
        "do_pad": ("pad_size",),
        "do_rescale": ("rescale_factor",),
        "do_normalize": ("image_mean", "image_std"),
    }
    keys = [key for step, parts in on.items() if stated.get(step) for key in parts]
    keys += ["patch_size", "max_num_patches"] if "max_num_patches" in stated else []
    return {key: stated[key] for key in keys if stated.get(key) is not None}


def _describe(processor: Any) -> str:
    return "RGB, transformers (Pillow): " + json.dumps(_settings(processor), sort_keys=True)


def _first_size(processor: Any, name: str) -> tuple[int, int]:
    """Return the height and width that a processor squashes pictures to."""
    size = _settings(processor).get("size") or {}
    if not {"height", "width"} <= size.keys():
        raise UsageError(
            f"the image processor of 'hf:{name}' states no height and width to resize to", hint="use resize=processor"
        )
    return int(size["height"]), int(size["width"])


def _largest(processor: Any) -> int:
    settings = _settings(processor)
    sizes = [settings[key] for key in ("size", "crop_size", "pad_size") if key in settings]
    numbers = [value for size in sizes for value in (size.values() if isinstance(size, dict) else [size]) if value]
    if "max_num_patches" in settings:
        # the grid is at most all patches in a row; a square one is what decides how sharp the picture is
        numbers.append(int(settings["max_num_patches"] ** 0.5 * 4 * settings.get("patch_size", 16)))
    return int(max(numbers, default=512))
