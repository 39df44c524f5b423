"""Whatever is wrong with a file becomes one reason; errors say no more of it than the caller's name for
it."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retr.index.errors import ImageReadError, UsageError
from retr.retrieval.images import REASONS, read_image, read_images
from retr.retrieval.images.picture import MAX_PIXELS

FORMATS = ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM"]
NOISE = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(kind: str, image: Image.Image | None = None) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(stream, kind)
    return stream.getvalue()


def reason(source: object, **options: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(source, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_no_bytes(tmp_path):
    (tmp_path / "x.png").touch()
    assert reason(tmp_path / "x.png") == "empty"
    assert reason(b"") == "empty"


@pytest.mark.parametrize("data", [b"x", b"hello, world", b"BMW builds cars", b"P5 is a group", b"\0" * 500])
def test_not_an_image(data):
    assert reason(data) == "not an image"


def test_a_known_format_that_is_not_read():
    assert reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "unsupported"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated(kind, share):
    data = encoded(kind)
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_a_damaged_png_is_not_called_truncated():
    data = bytearray(encoded("PNG"))
    data[200:240] = bytes(40)
    assert reason(bytes(data)) == "damaged"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_decompression_bomb_is_refused_before_decoding():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert reason(bomb) == "too large"


def test_the_pixel_limit_can_be_moved(monkeypatch):
    data = encoded("PNG")
    assert reason(data, max_pixels=48 * 64 - 1) == "too large"
    assert read_image(data, max_pixels=48 * 64).width == 64
    monkeypatch.setenv("RETR_MAX_PIXELS", "100")
    assert reason(data) == "too large"
    monkeypatch.setenv("RETR_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="'many'"):
        read_image(data)


def test_the_default_limit_is_wide_enough_for_large_photographs():
    assert MAX_PIXELS >= 8192 * 6144


def test_files_that_cannot_be_opened(tmp_path):
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "broken") == "broken link"
    assert reason(tmp_path / "loop") == "link loop"
    assert reason(tmp_path / "pipe") == "not a file"
    assert reason(tmp_path) == "not a file"
    assert reason(tmp_path / "absent.png") == "missing"


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(encoded("PNG"))

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)  # chmod does not stop root
    assert reason(path) == "no permission"


def test_errors_name_only_what_the_caller_names(tmp_path):
    path = tmp_path / "Doe^Jane.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert "Doe" not in str(caught.value)
    with pytest.raises(ImageReadError, match=r"'a/b\.png' is not an image"):
        read_image(path, name="a/b.png")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((4, 4), -0.5), "unsupported"),
        (np.zeros((4, 4, 2), np.uint8), "unsupported"),
        (np.zeros((4, 4, 3), np.uint16), "unsupported"),
        (np.zeros((0, 4), np.uint8), "empty"),
    ],
)
def test_arrays_that_are_not_pictures(array, expected):
    assert reason(array) == expected


@pytest.mark.parametrize("option", [{"frames": -1}, {"frames": "1"}, {"axis": "1"}, {"draft_size": 0}, {"grey16": "0"}])
def test_options_that_cannot_be_meant(option):
    with pytest.raises(UsageError, match=r"(got:|axis) '?-?[01]"):
        list(read_images(encoded("PNG"), **option))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(FORMATS),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=6)), min_size=1, max_size=6),
    keep=st.floats(0.05, 1),
)
def test_mutated_files_are_read_or_refused(kind, places, keep):
    data = bytearray(encoded(kind))
    for place, new in places:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    try:
        for _, picture in read_images(bytes(data[: int(len(data) * keep)]), max_pixels=10**6):
            assert picture.image.mode == "RGB"
    except ImageReadError as error:
        assert error.reason in REASONS


def test_threads_get_what_one_thread_gets():
    sources = [encoded(kind) for kind in FORMATS] + [encoded("PNG")[:500], b"text"]

    def outcome(data: bytes) -> object:
        try:
            return read_image(data).image.tobytes()
        except ImageReadError as error:
            return error.reason

    expected = [outcome(data) for data in sources] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, sources * 20)) == expected
