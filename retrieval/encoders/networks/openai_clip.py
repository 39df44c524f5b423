"""CLIP in OpenAI's layout, as CheXzero and EyeCLIP save it: sizes from the file, QuickGELU, OpenAI's tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.preprocess import table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights.checkpoints import digest, load_state_dict, load_strictly
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()

import open_clip  # noqa: E402
from torchvision import transforms  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card

_TEXTS = 64
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# CheXzero: the side that pictures are padded to, and the statistics of its training pictures in 0..255.
_PADDED, _CXR_MEAN, _CXR_STD = 320, 101.48761, 83.43944


class OpenAIClipEncoder(TorchEncoder):
    """A CLIP in OpenAI's layout; what its pictures are prepared like is the subclass's.

    Parameters
    ----------
    info, device, precision
        As in `TorchEncoder`.
    model
        Whole; its image side becomes `network`.
    """

    batch_size = 16

    def __init__(self, info: EncoderInfo, model: Any, *, device: str, precision: str) -> None:
        self._model = model
        super().__init__(info, model.visual, device=device, precision=precision)
        # the image side runs as `network`, perhaps in another precision: keep one
        self._model.visual = None
        self._model.to(self.device)

    @staticmethod
    @abstractmethod
    def described(side: int) -> str:
        """Return how pictures are prepared for a network that takes `side` pixels."""

    @cached_property
    def _tokenizer(self) -> Any:
        return open_clip.tokenizer.SimpleTokenizer(context_length=self._model.context_length)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``."""
        return cast("torch.Tensor", self.network(pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in float32: ``(n, dim)``, not normalised."""
        rows = [np.empty((0, self.info.dim), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS):
            tokens = self._tokenizer(list(texts[start : start + _TEXTS])).to(self.device)
            rows.append(self._model.encode_text(tokens).float().cpu().numpy())
        return np.concatenate(rows)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts with the marks of beginning and end, and how many of them are read."""
        counts = [len(self._tokenizer.encode(text)) + 2 for text in texts]
        return [(count, min(count, self._model.context_length)) for count in counts]


class EyeClipEncoder(OpenAIClipEncoder):
    """EyeCLIP: CLIP's own transform."""

    def __init__(self, info: EncoderInfo, model: Any, *, device: str, precision: str) -> None:
        side = model.visual.image_size[0]
        bicubic = transforms.InterpolationMode.BICUBIC
        self._crop = transforms.Compose([transforms.Resize(side, interpolation=bicubic), transforms.CenterCrop(side)])
        self.table = table(_MEAN, _STD)
        super().__init__(info, model, device=device, precision=precision)

    @staticmethod
    def described(side: int) -> str:
        """Return how pictures are prepared."""
        return f"short side {side} bicubic, centre crop; /255; CLIP's mean and std"

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize and crop: uint8 ``(3, side, side)``."""
        return to_bytes(self._crop(limit_aspect(image)))


class CheXzeroEncoder(OpenAIClipEncoder):
    """CheXzero: grey, padded with black to a square of 320, normalised, then resized as numbers."""

    def __init__(self, info: EncoderInfo, model: Any, *, device: str, precision: str) -> None:
        self._side = model.visual.image_size[0]
        super().__init__(info, model, device=device, precision=precision)

    @staticmethod
    def described(side: int) -> str:
        """Return in words how pictures are prepared."""
        resized = f"; bicubic to {side}, not smoothed" if side != _PADDED else ""
        return (
            f"long side {_PADDED} Lanczos, grey, padded with black to a square; mean {_CXR_MEAN}, std {_CXR_STD} of "
            f"0..255{resized}"
        )

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Prepare one RGB picture: float32 ``(3, side, side)``."""
        ratio = float(_PADDED) / max(image.size)
        # a picture one pixel wide would come to none at all
        width, height = (max(1, int(side * ratio)) for side in image.size)
        grey = image.resize((width, height), PIL.Image.Resampling.LANCZOS).convert("L")
        canvas = PIL.Image.new("L", (_PADDED, _PADDED))
        canvas.paste(grey, ((_PADDED - width) // 2, (_PADDED - height) // 2))
        pixels = torch.from_numpy(np.asarray(canvas, dtype=np.float32)).repeat(3, 1, 1)
        pixels = pixels.sub_(torch.tensor(_CXR_MEAN)).div_(torch.tensor(_CXR_STD))
        if self._side != _PADDED:
            # the authors' torchvision (0.11) does not smooth tensors
            size = (self._side, self._side)
            pixels = torch.nn.functional.interpolate(pixels[None], size=size, mode="bicubic", align_corners=False)[0]
        return cast("NDArray[np.float32]", pixels.numpy())


def load(
    kind: type[OpenAIClipEncoder], file: Path, card: Card, *, left_out: tuple[str, ...], device: str, precision: str
) -> OpenAIClipEncoder:
    """Read a checkpoint and build the encoder.

    Parameters
    ----------
    kind
        How its pictures are prepared.
    left_out
        Openings of keys that the file holds for its training only.
    """
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    state = {key: value for key, value in unwrapped.state.items() if not key.startswith(left_out)}
    model = _model(state)
    load_strictly(model, state, file=file.name)
    model.eval().requires_grad_(requires_grad=False)
    info = card.info(
        dim=int(state["text_projection"].shape[1]),
        similarity="cosine",
        text=True,
        weights_sha256=digest(file),
        preprocessing=kind.described(model.visual.image_size[0]),
        logit_scale=float(state["logit_scale"].float().exp()),
    )
    encoder = kind(info, model, device=device, precision=precision)
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _model(state: Mapping[str, torch.Tensor]) -> Any:
    """Build the network of a state dict's sizes, with heads of 64 as all of OpenAI's have."""
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        side = patch * round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        vision = {"layers": _depth(state, "visual."), "width": width, "patch_size": patch, "image_size": side}
        words, text_width = state["token_embedding.weight"].shape
        text = {"context_length": state["positional_embedding"].shape[0], "vocab_size": words, "width": text_width}
        text |= {"heads": max(1, text_width // 64), "layers": _depth(state, "")}
        dim = int(state["text_projection"].shape[1])
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"the checkpoint holds no CLIP in OpenAI's layout: {error}", hint="is it the file this encoder asks for?"
        ) from error
    return open_clip.CLIP(
        dim, vision_cfg=open_clip.CLIPVisionCfg(**vision), text_cfg=open_clip.CLIPTextCfg(**text), quick_gelu=True
    )


def _depth(state: Mapping[str, torch.Tensor], of: str) -> int:
    opening = f"{of}transformer.resblocks."
    return len({key.removeprefix(opening).partition(".")[0] for key in state if key.startswith(opening)})
