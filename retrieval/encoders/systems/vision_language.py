"""Medical image-text models that are folders of transformers or of open_clip: their cards.

Their folders say all that decides their vectors, but for MedSigLIP, whose card resizes pictures with TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.retrieval.encoders.spec import Card
from retr.retrieval.encoders.systems.known import Known

if TYPE_CHECKING:
    from collections.abc import Mapping


def _card(name: str, summary: str, modality: str, dim: int, licence: str, *, parameters: int, free: bool) -> Card:
    repository = name.removeprefix("hf:").removeprefix("open_clip:hf-hub:")
    return Card(
        name=name,
        summary=summary,
        modality=modality,
        dim=dim,
        text=True,
        licence=licence,
        source=f"https://huggingface.co/{repository}",
        noncommercial=not free,
        parameters=parameters,
    )


_ALL = (
    Known(
        _card(
            "hf:google/medsiglip-448",
            "MedSigLIP, SigLIP of 400M + 400M at 448 pixels; X-ray, fundus, skin, tissue, CT, MRI",
            *("many", 1152, "Health AI Developer Foundations terms"),
            free=True,
            parameters=428_565_440,
        ),
        resize="tensorflow",
    ),
    Known(
        _card(
            "hf:flaviagiammarino/pubmed-clip-vit-base-patch32",
            "PubMedCLIP, CLIP ViT-B/32 on the radiology of ROCO",
            *("radiology", 512, "MIT"),
            free=True,
            parameters=87_849_216,
        )
    ),
    Known(
        _card(
            "hf:vinid/plip",
            "PLIP, CLIP ViT-B/32 on 208,414 pathology pictures with texts of Twitter",
            *("pathology", 512, "MIT (code); none stated for the weights"),
            free=False,
            parameters=87_849_216,
        )
    ),
    Known(
        _card(
            "hf:suinleelab/monet",
            "MONET, CLIP ViT-L/14 on 105,550 dermatology pictures with texts",
            *("dermatology", 768, "CC BY-NC-SA 4.0"),
            free=False,
            parameters=303_966_208,
        )
    ),
    Known(
        _card(
            "open_clip:hf-hub:wisdomik/QuiltNet-B-32",
            "QuiltNet, CLIP ViT-B/32 on a million pathology pictures with texts (Quilt-1M)",
            *("pathology", 512, "MIT"),
            free=True,
            parameters=87_849_216,
        )
    ),
    Known(
        _card(
            "open_clip:hf-hub:redlessone/DermLIP_ViT-B-16",
            "DermLIP, CLIP ViT-B/16 on a million skin pictures with texts (Derm1M)",
            *("dermatology", 512, "CC BY-NC 4.0"),
            free=False,
            parameters=86_192_640,
        )
    ),
    Known(
        _card(
            "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
            "BiomedCLIP, ViT-B/16 and PubMedBERT on 15 million figures of PubMed Central",
            *("many", 512, "MIT"),
            free=True,
            parameters=86_191_872,
        )
    ),
)
MODELS: Mapping[str, Known] = {model.card.name.removeprefix("hf:").lower(): model for model in _ALL}
