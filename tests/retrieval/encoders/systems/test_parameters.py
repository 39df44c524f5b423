"""What a card says of an encoder's size, against the network built without values."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "parity"))
import medimageinsight_folder

from retr.retrieval.encoders import registry
from retr.retrieval.encoders.networks import hf, kad, medimageinsight, timm
from retr.retrieval.encoders.systems.pathology import MODELS
from retr.retrieval.encoders.systems.vision_language import MODELS as IMAGE_TEXT

# after what makes torchvision whole
import open_clip  # isort: skip
import transformers  # isort: skip
from open_clip.timm_model import TimmModel  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE_CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
LARGE_DINO = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
GIANT_DINO = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}


@functools.cache
def clip(name: str) -> torch.nn.Module:
    sizes = open_clip.get_model_config(name)
    return open_clip.CLIP(sizes["embed_dim"], sizes["vision_cfg"], sizes["text_cfg"]).visual


@functools.cache
def hf_clip(dim: int, **sizes: int) -> torch.nn.Module:
    config = transformers.CLIPConfig(vision_config=sizes, projection_dim=dim)
    return hf.ImageSide(transformers.CLIPModel(config), "clip", None)


def dinov2(**sizes: Any) -> torch.nn.Module:
    return transformers.Dinov2Model(transformers.Dinov2Config(**sizes))


def insight() -> torch.nn.Module:
    config = medimageinsight_folder.published()
    spec = medimageinsight.DaViT.from_config(config["IMAGE_ENCODER"]["SPEC"])
    return medimageinsight.ImageSide(spec, config["UNICL_MODEL"]["DIM_PROJECTION"])


def medsiglip() -> torch.nn.Module:
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(image_size=448, patch_size=14, **SO400M))


def of_timm(name: str, **arguments: Any) -> torch.nn.Module:
    # several are of one network
    sizes = {key: value for key, value in arguments.items() if key not in {"dynamic_img_size", "global_pool"}}
    return made(name, tuple(sorted(sizes.items())))


@functools.cache
def made(name: str, arguments: tuple[tuple[str, Any], ...]) -> torch.nn.Module:
    return timm.timm.create_model(name, num_classes=0, **timm._layers(dict(arguments), name))


PUBLISHED: dict[str, Callable[[], torch.nn.Module]] = {
    "chexzero": lambda: clip("ViT-B-32"),
    "eyeclip": lambda: clip("ViT-B-32"),
    "ret-clip": lambda: clip("ViT-B-16"),
    "unimed-clip": lambda: clip("ViT-B-16"),
    "kad": lambda: kad.KadImage(2048, 768),
    "retfound": lambda: of_timm("vit_large_patch16_224"),
    "medimageinsight": insight,
    "rad-dino": lambda: dinov2(image_size=518, patch_size=14),
    "hf:owkin/phikon": lambda: transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False),
    "hf:owkin/phikon-v2": lambda: dinov2(image_size=224, patch_size=16, **LARGE_DINO),
    "hf:kaiko-ai/midnight": lambda: dinov2(image_size=224, patch_size=14, **GIANT_DINO),
    "hf:google/medsiglip-448": medsiglip,
    "hf:flaviagiammarino/pubmed-clip-vit-base-patch32": lambda: hf_clip(512),
    "hf:vinid/plip": lambda: hf_clip(512),
    "hf:suinleelab/monet": lambda: hf_clip(768, patch_size=14, **LARGE_CLIP),
    "open_clip:hf-hub:wisdomik/QuiltNet-B-32": lambda: clip("ViT-B-32"),
    "open_clip:hf-hub:redlessone/DermLIP_ViT-B-16": lambda: clip("ViT-B-16"),
    "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": lambda: TimmModel(
        "vit_base_patch16_224", 512, image_size=224, pool="", proj="linear", pretrained=False
    ),
    **{
        model.card.name: (lambda model=model: of_timm(model.architecture, **model.arguments))
        for model in MODELS.values()
        if model.timm
    },
    # its folder states a size of the hidden layers that its card does not
    "timm:bioptimus/H0-mini": lambda: of_timm(
        "vit_base_patch14_reg4_dinov2",
        **MODELS["bioptimus/h0-mini"].arguments,
        mlp_ratio=5.33334,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_says_the_size_of_the_published_network(name):
    spec, rest = registry.find_spec(name)
    with torch.device("meta"):
        network = PUBLISHED[name]()
    assert spec.card_of(rest).parameters == sum(one.numel() for one in network.parameters())


def test_every_published_encoder_says_its_size():
    found = registry.specs()[0].values()
    cards = [card for spec in found for card in (*([] if spec.family else [spec.card]), *spec.members)]
    assert len(cards) >= 35
    assert [card.name for card in cards if not card.parameters] == []
    # the parity tests compare those that they load in the published size
    assert {card.name for card in cards} - PUBLISHED.keys() == {"lite", "flair", "retizero", "lvm-med"}
    assert {model.card.name for model in (*MODELS.values(), *IMAGE_TEXT.values())} <= PUBLISHED.keys()
