"""Check that a checkpoint fits its configuration before a network of that size is allocated.

A configuration is a few numbers: a billion layers, or words, are as quickly written as twelve, and a library makes
them before it looks at the weights. What is made is therefore held to what the checkpoint holds.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from retr.index.errors import WeightsError
from retr.retrieval.encoders.weights.checkpoints import load_state_dict
from retr.retrieval.encoders.weights.untrusted import reading, refuse_stand_in
from retr.retrieval.encoders.weights.wrappers import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_PLAIN = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_SAFE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
# Integers that networks keep beside their weights.
_COUNTERS = ("position_ids", "num_batches_tracked")
# What a network may make beside its weights: masks and tables of positions (256 MB), some tensors a layer.
_SLACK_VALUES, _SLACK_TENSORS = 1 << 26, 10_000
_DEPTH = ("layers", "depth", "depths", "num_hidden_layers", "num_blocks")


class CheckpointContents:
    """How many tensors some checkpoints hold, and how many values; `WeightsError` where they are no floating numbers.

    Eight-bit weights mean nothing without their scales, and libraries cast them in silence.
    """

    def __init__(self, checkpoints: Sequence[Path]) -> None:
        self.name = checkpoints[0].name
        self.tensors = self.values = 0
        for path in checkpoints:
            refuse_stand_in(path)
            for name, shape, kind in _tensors(path):
                self.tensors += 1
                self.values += math.prod(shape)
                if kind not in _PLAIN and not name.endswith(_COUNTERS):
                    raise WeightsError(
                        f"{path.name!r} holds {name!r} as numbers that are no floating ones",
                        hint="save the model in its plain form (float32, float16 or bfloat16)",
                    )

    def require_depth(self, config: Mapping[str, Any], where: str) -> None:
        """Raise `WeightsError` where a configuration has more layers than there are tensors."""
        left: list[Any] = [config]
        while left:
            one = left.pop()
            for key, value in one.items() if isinstance(one, dict) else ():
                deep = value if isinstance(value, list) else [value]
                if key.endswith(_DEPTH) and any(isinstance(n, int | float) and n > self.tensors for n in deep):
                    raise WeightsError(
                        f"{where} states {key} {value!r}, but the weights hold {self.tensors} tensors",
                        hint="is it the configuration of these weights?",
                    )
                left.append(value)

    @contextmanager
    def bounding(self, where: str) -> Iterator[None]:
        """Raise `WeightsError` from within the making of a network once it outgrows the checkpoints."""
        said = f"{self.name!r} does not fit the network that {where} describes, which is larger"
        with _Bound(2 * self.values + _SLACK_VALUES, 50 * self.tensors + _SLACK_TENSORS, said):
            yield


class _Bound(TorchFunctionMode):
    def __init__(self, values: int, tensors: int, said: str) -> None:
        super().__init__()
        self._values, self._tensors, self._said = values, tensors, said

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MAKERS:
            size = (kwargs or {}).get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._values -= math.prod(n for n in size if isinstance(n, int))
            self._tensors -= 1
            if self._values < 0 or self._tensors < 0:
                raise WeightsError(self._said, hint="is it the configuration of these weights?")
        return func(*args, **(kwargs or {}))


def _tensors(path: Path) -> Iterator[tuple[str, Sequence[int], torch.dtype | None]]:
    """Go through a checkpoint's tensors by name, with shape and dtype, without reading their values."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with reading(f"the safetensors file {path.name!r}"), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                part = file.get_slice(name)
                yield name, part.get_shape(), _SAFE.get(part.get_dtype())
        return
    # what a training program kept beside the network is no part of it
    for name, value in unwrap(load_state_dict(path), file=path.name).state.items():
        yield name, value.shape, value.dtype
