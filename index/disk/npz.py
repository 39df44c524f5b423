"""Arrays from an untrusted ``.npz``: no pickles, and no more memory than the file itself has bytes."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# What one file may hold unpacked: some hundred times the largest that a fit of ours leaves.
_MOST_BYTES = 2 << 30
_PLAIN = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def read_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Read what ``np.savez`` wrote.

    Raises
    ------
    ValueError
        It is something else, or unpacks to more than 2 GiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = file.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            total = sum(member.file_size for member in members)
            plain = all(member.compress_type in _PLAIN and not member.flag_bits & 1 for member in members)
            if len(set(names)) < len(names) or total > _MOST_BYTES or not plain:
                raise ValueError("no arrays of ours")
            return {name: _array(file.read(member)) for name, member in zip(names, members, strict=True)}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, SyntaxError) as error:
        raise ValueError("no npz") from error


def _array(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("an array of another version")
    shape, fortran, kind = npy.read_array_header_1_0(stream)
    start = stream.tell()
    if (
        kind.hasobject
        or kind.names
        or min(shape, default=0) < 0
        or math.prod(shape) * kind.itemsize != len(data) - start
    ):
        raise ValueError("an array of objects, or of another size than it says")
    array: NDArray[Any] = np.frombuffer(data, kind, offset=start).reshape(shape, order="F" if fortran else "C")
    return array


def numbers(arrays: Mapping[str, NDArray[Any]], name: str, *shape: int | None, kind: Any = np.float32) -> NDArray[Any]:
    """Take one of the arrays.

    Parameters
    ----------
    shape
        Its lengths; ``None`` where any will do.
    kind
        Its dtype.

    Raises
    ------
    KeyError
        There is none of that name.
    ValueError
        It has another shape or dtype, or holds values that are not finite.
    """
    array = arrays[name]
    fits = len(shape) == array.ndim and all(n in {None, m} for n, m in zip(shape, array.shape, strict=True))
    if array.dtype != kind or not fits or not np.isfinite(array).all():
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    return array
