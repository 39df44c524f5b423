"""DaViT: windows of places and groups of channels attend by turns, with depth-wise convolutions between.

Written here under the names of MedImageInsight's checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Height and width of a map of tokens.
Size = tuple[int, int]


class _Residual(nn.Module):
    """A layer behind a norm, or none, beside which its input passes."""

    def __init__(self, fn: nn.Module, width: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if width is not None else None
        self.fn = fn

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return x + cast("Tensor", self.fn(x if self.norm is None else self.norm(x), size))


class _DepthWise(nn.Module):
    """A convolution of each channel by itself, 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        grid = x.transpose(1, 2).reshape(len(x), -1, *size)
        return cast("Tensor", self.dw(grid).flatten(2).transpose(1, 2))


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"fc1": nn.Linear(width, width * 4), "fc2": nn.Linear(width * 4, width)})

    def forward(self, x: Tensor, size: Size) -> Tensor:  # noqa: ARG002
        return cast("Tensor", self.net["fc2"](F.gelu(self.net["fc1"](x))))


class _WindowAttention(nn.Module):
    """Attention among the places of a window; a map that windows do not fill is filled up with zeros."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, width * 3), nn.Linear(width, width)
        self.heads, self.window = heads, window

    def forward(self, x: Tensor, size: Size) -> Tensor:
        n, _, width = x.shape
        side = self.window
        down, right = (-size[0] % side, -size[1] % side)
        grid = F.pad(x.view(n, *size, width), (0, 0, 0, right, 0, down))
        rows, columns = grid.shape[1] // side, grid.shape[2] // side
        windows = grid.view(n, rows, side, columns, side, width).transpose(2, 3).reshape(-1, side * side, width)
        q, k, v = self.qkv(windows).view(len(windows), side * side, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
        out = self.proj((weights @ v).transpose(1, 2).reshape(windows.shape))
        grid = out.view(n, rows, columns, side, side, width).transpose(2, 3).reshape(grid.shape)
        return cast("Tensor", grid[:, : size[0], : size[1]].reshape(x.shape))


class _ChannelAttention(nn.Module):
    """Attention among the channels of a group, over all places."""

    def __init__(self, width: int, groups: int, *, dynamic: bool) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, width * 3), nn.Linear(width, width)
        self.groups, self.dynamic = groups, dynamic

    def forward(self, x: Tensor, size: Size) -> Tensor:  # noqa: ARG002
        n, places, width = x.shape
        q, k, v = self.qkv(x).view(n, places, 3, self.groups, -1).permute(2, 0, 3, 1, 4)
        scale = (places if self.dynamic else width) ** -0.5
        weights = ((q * scale).transpose(-1, -2) @ k).softmax(dim=-1)
        out = (weights @ v.transpose(-1, -2)).transpose(-1, -2)
        return cast("Tensor", self.proj(out.transpose(1, 2).reshape(x.shape)))


class _Block(nn.Module):
    """Convolution, attention, convolution, perceptron; each optional but the last and the attention."""

    def __init__(self, name: str, attention: nn.Module, width: int, *, first: bool, second: bool) -> None:
        super().__init__()
        self.conv1 = _Residual(_DepthWise(width), None) if first else None
        self.add_module(name, _Residual(attention, width))
        self.conv2 = _Residual(_DepthWise(width), None) if second else None
        self.ffn = _Residual(_Perceptron(width), width)
        self._order = ("conv1", name, "conv2", "ffn")

    def forward(self, x: Tensor, size: Size) -> Tensor:
        for name in self._order:
            layer = getattr(self, name)
            x = x if layer is None else layer(x, size)
        return x


class _Embedding(nn.Module):
    """A strided convolution that opens a stage, with a norm before or behind it."""

    def __init__(self, dim_in: int, dim_out: int, patch: int, stride: int, padding: int, *, first_norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim_in, dim_out, patch, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(dim_in if first_norm else dim_out)
        self.first_norm = first_norm

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        if x.ndim == 3:
            tokens = self.norm(x) if self.first_norm else x
            x = tokens.transpose(1, 2).reshape(len(x), -1, *size)
        grid = self.proj(x)
        tokens = grid.flatten(2).transpose(1, 2)
        return (tokens if self.first_norm else self.norm(tokens)), (grid.shape[-2], grid.shape[-1])


class DaViT(nn.Module):
    """Pixels to the mean of the last stage's tokens, normed.

    Parameters
    ----------
    widths, depths, heads, groups
        One number a stage.
    patches, strides, paddings, first_norms
        Of the convolution that opens each stage, and whether its norm comes first.
    window
        Side of a window, in tokens.
    at_attention, at_perceptron
        Whether a convolution precedes them.
    dynamic
        Whether channels are scaled by the number of places, else by that of channels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        groups: Sequence[int],
        patches: Sequence[int],
        strides: Sequence[int],
        paddings: Sequence[int],
        first_norms: Sequence[bool],
        *,
        window: int,
        at_attention: bool,
        at_perceptron: bool,
        dynamic: bool,
    ) -> None:
        super().__init__()
        stages = range(len(widths))
        convolutions = {"first": at_attention, "second": at_perceptron}
        self.convs = nn.ModuleList(
            _Embedding(
                3 if i == 0 else widths[i - 1],
                widths[i],
                patches[i],
                strides[i],
                paddings[i],
                first_norm=first_norms[i],
            )
            for i in stages
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        "spatial_block": _Block(
                            "window_attn", _WindowAttention(widths[i], heads[i], window), widths[i], **convolutions
                        ),
                        "channel_block": _Block(
                            "channel_attn",
                            _ChannelAttention(widths[i], groups[i], dynamic=dynamic),
                            widths[i],
                            **convolutions,
                        ),
                    }
                )
                for _ in range(depths[i])
            )
            for i in stages
        )
        self.norms = nn.LayerNorm(widths[-1])
        self.dim = widths[-1]

    @classmethod
    def from_config(cls, spec: Mapping[str, Any]) -> DaViT:
        """Build it from ``IMAGE_ENCODER.SPEC`` of a ``config.yaml``; `KeyError` where a key is missing."""
        return cls(
            spec["DIM_EMBED"],
            spec["DEPTHS"],
            spec["NUM_HEADS"],
            spec["NUM_GROUPS"],
            spec["PATCH_SIZE"],
            spec["PATCH_STRIDE"],
            spec["PATCH_PADDING"],
            spec["PATCH_PRENORM"],
            window=spec.get("WINDOW_SIZE", 7),
            at_attention=spec.get("CONV_AT_ATTN", True),
            at_perceptron=spec.get("CONV_AT_FFN", True),
            dynamic=spec.get("DYNAMIC_SCALE", True),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, h, w)``: ``(n, width)``."""
        x, size = pixels, (pixels.shape[-2], pixels.shape[-1])
        for opening, stage in zip(self.convs, self.blocks, strict=True):
            x, size = opening(x, size)
            for pair in cast("nn.ModuleList", stage):
                for block in cast("nn.ModuleDict", pair).values():
                    x = block(x, size)
        return cast("Tensor", self.norms(x.mean(dim=1)))
