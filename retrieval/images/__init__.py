"""Image readers, one for each format: every file becomes the same 8-bit RGB picture."""

from retr.retrieval.images.picture import REASONS, Picture
from retr.retrieval.images.reader import read_image, read_images

__all__ = ["REASONS", "Picture", "read_image", "read_images"]
