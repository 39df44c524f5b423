"""Typed values of a DICOM data set, however they were encoded.

Headers of the wild hold numbers that are no numbers, values where there should be two, tables whose VR is wrong, and
signed values written as unsigned. pydicom converts by the stored VR and raises for the whole element; here a value that
cannot be read is missing, alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST_VALUES = 64
_WORD = 1 << 16
# how many bits the entries of a table are taken to have, by the largest of them
_ENTRY_BITS = (8, 10, 12, 14, 16)
# palettes have these alone: one of 16 bits that stays below a quarter of them is dark
PALETTE_BITS = (8, 16)
# A table that uses a quarter of its declared range or less would show a picture that is next to black.
_SPARE_BITS = 2
_SEGMENT_DISCRETE, _SEGMENT_LINEAR, _SEGMENT_INDIRECT = 0, 1, 2
_NESTED_SEGMENTS = 3


def numbers(data: Dataset, keyword: str) -> tuple[float | None, ...]:
    """Return the numbers of an element, None in place of each that is not a finite number; empty where it is absent."""
    element = _element(data, keyword)
    if element is None or element.value is None:
        return ()
    if isinstance(element.value, bytes):
        if _is_text(element):
            parts = element.value.decode("latin-1").split("\\", _MOST_VALUES)
            return tuple(_number(part) for part in parts) if element.value.strip(b" \0") else ()
        try:
            value = data[keyword].value
        except Exception:  # noqa: BLE001 - pydicom raises nearly anything for bytes that do not fit the VR
            return ()
    else:
        value = element.value
    if isinstance(value, str):
        return tuple(_number(part) for part in value.split("\\", _MOST_VALUES))
    if isinstance(value, bytes):  # a VR that is ambiguous without its context
        found = words_of(data, keyword)
        return () if found is None else tuple(float(word) for word in found[:_MOST_VALUES])
    values = value if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    return tuple(_finite(item) for item in values)


def first_number(data: Dataset, keyword: str) -> float | None:
    """Return the first number of an element, None where there is none."""
    return next(iter(numbers(data, keyword)), None)


def whole(data: Dataset, keyword: str) -> int | None:
    """Return the first number of an element where it is a whole one, else None."""
    value = first_number(data, keyword)
    return int(value) if value is not None and value == int(value) else None


def text(data: Dataset, keyword: str) -> str:
    """Return a code string in capitals without padding, its first value; ``""`` where it is absent or no text."""
    element = _element(data, keyword)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif value is not None and not isinstance(value, str) and hasattr(value, "__iter__"):
        value = next(iter(value), "")
    return str(value or "").split("\\", 1)[0].strip(" \0\t\r\n").upper()


def items(data: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty where it is absent or no sequence."""
    from pydicom import Dataset

    if keyword not in data:
        return []
    try:
        value = data[keyword].value
        return [item for item in value or [] if isinstance(item, Dataset)]
    except Exception:  # noqa: BLE001 - a sequence that cannot be parsed is as good as none
        return []


def words_of(data: Dataset, keyword: str) -> NDArray[np.uint16] | None:
    """Return an element's 16-bit words, uint16 ``(n,)``, by whichever VR it was written; None where it has none."""
    element = _element(data, keyword)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        return np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.uint16)
    if isinstance(value, int):
        value = [value]
    try:
        return np.array([int(item) % _WORD for item in value], dtype=np.uint16) if value is not None else None
    except (TypeError, ValueError):
        return None


def signed_like(value: int, reach: tuple[float, float], length: int = 1) -> int:
    """Return a 16-bit value as signed or unsigned: as whichever lies where pixel values can lie.

    Parameters
    ----------
    value
        As it was written, by either sign.
    reach
        Lowest and highest value that pixels can have.
    length
        Of a table that begins at ``value``: the meaning under which more of it can be reached is taken.

    Examples
    --------
    >>> signed_like(63536, (-32768, 32767)), signed_like(-25536, (0, 65535)), signed_like(40, (0, 4095))
    (-2000, 40000, 40)
    """

    def reached(first: int) -> float:
        return min(first + length - 1, reach[1]) - max(first, reach[0])

    if reach[0] <= value <= reach[1]:
        return value
    width = reach[1] - reach[0] + 1
    widths = {_WORD, int(width)} if math.isfinite(width) and width <= _WORD else {_WORD}
    return max((value, *(value + sign * by for by in sorted(widths, reverse=True) for sign in (-1, 1))), key=reached)


class RefusalError(Exception):
    """A file that is not read, with one of `retr.retrieval.images.REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class LookupTable:
    """A lookup table: entries for the values ``first``, ``first + 1``, ...; values outside take the nearest entry.

    Attributes
    ----------
    entries
        Unsigned integers ``(n,)``, n at least 1.
    bits
        Of an entry: what is declared, or what is in use where that is clearly another.
    said
        How many entries, and of how many bits, the descriptor says there are.
    """

    first: int
    entries: NDArray[Any]
    bits: int
    said: tuple[int, int]

    @property
    def is_as_said(self) -> bool:
        """Whether the descriptor is right."""
        return (len(self.entries), self.bits) == self.said

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the entries of values of any shape and number type."""
        places = np.clip(values.astype(np.float64) - self.first, 0, len(self.entries) - 1)
        return self.entries[places.astype(np.intp)]

    def to_8bit(self) -> NDArray[np.uint8]:
        """Return the entries scaled and rounded to 8 bits, uint8 ``(n,)``."""
        peak = (1 << self.bits) - 1
        scaled: NDArray[np.float64] = np.minimum(self.entries, peak) / peak * 255
        return np.rint(scaled).astype(np.uint8)

    def high_bytes(self) -> NDArray[np.uint8]:
        """Return the upper eight bits of the entries, uint8 ``(n,)``; entries of fewer bits are scaled."""
        return np.asarray(self.to_8bit() if self.bits < 8 else self.entries >> (self.bits - 8), dtype=np.uint8)


def lookup_table(
    data: Dataset,
    descriptor: str,
    content: str,
    reach: tuple[float, float],
    widths: tuple[int, ...] = _ENTRY_BITS,
) -> LookupTable | None:
    """Return a lookup table of a data set, or None where it is absent or has no entries.

    Entries are bytes or words by how many of them there are, not by what the descriptor says.

    Parameters
    ----------
    descriptor, content
        Keywords of the descriptor (number of entries, first value, bits of an entry) and of the entries.
    reach
        Lowest and highest value that is looked up.
    widths
        How many bits an entry may have other than declared, ascending.
    """
    described = words_of(data, descriptor)
    if described is None or len(described) < 3:
        return None
    count, first, declared = int(described[0]) or _WORD, int(described[1]), int(described[2])
    entries = _entries(data, content, count, declared)
    if entries is None or not entries.size:
        return None
    bits = bits_in_use(int(entries.max()), declared, widths)
    return LookupTable(signed_like(first, reach, len(entries)), entries, bits, (count, declared))


def segmented_table(
    data: Dataset, descriptor: str, content: str, reach: tuple[float, float], most: int = 2 * _WORD
) -> LookupTable | None:
    """Return a segmented lookup table, expanded.

    Raises
    ------
    RefusalError
        The segments are not valid, or expand to more than ``most`` entries: "damaged".
    """
    described, found = words_of(data, descriptor), words_of(data, content)
    if described is None or len(described) < 3 or found is None or not found.size:
        return None
    count, first, declared = int(described[0]) or _WORD, int(described[1]), int(described[2])
    wide = declared > 8
    # as 8-bit entries in the file's byte order: the words are little-endian here
    segments = found.astype(np.int64) if wide else np.frombuffer(found.astype("<u2").tobytes(), np.uint8).astype(int)
    expanded: list[NDArray[Any]] = []
    _expand(segments, -1, wide, expanded, [most], 0)
    entries = np.concatenate([np.zeros(0, np.int64), *expanded])[:count].astype(np.uint16)
    if len(entries) < count:
        raise RefusalError("damaged")
    bits = bits_in_use(int(entries.max()), declared, PALETTE_BITS)
    return LookupTable(signed_like(first, reach, len(entries)), entries, bits, (count, declared))


def bits_in_use(largest: int, declared: int, widths: tuple[int, ...] = _ENTRY_BITS) -> int:
    """Return how many bits the entries of a table have.

    Examples
    --------
    >>> bits_in_use(255, 16), bits_in_use(4095, 16), bits_in_use(30000, 16), bits_in_use(4095, 8), bits_in_use(200, 8)
    (8, 12, 16, 12, 8)
    """
    used = next(bits for bits in widths if largest < 1 << bits)
    believable = 1 <= declared <= widths[-1] and largest < 1 << declared
    return declared if believable and declared - used < _SPARE_BITS else used


def _element(data: Dataset, keyword: str) -> Any:
    """Return an element as it was read: pydicom converts on the usual access, and raises."""
    return data.get_item(keyword) if keyword in data else None


def _is_text(element: Any) -> bool:
    from pydicom.datadict import dictionary_VR

    representation = element.VR
    if representation in {None, "UN", "OB"}:
        try:
            representation = dictionary_VR(element.tag)
        except KeyError:
            return False
    return representation in {"DS", "IS", "CS", "LO", "SH", "ST", "LT", "UT", "AS", "UC"}


def _number(part: str) -> float | None:
    part = part.strip(" \0")
    return _finite(float(part)) if _NUMBER.fullmatch(part) else None


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _entries(data: Dataset, keyword: str, count: int, declared: int) -> NDArray[Any] | None:
    element = _element(data, keyword)
    value = None if element is None else element.value
    found = words_of(data, keyword)
    if found is None:
        return None
    if isinstance(value, bytes):
        bytewise = len(value) <= count + count % 2 and not (len(value) == 2 * count and declared > 8)
        if bytewise and (declared <= 8 or len(value) >= count):
            # bytes that lie in words: a big-endian file swaps each pair
            swapped = element.VR == "OW" and not getattr(element, "is_little_endian", True)
            packed = found.astype("<u2").tobytes() if swapped else value
            return np.frombuffer(packed, np.uint8)[:count]
    return found[:count]


def _expand(
    segments: NDArray[Any], count: int, wide: bool, out: list[NDArray[Any]], left: list[int], depth: int
) -> None:
    """Append to ``out`` what ``count`` (-1: all) segments expand to, and take it from what is ``left``."""
    at = 0
    while at + 1 < len(segments) and count != 0:
        kind, length = int(segments[at]), int(segments[at + 1])
        at, count = at + 2, count - 1
        left[0] -= 1 + (length if kind != _SEGMENT_INDIRECT else 0)
        if left[0] < 0 or depth > _NESTED_SEGMENTS:
            raise RefusalError("damaged")  # a table without end
        if kind == _SEGMENT_DISCRETE:
            out.append(segments[at : at + length])
            at += length
        elif kind == _SEGMENT_LINEAR:
            if not out or at >= len(segments):
                raise RefusalError("damaged")
            last, end = int(out[-1][-1]) if out[-1].size else 0, int(segments[at])
            steps = np.arange(1, length + 1) / max(1, length)
            out.append(np.around(last + (end - last) * steps).astype(np.int64))
            at += 1
        elif kind == _SEGMENT_INDIRECT and out:
            places = segments[at : at + (2 if wide else 4)]
            offset = sum(int(place) << ((16 if wide else 8) * digit) for digit, place in enumerate(places))
            at += len(places)
            _expand(segments[offset:], length, wide, out, left, depth + 1)
        else:
            raise RefusalError("damaged")
