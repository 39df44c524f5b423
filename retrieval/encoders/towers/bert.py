"""BERT text towers of FLAIR, RetiZero and KAD: tokenizer and shape from a folder, weights from the checkpoint.

The folder (Bio_ClinicalBERT, Med-KEBERT) gives ``config.json`` and ``vocab.txt`` only. Its own weights are never
read: every published checkpoint holds the whole text tower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn

from retr.index.errors import WeightsError
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights.checkpoints import find, uninitialised
from retr.retrieval.encoders.weights.untrusted import read_json, reading, tokenizer_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import BertModel

    from retr.retrieval.encoders.weights.checkpoints import WeightFile


def text_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of ``config.json`` and ``vocab.txt`` of a BERT folder; `WeightsError` where one is missing."""
    missing = [name for name in ("config.json", "vocab.txt") if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"text_model {str(folder)!r} has no {' and no '.join(missing)}",
            hint="give the folder of the base BERT with its config.json and vocab.txt",
        )
    return folder / "config.json", folder / "vocab.txt"


def text_digest(folder: Path | None, wanted: WeightFile, *, encoder: str) -> str | None:
    """Return the sha256 of a BERT folder's configuration and vocabulary; None where it is not on this machine."""
    try:
        found = folder or find(wanted, encoder=encoder, network=False)
        text_files(found)
    except WeightsError:
        return None
    return tokenizer_digest(found, "config.json")


class Tokenizer:
    """Lower-casing WordPiece, as the authors run it.

    Bio_ClinicalBERT's vocabulary is cased, but its folder has no tokenizer_config.json, so the authors'
    ``AutoTokenizer`` lower-cases (EmilyAlsentzer/clinicalBERT issue 26); a reader that keeps capitals gives
    other vectors than the published ones.

    Parameters
    ----------
    folder
        Holds ``vocab.txt``.
    max_length
        Longest sequence, special tokens included; longer texts are cut.
    """

    def __init__(self, folder: Path, max_length: int) -> None:
        self.max_length = max_length
        vocabulary = text_files(folder)[1]
        with reading(f"{vocabulary.name} in {folder.name!r}", hint="is it the vocabulary of a BERT?"):
            self._wordpiece = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self._wordpiece.enable_truncation(max_length)
        self._pad_id = self._wordpiece.token_to_id("[PAD]")

    def __call__(self, texts: Sequence[str], *, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
        """Tokenise texts together.

        Parameters
        ----------
        texts
            At least one.
        pad_to
            Pad to this length; ``None`` pads to the longest of these texts.

        Returns
        -------
        ids, mask
            int64 ``(n, length)``; the mask is 0 on padding.
        """
        self._wordpiece.enable_padding(pad_id=self._pad_id, length=pad_to)
        encoded = self._wordpiece.encode_batch(list(texts))
        return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])

    def lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, special ones included, and how many of them are kept."""
        self._wordpiece.no_padding()
        out = []
        for encoded in self._wordpiece.encode_batch(list(texts)):
            # what is cut off comes in pieces, each with special tokens of its own
            rest = sum(len(piece.ids) - sum(piece.special_tokens_mask) for piece in encoded.overflowing)
            out.append((len(encoded.ids) + rest, len(encoded.ids)))
        return out


def new_bert(folder: Path) -> BertModel:
    """Build the BERT that ``config.json`` describes, with values still to be loaded."""
    ensure_torchvision()
    from transformers import BertConfig, BertModel

    path = text_files(folder)[0]
    with reading(f"{path.name} in {folder.name!r}", hint="is it the configuration of a BERT?"):
        config = BertConfig(**(read_json(path) or {}))
        bert = uninitialised(lambda: BertModel(config))
    # the two buffers that no checkpoint of today's transformers holds
    bert.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    bert.embeddings.token_type_ids = torch.zeros_like(bert.embeddings.position_ids)
    return bert


class Projection(nn.Module):
    """FLAIR's head, one for each modality: unit length, linear, unit length."""

    def __init__(self, dim_in: int, dim_out: int, *, bias: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.projection = nn.Linear(dim_in, dim_out, bias=bias)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, dim_in)`` to ``(n, dim_out)``."""
        if not self.norm:
            return cast("Tensor", self.projection(x))
        # plain division: the authors add no epsilon
        y = self.projection(x / x.norm(dim=-1, keepdim=True))
        return cast("Tensor", y / y.norm(dim=-1, keepdim=True))


class MeanText(nn.Module):
    """FLAIR's and RetiZero's text tower: hidden states 1, 2 and last, averaged over ALL positions, padding too.

    A text's vector therefore depends on the length its batch is padded to. That is how the published
    numbers were made; a caller that wants stable vectors encodes one text at a time.
    """

    def __init__(self, bert: BertModel, head: Projection) -> None:
        super().__init__()
        self.model = bert
        self.projection_head_text = head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed int64 ``(n, length)`` tokens as ``(n, dim)``."""
        hidden = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        states = torch.stack([hidden[1], hidden[2], hidden[-1]], dim=1)
        return cast("Tensor", self.projection_head_text(states.mean(2).mean(1)))


class KnowledgeText(nn.Module):
    """KAD's knowledge encoder: BERT's pooler output through a two-layer perceptron, not normalised."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert_model = bert
        width = bert.config.hidden_size
        self.mlp_embed = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed int64 ``(n, length)`` tokens as ``(n, width)``."""
        output: Any = self.bert_model(input_ids=ids, attention_mask=mask)
        return cast("Tensor", self.mlp_embed(output.pooler_output))
