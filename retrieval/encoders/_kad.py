"""KAD's image encoder and disease query network."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from retr.retrieval.encoders._vision import ResNet50


class KadImage(nn.Module):
    """A ResNet-50 whose places are each mapped 2048-2048-768 (``ModelRes512``) or 1024-1024-768 (``ModelRes``).

    Parameters
    ----------
    channels
        Width of the ResNet's map, as ``res_l1`` of the checkpoint has it: 2048 after all four stages, 1024 after
        three.
    dim
        Width of the patch features.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.resnet = ResNet50(stages=4 if channels == 2048 else 3)
        self.res_l1 = nn.Linear(channels, channels)
        self.res_l2 = nn.Linear(channels, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to patch features ``(n, h', w', dim)``; the image vector is their mean."""
        places = self.resnet(pixels).permute(0, 2, 3, 1)
        return cast("Tensor", self.res_l2(torch.relu(self.res_l1(places))))


class QueryNetwork(nn.Module):
    """Asks findings of patch features: four pre-norm decoder layers, one LayerNorm for both inputs and the output.

    The findings attend to each other, so the answer to one depends on which others are asked with it.
    """

    def __init__(self, dim: int, layers: int, hidden: int) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(dim, 4, hidden, activation="relu", batch_first=True, norm_first=True)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.mlp_head = nn.Sequential(nn.Linear(dim, 2))

    def forward(self, patches: Tensor, findings: Tensor) -> Tensor:
        """Give logits ``(n, m, 2)`` (absent, present) for patches ``(n, places, dim)`` and findings ``(m, dim)``."""
        queries = self.decoder_norm(findings).expand(len(patches), -1, -1)
        answers = self.decoder(queries, self.decoder_norm(patches))
        return cast("Tensor", self.mlp_head(self.decoder_norm(answers)))
