"""KAD's networks: image encoder, disease query network, and the encoder made of them and the knowledge encoder."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from retr.retrieval.encoders.base import alone, limit_aspect
from retr.retrieval.encoders.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, table, to_bytes
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.towers.bert import KnowledgeText, Tokenizer, new_bert, text_files
from retr.retrieval.encoders.towers.vision import ResNet50
from retr.retrieval.encoders.weights.checkpoints import find, load_strictly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.weights.checkpoints import WeightFile

MAX_TOKENS = 256
# The nih protocol keeps the aspect, but a thread-like picture would fill the memory: beyond this its ends are cut.
_LONGEST = 4


class KadImage(nn.Module):
    """A ResNet-50 whose positions are each mapped 2048-2048-768 (``ModelRes512``) or 1024-1024-768 (``ModelRes``).

    Parameters
    ----------
    channels
        Width of the ResNet's map, as the checkpoint's ``res_l1`` has it: 2048 after all four stages, 1024 after
        three.
    dim
        Width of the patch features.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.resnet = ResNet50(stages=4 if channels == 2048 else 3)
        self.res_l1 = nn.Linear(channels, channels)
        self.res_l2 = nn.Linear(channels, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to patch features ``(n, h', w', dim)``; the image vector is their mean."""
        positions = self.resnet(pixels).permute(0, 2, 3, 1)
        return cast("Tensor", self.res_l2(torch.relu(self.res_l1(positions))))


class QueryNetwork(nn.Module):
    """Asks findings of patch features: pre-norm decoder layers, one LayerNorm for both inputs and the output.

    Parameters
    ----------
    dim, layers, hidden
        Width, number of decoder layers and width of their feed-forward nets; the heads are always four.
    """

    def __init__(self, dim: int, layers: int, hidden: int) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(dim, 4, hidden, activation="relu", batch_first=True, norm_first=True)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.mlp_head = nn.Sequential(nn.Linear(dim, 2))

    def forward(self, patches: Tensor, findings: Tensor, *, together: bool = True) -> Tensor:
        """Return logits ``(n, m, 2)`` (absent, present) for patches ``(n, k, dim)`` and findings ``(m, dim)``.

        The findings attend to each other, so the answer to one depends on which others are asked with it, unless
        they are not asked ``together``.
        """
        queries = self.decoder_norm(findings).expand(len(patches), -1, -1)
        others = None if together else ~torch.eye(len(findings), dtype=torch.bool, device=findings.device)
        answers = self.decoder(queries, self.decoder_norm(patches), tgt_mask=others)
        return cast("Tensor", self.mlp_head(self.decoder_norm(answers)))


class KnowledgeSide:
    """The knowledge encoder, built when the first text comes.

    Parameters
    ----------
    state
        Its tensors: ``bert_model.*``, ``mlp_embed.*``, and an unused ``logit_scale``.
    folder
        Med-KEBERT's folder; None looks for `wanted` when the first text comes.
    wanted
        What the folder is, and where people get it.
    encoder, file
        Names for messages.
    together
        Whether the texts of one call run as one batch padded to 256, as the authors do; it changes nothing but
        rounding.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        folder: Path | None,
        *,
        wanted: WeightFile,
        encoder: str,
        file: str,
        together: bool,
    ) -> None:
        if folder is not None:
            text_files(folder)
        self._state, self._folder = dict(state), folder
        self._wanted, self._encoder = wanted, encoder
        self._file, self._together = file, together

    @cached_property
    def _parts(self) -> tuple[Tokenizer, KnowledgeText]:
        folder = self._folder or find(self._wanted, encoder=self._encoder)
        tokenizer, network = Tokenizer(folder, MAX_TOKENS), KnowledgeText(new_bert(folder))
        load_strictly(network, self._state, file=self._file, dropped=["*.position_ids", "logit_scale"])
        self._state.clear()
        return tokenizer, network.eval().requires_grad_(requires_grad=False)

    def lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        return self._parts[0].lengths(texts)

    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Embed texts: float32 ``(n, dim)`` on the device, not normalised."""
        tokenizer, network = self._parts
        network.to(device)
        calls = [tokenizer(texts, pad_to=MAX_TOKENS)] if self._together else [tokenizer([text]) for text in texts]
        return torch.cat([network(ids.to(device), mask.to(device)) for ids, mask in calls])


class KadEncoder(TorchEncoder):
    """KAD.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`; `info.options` holds the protocol and the resolution.
    queries
        The disease query network, kept in float32.
    text
        The knowledge encoder.
    """

    batch_size = 16
    table = table(IMAGENET_MEAN, IMAGENET_STD)

    def __init__(
        self,
        info: EncoderInfo,
        network: KadImage,
        *,
        queries: QueryNetwork,
        text: KnowledgeSide,
        device: str,
        precision: str,
    ) -> None:
        self.protocol = info.options["protocol"]
        self.side = int(cast("int", info.options["resolution"]))
        self.queries = queries.eval().requires_grad_(requires_grad=False)
        self.text = text
        super().__init__(info, network, device=device, precision=precision)
        self.queries.to(self.device)
        if self.protocol == "nih":  # pictures of one shape are rare
            self.batch_size = 1

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize by the protocol: uint8 ``(3, h, w)``, square unless the protocol is nih."""
        size = (self.side, self.side)
        if self.protocol == "nih":
            image = limit_aspect(image, _LONGEST)
            short, long = sorted(image.size)
            stretched = int(self.side * long / short)
            size = (self.side, stretched) if image.width <= image.height else (stretched, self.side)
        if self.protocol == "padchest":
            image = _to_full_range(image)
        return to_bytes(image.resize(size, PIL.Image.Resampling.BICUBIC))

    def forward(self, pixels: Tensor) -> Tensor:
        """Average the patch features of pixels ``(n, 3, h, w)``: ``(n, 768)``."""
        return cast("Tensor", self.network(pixels)).float().mean(dim=(1, 2))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed bare findings: float32 ``(n, 768)``, not normalised."""
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return cast("NDArray[np.float32]", self.text.embed(texts, self.device).cpu().numpy())

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""
        return self.text.lengths(texts)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Return the patch features, whose mean is the image vector: ``(h, w, 768)``."""
        return cast("Tensor", self.network(pixels)[0])

    def score(self, images: Sequence[Any], findings: Sequence[str], *, together: bool = True) -> NDArray[np.float32]:
        """Ask the disease query network: the probability that each finding is present.

        Parameters
        ----------
        images
            As in `encode_images`.
        findings
            Bare names, ``"pleural effusion"``.
        together
            Ask them all at once, as the authors do: a finding's probability then depends on the others in the
            list. False asks each alone.

        Returns
        -------
        NDArray[np.float32]
            Shape ``(len(images), len(findings))``.

        Raises
        ------
        ImageReadError
            If an item cannot be read as a picture.
        """
        from retr.retrieval.images import read_image

        scores = np.empty((len(images), len(findings)), dtype=np.float32)
        for start in range(0, len(images), self.batch_size):
            batch = [
                self.compact(read_image(item, draft_size=self.info.draft_size, grey16=self.info.grey16).image)
                for item in images[start : start + self.batch_size]
            ]
            answers = self.encode_and_score(np.stack(batch), findings, together=together)[1]
            scores[start : start + len(batch)] = answers
        return scores

    @alone
    @torch.inference_mode()
    def encode_and_score(
        self, batch: NDArray[Any], findings: Sequence[str], *, together: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed prepared pictures and score findings in one pass of the image encoder.

        Parameters
        ----------
        batch
            Prepared pictures ``(n, 3, h, w)``.
        findings, together
            As in `score`.

        Returns
        -------
        vectors, scores
            float32 ``(n, 768)``, equal to `encode_prepared`, and float32 ``(n, m)``, equal to `score`.
        """

        def both(pixels: Tensor) -> tuple[Tensor, ...]:
            patches = cast("Tensor", self.network(pixels)).float()
            if not findings:
                return patches.mean(dim=(1, 2)), patches.new_empty((len(patches), 0))
            logits = self.queries(patches.flatten(1, 2), self._asked(tuple(findings)), together=together)
            return patches.mean(dim=(1, 2)), logits.softmax(dim=-1)[..., 1]

        vectors, scores = self.run(both, batch)
        return vectors, scores

    def _asked(self, findings: tuple[str, ...]) -> Tensor:
        """Embed findings, remembering the last list: an archive is asked the same one picture after picture."""
        remembered: tuple[tuple[str, ...], Tensor] | None = getattr(self, "_last_asked", None)
        if remembered is None or remembered[0] != findings:
            remembered = self._last_asked = findings, self.text.embed(findings, self.device)
        return remembered[1]


def _to_full_range(image: PIL.Image.Image) -> PIL.Image.Image:
    """Stretch 8-bit values so that the brightest is 255, truncated, as the PadChest loader does with any depth."""
    values = np.asarray(image)
    brightest = int(values.max())
    if brightest in {0, 255}:
        return image
    return PIL.Image.fromarray((values / brightest * 255).astype(np.uint8))
