"""The frames of a DICOM file, one at a time: a study does not fit into memory.

Native frames are slices of the pixel element. Compressed frames are one or more fragments; which belong together is
taken from the offset tables where these fit the fragments, else from where codestreams begin.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from retr.retrieval.images.dicom_codec import decode, describe_frame, inflate, starts_frame
from retr.retrieval.images.dicom_colour import is_ybr
from retr.retrieval.images.dicom_layout import compressed_layout, native_layout
from retr.retrieval.images.dicom_values import RefusalError, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.retrieval.images.dicom_layout import PixelLayout
    from retr.retrieval.images.dicom_open import Opened

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = 0xFFFFFFFF
_PREFIX = 16
_MOST_BITS, _MOST_SAMPLES = 64, 3
_YBR_422_BYTES = 4  # two pixels


@dataclass(frozen=True)
class Fragment:
    """One piece of compressed pixels in the file; ``cut`` where the file ends inside it."""

    item: int
    start: int
    length: int
    cut: bool


@dataclass(frozen=True)
class Frames:
    """The frames of a file: how their pixels lie, and a function from a position to values.

    ``read`` returns ``(rows, columns)`` or ``(rows, columns, 3)``, or raises RefusalError; of ``held`` frames
    the data lie in the file, whatever the header says.
    """

    layout: PixelLayout
    read: Callable[[int], NDArray[Any]]
    held: int


def open_frames(opened: Opened) -> Frames:
    """Return the frames of an opened file; its first compressed one is looked into.

    A header may say two thousand million: behind those whose data are there, one more is counted, whose reading fails.

    Raises
    ------
    RefusalError
        There is nothing to begin with: "truncated", "damaged" or "unsupported".
    """
    frames = _compressed(opened) if opened.encapsulated else _native(opened)
    most = min(frames.layout.frames, frames.held + 1)
    frames = replace(frames, layout=replace(frames.layout, frames=most))
    if frames.layout.doubtful and not is_ybr(frames.read(0)):
        return replace(frames, layout=replace(frames.layout, photometric="RGB"))
    return frames


def _native(opened: Opened) -> Frames:
    layout = native_layout(opened.header, opened.keyword, opened.length)
    stream, start = opened.stream, opened.start
    there = min(opened.length, stream.seek(0, 2) - start)
    swapped = not opened.little and layout.allocated == 8 and opened.representation == "OW"

    def read(position: int) -> NDArray[Any]:
        first, last = layout.frame_bits * position, layout.frame_bits * (position + 1)
        begin, end = first // 8, (last + 7) // 8
        if swapped:  # bytes lie in words, each pair the other way round
            begin, end = begin - begin % 2, end + end % 2
        if (last + 7) // 8 > there:
            # the element itself is too short for what the header says, or the file for the element
            raise RefusalError("damaged" if opened.length < (last + 7) // 8 else "truncated")
        stream.seek(start + begin)
        data = stream.read(end - begin)
        if swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()[first // 8 - begin :]
        return arranged(data, layout, little=opened.little, skip=first % 8)

    return Frames(layout, read, held=max(0, there) * 8 // layout.frame_bits)


def arranged(data: bytes, layout: PixelLayout, *, little: bool, skip: int = 0) -> NDArray[Any]:
    """Return the values of one native frame's bytes.

    Parameters
    ----------
    skip
        How many bits of the first byte belong to the frame before.
    """
    pixels = layout.rows * layout.columns
    if layout.allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=skip + pixels, bitorder="little")
        return bits[skip:].reshape(layout.rows, layout.columns)
    kind = f"{'<' if little else '>'}{'f' if layout.real else 'u'}{layout.allocated // 8}"
    if layout.photometric == "YBR_FULL_422":
        pairs = np.frombuffer(data, np.uint8, pixels * 2).reshape(layout.rows, -1, _YBR_422_BYTES)
        chroma = np.repeat(pairs[..., 2:], 2, axis=1)
        luma = pairs[..., :2].reshape(layout.rows, layout.columns, 1)
        return np.concatenate([luma, chroma], axis=2)
    cells = np.frombuffer(data, kind, pixels * layout.samples)
    cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    if layout.samples == 1:
        cells = cells.reshape(layout.rows, layout.columns)
    elif layout.planar:
        cells = cells.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
    else:
        cells = cells.reshape(layout.rows, layout.columns, layout.samples)
    return cells if layout.real else layout.values(cells)


def _compressed(opened: Opened) -> Frames:
    stream = opened.stream
    table, fragments, ended = _fragments(stream, opened.start, opened.start + opened.length, delimited=opened.delimited)
    if not fragments:
        raise RefusalError("damaged" if ended else "truncated")
    said = whole(opened.header, "NumberOfFrames") or 0
    groups = _grouped(stream, fragments, table, opened, said)

    def content(position: int) -> bytes:
        if position >= len(groups):
            raise RefusalError("damaged" if ended else "truncated")
        pieces = []
        for fragment in groups[position]:
            if fragment.cut:
                raise RefusalError("truncated")
            stream.seek(fragment.start)
            pieces.append(stream.read(fragment.length))
        return b"".join(pieces)

    first = content(0)
    described = describe_frame(first, opened.syntax)
    frames = len(groups) if len(groups) > said else max(1, said)
    if described.kind in {"deflated", "native"}:
        most = (opened.pixels() * _MOST_BITS * _MOST_SAMPLES + 7) // 8 + 1
        body = inflate(first, most) if described.kind == "deflated" else first
        layout = replace(native_layout(opened.header, opened.keyword, len(body), frames=1), frames=frames)
    else:
        layout = compressed_layout(opened.header, described, frames)
    if said and frames != said:
        layout.notes.append("more frames than NumberOfFrames says")

    def read(position: int) -> NDArray[Any]:
        data = first if position == 0 else content(position)
        told = describe_frame(data, opened.syntax)
        if told.kind in {"deflated", "native"}:
            size = (layout.frame_bits + 7) // 8
            data = inflate(data, size) if told.kind == "deflated" else data
            if len(data) < size:
                raise RefusalError("damaged")
            return arranged(data, layout, little=True)
        if (told.rows or layout.rows, told.columns or layout.columns) != (layout.rows, layout.columns):
            raise RefusalError("damaged")
        if (told.samples or layout.samples) != layout.samples:
            raise RefusalError("damaged")
        return layout.values(decode(data, told, layout))

    return Frames(layout, read, held=len(groups))


def _fragments(stream: BinaryIO, start: int, stop: int, *, delimited: bool) -> tuple[list[int], list[Fragment], bool]:
    """Return the basic offset table, the fragments behind it, and whether the sequence is ended."""
    size = min(stop, stream.seek(0, 2))
    stream.seek(start)
    at, table, fragments = start, b"", list[Fragment]()
    first = True
    while True:
        stream.seek(at)
        head = stream.read(8)
        if first and starts_frame(head):  # a codestream without items around it
            return [], [Fragment(at, at, stop - at, cut=stop > size)], stop <= size
        if head[:4] == _DELIMITER:
            return _offsets(table), fragments, True
        if head[:4] != _ITEM and fragments and fragments[-1].length % 2:
            # a fragment of odd length whose padding is not counted
            stream.seek(at + 1)
            head = stream.read(8)
            at += 1
        if head[:4] != _ITEM or len(head) < 8:
            return _offsets(table), fragments, len(head) == 8 or (at >= stop and not delimited)
        length = int.from_bytes(head[4:], "little")
        cut = length == _UNDEFINED or at + 8 + length > size
        if first:
            table = stream.read(min(length, max(0, size - at)))
            first = False
        else:
            fragments.append(Fragment(at, at + 8, length, cut))
        if cut:
            return _offsets(table), fragments, False
        at += 8 + length


def _offsets(table: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4]))


def _grouped(
    stream: BinaryIO, fragments: Sequence[Fragment], table: list[int], opened: Opened, said: int
) -> list[list[Fragment]]:
    """Return the fragments of each frame."""
    begins = fragments[0].item
    places = {fragment.item - begins: number for number, fragment in enumerate(fragments)}
    for offsets in (opened.extended_offsets(), table):
        fits = offsets and offsets[0] == 0 and all(offset in places for offset in offsets)
        if fits and sorted(set(offsets)) == offsets and len(offsets) in {said, said or len(offsets)}:
            return _split(fragments, [places[offset] for offset in offsets])
    if len(fragments) == said:
        return [[fragment] for fragment in fragments]
    starts = []
    for number, fragment in enumerate(fragments):
        stream.seek(fragment.start)
        if starts_frame(stream.read(min(_PREFIX, fragment.length))):
            starts.append(number)
    if starts[:1] == [0]:
        return _split(fragments, starts)
    # nothing in the bytes tells: one frame of all, or one of each
    return [list(fragments)] if said <= 1 else [[fragment] for fragment in fragments]


def _split(fragments: Sequence[Fragment], starts: list[int]) -> list[list[Fragment]]:
    ends = [*starts[1:], len(fragments)]
    return [list(fragments[start:end]) for start, end in zip(starts, ends, strict=True)]
