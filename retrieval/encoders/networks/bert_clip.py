"""CLIP's ViT beside a BERT: RET-CLIP and UniMed-CLIP.

The BERT's folder gives its configuration and vocabulary only; its weights are the checkpoint's. It is looked for when
the first text comes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from retr.index.errors import NoTextSideError, WeightsError
from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.runtime.preprocess import table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.towers.bert import Tokenizer, new_bert, text_digest, text_files
from retr.retrieval.encoders.weights.checkpoints import digest, find, load_state_dict, load_strictly, split_state
from retr.retrieval.encoders.weights.wrappers import unwrap

ensure_torchvision()


from open_clip.tokenizer import get_clean_fn  # noqa: E402
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer  # noqa: E402
from torchvision import transforms  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo, Option
    from retr.retrieval.encoders.spec import Card
    from retr.retrieval.encoders.weights.checkpoints import WeightFile

_TEXTS = 64
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CheckpointLayout:
    """How a checkpoint names its parts, and how its pictures and texts are prepared.

    Attributes
    ----------
    bert, head
        Openings of the text side's keys: the BERT, and the perceptron behind its CLS token.
    activation
        Of that perceptron.
    mapping
        Name of a matrix behind the image side, or None.
    scale
        Name of the stored logarithm.
    others
        Openings of keys of the other vectors that the checkpoint has heads for.
    squash
        Whether pictures lose their aspect; else the shorter side is brought to the size and the centre is cut out.
    length
        How many tokens of a text are read.
    clean
        Whether texts are cleaned as open_clip cleans them.
    """

    bert: str
    head: str
    activation: type[nn.Module]
    mapping: str | None
    scale: str
    others: tuple[str, ...]
    squash: bool
    length: int
    clean: bool


def ret_clip(feature: str) -> CheckpointLayout:
    """Return RET-CLIP's layout, of the vector of one picture (``"image"``) or of the ``"left"`` or ``"right"`` eye."""
    eye = "left" if feature == "image" else feature
    return CheckpointLayout(
        bert="bert.",
        head=f"text_projection_{eye}.",
        activation=nn.ReLU,
        mapping=None if feature == "image" else f"{feature}_feature_mapping",
        scale=f"logit_scale_{eye}",
        others=("logit_scale", "text_projection", *(f"{one}_feature_mapping." for one in ("global", "left", "right"))),
        squash=True,
        length=52,
        clean=False,
    )


def unimed_clip() -> CheckpointLayout:
    """Return UniMed-CLIP's layout."""
    return CheckpointLayout(
        bert="text_encoder.transformer.",
        head="text_encoder.proj.",
        activation=nn.GELU,
        mapping=None,
        scale="logit_scale",
        others=("logit_scale",),
        squash=False,
        length=256,
        clean=True,
    )


class ImageSide(nn.Module):
    """The ViT, and where there is one the matrix behind it."""

    def __init__(self, visual: nn.Module, mapping: nn.Linear | None) -> None:
        super().__init__()
        self.visual, self.mapping = visual, mapping

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``."""
        found = cast("Tensor", self.visual(pixels))
        return found if self.mapping is None else cast("Tensor", self.mapping(found))


class TextSide:
    """The BERT and its perceptron, built when the first text comes.

    Parameters
    ----------
    state
        The BERT's tensors and the perceptron's, by their own names.
    folder
        The BERT's folder; None looks for `wanted`.
    file
        The checkpoint's name, for messages.
    """

    def __init__(
        self,
        state: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
        layout: CheckpointLayout,
        folder: Path | None,
        *,
        wanted: WeightFile,
        encoder: str,
        file: str,
    ) -> None:
        if folder is not None:
            text_files(folder)
        self._state, self._layout = state, layout
        self._folder, self._wanted, self._encoder, self._file = folder, wanted, encoder, file

    def digest(self) -> str | None:
        """Return the sha256 of the BERT folder's files; None where it is not on this machine."""
        return text_digest(self._folder, self._wanted, encoder=self._encoder)

    @cached_property
    def _parts(self) -> tuple[Tokenizer, nn.Module, nn.Module]:
        folder = self._folder or find(self._wanted, encoder=self._encoder)
        bert = new_bert(folder)
        bert.pooler = None
        load_strictly(bert, self._state[0], file=self._file, dropped=["*position_ids", "pooler.*"])
        head = _perceptron(self._state[1], self._layout.activation)
        load_strictly(head, self._state[1], file=self._file)
        network = nn.ModuleList([bert, head]).eval().requires_grad_(requires_grad=False)
        return Tokenizer(folder, self._layout.length), network[0], network[1]

    def _said(self, texts: Sequence[str]) -> list[str]:
        clean = get_clean_fn("whitespace") if self._layout.clean else str
        return [clean(text) for text in texts]

    def lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        return self._parts[0].lengths(self._said(texts))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], device: torch.device) -> NDArray[np.float32]:
        """Embed texts: float32 ``(n, dim)``, not normalised."""
        tokenizer, bert, head = self._parts
        bert.to(device)
        head.to(device)
        rows = []
        for start in range(0, len(texts), _TEXTS):
            ids, mask = (part.to(device) for part in tokenizer(self._said(texts[start : start + _TEXTS])))
            rows.append(head(bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]).float().cpu())
        return cast("NDArray[np.float32]", torch.cat(rows).numpy())


class BertClipEncoder(TorchEncoder):
    """RET-CLIP or UniMed-CLIP.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`.
    text
        The text half; None where the chosen feature has no text beside it.
    """

    batch_size = 16

    def __init__(
        self, info: EncoderInfo, network: ImageSide, text: TextSide | None, *, squash: bool, device: str, precision: str
    ) -> None:
        side = cast("Any", network.visual).image_size[0]
        bicubic, self._squash = transforms.InterpolationMode.BICUBIC, squash
        if squash:
            self._resize: Any = transforms.Resize((side, side), interpolation=bicubic)
        else:
            self._resize = transforms.Compose(
                [transforms.Resize(side, interpolation=bicubic), transforms.CenterCrop(side)]
            )
        self.table, self.text = table(_MEAN, _STD), text
        super().__init__(info, network, device=device, precision=precision)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Bring one RGB picture to the network's size: uint8 ``(3, side, side)``."""
        return to_bytes(self._resize(image if self._squash else limit_aspect(image)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, dim)``."""
        return cast("Tensor", self.network(pixels))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in float32: ``(n, dim)``, not normalised.

        Raises
        ------
        NoTextSideError
            With a feature that has no text beside it.
        WeightsError
            If the text model's folder is nowhere.
        """
        if not texts and self.text is not None:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return self._text().embed(texts, self.device)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        return self._text().lengths(texts)

    def _text(self) -> TextSide:
        if self.text is None:
            feature = self.info.options.get("feature")
            raise NoTextSideError(
                f"encoder {self.info.name!r} with feature={feature} embeds images only",
                hint="use feature=left or feature=right, which lie beside texts",
            )
        return self.text


def load(
    file: Path,
    layout: CheckpointLayout,
    text_model: Path | None,
    *,
    card: Card,
    text_file: WeightFile,
    with_text: bool,
    options: Mapping[str, Option],
    device: str,
    precision: str,
) -> BertClipEncoder:
    """Read a checkpoint and build the encoder.

    Parameters
    ----------
    with_text
        Whether the chosen vector lies beside texts.
    """
    unwrapped = unwrap(load_state_dict(file), file=file.name)
    mapped = [f"{layout.mapping}."] if layout.mapping else []
    visual_state, bert_state, head_state, *rest = split_state(
        unwrapped.state, "visual.", layout.bert, layout.head, *mapped
    )
    left = [key for key in rest[-1] if key != layout.scale and not key.startswith(layout.others)]
    if left or layout.scale not in rest[-1]:
        raise WeightsError(
            f"{file.name!r} does not fit the network: unknown or missing {min(left, default=layout.scale)!r}",
            hint="is it the file this encoder asks for, and the right variant?",
        )
    visual = _vit(visual_state)
    load_strictly(visual, visual_state, file=file.name)
    mapping = None
    if layout.mapping:
        matrix = rest[0].get("weight", torch.empty(0, 0))
        mapping = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        load_strictly(mapping, rest[0], file=file.name)
    network = ImageSide(visual, mapping)
    text = TextSide((bert_state, head_state), layout, text_model, wanted=text_file, encoder=card.name, file=file.name)
    side = visual.image_size[0]
    how = "aspect not kept" if layout.squash else "short side, centre crop"
    info = card.info(
        dim=int(visual_state["proj"].shape[1]),
        similarity="cosine",
        text=with_text,
        weights_sha256=digest(file),
        text_sha256=text.digest() if with_text else None,
        preprocessing=f"{side}x{side} bicubic ({how}); /255; CLIP's mean and std",
        options=dict(options),
        logit_scale=float(rest[-1][layout.scale].float().exp()) if with_text else None,
    )
    encoder = BertClipEncoder(
        info, network, text if with_text else None, squash=layout.squash, device=device, precision=precision
    )
    encoder.notes += unwrapped.notes(file.name)
    return encoder


def _vit(state: Mapping[str, Tensor]) -> VisionTransformer:
    """Build the ViT of a state dict's sizes in OpenAI's layout, with heads of 64 and QuickGELU."""
    try:
        width, _, patch, _ = state["conv1.weight"].shape
        grid = round((state["positional_embedding"].shape[0] - 1) ** 0.5)
        layers = len({match[1] for key in state if (match := re.match(r"transformer\.resblocks\.(\d+)\.", key))})
        dim = state["proj"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"the checkpoint holds no ViT in OpenAI's layout: {error}", hint="is it the file this encoder asks for?"
        ) from error
    return VisionTransformer(
        image_size=patch * grid,
        patch_size=patch,
        width=width,
        layers=layers,
        heads=max(1, width // 64),
        mlp_ratio=4.0,
        output_dim=dim,
        act_layer=QuickGELU,
        norm_layer=LayerNorm,
    )


def _perceptron(state: Mapping[str, Tensor], activation: type[nn.Module]) -> nn.Sequential:
    """Build two linear layers of a state dict's sizes."""
    layers = []
    for name in ("0", "2"):
        weight = state.get(f"{name}.weight")
        if weight is None:
            raise WeightsError("the checkpoint has no perceptron behind its texts", hint="is it the right file?")
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in state))
    return nn.Sequential(layers[0], activation(), layers[1])
