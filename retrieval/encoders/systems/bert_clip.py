"""CLIP's ViT beside a BERT: RET-CLIP and UniMed-CLIP.

* **RET-CLIP**: ViT-B/16 and a Chinese RoBERTa, fundus pictures of 193,865 patients with Chinese reports. It was trained
  on both eyes of a patient; its vectors of one picture are the ViT's own (what the authors classify with), or those of
  a left or right eye, which lie beside texts. The vector of a pair of eyes takes two pictures: not built.
* **UniMed-CLIP**: MetaCLIP's ViT and BiomedBERT, 5.3 million open pictures of six kinds with texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.options import check_choice, local
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder


def _text_model(repository: str, note: str = "") -> WeightFile:
    return WeightFile(
        name=repository.rpartition("/")[2],
        where=f"https://huggingface.co/{repository} (config.json, vocab.txt{note})",
        option="text_model",
        hub=repository,
        hub_files=("config.json", "vocab.txt"),
        folder=True,
        optional=True,
    )


_RET_CLIP = Card(
    name="ret-clip",
    summary="RET-CLIP, CLIP ViT-B/16 and Chinese RoBERTa, fundus pictures of 193,865 patients with Chinese reports",
    modality="fundus",
    dim=512,
    text=None,
    licence="none stated",
    source="https://github.com/sStonemason/RET-CLIP",
    noncommercial=True,
    files=(
        WeightFile(
            name="ret-clip.pt",
            where="https://drive.google.com/file/d/1lYrAg5qzFbNghEW-3UB36v9WL-mo5eN9 (linked from "
            "https://github.com/sStonemason/RET-CLIP)",
        ),
        _text_model("hfl/chinese-roberta-wwm-ext"),
    ),
    parameters=86_192_640,
)
_UNIMED_CLIP = Card(
    name="unimed-clip",
    summary="UniMed-CLIP, ViT-B/16 or L/14 and BiomedBERT, 5.3 million pictures of six kinds with texts",
    modality="many",
    dim=512,
    text=True,
    licence="CC BY-NC 4.0",
    source="https://github.com/mbzuai-oryx/UniMed-CLIP",
    noncommercial=True,
    files=(
        WeightFile(
            name="unimed_clip_vit_b16.pt",
            where="https://github.com/mbzuai-oryx/UniMed-CLIP (its three files: ViT-B/16, and ViT-L/14 at 336)",
        ),
        _text_model("microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract", "; its large form for the file of one"),
    ),
    parameters=86_192_640,
)


def _load_ret_clip(
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    feature: str = "image",
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load RET-CLIP.

    Parameters
    ----------
    weights
        The authors' file (``{"state_dict": module.*}``).
    text_model
        Folder of chinese-roberta-wwm-ext with ``config.json`` and ``vocab.txt``; needed for texts only.
    feature
        ``"image"``: the ViT's projected vector, without texts; ``"left"`` or ``"right"``: that of a left or right eye,
        beside Chinese texts.
    device, precision
        As in ``load_encoder``.
    """
    check_choice("feature", feature, ("image", "left", "right"))
    return _read(_RET_CLIP, weights, text_model, feature=feature, device=device, precision=precision)


def _load_unimed_clip(
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
    return _read(_UNIMED_CLIP, weights, text_model, feature=None, device=device, precision=precision)


def _read(
    card: Card,
    weights: str | os.PathLike[str] | None,
    text_model: str | os.PathLike[str] | None,
    *,
    feature: str | None,
    device: str,
    precision: str,
) -> BaseEncoder:
    """Find the checkpoint, and build the encoder of it."""
    wanted, text_file = card.files
    file = find(wanted, weights, encoder=card.name)
    from retr.retrieval.encoders.networks import bert_clip

    with reading(f"the checkpoint {file.name!r}"):
        return bert_clip.load(
            file,
            bert_clip.unimed_clip() if feature is None else bert_clip.ret_clip(feature),
            local(text_model),
            card=card,
            text_file=text_file,
            with_text=feature != "image",
            options={} if feature is None else {"feature": feature},
            device=device,
            precision=precision,
        )


RET_CLIP = Spec(card=_RET_CLIP, load=_load_ret_clip)
UNIMED_CLIP = Spec(card=_UNIMED_CLIP, load=_load_unimed_clip)
