"""Checking that an Arrow file is uncompressed, before Arrow reads it.

A compressed buffer states itself how much memory it takes. Side tables are never compressed, so that they can be
mapped; one that is was not written by a writer of ours. The file says so in FlatBuffers
(https://github.com/apache/arrow/tree/main/format: ``File.fbs``, ``Message.fbs``), of which this reads two fields.
"""

from __future__ import annotations

import struct
from typing import Any

_MAGIC = b"ARROW1"
# Places of fields in their tables.
_DICTIONARIES, _BATCHES = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_DATA, _COMPRESSION = 1, 3
_DICTIONARY_BATCH = 2
_BLOCK = 24


def require_uncompressed(data: memoryview) -> None:
    """Raise ``ValueError`` where a buffer of the file is compressed, or where it is no Arrow file."""
    try:
        size = len(data) - len(_MAGIC) - 4
        (length,) = struct.unpack_from("<i", data, max(size, 0))
        if bytes(data[: len(_MAGIC)]) != _MAGIC or bytes(data[-len(_MAGIC) :]) != _MAGIC or not 0 < length <= size:
            raise ValueError("no Arrow file")
        footer = _Tables(data[size - length : size])
        for field in (_DICTIONARIES, _BATCHES):
            for at in footer.structs(footer.root, field, _BLOCK):
                offset, length = footer.unpack("qi", at)
                _require_plain(data, offset, length)
    except struct.error:
        raise ValueError("no Arrow file") from None


def _require_plain(data: memoryview, offset: int, length: int) -> None:
    # before the message stand a mark and its length
    if offset < 0 or length < 8 or offset + length > len(data):
        raise ValueError("a message outside the file")
    message = _Tables(data[offset + 8 : offset + length])
    batch = message.table(message.root, _HEADER)
    kind = message.field(message.root, _HEADER_TYPE)
    if batch is not None and kind is not None and message.unpack("B", kind)[0] == _DICTIONARY_BATCH:
        batch = message.table(batch, _DATA)
    if batch is None or message.field(batch, _COMPRESSION) is not None:
        raise ValueError("compressed")


class _Tables:
    """FlatBuffers' tables in some bytes, by their places."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.root = self._follow(0)

    def unpack(self, form: str, at: int) -> tuple[Any, ...]:
        if at < 0:
            raise ValueError("a place before the first")
        return struct.unpack_from(f"<{form}", self._data, at)

    def _follow(self, at: int) -> int:
        return at + int(self.unpack("I", at)[0])

    def field(self, table: int, number: int) -> int | None:
        """Return the place of a field; ``None`` where the table lacks it."""
        layout = table - self.unpack("i", table)[0]
        size = self.unpack("H", layout)[0]
        place = self.unpack("H", layout + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return table + place if place else None

    def table(self, table: int, number: int) -> int | None:
        """Return the place of a table inside."""
        at = self.field(table, number)
        return None if at is None else self._follow(at)

    def structs(self, table: int, number: int, size: int) -> range:
        """Return the places of the structures in a field."""
        at = self.table(table, number)
        if at is None:
            return range(0)
        count = self.unpack("I", at)[0]
        if count * size > len(self._data):
            raise ValueError("more structures than bytes")
        return range(at + 4, at + 4 + count * size, size)
