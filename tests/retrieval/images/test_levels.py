"""Deep grey is scaled on purpose, exactly as published preprocessing does it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from retr.index.errors import UsageError
from retr.retrieval.images import read_image
from retr.retrieval.images.levels import scale_to_8bit

DEEP = npst.arrays(np.uint16, npst.array_shapes(min_dims=2, max_dims=2, max_side=9))


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@given(DEEP)
def test_minmax_is_the_published_formula(x):
    low, high = float(x.min()), float(x.max())
    expected = np.zeros(x.shape) if high == low else (x.astype(np.float64) - low) / (high - low) * 255
    assert (scale_to_8bit(x) == expected.astype(np.uint8)).all()


@given(DEEP)
def test_max_is_the_published_formula(x):
    expected = x / max(float(x.max()), 1.0) * 255
    assert (scale_to_8bit(x, "max") == expected.astype(np.uint8)).all()


@given(npst.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_float_pictures_never_fail(x):
    assert scale_to_8bit(x).dtype == np.uint8


def test_blocks_of_a_tall_picture_join_without_a_seam():
    x = np.arange(3000 * 1500, dtype=np.uint32).reshape(3000, 1500)
    expected = (x.astype(np.float64) / float(x.max()) * 255).astype(np.uint8)
    assert (scale_to_8bit(x) == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_16_bit_files_are_scaled_not_clipped(kind):
    x = np.linspace(1000, 30000, 600).astype(np.uint16).reshape(20, 30)
    picture = read_image(encoded(Image.fromarray(x), kind))
    assert picture.mode.startswith("I;16")
    assert (np.asarray(picture.image)[..., 1] == scale_to_8bit(x)).all()
    assert picture.notes == {"grey": "scaled to 8 bit by minmax"}


def test_12_in_16_uses_the_whole_range():
    x = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    values = np.asarray(read_image(encoded(Image.fromarray(x), "PNG")).image)
    assert values.min() == 0
    assert values.max() == 255


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_tiff(dtype):
    x = np.linspace(-500, 500, 600).astype(dtype).reshape(20, 30)
    picture = read_image(encoded(Image.fromarray(x), "TIFF"))
    assert (np.asarray(picture.image)[..., 0] == scale_to_8bit(x)).all()


def test_a_big_endian_tiff_reads_as_its_little_endian_twin():
    x = np.linspace(0, 60000, 600).astype(np.uint16).reshape(20, 30)
    image = Image.frombytes("I;16B", (30, 20), x.astype(">u2").tobytes())
    assert read_image(encoded(image, "TIFF")).image.tobytes() == read_image(x).image.tobytes()


def test_white_is_zero_is_inverted():
    x = np.linspace(0, 60000, 600).astype(np.uint16).reshape(20, 30)
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, "TIFF", tiffinfo={262: 0})
    values = np.asarray(read_image(stream.getvalue()).image)[..., 0]
    assert values[0, 0] == 255
    assert values[-1, -1] == 0


def test_an_unknown_scaling_is_refused():
    with pytest.raises(UsageError, match="'clip'"):
        read_image(np.zeros((2, 2), np.uint16), grey16="clip")


@pytest.mark.parametrize(("dtype", "lowest"), [(np.uint64, 2**63 + 5), (np.int64, -(2**62)), (np.int64, -(2**63))])
def test_neighbouring_large_integers_are_told_apart(dtype, lowest):
    values = np.arange(256, dtype=dtype).reshape(16, 16) + dtype(lowest)
    assert scale_to_8bit(values).ravel().tolist() == list(range(256))


def _deep_files() -> dict[str, tuple[bytes, tuple[float, float]]]:
    """Files of the values 1000 to 4000 in every format of deep grey, and the window over all of them."""
    import tifffile

    values = np.linspace(1000, 4000, 48 * 64).reshape(48, 64)
    found = {}
    for kind in ("PNG", "PPM"):
        file = io.BytesIO()
        Image.fromarray(values.astype(np.uint16)).save(file, kind)
        found[kind] = file.getvalue(), (2500.0, 3000.0)
    for dtype in (np.uint16, np.int16, np.int32, np.float32):
        for photometric in ("minisblack", "miniswhite"):
            file = io.BytesIO()
            tifffile.imwrite(file, values.astype(dtype), photometric=photometric)
            found[f"TIFF {np.dtype(dtype)} {photometric}"] = file.getvalue(), (2500.0, 3000.0)
    return found


@pytest.mark.parametrize("kind", list(_deep_files()))
def test_deep_grey_of_any_format_is_shown_through_a_window(kind):
    data, window = _deep_files()[kind]
    whole = read_image(data)
    assert whole.window == pytest.approx(window)
    light = np.asarray(whole.image, np.int64)[..., 0]
    turned = 1 if "miniswhite" in kind else 0
    # through the window that it has it looks as before
    again = read_image(data, window=whole.window)
    assert np.abs(np.asarray(again.image, np.int64)[..., 0] - light).max() <= 1
    assert again.window == whole.window
    assert again.notes["grey"] == "scaled to 8 bit by window"
    # the lower half of the file's values, whatever its zero means
    half = np.asarray(read_image(data, window=(1750, 1500)).image, np.int64)[..., 0]
    upper = half[25:]
    assert (upper == (0 if turned else 255)).all()
    assert np.abs(half[:23] - ((2 * light[:23]) if not turned else 2 * light[:23] - 255)).max() <= 3


def test_what_has_no_window_says_none_and_pages_are_counted(tmp_path):
    import tifffile

    assert read_image(np.full((4, 4), 7, np.uint16)).window is None
    assert read_image(np.zeros((4, 4), np.uint8)).window is None
    wide = np.array([[2**62, 2**62 + 2**20]], np.int64)
    tifffile.imwrite(tmp_path / "wide.tif", wide)
    assert read_image(tmp_path / "wide.tif").window == (2.0**62 + 2**19, 2.0**20)
    pages = np.arange(3, dtype=np.uint16)[:, None, None] * 100 + np.arange(12, dtype=np.uint16).reshape(3, 4)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    second = read_image(tmp_path / "pages.tif", frame=2)
    assert (second.frame, second.frames, second.window) == (2, 3, (105.5, 11.0))
