"""Arrays, tensors, PIL images, data sets and files: every way in gives the pixels that were meant, or says what is."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retr import ImageReadError, UsageError
from retr.index.vectors import plain_array
from retr.retrieval.images import read_image
from retr.retrieval.images.given import each_picture, given_picture

COLOUR = np.random.default_rng(0).integers(0, 256, (7, 6, 3), np.uint8)
GREY = COLOUR[..., 0]


def pixels(source: object, **options: object) -> np.ndarray:
    picture = read_image(source, **options)
    assert picture.image.mode == "RGB"
    assert picture.image.size == (picture.width, picture.height)
    return np.asarray(picture.image)


def said(source: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(source)
    assert caught.value.reason in {"unsupported", "empty", "too large"}
    return str(caught.value)


class TestAxes:
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, np.float64])
    def test_channels_stand_first_or_last(self, dtype):
        whole = COLOUR.astype(dtype)
        for array in (whole, np.moveaxis(whole, 2, 0), np.ascontiguousarray(np.moveaxis(whole, 2, 0)), whole[::1]):
            assert np.array_equal(pixels(array), COLOUR)
        grey = GREY.astype(dtype)
        for array in (grey, grey[None], grey[..., None], np.asfortranarray(grey)):
            assert np.array_equal(pixels(array), np.repeat(GREY[..., None], 3, 2))

    def test_alpha_is_dropped(self):
        with_alpha = np.dstack([COLOUR, GREY])
        for array in (with_alpha, np.moveaxis(with_alpha, 2, 0), with_alpha / 255, with_alpha[::-1][::-1]):
            assert np.array_equal(pixels(array), COLOUR)

    @pytest.mark.parametrize("shape", [(3, 3, 3), (1, 9, 3), (3, 9, 4), (4, 2, 1), (1, 1, 1), (2, 9, 3), (4, 4, 2)])
    def test_an_axis_that_may_be_either_is_refused(self, shape):
        assert f"the picture has the shape {shape}, whose channels may be the first or the last axis" in said(
            np.zeros(shape, np.uint8)
        )

    @pytest.mark.parametrize("shape", [(), (5,), (7, 6, 2), (2, 7, 6), (7, 6, 5), (1, 1, 7, 6, 3)])
    def test_other_shapes_are_refused_with_those_that_are_wanted(self, shape):
        told = said(np.zeros(shape, np.uint8))
        assert f"has the shape {shape}" in told
        assert "(h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 channels" in told

    def test_a_batch_is_several_pictures(self):
        for shape in ((2, 3, 7, 6), (1, 7, 6, 3)):
            assert "several pictures; give one, or a list of queries" in said(np.zeros(shape, np.float32))

    def test_an_empty_one_and_a_large_one_say_so(self):
        assert "no bytes" in said(np.zeros((0, 5), np.uint8))
        with pytest.raises(ImageReadError, match="more pixels than the limit"):
            read_image(np.zeros((7, 6)), max_pixels=41)


class TestSamples:
    @given(st.integers(0, 255), st.sampled_from(["float16", "float32", "float64", ">f4", "longdouble"]))
    @settings(max_examples=40)
    def test_floats_from_0_to_1_are_black_to_white(self, level, dtype):
        array = (np.array([[0, level, 255, 7]]) / 255).astype(dtype)
        assert pixels(array)[0, :, 0].tolist() == [0, level, 255, 7]

    @given(st.sampled_from(["int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", ">i4"]))
    def test_whole_numbers_mean_what_their_type_says(self, dtype):
        array = np.array([[0, 200], [7, 100]]).astype(dtype)
        deep = dtype in {"int16", "uint16"}
        wanted = [[0, 255], [8, 127]] if deep else [[0, 200], [7, 100]]
        picture = read_image(array)
        assert np.asarray(picture.image)[..., 0].tolist() == wanted
        assert bool(picture.notes) is deep

    def test_deep_grey_is_shown_as_its_file_is(self):
        deep = np.random.default_rng(1).integers(0, 4096, (9, 8)).astype(np.uint16)
        stream = io.BytesIO()
        Image.fromarray(deep).save(stream, "PNG")
        for array in (deep, deep.astype(">u2"), deep[..., None], deep.astype(np.int16)):
            for how in ("minmax", "max"):
                assert np.array_equal(pixels(array, grey16=how), pixels(stream.getvalue(), grey16=how))

    def test_colour_of_16_bits_keeps_its_high_byte(self):
        assert np.array_equal(pixels(COLOUR.astype(np.uint16) << 8), COLOUR)
        assert "all below 256; give them as uint8" in said(COLOUR.astype(np.uint16))

    def test_truth_is_white(self):
        assert pixels(np.array([[True, False]]))[0].tolist() == [[255] * 3, [0] * 3]

    @pytest.mark.parametrize(
        ("array", "told"),
        [
            (GREY / 1.0 + 0.5, "float64 above 1 that are no whole numbers"),
            (GREY / 255 - 0.1, "float64 below 0 or above 255"),
            (np.full((2, 2), 1.0001, np.float32), "float32 above 1 that are no whole numbers"),
            (GREY.astype(np.int64) + 100, "int64 below 0 or above 255"),
            (GREY.astype(np.int32) - 100, "int32 below 0 or above 255"),
            (COLOUR.astype(np.int8), "int8 below 0 or above 255"),
            (COLOUR.astype(np.complex64), "samples of the type complex64"),
            (np.full((2, 2), "x"), "samples of the type <U1"),
            (np.full((2, 2), None), "samples of the type object"),
            (np.array([[np.nan, 0]]), "not finite"),
            (np.array([[np.inf, 0]], np.float16), "not finite"),
        ],
    )
    def test_what_the_rule_leaves_open_is_refused(self, array, told):
        assert told in said(array)
        wanted = ("NaN",) if "finite" in told else ("uint8", "floats from 0 to 1")
        assert all(one in said(array) for one in wanted)

    def test_masked_samples_are_no_samples(self):
        assert "masked samples; fill them" in said(np.ma.masked_less(GREY, 100))
        assert np.array_equal(pixels(np.ma.array(COLOUR)), COLOUR)


class TestTensors:
    torch = pytest.importorskip("torch")

    def test_they_are_arrays_wherever_they_are(self):
        torch = self.torch
        chw = torch.from_numpy(COLOUR.copy()).permute(2, 0, 1)
        to_tensor = chw.float() / 255
        for tensor in (chw, to_tensor, to_tensor.requires_grad_(), to_tensor.double(), to_tensor.half()):
            assert np.array_equal(pixels(tensor), COLOUR)
        near = pixels(to_tensor.to(torch.bfloat16)).astype(int)
        assert np.abs(near - COLOUR).max() <= 1
        assert "several pictures" in said(to_tensor[None])

    def test_one_that_gives_no_array_is_refused(self):
        torch = self.torch
        assert "given as Tensor, which is no array" in said(torch.zeros(4, 4).to_sparse())
        assert "complex64" in said(torch.zeros(4, 4, dtype=torch.complex64))
        assert "given as Tensor, which is no array" in said(torch.zeros(4, 4, device="meta"))


class TestPillow:
    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
    )
    def test_every_mode_of_8_bits_is_read(self, mode):
        colour = Image.fromarray(COLOUR)
        way = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
        image = (colour.convert(way) if way else colour).convert(mode)
        before = image.tobytes()
        wanted = image.convert(way or mode).convert("RGB")
        assert np.array_equal(pixels(image), np.asarray(wanted))
        assert (image.mode, image.tobytes()) == (mode, before)

    @pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B"])
    def test_deep_modes_are_shown_over_their_range(self, mode):
        image = Image.new(mode, (3, 1))
        for place, level in enumerate((100, 200, 300)):
            image.putpixel((place, 0), level)
        assert pixels(image)[0, :, 0].tolist() == [0, 127, 255]

    def test_it_is_turned_upright(self):
        image = Image.fromarray(COLOUR)
        image.getexif()[274] = 6
        stream = io.BytesIO()
        image.save(stream, "PNG", exif=image.getexif())
        assert np.array_equal(pixels(Image.open(stream)), np.rot90(COLOUR, -1))

    def test_the_callers_own_image_stays_as_large_as_it_is(self):
        stream = io.BytesIO()
        Image.fromarray(COLOUR).resize((800, 800)).save(stream, "JPEG")
        image = Image.open(stream)
        assert read_image(image, draft_size=100).image.size == image.size == (800, 800)


class TestFiles:
    def encoded(self) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(COLOUR).save(stream, "PNG")
        return stream.getvalue()

    def test_paths_bytes_and_files_are_one(self, tmp_path):
        class Place(os.PathLike):
            def __fspath__(self) -> str:
                return str(file)

        data = self.encoded()
        file = tmp_path / "a.png"
        file.write_bytes(data)
        written = io.BytesIO()
        written.write(data)  # and left at its end
        with file.open("rb") as stream:
            ways = [file, str(file), Place(), data, bytearray(data), memoryview(data), stream, written]
            assert all(np.array_equal(pixels(way), COLOUR) for way in ways)
        assert given_picture(Place()) == file

    def test_a_file_that_gives_no_bytes_says_why(self, tmp_path):
        file = tmp_path / "a.png"
        file.write_bytes(self.encoded())
        with file.open(encoding="latin-1") as stream:
            assert "open in text mode" in said(stream)
        with file.open(encoding="utf-8") as stream:
            assert "open in text mode" in said(stream)
        with file.open("rb") as stream:
            pass
        with pytest.raises(ImageReadError, match="could not be read"):
            read_image(stream)

    def test_a_pipe_is_read_as_far_as_it_goes(self):
        out, into = os.pipe()
        with os.fdopen(into, "wb") as stream:
            stream.write(self.encoded())
        with os.fdopen(out, "rb") as stream:
            assert np.array_equal(pixels(stream), COLOUR)

    @pytest.mark.parametrize("other", [None, 5, ["a.png"], {"path": "a.png"}, object(), [[0, 1]], ("a.png", "b.png")])
    def test_whatever_else_is_refused(self, other):
        assert f"is given as {type(other).__name__}" in said(other)


class TestDatasets:
    pytest.importorskip("pydicom")

    @pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
    def test_the_pixels_are_those_of_the_file(self, syntax, tmp_path, dicom):
        import pydicom

        values = np.random.default_rng(2).integers(-900, 2000, (20, 30)).astype(np.int16)
        data = dicom(values, syntax=syntax, RescaleSlope=2, RescaleIntercept=-5, WindowCenter=40, WindowWidth=900)
        file = tmp_path / "a.dcm"
        data.save_as(file, enforce_file_format=True)
        wanted = pixels(file)
        for dataset in (data, pydicom.dcmread(file), pydicom.dcmread(file, defer_size=64)):
            before = str(dataset)
            assert np.array_equal(pixels(dataset), wanted)
            assert str(dataset) == before
            dataset.pixel_array  # noqa: B018 - what was looked at is converted
            assert np.array_equal(pixels(dataset), wanted)
        changed = pydicom.dcmread(file)
        changed.WindowWidth = 90
        assert not np.array_equal(pixels(changed), wanted)

    def test_one_without_an_encoding_is_read_too(self, dicom):
        data = dicom(GREY)
        wanted = pixels(dicom(GREY))
        del data.file_meta
        assert np.array_equal(pixels(data), wanted)

    def test_big_endian_and_compressed_ones(self, dicom):
        import pydicom
        from pydicom.uid import ExplicitVRBigEndian, RLELossless

        deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 50
        big = dicom(deep, syntax=ExplicitVRBigEndian)
        big.PixelData = deep.astype(">u2").tobytes()
        packed = dicom(deep)
        packed.compress(RLELossless)
        for data in (big, packed):
            stream = io.BytesIO()
            data.save_as(stream, enforce_file_format=True)
            assert np.array_equal(pixels(data), pixels(dicom(deep)))
            stream.seek(0)
            assert np.array_equal(pixels(pydicom.dcmread(stream)), pixels(dicom(deep)))
        packed.decompress()
        assert np.array_equal(pixels(packed), pixels(dicom(deep)))

    def test_what_it_lacks_is_said_without_what_it_holds(self, dicom):
        data = dicom(GREY)
        del data.PixelData
        with pytest.raises(ImageReadError, match="holds no picture"):
            read_image(data)
        with pytest.raises(ImageReadError, match="burned into its pixels"):
            read_image(dicom(GREY, BurnedInAnnotation="YES"))
        data = dicom(GREY)
        data.add_new(0x00020010, "UI", "1.2.3")  # of the file, and no place in a data set
        with pytest.raises(ImageReadError) as caught:
            read_image(data)
        assert caught.value.reason == "damaged"
        assert "Doe" not in str(caught.value)


class TestSeveral:
    def test_any_sequence_of_pictures_will_do(self):
        pa = pytest.importorskip("pyarrow")
        names = ["a.png", "b.png"]
        for way in (names, tuple(names), iter(names), np.array(names), np.array(names, object), pa.array(names)):
            assert each_picture(way) == names
        assert each_picture([Path("a"), b"b"]) == [Path("a"), b"b"]
        pd = pytest.importorskip("pandas")
        assert each_picture(pd.Series(names, index=[7, 3])) == names

    def test_a_batch_is_taken_apart(self):
        torch = pytest.importorskip("torch")
        batch = np.stack([COLOUR, COLOUR[::-1]])
        for way in (batch, torch.from_numpy(batch.copy()).permute(0, 3, 1, 2)):
            assert [np.array_equal(pixels(one), wanted) for one, wanted in zip(each_picture(way), batch, strict=True)]

    def test_one_picture_is_not_several(self):
        one = ["a.png", b"a", Path("a"), Image.new("L", (2, 2)), COLOUR, GREY, io.BytesIO(), 5, plain_array([1, 2])]
        for way in one:
            with pytest.raises(UsageError, match="several pictures are wanted, got"):
                each_picture(way)
