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
