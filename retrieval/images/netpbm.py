"""Binary PGM and PPM whose header names another maximum than 255: Pillow stretches their values, one by one.

Grey keeps the values of the file, to be scaled as all deep grey is; colour keeps its high byte, of the range up to the
maximum that the header names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from retr.retrieval.images.picture import Picture, Reading, read_error
from retr.retrieval.images.samples import grey_picture, layout_name

if TYPE_CHECKING:
    from collections.abc import Iterator

# kind, width, height and maximum; exactly one white space stands before the samples
_GAP = rb"(?:\s+|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([56])" + 3 * (_GAP + rb"(\d{1,9})") + rb"\s")
_HEADER_BYTES = 4096


def maximum(start: bytes) -> int | None:
    r"""Return the maximum that the header of a binary PGM or PPM names; None for other files.

    >>> maximum(b"P5\n# a comment\n640 480\n4095\n"), maximum(b"P2 2 2 255 ")
    (4095, None)
    """
    header = _HEADER.match(start)
    return None if header is None else int(header[4])


def read(stream: BinaryIO, options: Reading) -> Iterator[tuple[str, Picture]]:
    """Read the one picture of the file.

    Raises
    ------
    ImageReadError
        With reason "truncated", "damaged" or "too large".
    """
    header = _HEADER.match(stream.read(_HEADER_BYTES))
    width, height, most = (0, 0, 0) if header is None else (int(header[number]) for number in (2, 3, 4))
    if header is None or min(width, height, most) < 1 or most > 0xFFFF:
        raise read_error("damaged", options.name)
    if width * height > options.max_pixels:
        raise read_error("too large", options.name)
    samples = 1 if header[1] == b"5" else 3
    dtype = np.dtype(np.uint8 if most < 256 else ">u2")
    stream.seek(header.end())
    data = stream.read(width * height * samples * dtype.itemsize)
    if len(data) < width * height * samples * dtype.itemsize:
        raise read_error("truncated", options.name)
    values = np.frombuffer(data, dtype).reshape(height, width, samples).astype(dtype.newbyteorder("="))
    np.minimum(values, most, out=values)
    mode = layout_name(values, most.bit_length(), "L" if samples == 1 else "RGB")
    window = None
    if samples == 1 and most > 255:
        image, notes, window = grey_picture(values[..., 0], most.bit_length(), options)
    else:
        levels = np.arange(most + 1)
        table = (levels * 255 + most // 2) // most if most < 256 else levels * 256 // (most + 1)
        eight = table.astype(np.uint8)[values]
        image, notes = Image.fromarray(eight if samples == 3 else eight[..., 0]).convert("RGB"), {}
    yield "", Picture(image=image, width=width, height=height, mode=mode, notes=notes, window=window)
