"""Make ``import torchvision`` work beside a CPU-only torch, where PyPI's wheel does not import by itself.

PyPI's torchvision is built against the CUDA torch; beside a CPU-only torch its operators are not registered
and the import ends in ``operator torchvision::nms does not exist``, which takes open_clip and transformers'
image processors down with it (pytorch/vision issues 9077 and 9085). Declaring the two operators that the
Python side registers kernels for is enough: the transforms then work; ``torchvision.io`` and ``ops.nms`` do
not.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

# Operator libraries live as long as this reference does.
_DECLARED: list[Any] = []


@lru_cache(maxsize=1)
def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators if need be; call before open_clip or transformers.

    A torchvision that imports by itself is left alone. An error of another kind is passed on.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return
    import torch

    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)  # type: ignore[no-untyped-call]
    _DECLARED.append(library)
    import torchvision  # noqa: F401
