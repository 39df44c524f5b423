"""Pathology encoders that are models of timm or of transformers: what their cards say beyond their files.

A card hands more to ``timm.create_model`` than the repository's ``config.json`` holds (SwiGLU is no JSON), and says
which tokens are the embedding. The facts are of the cards and of the authors' own readers, which
``tests/parity/make/pathology.py`` names one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.retrieval.encoders.spec import Card
from retr.retrieval.encoders.systems.known import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_HOPTIMUS = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
_HIBOU = {"mean": (0.7068, 0.5755, 0.722), "std": (0.195, 0.2316, 0.1816)}
_WHOLE = {"crop_pct": 1.0}
_ND = "CC BY-NC-ND 4.0"


def _card(
    name: str,
    summary: str,
    dim: int,
    licence: str,
    *,
    parameters: int,
    free: bool = False,
    source: str | None = None,
) -> Card:
    repository = name.partition(":")[2]
    return Card(
        name=name,
        summary=summary,
        modality="pathology",
        dim=dim,
        text=False,
        licence=licence,
        source=source or f"https://huggingface.co/{repository}",
        noncommercial=not free,
        parameters=parameters,
    )


def _kaiko(architecture: str, dim: int, what: str, parameters: int, **own: Any) -> Known:
    name = f"timm:1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms"
    return Known(
        _card(name, f"Kaiko {what}, TCGA tiles", dim, "Kaiko's own", parameters=parameters),
        architecture,
        {"dynamic_img_size": True},
        fallback={**_WHOLE, **_HALF, "interpolation": "bilinear", "crop_mode": "center", **own},
    )


def _lunit(architecture: str, dim: int, what: str, tag: str, parameters: int) -> Known:
    name = f"timm:1aurent/{architecture}.{tag}"
    card = _card(name, f"Lunit {what}, TCGA and TULIP tiles", dim, "Lunit's own", parameters=parameters)
    return Known(card, architecture)


_ALL = (
    Known(
        _card(
            "timm:MahmoodLab/UNI",
            "UNI, ViT-L/16, 100 million tiles of 100,000 slides (Mass-100K)",
            1024,
            _ND,
            parameters=303_350_784,
        ),
        "vit_large_patch16_224",
        {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        fallback={**_WHOLE, **_IMAGENET, "interpolation": "bilinear"},
    ),
    Known(
        _card(
            "timm:MahmoodLab/UNI2-h",
            "UNI 2, ViT-H/14 with 8 registers, 200 million tiles",
            1536,
            _ND,
            parameters=681_394_176,
        ),
        "vit_giant_patch14_224",
        {
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
        fallback={**_WHOLE, **_IMAGENET, "interpolation": "bilinear"},
    ),
    Known(
        _card(
            "timm:paige-ai/Virchow",
            "Virchow, ViT-H/14, 1.5 million slides",
            2560,
            "Apache-2.0",
            free=True,
            parameters=631_229_184,
        ),
        "vit_huge_patch14_224",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **_SWIGLU},
        pooling="cls+mean",
        fallback={**_WHOLE, **_IMAGENET, "interpolation": "bicubic"},
    ),
    Known(
        _card(
            "timm:paige-ai/Virchow2",
            "Virchow 2, ViT-H/14 with 4 registers, 3.1 million slides",
            2560,
            _ND,
            parameters=631_239_424,
        ),
        "vit_huge_patch14_224",
        {
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "global_pool": "",
            "reg_tokens": 4,
            **_SWIGLU,
        },
        pooling="cls+mean",
        fallback={**_WHOLE, **_IMAGENET, "interpolation": "bicubic"},
    ),
    *(
        Known(
            _card(
                f"timm:bioptimus/H-optimus-{number}", summary, 1536, licence, free=number == 0, parameters=1_134_774_272
            ),
            "vit_giant_patch14_reg4_dinov2",
            {"img_size": 224, "init_values": 1e-5, "global_pool": "token", "dynamic_img_size": False},
            preprocess={**_WHOLE, **_HOPTIMUS, "interpolation": "bilinear", "crop_mode": "center"},
        )
        for number, summary, licence in (
            (0, "H-optimus-0, ViT-g/14 with 4 registers, 500,000 slides", "Apache-2.0"),
            (1, "H-optimus-1, ViT-g/14 with 4 registers, 1 million slides", _ND),
        )
    ),
    # its folder says what its card leaves out, the width of the hidden layers: here that of the 86 million it speaks of
    Known(
        _card(
            "timm:bioptimus/H0-mini",
            "H0-mini, ViT-B/14 with 4 registers, distilled from H-optimus-0",
            768,
            _ND,
            parameters=85_739_520,
        ),
        "vit_base_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5, "global_pool": "", **_SWIGLU},
        pooling="cls",
        fallback={**_WHOLE, **_HOPTIMUS, "interpolation": "bicubic"},
    ),
    Known(
        _card(
            "timm:prov-gigapath/prov-gigapath",
            "Prov-GigaPath (tiles), ViT-g/16, 171,189 slides",
            1536,
            "Apache-2.0",
            free=True,
            parameters=1_134_953_984,
        ),
        "vit_giant_patch14_dinov2",
        {
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "init_values": 1e-5,
            "mlp_ratio": 5.33334,
        },
        preprocess={**_IMAGENET, "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"},
    ),
    Known(
        _card(
            "timm:majiabo/GPFM", "GPFM, ViT-L/14, 190 million tiles of 72,280 slides", 1024, _ND, parameters=303_227_904
        ),
        "vit_large_patch14_dinov2",
        {"img_size": 224, "init_values": 1e-5},
        preprocess={**_WHOLE, **_IMAGENET, "interpolation": "bicubic", "crop_mode": "center"},
        files=("GPFM.pth",),
    ),
    _kaiko("vit_small_patch16_224", 384, "ViT-S/16", 21_665_664),
    _kaiko("vit_small_patch8_224", 384, "ViT-S/8", 21_670_272),
    _kaiko("vit_base_patch16_224", 768, "ViT-B/16", 85_798_656),
    _kaiko("vit_base_patch8_224", 768, "ViT-B/8", 85_807_872),
    _kaiko("vit_large_patch14_reg4_dinov2", 1024, "ViT-L/14 with 4 registers", 304_370_688, input_size=(3, 224, 224)),
    _lunit("vit_small_patch16_224", 384, "DINO ViT-S/16", "lunit_dino", 21_665_664),
    _lunit("vit_small_patch8_224", 384, "DINO ViT-S/8", "lunit_dino", 21_670_272),
    _lunit("resnet50", 2048, "Barlow Twins ResNet-50", "lunit_bt", 23_508_032),
    Known(
        _card(
            "hf:owkin/phikon",
            "Phikon, ViT-B/16 (iBOT), 40 million tiles of TCGA",
            768,
            "Owkin's own",
            parameters=85_798_656,
        )
    ),
    Known(
        _card(
            "hf:owkin/phikon-v2",
            "Phikon-v2, ViT-L/16 (DINOv2), 460 million tiles",
            1024,
            "Owkin's own",
            parameters=303_351_808,
        )
    ),
    Known(
        _card(
            "hf:kaiko-ai/midnight",
            "Midnight-12k, ViT-g/14 (DINOv2), 12,000 slides",
            3072,
            "MIT",
            free=True,
            parameters=1_134_771_200,
        ),
        pooling="cls+mean",
        preprocess={**_WHOLE, **_HALF, "interpolation": "bilinear"},
    ),
    # of hub folders of Hibou the code is not transformers' own: they are refused, the authors' file is read
    Known(
        _card(
            *("timm:histai/hibou-b", "Hibou-B, ViT-B/14 with 4 registers, 1.1 million slides", 768, "Apache-2.0"),
            free=True,
            parameters=85_739_520,
        ),
        "vit_base_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, **_SWIGLU},
        preprocess={**_WHOLE, **_HIBOU, "interpolation": "bicubic", "crop_mode": "squash"},
        files=("hibou-b.pth",),
    ),
)
MODELS: Mapping[str, Known] = {model.card.name.partition(":")[2].lower(): model for model in _ALL}
