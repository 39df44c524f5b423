"""Image towers of the published medical encoders.

torchvision's ResNet-50 and timm's ViT and SAM classes; written here is only where the authors leave those: which map
is taken, and how their names and RetiZero's LoRA become the library's.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from retr.index.errors import WeightsError
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from timm.models.vision_transformer_sam import VisionTransformerSAM  # noqa: E402
from torchvision.models import resnet50  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping


class ResNet50(nn.Module):
    """torchvision's ResNet-50 without its classifier; ``forward`` gives the last map.

    Parameters
    ----------
    stages
        How many of the four stages are run.
    """

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        net = resnet50(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.stages = stages

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to ``(n, 2048, h/32, w/32)``, or ``(n, 1024, h/16, w/16)`` after three stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4)[: self.stages]:
            x = stage(x)
        return cast("Tensor", x)


def pool(features: Tensor) -> Tensor:
    """Average a map ``(n, channels, h, w)`` over its positions: ``(n, channels)``."""
    return torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1)


def plain_vit(state: Mapping[str, Tensor], **own: Any) -> VisionTransformer:
    """Build the ViT whose tensors a state dict holds under timm's names: 224 pixels, heads of 64 as in all of ViT-L.

    RETFound's and RetiZero's is ViT-L/16, 1024 wide and 24 deep. Its output is CLS after the final LayerNorm.

    Parameters
    ----------
    state
        Gives width, depth, patch and hidden size; every key is still to be loaded.
    own
        Further arguments of timm's class.

    Raises
    ------
    WeightsError
        It holds no such network.
    """
    try:
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            "the checkpoint holds no ViT under timm's names", hint="is it the file this encoder asks for?"
        ) from error
    depth = 1 + max(int(key.split(".")[1]) for key in state if re.match(r"blocks\.\d+\.", key))
    return VisionTransformer(
        img_size=224,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=max(1, width // 64),
        mlp_ratio=hidden / width,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **{"global_pool": "token", **own},
    )


def sam_vit_base() -> VisionTransformerSAM:
    """Build SAM's image encoder ViT-B as LVM-Med keeps it: relative positions only, no absolute table.

    The tables are made for 1024 pixels; at 224 (14 x 14 tokens) those of the global blocks are interpolated.
    """
    return VisionTransformerSAM(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_abs_pos=False,
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
        neck_chans=256,
    )


def last_map(vit: VisionTransformer | VisionTransformerSAM, pixels: Tensor) -> Tensor:
    """Run a ViT to the end of its last block, before any final norm or neck: ``(n, dim, h/16, w/16)``, no CLS."""
    return cast("Tensor", vit.forward_intermediates(pixels, indices=1, norm=False, intermediates_only=True)[0])


def fold_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold RetiZero's LoRA into the attention weights, and give timm's names.

    The authors compute ``W x + b`` and add ``B_q A_q x`` to its first third (q) and ``B_v A_v x`` to its last (v),
    unscaled; so ``W`` takes the products once, in float64. The rank is the stored matrices' own.

    Parameters
    ----------
    state
        The vision transformer's tensors under their stored names: ``blocks.0.attn.qkv.qkv.weight``,
        ``blocks.0.attn.qkv.linear_a_q.weight``, ...

    Returns
    -------
    dict
        The same transformer without LoRA: ``blocks.0.attn.qkv.weight``, ...
    """
    folded = {
        name.replace(".attn.qkv.qkv.", ".attn.qkv."): value
        for name, value in state.items()
        if ".attn.qkv.linear_" not in name
    }
    for name, down in state.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.qkv)\.linear_a_([qv])\.weight", name)
        if match is None:
            continue
        block, part = match[1], match[2]
        weight = folded[f"{block}.weight"].double()
        width = weight.shape[1]
        third = slice(0, width) if part == "q" else slice(-width, None)
        weight[third] += state[f"{block}.linear_b_{part}.weight"].double() @ down.double()
        folded[f"{block}.weight"] = weight.to(down.dtype)
    return folded


def sam_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return timm's names to the tensors of a SAM image encoder (``mlp.lin1`` is timm's ``mlp.fc1``)."""
    return {re.sub(r"\.mlp\.lin([12])\.", r".mlp.fc\1.", name): value for name, value in state.items()}
