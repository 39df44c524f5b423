"""KAD: a ResNet-50 and a knowledge encoder for chest X-rays, with a network that asks for findings by name.

Reads ``best_valid.pt``: image encoder, query network and text encoder. The authors' test scripts embed findings with
the text encoder in that file, also when a knowledge encoder (``epoch_latest.pt``) is loaded before; so does this one
unless a knowledge encoder is given.

The image vector is the mean of the patch features; its trained similarity with a finding's vector is the plain dot
product, and neither is of unit length. Zero-shot classification uses the query network instead: ``score``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.retrieval.encoders.options import check_choice, local, together
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

_WHERE = "https://drive.google.com/drive/folders/1xWVVJRfnm_wIgUpbn9ftsW4K5XKU0i0- (linked from https://github.com/xiaoman-zhang/KAD)"
_WEIGHTS = WeightFile(name="KAD_512/best_valid.pt", where=_WHERE)
_KNOWLEDGE = WeightFile(
    name="Knowledge_Encoder/epoch_latest.pt", where=_WHERE, option="knowledge_encoder", optional=True
)
MED_KEBERT = WeightFile(
    name="Med-KEBERT",
    where="https://huggingface.co/xmcmic/Med-KEBERT (config.json and vocab.txt)",
    option="text_model",
    hub="xmcmic/Med-KEBERT",
    hub_files=("config.json", "vocab.txt"),
    folder=True,
    optional=True,
)
CARD = Card(
    name="kad",
    summary="ResNet-50, knowledge encoder and disease query network, MIMIC-CXR with UMLS and RadGraph",
    modality="chest X-ray",
    dim=768,
    text=True,
    licence="MIT (code); none stated for the weights",
    source="https://github.com/xiaoman-zhang/KAD",
    files=(_WEIGHTS, _KNOWLEDGE, MED_KEBERT),
    parameters=29_278_016,
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    knowledge_encoder: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    protocol: str = "chexpert",
    resolution: int | None = None,
    text_batching: str = "single",
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load KAD.

    Parameters
    ----------
    weights
        ``best_valid.pt``, or a folder with it.
    knowledge_encoder
        ``epoch_latest.pt``, to embed texts with it instead of the text encoder in ``best_valid.pt``.
    text_model
        Folder of Med-KEBERT with ``config.json`` and ``vocab.txt``; needed for texts and findings only.
    protocol
        ``"chexpert"`` (square), ``"nih"`` (short side, aspect kept) or ``"padchest"`` (square, values divided by
        the brightest): as the authors' loader of that data set prepares pictures.
    resolution
        In pixels, a multiple of 32; the default is what the checkpoint was trained at.
    text_batching
        ``"single"`` or ``"reference"`` (one batch padded to 256, as the authors do; differs by rounding only).
    device, precision
        As in ``load_encoder``.
    """
    check_choice("protocol", protocol, ("chexpert", "nih", "padchest"))
    if resolution is not None and (resolution < 32 or resolution % 32):
        raise UsageError(f"unknown resolution {resolution!r}", hint="use a multiple of 32, such as 512 or 1024")
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    knowledge = find(_KNOWLEDGE, knowledge_encoder, encoder=CARD.name) if knowledge_encoder is not None else None
    from retr.retrieval.encoders.networks.kad_checkpoint import load_kad

    with reading(f"the checkpoint {file.name!r}"):
        return load_kad(
            file,
            knowledge,
            local(text_model),
            card=CARD,
            text_file=MED_KEBERT,
            protocol=protocol,
            resolution=resolution,
            together=together(text_batching),
            device=device,
            precision=precision,
        )


SPEC = Spec(card=CARD, load=_load)
