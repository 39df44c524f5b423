"""RetiZero: RETFound's ViT-L with LoRA, and Bio_ClinicalBERT, trained on 341,896 fundus pictures with texts.

Reads ``RetiZero.pth``. The published system has two image vectors: zero-shot classification projects CLS beside the
texts, image-to-image retrieval averages the patch tokens before the final LayerNorm, of pixels normalised to -1..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.options import check_choice, local, together
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.systems.flair import BIO_CLINICAL_BERT
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import reading

if TYPE_CHECKING:
    import os

    from retr.retrieval.encoders.base import BaseEncoder

_WEIGHTS = WeightFile(
    name="RetiZero.pth",
    where="https://drive.google.com/file/d/14bMmnefO73_NL1Xc4x0A5qFNbuI7GqKM (linked from "
    "https://github.com/LooKing9218/RetiZero)",
)
CARD = Card(
    name="retizero",
    summary="RETFound ViT-L/16 with LoRA and Bio_ClinicalBERT, 341,896 fundus pictures with texts",
    modality="fundus",
    dim=512,
    text=True,
    licence="none stated",
    source="https://github.com/LooKing9218/RetiZero",
    noncommercial=True,
    files=(_WEIGHTS, BIO_CLINICAL_BERT),
    parameters=303_825_920,
)


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    feature: str = "zero-shot",
    normalisation: str | float | None = None,
    text_batching: str = "single",
    template: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load RetiZero.

    Parameters
    ----------
    weights
        ``RetiZero.pth``, or a folder with it; or what the authors' fine-tuning saves (``checkpoint.pth.tar``), which
        has no texts: then `feature` is ``"backbone"`` or ``"retrieval"``.
    text_model
        Folder of Bio_ClinicalBERT with ``config.json`` and ``vocab.txt``; needed for texts only.
    feature
        ``"zero-shot"`` (512-d, beside the texts), ``"retrieval"`` (1024-d mean of the patch tokens) or
        ``"backbone"`` (1024-d CLS without projection).
    normalisation
        ``"imagenet"`` or ``"0.5"`` (pixels in -1..1). The default is what the authors' scripts do: 0.5 for
        retrieval, ImageNet's otherwise.
    text_batching
        ``"single"`` or ``"reference"`` (pad the texts of one call together, as the authors do).
    template
        What a text is put into in place of ``[CLS]``; ``"[CLS]"`` leaves texts alone.
    device, precision
        As in ``load_encoder``.
    """
    check_choice("feature", feature, ("zero-shot", "retrieval", "backbone"))
    normalisation = str(normalisation or ("0.5" if feature == "retrieval" else "imagenet"))
    check_choice("normalisation", normalisation, ("imagenet", "0.5"))
    file = find(_WEIGHTS, weights, encoder=CARD.name)
    from retr.retrieval.encoders.networks.retizero import load_retizero

    with reading(f"the checkpoint {file.name!r}"):
        return load_retizero(
            file,
            local(text_model),
            card=CARD,
            text_file=BIO_CLINICAL_BERT,
            feature=feature,
            normalisation=normalisation,
            together=together(text_batching),
            caption=template or "A fundus photograph of [CLS]",
            device=device,
            precision=precision,
        )


SPEC = Spec(card=CARD, load=_load)
