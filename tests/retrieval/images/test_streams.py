"""Pictures that Pillow cannot read or reads with another meaning show the samples that were encoded."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from retr.index.errors import ImageReadError
from retr.retrieval.images import read_image, read_images
from retr.retrieval.images.codestreams import UnknownStreamError, stream_header

DOWN, ACROSS = np.mgrid[0:40, 0:56]
GREY = (DOWN * 40 + ACROSS * 40).astype(np.uint16)  # 12 bits
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
EIGHT = (COLOUR >> 4).astype(np.uint8)


def minmax(values: np.ndarray) -> np.ndarray:
    wide = values.astype(float)
    return np.stack([((wide - wide.min()) / np.ptp(wide) * 255).astype(np.uint8)] * 3, -1)


def seen(data: bytes) -> np.ndarray:
    ((suffix, picture),) = read_images(bytes(data))
    assert suffix == ""
    assert (picture.width, picture.height) == (56, 40)
    return np.asarray(picture.image).astype(int)


def reason(data: bytes, **options: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(bytes(data), **options)
    return caught.value.reason


LOSSLESS = {
    "JPEG-LS": lambda values, bits: imagecodecs.jpegls_encode(values),
    "lossless JPEG": lambda values, bits: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=bits),
    "JPEG XL": lambda values, bits: imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits),
    "JPEG XL in boxes": lambda values, bits: imagecodecs.jpegxl_encode(values, lossless=True, usecontainer=True),
    "JPEG 2000": lambda values, bits: imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits),
    "PNG": lambda values, bits: imagecodecs.png_encode(values),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_eight_bit(kind):
    encode = LOSSLESS[kind]
    assert np.array_equal(seen(encode(EIGHT, 8)), EIGHT)
    assert np.array_equal(seen(encode(EIGHT[..., 0].copy(), 8)), EIGHT[..., [0, 0, 0]])


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_deep_grey_is_scaled(kind, bits):
    grey = GREY if bits == 12 else GREY * 16
    assert np.abs(seen(LOSSLESS[kind](grey, bits)) - minmax(grey)).max() <= (1 if kind == "JPEG 2000" else 0)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_deep_colour_keeps_its_high_byte(kind, bits):
    if bits == 12 and kind in {"JPEG-LS", "PNG", "JPEG XL in boxes"}:
        pytest.skip("these encoders always declare 16 bits")
    colour = COLOUR if bits == 12 else COLOUR * 16
    found = seen(LOSSLESS[kind](colour, bits)) - (colour >> (bits - 8)).astype(int)
    # Pillow rounds JPEG 2000
    assert set(np.unique(found)) <= ({0, 1} if kind == "JPEG 2000" else {0})


@pytest.mark.parametrize("kind", ["PNG", "JPEG XL"])
def test_alpha_of_deep_grey_is_dropped(kind):
    with_alpha = np.stack([GREY, GREY[::-1] * 16], -1)
    assert np.array_equal(seen(LOSSLESS[kind](with_alpha, 16)), minmax(GREY))


def test_12_bit_jpeg():
    assert np.abs(seen(imagecodecs.jpeg8_encode(GREY, 98, bitspersample=12)) - minmax(GREY)).max() <= 2
    data = imagecodecs.jpeg8_encode(COLOUR, 98, bitspersample=12, subsampling="444")
    assert np.abs(seen(data) - (COLOUR >> 4)).max() <= 2


def test_float_jpeg_xl():
    assert np.array_equal(
        seen(imagecodecs.jpegxl_encode((COLOUR / 4096).astype(np.float32), lossless=True)),
        np.rint((COLOUR / 4096).astype(np.float32).astype(float) * 255),
    )
    assert reason(imagecodecs.jpegxl_encode(COLOUR.astype(np.float32), lossless=True)) == "unsupported"


@pytest.mark.parametrize("most", [100, 255, 1000, 4095, 65535])
def test_portable_maps_up_to_any_maximum(most):
    values = (COLOUR.astype(float) / COLOUR.max() * most).astype(np.uint16)
    dtype = "u1" if most < 256 else ">u2"
    header = b"# made by hand\n56 40\n%d\n" % most
    low = np.floor(values * 255 / most + 0.5)
    high = values.astype(int) * 256 // (most + 1)
    assert np.abs(seen(b"P6\n" + header + values.astype(dtype).tobytes()) - (low if most < 256 else high)).max() == 0
    grey = values[..., 0]
    expected = np.stack([low[..., 0]] * 3, -1) if most < 256 else minmax(grey)
    assert np.abs(seen(b"P5\n" + header + grey.astype(dtype).tobytes()) - expected).max() == 0
    plain = b"P2\n" + header + b" ".join(b"%d" % value for value in grey.ravel())
    assert np.abs(seen(plain) - expected).max() <= 1


def test_float_maps_stand_on_their_feet():
    rows = GREY.astype("<f4")[::-1]
    assert np.array_equal(seen(b"Pf\n56 40\n-1.0\n" + rows.tobytes()), minmax(GREY))
    assert reason(b"PF\n56 40\n-1.0\n" + bytes(56 * 40 * 12)) == "unsupported"


def test_signed_jpeg_2000():
    values = GREY.astype(np.int16) - 1000
    assert np.abs(seen(imagecodecs.jpeg2k_encode(values, level=0)) - minmax(values)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG-LS", "lossless JPEG", "JPEG XL"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_cut_streams_are_truncated(kind, share):
    noise = np.random.default_rng(2).integers(0, 65536, (40, 56)).astype(np.uint16)
    data = LOSSLESS[kind](noise, 16)
    assert reason(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("kind", LOSSLESS)
def test_sizes_are_refused_before_decoding(kind):
    assert reason(LOSSLESS[kind](GREY, 16), max_pixels=40 * 56 - 1) == "too large"


def test_a_stream_that_asks_for_gigabytes_is_refused():
    data = bytearray(LOSSLESS["JPEG-LS"](GREY, 16))
    at = data.index(b"\xff\xf7")
    data[at + 5 : at + 9] = struct.pack(">HH", 65535, 65535)
    assert reason(data) == "too large"


@pytest.mark.parametrize(
    "data",
    [
        b"IIRO\x08\0\0\0" + bytes(400),  # cameras
        b"IIU\0\x18\0\0\0" + bytes(400),
        b"FUJIFILMCCD-RAW 0201" + bytes(400),
        b"\0\0\0\x18ftypcrx " + bytes(400),
        b"8BPS\0\1" + bytes(400),
        b"v/1\x01" + bytes(400),
        b"P7\nWIDTH 3\n" + bytes(400),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 4) + b"CgBI" + bytes(400),
        b"\x5c\1\0\0" + bytes(340) + b"ni1\0",
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 8, 8, 1, 24, 4) + bytes(400),  # JPEG inside a BMP
    ],
)
def test_known_formats_that_are_not_read_are_unsupported(data):
    assert reason(data) == "unsupported"


def test_channels_of_jpeg_xl_other_than_alpha_are_unsupported():
    assert reason(imagecodecs.jpegxl_encode(np.zeros((40, 56, 5), np.uint8), photometric="rgb")) == "unsupported"


def test_headers_are_read_of_every_size():
    for height, width in ((1, 1), (8, 8), (8, 256), (300, 400), (90, 160), (1, 3000), (3000, 1), (513, 512)):
        for dtype in (np.uint8, np.uint16, np.float32):
            header = stream_header(imagecodecs.jpegxl_encode(np.zeros((height, width), dtype), effort=1))
            assert (header.width, header.height) == (width, height)
            assert header.bits == {1: 8, 2: 16, 4: 0}[np.dtype(dtype).itemsize]


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\x0a", b"\xff\x4f\xff\x51\0", b"RIFF....WEBPVP8 ", b"text"])
def test_headers_that_say_nothing(data):
    with pytest.raises(UnknownStreamError):
        stream_header(data)


def test_a_palette_png_and_an_animated_one_show_their_first_picture():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    first = zlib.compress(b"".join(b"\0" + bytes([row] * 56) for row in range(40)))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 56, 40, 8, 0, 0, 0, 0))
    control = struct.pack(">IIIIIHHBB", 0, 56, 40, 0, 0, 1, 10, 0, 0)
    data += chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control) + chunk(b"IDAT", first)
    data += chunk(b"fcTL", struct.pack(">I", 1) + control[4:])
    data += chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(40 * 57))) + chunk(b"IEND", b"")
    assert np.array_equal(seen(data)[..., 0], DOWN)


@pytest.mark.parametrize("bits", range(1, 17))
def test_jpeg_2000_of_any_depth_reaches_from_black_to_white(bits):
    white = (1 << bits) - 1
    grey = np.linspace(0, white, 40 * 56).round().astype(np.uint16 if bits > 8 else np.uint8).reshape(40, 56)
    colour = np.stack([grey, grey[::-1], white - grey], -1)
    options = {"level": 0, "reversible": True, "bitspersample": bits}
    if bits > 8:
        assert np.array_equal(seen(imagecodecs.jpeg2k_encode(grey, **options)), minmax(grey))
        assert np.array_equal(seen(imagecodecs.jpeg2k_encode(colour, **options)), colour >> (bits - 8))
    else:
        for values in (grey, colour):
            stretched = (values.astype(int) * 255 + white // 2) // white
            expected = stretched if values.ndim == 3 else np.stack([stretched] * 3, -1)
            assert np.array_equal(seen(imagecodecs.jpeg2k_encode(values, **options)), expected)


def test_signed_jpeg_2000_of_eight_bits():
    grey = EIGHT[..., 0].astype(np.int16) - 128
    assert np.array_equal(seen(imagecodecs.jpeg2k_encode(grey.astype(np.int8), level=0)), minmax(grey))
    assert reason(imagecodecs.jpeg2k_encode((EIGHT.astype(np.int16) - 128).astype(np.int8), level=0)) == "unsupported"


def test_jpeg_xl_that_ends_before_it_says_its_size_is_truncated():
    data = bytes(imagecodecs.jpegxl_encode(GREY, lossless=True, usecontainer=True))
    assert {reason(data[:end]) for end in (13, 20, 31, 40, 50)} == {"truncated"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    block = exif.tobytes()
    jpeg = bytes(imagecodecs.jpeg8_encode(GREY, lossless=True, bitspersample=12))
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    alpha = bytes(imagecodecs.png_encode(np.stack([GREY, GREY], -1)))
    body = b"eXIf" + block.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    turned = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: GREY.T[:, ::-1],
        7: GREY.T[::-1, ::-1],
        8: GREY.T[::-1],
    }[orientation]
    for data in (jpeg[:2] + segment + jpeg[2:], alpha[:33] + chunk + alpha[33:]):
        picture = read_image(data)
        assert np.array_equal(np.asarray(picture.image), minmax(turned))
        assert (picture.width, picture.height) == picture.image.size
