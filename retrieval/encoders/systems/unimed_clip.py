"""UniMed-CLIP: MetaCLIP's ViT and BiomedBERT, trained on 5.3 million open pictures of six kinds with texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.options import local
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

_WEIGHTS = WeightFile(
    name="unimed_clip_vit_b16.pt",
    where="https://github.com/mbzuai-oryx/UniMed-CLIP (its three files: ViT-B/16, and ViT-L/14 at 336)",
)
_BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_TEXT = WeightFile(
    name="BiomedNLP-BiomedBERT-base-uncased-abstract",
    where=f"https://huggingface.co/{_BERT} (config.json, vocab.txt; its large form for the file of one)",
    option="text_model",
    hub=_BERT,
    hub_files=("config.json", "vocab.txt"),
    folder=True,
    optional=True,
)
CARD = Card(
    name="unimed-clip",
    summary="UniMed-CLIP, ViT-B/16 or L/14 and BiomedBERT, 5.3 million pictures of six kinds with texts",
    modality="many",
    dim=512,
    text=True,
    licence="CC BY-NC 4.0",
    source="https://github.com/mbzuai-oryx/UniMed-CLIP",
    noncommercial=True,
    files=(_WEIGHTS, _TEXT),
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load UniMed-CLIP.

    Parameters
    ----------
    weights
        One of the authors' three files.
    text_model
        Folder of the BiomedBERT that its text side is of, with ``config.json`` and ``vocab.txt``; for texts only.
    device, precision
        As in ``load_encoder``.
    """
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    from torch import nn

    from retr.retrieval.encoders.networks import bert_clip

    layout = bert_clip.Layout(
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
    with reading(f"the checkpoint {file.name!r}"):
        return bert_clip.load(
            file,
            layout,
            local(text_model),
            card=CARD,
            text_file=_TEXT,
            with_text=True,
            options={},
            device=device,
            precision=precision,
        )


SPEC = Spec(card=CARD, load=_load)
