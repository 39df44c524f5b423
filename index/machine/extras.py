"""Optional packages: the extra that brings each, and what is said where one is missing.

Building with `lite`, exact search and the page need none of them. Whatever does imports its packages inside the
function that needs them, in a block of `needed`::

    with needed():
        from sklearn.linear_model import LogisticRegression
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retr.index.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERYTHING = ("cpu", "gpu")
#: By the name that is imported: what is installed, and the extras that bring it.
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cycler": ("matplotlib", ("eval",)),
    "datasets": ("datasets", ()),
    "dicomweb_client": ("dicomweb-client", ("pacs",)),
    "duckdb": ("duckdb", ("sql",)),
    "faiss": ("faiss", _EVERYTHING),
    "fsspec": ("fsspec", ("remote",)),
    "hdbscan": ("hdbscan", ("eval",)),
    "huggingface_hub": ("huggingface_hub", _EVERYTHING),
    "lance": ("pylance", ()),
    "matplotlib": ("matplotlib", ("eval",)),
    "mcp": ("mcp", ("mcp",)),
    "nibabel": ("nibabel", ("dicom",)),
    "onnx": ("onnx", _EVERYTHING),
    "open_clip": ("open_clip_torch", _EVERYTHING),
    "pandas": ("pandas", ()),
    "polars": ("polars", ()),
    "pydicom": ("pydicom", ("dicom",)),
    "ray": ("ray", ("ray",)),
    "requests": ("requests", ("pacs",)),
    "s3fs": ("s3fs", ("remote",)),
    "safetensors": ("safetensors", _EVERYTHING),
    "scipy": ("scipy", ("eval",)),
    "sentencepiece": ("sentencepiece", _EVERYTHING),
    "skimage": ("scikit-image", ("geometry",)),
    "sklearn": ("scikit-learn", ("eval",)),
    "timm": ("timm", _EVERYTHING),
    "tokenizers": ("tokenizers", _EVERYTHING),
    "torch": ("torch", _EVERYTHING),
    "torchvision": ("torchvision", _EVERYTHING),
    "transformers": ("transformers", _EVERYTHING),
    "umap": ("umap-learn", ("eval",)),
}
#: What is enough by itself, where extras would bring much more.
_ALONE = {"faiss": "faiss-cpu>=1.15"}


@contextmanager
def needed() -> Iterator[None]:
    """Import optional packages inside, and say with which command one is installed that is missing.

    Raises
    ------
    MissingExtraError
        An import failed for the want of a package of `PACKAGES`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        # a part that is not there is another version, not a package that is missing
        if module not in PACKAGES or sys.modules.get(module) is not None:
            raise
        raise missing(module) from None


def missing(module: str) -> MissingExtraError:
    """Return what to raise where a module of `PACKAGES` cannot be imported.

    >>> print(missing("skimage"))
    scikit-image is not installed; install it with `pip install "retr[geometry]"`
    """
    package, extras = PACKAGES[module]
    return MissingExtraError(package, *extras, alone=_ALONE.get(module))
