"""Other people's tools: what reads an index, and what an index is made of. See ``docs/howto/other-tools.md``.

>>> from retr.interop import IndexDataset, IndexTransformer, read_coco
"""

from importlib import import_module
from typing import TYPE_CHECKING

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from retr.retrieval.interop.coco import read_coco
    from retr.retrieval.interop.sklearn_transformer import IndexTransformer
    from retr.retrieval.interop.torch_dataset import IndexDataset

__all__ = ["IndexDataset", "IndexTransformer", "read_coco"]

_HOMES = {"IndexDataset": "torch_dataset", "IndexTransformer": "sklearn_transformer", "read_coco": "coco"}


def __getattr__(name: str) -> object:
    """Import what is asked for, and with it scikit-learn or torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed():
        return getattr(import_module(f"retr.retrieval.interop.{_HOMES[name]}"), name)
