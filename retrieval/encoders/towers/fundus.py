"""What FLAIR and RetiZero share: projected image vectors, Bio_ClinicalBERT texts in a caption, a stored temperature.

A text's vector depends on the padding of the batch it is in (see `MeanText`). ``text_batching="single"`` encodes each
text alone, so that its vector never changes; ``"reference"`` pads the texts of one call together, as the authors do.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from retr.index.errors import NoTextSideError, WeightsError
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.towers.bert import MeanText, Projection, Tokenizer, new_bert, text_digest, text_files
from retr.retrieval.encoders.weights.checkpoints import find, load_strictly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.weights.checkpoints import WeightFile

MAX_TOKENS = 77
# The authors clamp the stored logarithm to this rounded ln(100).
_MAX_LOG_SCALE = 4.6052


def logit_factor(stored: Tensor) -> float:
    """Return the factor on cosines for a stored logarithm, clamped as the authors do.

    >>> [round(logit_factor(torch.tensor(log)), 3) for log in (2.6592600369, 9.0, -1.0)]
    [14.286, 100.003, 1.0]
    """
    return float(torch.clamp(stored.float(), 0, _MAX_LOG_SCALE).exp())


def take_scale(rest: Mapping[str, Tensor], file: str) -> Tensor:
    """Return the stored ``logit_scale``, which must be all that is left of a checkpoint."""
    if set(rest) != {"logit_scale"}:
        other = sorted(rest.keys() ^ {"logit_scale"})
        raise WeightsError(
            f"{file!r} does not fit the network: {len(other)} keys missing or unknown ({', '.join(other[:3])}, ...)",
            hint="is it the file this encoder asks for, and the right variant?",
        )
    return rest["logit_scale"]


def projection(state: Mapping[str, Tensor], key: str, *, norm: bool) -> Projection:
    """Make the head whose matrix is ``state[key]``, with its own sizes; its values are still to be loaded."""
    if key not in state:
        raise WeightsError(f"the checkpoint has no {key!r}", hint="is it the file this encoder asks for?")
    dim_out, dim_in = state[key].shape
    return Projection(dim_in, dim_out, bias=key.replace(".weight", ".bias") in state, norm=norm)


class TextSide:
    """The text half, built when the first text comes: most runs embed pictures only.

    Parameters
    ----------
    state
        The checkpoint's tensors below ``text_model.``, without that prefix.
    folder
        The BERT folder; None looks for `wanted` when the first text comes.
    wanted
        What the BERT folder is, and where people get it.
    encoder, file
        Names for messages.
    caption
        What a text is put into, in place of ``[CLS]``; a text that already begins with the caption's words is
        taken as it is.
    together
        Whether the texts of one call are padded together.
    norm
        Whether the projection head normalises.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        folder: Path | None,
        *,
        wanted: WeightFile,
        encoder: str,
        file: str,
        caption: str,
        together: bool,
        norm: bool = True,
    ) -> None:
        if folder is not None:
            text_files(folder)
        self.caption = caption
        self.together = together
        self._state = dict(state)
        self._folder, self._wanted = folder, wanted
        self._encoder, self._file = encoder, file
        self._norm = norm

    def digest(self) -> str | None:
        """Return the sha256 of the BERT folder's files; None where it is not on this machine."""
        return text_digest(self._folder, self._wanted, encoder=self._encoder)

    def prompt(self, text: str) -> str:
        """Put a text into the caption."""
        opening = self.caption.partition("[CLS]")[0].strip().lower()
        if opening and text.strip().lower().startswith(opening):
            return text
        return self.caption.replace("[CLS]", text)

    @cached_property
    def _parts(self) -> tuple[Tokenizer, MeanText]:
        folder = self._folder or find(self._wanted, encoder=self._encoder)
        tokenizer = Tokenizer(folder, MAX_TOKENS)
        network = MeanText(
            new_bert(folder), projection(self._state, "projection_head_text.projection.weight", norm=self._norm)
        )
        load_strictly(network, self._state, file=self._file, dropped=["*.position_ids"])
        self._state.clear()
        return tokenizer, network.eval().requires_grad_(requires_grad=False)

    def lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, each in the caption, and how many of them are read."""
        return self._parts[0].lengths([self.prompt(text) for text in texts])

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], device: torch.device, *, together: bool) -> NDArray[np.float32]:
        """Embed texts, each in the caption: float32 ``(n, dim)``; ``together`` pads them to the longest of them."""
        tokenizer, network = self._parts
        network.to(device)
        prompts = [self.prompt(text) for text in texts]
        calls = [prompts] if together else [[prompt] for prompt in prompts]
        rows = [network(*(part.to(device) for part in tokenizer(call))) for call in calls]
        return cast("NDArray[np.float32]", torch.cat(rows).cpu().numpy())


class FundusEncoder(TorchEncoder):
    """Base of FLAIR and RetiZero.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`.
    head
        Image projection, kept in float32; None gives the network's own features.
    text
        The text half; None where the chosen feature has no text beside it.

    Attributes
    ----------
    text_feature
        The feature that texts are compared with.
    """

    text_feature: str

    def __init__(
        self,
        info: EncoderInfo,
        network: nn.Module,
        *,
        head: Projection | None,
        text: TextSide | None,
        device: str,
        precision: str,
    ) -> None:
        self.head = head.eval().requires_grad_(requires_grad=False) if head is not None else None
        self.text = text
        super().__init__(info, network, device=device, precision=precision)

    def image_side(self) -> list[nn.Module]:
        """Return the network, and the projection where there is one."""
        return [self.network, *([] if self.head is None else [self.head])]

    def project(self, features: Tensor) -> Tensor:
        """Project features ``(..., c)`` into the space of the texts, in float32, where there is a head."""
        if self.head is None:
            return features.float()
        return cast("Tensor", self.head.to(self.device)(features.float()))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts, each put into the caption: float32 ``(n, dim)``, unit vectors.

        Raises
        ------
        NoTextSideError
            With a feature that has no text beside it.
        WeightsError
            If the text model's folder is nowhere.
        """
        text = self._text()
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return text.embed(texts, self.device, together=text.together)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, each in the caption, and how many of them are read."""
        return self._text().lengths(texts)

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return the authors' prototype of a class: the mean of its prompts' unit vectors, not normalised again.

        The prompts of the class are one call of the text tower, padded together, whatever ``text_batching`` says:
        the prototype depends on nothing but the class's own prompts.

        Parameters
        ----------
        prompts
            Descriptions of the class, and its name; each is put into the caption.

        Returns
        -------
        NDArray[np.float32]
            Shape ``(dim,)``, a little shorter than 1.
        """
        vectors = self._text().embed(prompts, self.device, together=True)
        return cast("NDArray[np.float32]", vectors.mean(axis=0))

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the authors' logits ``(n, m)``: dot products times the stored scale, prototypes at their length."""
        scale = np.float32(self.info.logit_scale or 1.0)
        return cast("NDArray[np.float32]", image_vectors @ text_vectors.T * scale)

    def _text(self) -> TextSide:
        if self.text is None:
            feature: Any = self.info.options.get("feature")
            raise NoTextSideError(
                f"feature {feature!r} of {self.info.name!r} has no text side",
                hint=f"words are compared with feature={self.text_feature}: load it so, or build an index with it",
            )
        return self.text
