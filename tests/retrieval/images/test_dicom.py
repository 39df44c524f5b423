"""DICOM pictures look as a viewer shows them."""

import io
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import iter_pixels
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from retr.index.errors import ImageReadError
from retr.retrieval.images import REASONS, read_image, read_images

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60  # 12 bit: 0..3780
COLOUR = np.kron(np.random.default_rng(1).integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def grey(source: object, **options: object) -> np.ndarray:
    pixels = np.asarray(read_image(source, **options).image)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0].astype(int)


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The formula of PS3.3 C.11.2.1.2.1, output 0..255."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


# -- the standard's own test files
# ------------------------------------------------------------------------------


def sample_files() -> list[Path]:
    root = Path(pydicom.__file__).parent / "data"
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in {"", ".dcm"})


def known_rendering(data: Dataset, frame: np.ndarray) -> np.ndarray | None:
    """pydicom's own chain, brought from its output range to 0..255; None where the file names no window."""
    if "WindowWidth" not in data and "VOILUTSequence" not in data:
        return None
    values = apply_voi_lut(apply_modality_lut(frame, data), data)
    bits = data.BitsStored
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if data.PixelRepresentation else (0, (1 << bits) - 1)
    if "RescaleSlope" in data:
        low, high = (end * data.RescaleSlope + data.RescaleIntercept for end in (low, high))
    shown = (values - float(low)) / float(high - low) * 255
    return 255 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown


@pytest.mark.filterwarnings("default")
def test_every_sample_file_is_read_or_refused_with_a_reason_and_known_renderings_are_met():
    read, compared = 0, 0
    for path in sample_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data = dcmread(path)
                reference = list(iter_pixels(data))
            except Exception:
                reference = []
        try:
            pictures = [picture for _, picture in read_images(path)]
        except ImageReadError as error:
            assert error.reason in REASONS
            assert not reference, f"{path.name}: pydicom reads it, we say {error.reason}"
            continue
        read += 1
        if not reference:  # pydicom raises for a display attribute, or has no decoder
            continue
        assert len(pictures) == len(reference), path.name
        expected = known_rendering(data, reference[0]) if reference[0].ndim == 2 else None
        picture = pictures[0]
        if expected is not None and "aspect" not in picture.notes:
            compared += 1
            difference = np.abs(np.asarray(picture.image)[..., 0] - expected)
            assert difference.max() <= 1, path.name
    assert read >= 90
    assert compared >= 20


# -- grey: the chain
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_window_after_rescale_before_inversion(dicom_bytes, stored, signed, inverted):
    rng = np.random.default_rng(stored)
    low = -(1 << stored - 1) if signed else 0
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if stored == 8 else 2}")
    values = rng.integers(low, low + (1 << stored), (9, 7)).astype(dtype)
    centre, width = low * 2.0 + (1 << stored) - 10, float(1 << stored - 1)
    picture = read_image(
        dicom_bytes(
            values,
            BitsStored=stored,
            PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
            RescaleSlope=2,
            RescaleIntercept=-10,
            WindowCenter=centre,
            WindowWidth=width,
        )
    )
    expected = linear(values * 2.0 - 10, centre, width)
    if inverted:
        expected = 255 - expected
    assert np.abs(np.asarray(picture.image)[..., 0] - expected).max() < 1
    assert picture.notes == {"window": "window"}
    assert picture.mode == ("L" if stored == 8 else "I;16")


def test_of_several_windows_the_first_is_taken(dicom_bytes):
    several = dicom_bytes(RAMP, BitsStored=12, WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    one = dicom_bytes(RAMP, BitsStored=12, WindowCenter=1000, WindowWidth=500)
    assert (grey(several) == grey(one)).all()


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR_EXACT", lambda x: np.clip((x - 2000) / 1000 + 0.5, 0, 1) * 255),
        ("SIGMOID", lambda x: 255 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    ],
)
def test_window_functions(dicom_bytes, function, formula):
    data = dicom_bytes(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    assert np.abs(grey(data) - formula(RAMP.astype(float))).max() < 1


def test_a_window_of_one_is_a_threshold(dicom_bytes):
    for inverted in (False, True):
        photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
        data = dicom_bytes(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=1, PhotometricInterpretation=photometric)
        assert (grey(data) == np.where((RAMP > 1999.5) != inverted, 255, 0)).all()


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_an_impossible_window_is_not_used(dicom_bytes, width):
    picture = read_image(dicom_bytes(RAMP, BitsStored=12, WindowCenter=100, WindowWidth=width))
    assert picture.notes["window"].startswith("percentile")


def lut(values: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, bits])
    item.add_new("LUTData", "US", values)
    return item


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_voi_lut_wins_over_the_window(dicom_bytes, bits):
    table = np.linspace(0, (1 << bits) - 1, 1000).astype(int)[::-1]
    data = dicom_bytes(
        RAMP, BitsStored=12, VOILUTSequence=[lut(table.tolist(), 500, bits)], WindowCenter=1, WindowWidth=1
    )
    expected = table[np.clip(RAMP.astype(int) - 500, 0, 999)] / ((1 << bits) - 1) * 255
    assert np.abs(grey(data) - expected).max() < 1
    assert read_image(data).notes == {"window": "VOI LUT"}


def test_a_voi_lut_with_fewer_bits_than_it_declares_is_not_dark(dicom_bytes):
    data = dicom_bytes(RAMP, BitsStored=12, VOILUTSequence=[lut(list(range(4096)), 0, 16)])
    assert grey(data).max() >= 235


def test_modality_lut(dicom_bytes):
    table = (np.arange(4096) ** 2 // 256).tolist()
    data = dicom_bytes(
        RAMP, BitsStored=12, ModalityLUTSequence=[lut(table, 0, 16)], WindowCenter=30000, WindowWidth=60000
    )
    assert np.abs(grey(data) - linear(np.asarray(table)[RAMP], 30000, 60000)).max() < 1


def test_8_bit_without_a_window_is_shown_as_stored(dicom_bytes):
    values = np.arange(20, 84, dtype=np.uint8).reshape(8, 8)
    assert (grey(dicom_bytes(values)) == values).all()
    assert (grey(dicom_bytes(values, PhotometricInterpretation="MONOCHROME1")) == 255 - values.astype(int)).all()


def test_without_a_window_a_few_outliers_do_not_darken_the_picture(dicom_bytes):
    values = np.random.default_rng(2).integers(1000, 3000, (100, 100)).astype(np.uint16)
    values[0, :5] = 65535
    picture = read_image(dicom_bytes(values))
    assert np.asarray(picture.image).mean() == pytest.approx(127, abs=5)
    assert np.asarray(picture.image)[1:].max() - np.asarray(picture.image)[1:].min() > 160
    assert picture.notes == {"window": "percentile 0.1-99.9"}


def test_padding_is_left_out_of_the_range(dicom_bytes):
    values = np.random.default_rng(2).integers(1000, 3000, (100, 100)).astype(np.int16)
    values[:, :50] = -2000
    shown = grey(dicom_bytes(values, PixelPaddingValue=-2000))
    assert (shown[:, :50] == 0).all()
    assert shown[:, 50:].mean() == pytest.approx(127, abs=5)


def test_float_pixels(dicom_bytes):
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    picture = read_image(dicom_bytes(values))
    assert picture.mode == "F"
    assert np.asarray(picture.image)[-1, -1, 0] == 255


def test_an_overlay_in_the_unused_bits_is_ignored(dicom):
    data = dicom(RAMP | 0x8000, BitsStored=12, WindowCenter=2000, WindowWidth=4000)
    data.add_new(0x60000100, "US", 16)
    data.add_new(0x60000102, "US", 15)
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    assert np.abs(grey(stream.getvalue()) - linear(RAMP.astype(float), 2000, 4000)).max() < 1


# -- the same X-ray in several coats
# ------------------------------------------------------------------------------


def test_the_same_x_ray_in_several_forms_is_the_same_picture(dicom_bytes):
    rng = np.random.default_rng(5)
    body = np.asarray(
        Image.fromarray(rng.integers(0, 4096, (16, 16)).astype(np.int32)).resize((256, 256), Image.Resampling.BICUBIC)
    )
    body = np.clip(body, 0, 4095).astype(np.uint16)
    body[0, 0], body[-1, -1] = 0, 4095
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    png16 = io.BytesIO()
    Image.fromarray(body).save(png16, "PNG")
    reference = (body / 4095 * 255).astype(np.uint8)
    for source in (
        png16.getvalue(),
        dicom_bytes(body, BitsStored=12, **window),
        dicom_bytes(4095 - body, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **window),
        dicom_bytes(body, BitsStored=12),
        dicom_bytes(4095 - body, BitsStored=12, PhotometricInterpretation="MONOCHROME1"),
    ):
        assert (grey(source) == reference).all()


def test_both_monochromes_agree_exactly_without_a_window(dicom_bytes):
    noise = np.random.default_rng(6).integers(0, 4096, (50, 60)).astype(np.uint16)
    one = grey(dicom_bytes(4095 - noise, BitsStored=12, PhotometricInterpretation="MONOCHROME1"))
    assert (one == grey(dicom_bytes(noise, BitsStored=12))).all()


# -- colour
# -------------------------------------------------------------------------------------------------------


def test_planar_configurations_agree(dicom_bytes):
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    data = dicom_bytes(COLOUR)
    planar = dcmread(io.BytesIO(data))
    planar.PlanarConfiguration, planar.PixelData = 1, planes.tobytes()
    assert (np.asarray(read_image(dicom_bytes(planar)).image) == COLOUR).all()
    assert (np.asarray(read_image(data).image) == COLOUR).all()


def test_ybr_full_becomes_rgb(dicom_bytes):
    ybr = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    picture = read_image(dicom_bytes(ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(np.asarray(picture.image).astype(int) - COLOUR).max() <= 3


def test_16_bit_colour_keeps_its_high_byte(dicom_bytes):
    deep = COLOUR.astype(np.uint16) * 257
    assert (np.asarray(read_image(dicom_bytes(deep)).image) == COLOUR).all()


@pytest.mark.parametrize("entry_bits", [8, 16])
def test_palette(dicom, dicom_bytes, entry_bits):
    palette = np.random.default_rng(9).integers(0, 256, (3, 256))
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = dicom(indices, PhotometricInterpretation="PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), palette, strict=True):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, entry_bits])
        entries = table.astype(np.uint8) if entry_bits == 8 else (table * 257).astype("<u2")
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
    picture = read_image(dicom_bytes(data))
    assert picture.mode == "P"
    assert (np.asarray(picture.image) == palette.T[indices]).all()


def segmented(data: Dataset, words: list[int]) -> Dataset:
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        data.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", np.array(words, "<u2").tobytes())
    return data


def test_a_segmented_palette_is_expanded(dicom, dicom_bytes):
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = segmented(dicom(indices, PhotometricInterpretation="PALETTE COLOR"), [0, 1, 0, 1, 255, 65280])
    assert (grey(dicom_bytes(data)) == indices).all()


@pytest.mark.parametrize("words", [[0, 1, 0] + [1, 65535, 9] * 5000, [0, 1, 0, 2, 65535, 0, 0], [0, 1, 0, 2, 9, 3, 0]])
def test_a_segmented_palette_without_end_is_refused(dicom, dicom_bytes, words):
    data = segmented(dicom(np.zeros((4, 4), np.uint8), PhotometricInterpretation="PALETTE COLOR"), words)
    with pytest.raises(ImageReadError) as caught:
        read_image(dicom_bytes(data))
    assert caught.value.reason == "damaged"


# -- geometry, frames, transfer syntaxes
# ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"PixelSpacing": [2, 1]}, (48, 64)),
        ({"PixelSpacing": [1, 2]}, (96, 32)),
        ({"PixelAspectRatio": ["3", "2"]}, (48, 48)),
        ({"PixelSpacing": [1, 1], "PixelAspectRatio": ["2", "1"]}, (48, 32)),
        ({"PixelSpacing": [1000, 1]}, (48, 32)),
        ({"PixelSpacing": [0, 1]}, (48, 32)),
    ],
)
def test_pixels_become_square(dicom_bytes, attributes, size):
    picture = read_image(dicom_bytes(COLOUR, **attributes))
    assert picture.image.size == size
    assert (picture.width, picture.height) == (48, 32)


def test_frames_count_from_one(dicom_bytes):
    frames = np.stack([np.full((4, 5), value, np.uint8) for value in range(7)])
    pictures = read_images(dicom_bytes(frames), frames=3)
    given = [(suffix, int(np.asarray(picture.image)[0, 0, 0])) for suffix, picture in pictures]
    assert given == [("#1", 0), ("#4", 3), ("#7", 6)]
    assert grey(dicom_bytes(frames)).max() == 0


def test_enhanced_frames_have_their_own_windows(dicom, dicom_bytes):
    data = dicom(np.stack([RAMP, RAMP]), BitsStored=12)
    groups = []
    for centre in (1000, 3000):
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 500
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    rescale, shared = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, 100
    shared.PixelValueTransformationSequence = [rescale]
    data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence = groups, [shared]
    pictures = [np.asarray(picture.image)[..., 0] for _, picture in read_images(dicom_bytes(data))]
    for picture, centre in zip(pictures, (1000, 3000), strict=True):
        assert np.abs(picture - linear(RAMP + 100.0, centre, 500)).max() < 1


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_native_transfer_syntaxes(dicom, dicom_bytes, syntax):
    data = dicom(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=4000)
    expected = grey(dicom_bytes(data))
    if syntax == ExplicitVRBigEndian:
        data["PixelData"].value = RAMP.astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    data.save_as(stream, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    assert (grey(stream.getvalue()) == expected).all()


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_and_meta(dicom, dicom_bytes, implicit):
    data = dicom(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=4000)
    expected = grey(dicom_bytes(data))
    del data.file_meta
    stream = io.BytesIO()
    data.save_as(stream, implicit_vr=implicit, little_endian=True)
    assert (grey(stream.getvalue()) == expected).all()


def test_baseline_jpeg(dicom, dicom_bytes):
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG", quality=95, subsampling=0)
    data = dicom(COLOUR, PhotometricInterpretation="YBR_FULL", syntax=JPEGBaseline8Bit)
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    assert np.abs(np.asarray(read_image(dicom_bytes(data)).image).astype(int) - COLOUR).mean() < 4


# -- hostile and unreadable
# -----------------------------------------------------------------------------------------


def reason(source: object, **options: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        list(read_images(source, **options))
    assert "Doe" not in str(caught.value)
    return caught.value.reason


def test_burned_in_annotation_is_refused_unless_allowed(dicom_bytes):
    assert reason(dicom_bytes(RAMP, BurnedInAnnotation="yes ")) == "burned-in annotation"
    data = dicom_bytes(RAMP, BurnedInAnnotation="YES")
    assert reason(data) == "burned-in annotation"
    assert read_image(data, allow_burned_in=True).width == 8
    assert read_image(dicom_bytes(RAMP, BurnedInAnnotation="NO")).width == 8


def test_no_pixels(dicom, dicom_bytes):
    data = dicom(RAMP)
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(data, keyword)
    assert reason(dicom_bytes(data)) == "no pixels"


def test_truncated(dicom, dicom_bytes):
    data = dicom_bytes(RAMP)
    assert reason(data[:-20]) == "truncated"
    assert reason(data[:-129]) == "truncated"
    compressed = dicom(np.tile(RAMP, (8, 8)))
    compressed.compress(RLELossless)
    assert reason(dicom_bytes(compressed)[:-200]) == "truncated"


def test_a_size_over_the_limit_is_refused(dicom_bytes):
    data = dcmread(io.BytesIO(dicom_bytes(RAMP)))
    data.Rows = data.Columns = 60_000
    assert reason(dicom_bytes(data)) == "too large"


def test_a_deflate_bomb_is_refused(dicom, dicom_bytes):
    data = dicom(np.zeros((2000, 2000), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert reason(dicom_bytes(data), max_pixels=10**6) == "too large"


def test_a_codestream_larger_than_the_header_says_is_refused(dicom, dicom_bytes):
    data = dicom(np.tile(RAMP, (8, 8)), syntax=JPEG2000Lossless)
    data.PixelData = encapsulate([bytes(imagecodecs.jpeg2k_encode(np.tile(RAMP, (8, 8)), codecformat="j2k"))])
    data["PixelData"].is_undefined_length = True
    data.Rows = data.Columns = 32
    assert reason(dicom_bytes(data)) == "damaged"


def test_a_run_over_the_end_of_the_picture_is_a_damaged_file(dicom, dicom_bytes):
    data = dicom(RAMP, BitsStored=12)
    data.compress(RLELossless)
    frame = bytearray(next(generate_frames(data.PixelData, number_of_frames=1)))
    frame[64] = 0x81  # the first run of the first segment now runs over the picture's end
    data.PixelData = encapsulate([bytes(frame)])
    assert reason(dicom_bytes(data)) == "damaged"


def test_an_unknown_photometric_interpretation(dicom_bytes):
    assert reason(dicom_bytes(COLOUR, PhotometricInterpretation="YBR_PARTIAL_420")) == "unsupported"


def test_without_pydicom_the_extra_is_named(dicom_bytes, monkeypatch):
    data = dicom_bytes(RAMP)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImageReadError, match=r"retr\[dicom\]") as caught:
        read_image(data)
    assert caught.value.reason == "missing extra"


def test_odd_headers_stay_silent(dicom, dicom_bytes, caplog, capfd):
    data = dicom(RAMP)
    data.add_new("PatientBirthDate", "DA", "")
    stream = dicom_bytes(data).replace(b"1.2.3.1", b"Jane.Do")
    read_image(stream, hash_key=b"k" * 32)
    assert "Jane" not in caplog.text
    assert capfd.readouterr() == ("", "")
