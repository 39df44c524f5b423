"""Image readers, one for each format: every file becomes the same 8-bit RGB picture."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retr.retrieval.images.picture import REASONS, Picture
    from retr.retrieval.images.reader import read_image, read_images

__all__ = ["REASONS", "Picture", "read_image", "read_images"]

_HOMES = {"REASONS": "picture", "Picture": "picture", "read_image": "reader", "read_images": "reader"}


# not imported here: two threads that import a package and one of its modules first would wait for each other
def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
