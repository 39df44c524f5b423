"""Arrays that somebody else wrote: what `np.savez` wrote comes back, anything else is a ``ValueError``."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from retr.index.disk.npz import numbers, read_npz


def packed(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", how) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return sink.getvalue()


def saved(array: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_comes_back(write):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.eye(3)), "c": np.zeros(0)}
    sink = io.BytesIO()
    write(sink, **arrays)
    found = read_npz(sink.getvalue())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def with_shape(shape: tuple[int, ...]) -> bytes:
    """Say of 8 bytes that they are an array of this shape."""
    sink = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(sink, header)
    return sink.getvalue() + bytes(8)


def promising(size: int) -> bytes:
    """Promise more bytes than a member has."""
    data = bytearray(packed({"a.npy": saved(np.zeros(3))}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        packed({"a.npy": saved(np.array([object()]), allow_pickle=True)}),
        packed({"a.npy": b"no array"}),
        packed({"a.npy": saved(np.zeros(4))[:-1]}),
        packed({"a.npy": with_shape((1 << 40,))}),
        packed({"a.npy": with_shape((-1,))}),
        packed({"a.npy": saved(np.zeros(3, [("x", "f4")]))}),
        packed({"a.npy": saved(np.zeros(3)), "a": saved(np.ones(3))}),
        packed({"a.npy": saved(np.zeros(3))}, zipfile.ZIP_LZMA),
        promising(3 << 30),
    ],
)
def test_anything_else_is_refused(data):
    with pytest.raises(ValueError, match=r".|^$"):
        read_npz(data)


def test_an_array_is_taken_by_its_shape_and_type():
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.array([np.nan], np.float32)}
    assert numbers(arrays, "a", None, 3) is arrays["a"]
    for name, shape in (("a", (2,)), ("a", (3, None)), ("b", (1,))):
        with pytest.raises(ValueError, match=name):
            numbers(arrays, name, *shape)
    with pytest.raises(ValueError, match="a is float32"):
        numbers(arrays, "a", 2, 3, kind=np.float16)
    with pytest.raises(KeyError):
        numbers(arrays, "c")
