"""RET-CLIP: CLIP's ViT-B/16 and a Chinese RoBERTa, trained on 193,865 patients' fundus pictures with Chinese reports.

It was trained on both eyes of a patient; its vectors of one picture are the ViT's own (what the authors classify with),
or those of a left or right eye, which lie beside texts. The vector of a pair of eyes takes two pictures: not built.
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

_WEIGHTS = WeightFile(
    name="ret-clip.pt",
    where="https://drive.google.com/file/d/1lYrAg5qzFbNghEW-3UB36v9WL-mo5eN9 (linked from "
    "https://github.com/sStonemason/RET-CLIP)",
)
_TEXT = WeightFile(
    name="chinese-roberta-wwm-ext",
    where="https://huggingface.co/hfl/chinese-roberta-wwm-ext (config.json, vocab.txt)",
    option="text_model",
    hub="hfl/chinese-roberta-wwm-ext",
    hub_files=("config.json", "vocab.txt"),
    folder=True,
    optional=True,
)
CARD = Card(
    name="ret-clip",
    summary="RET-CLIP, CLIP ViT-B/16 and Chinese RoBERTa, fundus pictures of 193,865 patients with Chinese reports",
    modality="fundus",
    dim=512,
    text=None,
    licence="none stated",
    source="https://github.com/sStonemason/RET-CLIP",
    noncommercial=True,
    files=(_WEIGHTS, _TEXT),
)


def _load(
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
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    from torch import nn

    from retr.retrieval.encoders.networks import bert_clip

    eye = "left" if feature == "image" else feature
    layout = bert_clip.Layout(
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
    with reading(f"the checkpoint {file.name!r}"):
        return bert_clip.load(
            file,
            layout,
            local(text_model),
            card=CARD,
            text_file=_TEXT,
            with_text=feature != "image",
            options={"feature": feature},
            device=device,
            precision=precision,
        )


SPEC = Spec(card=CARD, load=_load)
