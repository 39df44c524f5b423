"""Every layout of a TIFF shows the samples that were encoded, whichever library decodes it, or is refused."""

import io
import itertools
import random
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images import read_image, read_images

SIDES = (35, 52)
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
KINDS = {  # photometric interpretation, extra samples
    "white is zero": ("miniswhite", ()),
    "black is zero": ("minisblack", ()),
    "grey and alpha": ("minisblack", ("unassalpha",)),
    "grey and more": ("minisblack", ("unspecified",)),
    "rgb": ("rgb", ()),
    "rgb and alpha": ("rgb", ("unassalpha",)),
    "rgb times alpha": ("rgb", ("assocalpha",)),
}
COMPRESSIONS = {  # and the types of samples that the codec takes
    "none": DTYPES,
    "lzw": DTYPES,
    "deflate": DTYPES,
    "packbits": DTYPES,
    "zstd": DTYPES,
    "lzma": DTYPES,
    "lerc": ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"),
    "jpeg2000": ("u1", "u2"),
    "jpegxl": ("u1", "u2"),
    "png": ("u1", "u2"),
    "webp": ("u1",),
}
STREAMS = {"lerc", "jpeg2000", "jpegxl", "png", "webp"}
CODEC_OPTIONS = {
    "jpeg2000": {"level": 0},
    "jpegxl": {"lossless": True},
    "webp": {"lossless": True},
}


def samples(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Smooth but for a patch, over all of an integer type's range."""
    down, across = np.mgrid[0 : SIDES[0], 0 : SIDES[1]]
    planes = [(down * (3 + plane) + across * (5 - plane) + 11 * plane + seed) % 97 / 96 for plane in range(count)]
    values = np.stack(planes, -1)
    if dtype[0] == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    span = float(info.max) - float(info.min)
    return np.clip(values * span + float(info.min), float(info.min), np.nextafter(float(info.max), 0)).astype(dtype)


def members():
    """All layouts of the family that tifffile can write."""
    for kind, dtype, planar, order, compression, tiled, big in itertools.product(
        KINDS, DTYPES, ("contig", "separate"), "<>", COMPRESSIONS, (False, True), (False, True)
    ):
        single = KINDS[kind] in {("miniswhite", ()), ("minisblack", ())}
        if dtype not in COMPRESSIONS[compression] or (single and planar == "separate"):
            continue
        channels = (1 if "grey" in kind or single else 3) + len(KINDS[kind][1])
        if compression == "webp" and (channels < 3 or planar == "separate" or "times" in kind):
            continue
        if compression == "lerc" and planar == "contig" and channels > 1:
            continue  # of several bands in one blob only some readers know
        if compression in STREAMS and dtype[1] != "1" and order == ">":
            continue  # the codecs take samples in the machine's order only
        if "times" in kind and dtype[1] == "8":
            continue  # refused: not even a float64 holds the quotient
        predictors = [False] if compression in STREAMS | {"none", "packbits"} else [False, True]
        if dtype[1:] == "8" and dtype[0] != "f":
            predictors = [False]
        for predictor in predictors:
            yield kind, dtype, planar, order, compression, tiled, big, predictor


def written(member) -> tuple[bytes, np.ndarray]:
    """The file, and the samples ``(h, w, n)`` in it."""
    kind, dtype, planar, order, compression, tiled, big, predictor = member
    photometric, extra = KINDS[kind]
    count = (1 if photometric != "rgb" else 3) + len(extra)
    values = samples(dtype, count)
    stored = values[..., 0] if count == 1 else values if planar == "contig" else np.moveaxis(values, 2, 0)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        stored,
        photometric=photometric,
        planarconfig=None if count == 1 else planar,
        extrasamples=extra or None,
        byteorder=order,
        bigtiff=big,
        compression=None if compression == "none" else compression,
        compressionargs=CODEC_OPTIONS.get(compression),
        predictor=predictor,
        metadata=None,
        **({"tile": (16, 32)} if tiled else {"rowsperstrip": 16}),
    )
    return stream.getvalue(), values


def shown(values: np.ndarray, kind: str) -> np.ndarray | None:
    """What the samples mean in 8 bit, worked out in another way than the reader's; None for what is refused."""
    is_float, bits = values.dtype.kind == "f", 8 * values.dtype.itemsize
    if "rgb" in kind and values.dtype.kind == "i":
        return None
    most = 1 if is_float else 2**bits - 1
    if "times" in kind:
        alpha = np.broadcast_to(values[..., 3:], (*SIDES, 3)).astype(float)
        plain = np.zeros(alpha.shape)
        plain[alpha > 0] = values[..., :3][alpha > 0].astype(float) * most / alpha[alpha > 0]
        values = np.minimum(plain, most).astype(values.dtype)
    if "rgb" in kind:
        colour = values[..., :3]
        return np.rint(colour.astype(float) * 255).astype(np.uint8) if is_float else (colour >> (bits - 8)).astype("u1")
    grey = values[..., 0]
    if kind == "white is zero":
        grey = 1 - grey if is_float else ~grey
    if values.dtype == np.uint8:
        return grey
    wide = grey.astype(float)
    return ((wide - wide.min()) / (wide.max() - wide.min()) * 255).astype(np.uint8)


def difference(member) -> float | str:
    """The largest difference between what is read and what is meant; or why it was not read, where it should be."""
    data, values = written(member)
    expected = shown(values, member[0])
    try:
        picture = read_image(data)
    except ImageReadError as error:
        return 0 if expected is None and error.reason == "unsupported" else error.reason
    if expected is None:
        return "was read"
    seen = np.asarray(picture.image).astype(int)
    return int(np.abs(seen - (expected if expected.ndim == 3 else expected[..., None])).max())


def test_the_family_shows_what_was_encoded():
    family = list(members())
    for member in random.Random(7).sample(family, 700):
        assert difference(member) == 0, member


# -- layouts that tifffile does not write ----------------------------------------------------------------------------


def hand_made(tags: dict[int, tuple[str, tuple[int, ...]]], data: bytes, order: str = "<") -> bytes:
    """A TIFF of one page and one strip; ``tags`` by code: a struct letter and the values."""
    kinds = {"B": 1, "H": 3, "I": 4}
    tags = {**tags, 273: ("I", (0,)), 279: ("I", (len(data),))}
    at = 8 + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    long = sum(len(v) * struct.calcsize(k) for k, v in tags.values() if len(v) * struct.calcsize(k) > 4)
    tags[273] = ("I", (at + long,))  # the strip stands last
    for code, (letter, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(raw) > 4:
            raw, beyond = struct.pack(f"{order}I", at + len(beyond)), beyond + raw
        entries += struct.pack(f"{order}HHI", code, kinds[letter], len(values)) + raw.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    return start + entries + bytes(4) + beyond + data


def packed(values: np.ndarray, bits: int) -> bytes:
    """Samples ``(h, w, n)`` bit by bit, the rows filled up to whole bytes."""
    each = np.unpackbits(values.astype(">u4")[..., None].view(np.uint8), axis=-1)[..., 32 - bits :]
    return np.packbits(each.reshape(len(values), -1), axis=1).tobytes()


def page(photometric: int, bits: int, count: int, **more: tuple[str, tuple[int, ...]]) -> dict:
    tags = {
        256: ("I", (SIDES[1],)),
        257: ("I", (SIDES[0],)),
        258: ("H", (bits,) * count),
        259: ("H", (1,)),
        262: ("H", (photometric,)),
        277: ("H", (count,)),
        278: ("I", (SIDES[0],)),
    }
    return tags | {int(code[1:]): value for code, value in more.items()}


def levels(bits: int, count: int = 1) -> np.ndarray:
    return (samples("f8", count) * (2**bits - 1)).astype(np.uint32)


def reason(data: bytes, **options: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(data, **options)
    return caught.value.reason


def seen(data: bytes) -> np.ndarray:
    return np.asarray(read_image(data).image).astype(int)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_of_any_number_of_bits(bits, photometric):
    values = levels(bits)
    grey = values[..., 0] if photometric else (1 << bits) - 1 - values[..., 0]
    most = (1 << bits) - 1
    expected = (grey * 255 + most // 2) // most if bits <= 8 else ((grey - grey.min()) / np.ptp(grey) * 255).astype(int)
    for order, filling in itertools.product("<>", (1, 2)):
        data = packed(values, bits)
        data = data if filling == 1 else imagecodecs.bitorder_encode(data)
        found = seen(hand_made(page(photometric, bits, 1, t266=("H", (filling,))), data, order))
        assert np.array_equal(found, np.stack([expected] * 3, -1)), (order, filling)


@pytest.mark.parametrize("bits", [4, 5, 10, 12, 14])
def test_colour_of_any_number_of_bits(bits):
    values = levels(bits, 3)
    most = (1 << bits) - 1
    expected = (values * 255 + most // 2) // most if bits <= 8 else values >> (bits - 8)
    assert np.array_equal(seen(hand_made(page(2, bits, 3), packed(values, bits))), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("step", [257, 1])
def test_palettes_of_16_bit_entries_and_of_those_that_fill_the_low_byte(bits, step):
    values, order = levels(bits), "<>"[step % 2]
    table = np.random.default_rng(1).integers(0, 256, (3, 1 << bits))
    data = packed(values, bits) if bits < 16 else values.astype(f"{order}u2").tobytes()
    colours = ("H", tuple((table * step).ravel().tolist()))
    assert np.array_equal(seen(hand_made(page(3, bits, 1, t320=colours), data, order)), table.T[values[..., 0]])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_cmyk(planar, dtype):
    inks = samples("u1", 4)
    stored = inks.astype(dtype) * (257 if dtype == "u2" else 1)
    stream = io.BytesIO()
    stored = stored if planar == "contig" else np.moveaxis(stored, 2, 0)
    tifffile.imwrite(stream, stored, photometric="separated", planarconfig=planar, metadata=None)
    expected = Image.frombytes("CMYK", SIDES[::-1], inks.tobytes()).convert("RGB")
    assert np.array_equal(seen(stream.getvalue()), np.asarray(expected))


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_ycbcr_is_read_where_chroma_is_whole_or_libtiff_unfolds_it(compression):
    encode = {1: bytes, 5: imagecodecs.lzw_encode, 8: imagecodecs.zlib_encode}[compression]
    small = samples("u1", 3)[:34:2, ::2]
    whole = small.repeat(2, 0).repeat(2, 1)
    size = (whole.shape[1], whole.shape[0])
    expected = np.asarray(Image.frombytes("YCbCr", size, whole.tobytes()).convert("RGB")).astype(int)
    tags = page(6, 8, 3, t259=("H", (compression,)), t257=("I", (34,)), t278=("I", (34,)))
    plain = hand_made(tags | {530: ("H", (1, 1))}, encode(whole.tobytes()))
    assert np.abs(seen(plain) - expected).max() <= 1
    halved = np.concatenate([small[..., :1].repeat(4, 2), small[..., 1:]], 2)
    folded = hand_made(tags | {530: ("H", (2, 2))}, encode(halved.tobytes()))
    if compression == 1:
        assert reason(folded) == "unsupported"
    else:
        assert np.abs(seen(folded) - expected).max() <= 1


@pytest.mark.parametrize("options", [{"bitspersample": 12, "level": 100}, {"bitspersample": 16, "lossless": True}])
def test_jpeg_deeper_than_8_bit_inside_a_tiff(options):
    values = (levels(12)[..., 0] * (16 if "lossless" in options else 1)).astype(np.uint16)
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", compression="jpeg", compressionargs=options)
    expected = (values.astype(float) - values.min()) / np.ptp(values) * 255
    assert np.abs(seen(stream.getvalue())[..., 0] - expected).max() <= (1 if "lossless" in options else 3)


@pytest.mark.parametrize(
    "tags",
    [
        *(page(photometric, 8, 3) for photometric in (4, 9, 10, 32844, 32845, 51177)),  # masks, other Labs, LogLuv
        page(1, 8, 3),  # channels without a meaning
        page(2, 8, 3, t258=("H", (5, 6, 5))),
        page(2, 8, 3, t339=("H", (1, 2, 1))),
        page(1, 64, 1, t339=("H", (6,))),  # complex
        page(1, 24, 1),
        page(5, 8, 4, t332=("H", (2,))),  # inks other than CMYK
        *(page(2, 8, 3, t259=("H", (compression,))) for compression in (6, 9, 10, 34676, 65000, 12345)),
        page(2, 16, 3, t339=("H", (2,) * 3)),  # signed colour
    ],
)
def test_what_neither_library_reads_right_is_unsupported(tags):
    assert reason(hand_made(tags, bytes(SIDES[0] * SIDES[1] * 8))) == "unsupported"


def test_float_colour_beyond_white_is_unsupported():
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples("f4", 3) * 255, photometric="rgb")
    assert reason(stream.getvalue()) == "unsupported"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_by_either_library(orientation):
    pictures = []
    for dtype in ("u1", "u2"):
        stream = io.BytesIO()
        values = samples("u1", 3).astype(dtype) * (257 if dtype == "u2" else 1)
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(stream, values, photometric="rgb", metadata=None, extratags=tag)
        picture = read_image(stream.getvalue())
        assert (picture.width, picture.height) == picture.image.size
        pictures.append(np.asarray(picture.image))
    assert np.array_equal(*pictures)


# -- pages, pyramids, cameras ----------------------------------------------------------------------------------------


def several(*pages: dict) -> bytes:
    """A TIFF of several pages; ``below`` in one is written into its SubIFDs."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for options in pages:
            below = options.pop("below", [])
            writer.write(subifds=len(below) or None, metadata=None, **options)
            for inner in below:
                writer.write(metadata=None, **inner)
    return stream.getvalue()


FULL = {"data": samples("u1", 3), "photometric": "rgb"}
SMALL = {"data": samples("u1", 3)[::2, ::2], "photometric": "rgb"}
MOSAIC = {"data": samples("u2", 1)[..., 0], "photometric": "cfa"}


def test_a_pyramid_gives_its_full_page():
    data = several({**FULL, "below": [{**SMALL, "subfiletype": 1}, {**SMALL, "subfiletype": 1}]})
    assert [(suffix, picture.image.size) for suffix, picture in read_images(data)] == [("", SIDES[::-1])]


def test_thumbnails_before_and_behind_the_pages_are_not_pages():
    thumbnail = {**SMALL, "subfiletype": 1}
    deep = {**FULL, "data": samples("u2", 3)}
    data = several(dict(thumbnail), dict(FULL), dict(thumbnail), dict(deep))
    read = list(read_images(data))
    assert [(suffix, picture.mode) for suffix, picture in read] == [("#1", "RGB"), ("#2", "RGB;16")]
    assert np.array_equal(read[0][1].image, samples("u1", 3))
    assert np.array_equal(read[1][1].image, samples("u2", 3) >> 8)


def test_a_reduced_picture_that_stands_alone_is_read():
    assert read_image(several({**SMALL, "subfiletype": 1})).image.size == SMALL["data"].shape[1::-1]


@pytest.mark.parametrize(
    "pages",
    [
        [{**SMALL, "subfiletype": 1, "below": [dict(MOSAIC)]}],  # NEF, DNG, ARW
        [{**SMALL, "below": [dict(MOSAIC)]}],
        [{**SMALL, "subfiletype": 1, "below": [{**FULL, "subfiletype": 0}]}],  # the full picture in a SubIFD
        [dict(SMALL), dict(MOSAIC)],  # PEF
        [dict(MOSAIC)],
        [{**FULL, "extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}],  # DNG whatever it holds
    ],
)
def test_raw_camera_files_are_not_read_as_their_thumbnails(pages):
    assert reason(several(*pages)) == "unsupported"


@pytest.mark.parametrize("mark", [b"CR\2\0", b"IIII", b"MMMM"])
def test_raw_camera_files_with_a_mark_of_their_maker(mark):
    tags, data = page(2, 8, 3), bytes(SIDES[0] * SIDES[1] * 3)
    made = bytearray(hand_made(tags, data))
    moved = made[:4] + struct.pack("<I", len(made)) + mark.ljust(8, b"\0") + made[8:]
    moved = moved.ljust(len(made), b"\0")[: len(made)] + made[8:]
    assert reason(bytes(moved)) == "unsupported"


# -- damage and bombs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lzw", "zstd", "jpegxl"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
def test_cut_files_are_truncated(compression, share):
    stream = io.BytesIO()
    values = np.random.default_rng(1).integers(0, 60000, (64, 64, 3)).astype(np.uint16)
    tifffile.imwrite(stream, values, photometric="rgb", compression=compression, tile=(32, 32))
    data = stream.getvalue()
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_a_damaged_strip_is_damaged():
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples("u2", 1)[..., 0], photometric="minisblack", compression="zlib")
    data = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages[0].dataoffsets[0]
    data[at + 20 : at + 60] = bytes(40)
    assert reason(bytes(data)) == "damaged"


def test_sizes_are_refused_before_anything_is_decoded():
    wide = page(1, 16, 1, t256=("I", (60_000,)), t257=("I", (60_000,)), t278=("I", (60_000,)))
    assert reason(hand_made(wide, b"\0" * 100)) == "too large"
    # tiles may be larger than their picture, but not by so much
    huge = page(1, 16, 1, t322=("I", (1 << 20,)), t323=("I", (1 << 20,)), t324=("I", (8,)), t325=("I", (100,)))
    del huge[278]
    assert reason(hand_made(huge, b"\0" * 100)) == "too large"
    assert reason(written(("rgb", "u2", "contig", "<", "lzw", False, False, True))[0], max_pixels=100) == "too large"


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "png", "webp", "jpeg"])
def test_a_tile_whose_own_header_asks_for_more_is_refused(compression):
    codecs = {"jpeg2000": (34712, imagecodecs.jpeg2k_encode), "jpegxl": (50002, imagecodecs.jpegxl_encode)}
    codecs |= {"png": (34933, imagecodecs.png_encode), "webp": (50001, imagecodecs.webp_encode)}
    codecs |= {"jpeg": (7, imagecodecs.jpeg8_encode)}
    code, encode = codecs[compression]
    data = bytes(encode(np.zeros((300, 300, 3), np.uint8)))
    assert reason(hand_made(page(2, 8, 3, t259=("H", (code,))), data)) == "damaged"


def test_nothing_is_said_on_the_terminal(capfd, caplog):
    data = bytearray(written(("rgb", "u2", "contig", "<", "lzw", False, False, True))[0])
    data[20:22] = b"\xff\xff"
    with pytest.raises(ImageReadError):
        read_image(bytes(data))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def without_next_directory(data: bytes) -> bytes:
    first = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    order = "<" if data[:2] == b"II" else ">"
    (count,) = struct.unpack_from(f"{order}H", data, first.offset)
    at = first.offset + 2 + 12 * count
    return data[:at] + bytes(4) + data[at + 4 :]


def test_pictures_that_no_directory_names_are_not_dropped_in_silence():
    stack = np.stack([samples("u2", 1)[..., 0]] * 3)
    assert len(list(read_images(tiff(stack, imagej=True)))) == 3
    assert reason(without_next_directory(tiff(stack, imagej=True))) == "unsupported"  # ImageJ's above 4 GB
    assert reason(tiff(stack, photometric="minisblack", truncate=True)) == "unsupported"
    assert len(list(read_images(tiff(stack[0], photometric="minisblack", truncate=True)))) == 1
    assert len(list(read_images(tiff(stack[0], imagej=True)))) == 1


def test_grey_with_associated_alpha():
    grey = samples("u1", 1)[..., 0]
    data = tiff(np.stack([grey // 2, np.full_like(grey, 128)], -1), photometric="minisblack", extrasamples=[1])
    assert np.abs(seen(data)[..., 0].astype(int) - grey).max() <= 2


@pytest.mark.parametrize(("tag", "options"), [(322, {"tile": (16, 16)}), (323, {"tile": (16, 16)}), (278, {})])
def test_tiles_and_strips_of_no_size_are_damaged(tag, options):
    data = bytearray(tiff(samples("u2", 1)[..., 0], photometric="minisblack", **options))
    size = tifffile.TiffFile(io.BytesIO(data)).pages[0].tags[tag]
    data[size.valueoffset : size.valueoffset + size.valuebytecount] = bytes(size.valuebytecount)
    assert reason(bytes(data)) == "damaged"
