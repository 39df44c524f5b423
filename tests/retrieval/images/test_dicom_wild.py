"""Headers of the wild: what contradicts itself is read by what it means, or refused with a true reason."""

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from retr.benchmarks.dicom_files import codestreams, encoded
from retr.benchmarks.dicom_kinds import KINDS, plain
from retr.benchmarks.dicom_syntaxes import SYNTAXES
from retr.benchmarks.dicom_variants import FAULTS
from retr.index.errors import ImageReadError
from retr.retrieval.images import read_image, read_images
from retr.retrieval.images.dicom_open import is_dicom

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60  # 12 bit: 0..3780
GREY = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).astype(np.uint8)
COLOUR = np.kron(np.random.default_rng(1).integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
WINDOW = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}


def reason(source: bytes) -> str:
    with pytest.raises(ImageReadError) as caught:
        list(read_images(source))
    return caught.value.reason


def shown(source: bytes) -> np.ndarray:
    return np.asarray(read_image(source).image).astype(int)


def jpeg_2000(pixels: np.ndarray, **options: object) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, **options))


def compressed(data: Dataset, frames: list[bytes], syntax: str, **options: object) -> Dataset:
    data.PixelData = encapsulate(frames, **options)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    return data


# -- what the row says


def test_what_was_assumed_stands_in_the_row(dicom, dicom_bytes):
    data = dicom(RAMP, **WINDOW, RescaleSlope="", RescaleIntercept="")
    del data.PhotometricInterpretation
    picture = read_image(dicom_bytes(data))
    said = picture.columns["header_notes"]
    assert said == picture.notes["header"]
    assert "PhotometricInterpretation taken to be MONOCHROME2" in said
    assert "RescaleSlope ignored" in said
    assert "header_notes" not in read_image(dicom_bytes(RAMP, **WINDOW)).columns


def test_each_attribute_falls_back_on_its_own(dicom_bytes):
    """A slope that is no number leaves the intercept, and both leave the window."""
    moved = dicom_bytes(RAMP, **WINDOW | {"WindowCenter": 1024}, RescaleSlope="0", RescaleIntercept="-1024")
    assert (shown(moved) == shown(dicom_bytes(RAMP, **WINDOW))).all()


@pytest.mark.parametrize(
    ("centres", "widths", "same"),
    [
        ([2048, 40], 4096, (2048, 4096)),
        (2048, [4096, 1, 2], (2048, 4096)),
        ([40, 2048], [0, 4096], (2048, 4096)),
        ([2048], [-5], None),
        ([], [], None),
    ],
)
def test_windows_that_do_not_pair(dicom_bytes, centres, widths, same):
    expected = {} if same is None else {"WindowCenter": same[0], "WindowWidth": same[1]}
    given = dicom_bytes(RAMP, BitsStored=12, WindowCenter=centres, WindowWidth=widths)
    assert (shown(given) == shown(dicom_bytes(RAMP, BitsStored=12, **expected))).all()


# -- tables


@pytest.mark.parametrize("count", [0, 65536])
def test_a_table_of_0_entries_has_65536(dicom, dicom_bytes, count):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    data = dicom(values, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [count % 65536, 0, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", np.arange(65536, dtype="<u2").tobytes())
    assert (shown(dicom_bytes(data))[..., 0] == values >> 8).all()


def test_values_outside_a_palette_take_its_ends(dicom, dicom_bytes):
    data = dicom(GREY, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 100, 8])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes([10, 20, 30, 40]))
    assert (shown(dicom_bytes(data))[..., 0] == np.array([10, 20, 30, 40])[np.clip(GREY.astype(int) - 100, 0, 3)]).all()


def test_a_palette_without_its_table_is_refused(dicom_bytes):
    assert reason(dicom_bytes(GREY, PhotometricInterpretation="PALETTE COLOR")) == "damaged"


# -- labels against data


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("stated", [1, 3])
def test_samples_are_those_of_the_codestream(dicom, dicom_bytes, photometric, stated):
    data = compressed(dicom(COLOUR), [jpeg_2000(COLOUR)], JPEG2000Lossless)
    data.SamplesPerPixel, data.PhotometricInterpretation = stated, photometric
    assert (shown(dicom_bytes(data)) == COLOUR).all()


@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2"])
def test_a_grey_codestream_is_grey(dicom, dicom_bytes, photometric):
    data = compressed(dicom(GREY), [jpeg_2000(GREY)], JPEG2000Lossless)
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, photometric
    assert (shown(dicom_bytes(data))[..., 0] == GREY).all()


def test_bits_are_those_of_the_codestream(dicom, dicom_bytes):
    data = compressed(dicom(RAMP, **WINDOW), [jpeg_2000(RAMP, bitspersample=12)], JPEG2000Lossless)
    expected = shown(dicom_bytes(RAMP, **WINDOW))
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    assert (shown(dicom_bytes(data)) == expected).all()


def test_colour_that_is_subsampled_in_the_codestream_is_ybr(dicom, dicom_bytes):
    frame = bytes(imagecodecs.jpeg8_encode(COLOUR, level=95, subsampling="422"))
    at = frame.index(b"\xff\xe0")  # without its JFIF marker nothing but the sampling says so
    bare = frame[:at] + frame[at + 18 :]
    given = [
        shown(dicom_bytes(compressed(dicom(COLOUR, PhotometricInterpretation=label), [bare], JPEGBaseline8Bit)))
        for label in ("RGB", "YBR_FULL_422")
    ]
    assert (given[0] == given[1]).all()


def test_a_native_file_of_422_length_labelled_full(dicom, dicom_bytes):
    luma = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    pairs = np.concatenate([luma.reshape(6, 4, 2), np.full((6, 4, 2), 128, np.uint8)], axis=-1)
    data = dicom(np.zeros((6, 8, 3), np.uint8), PhotometricInterpretation="YBR_FULL")
    data.PixelData = pairs.tobytes()
    assert (shown(dicom_bytes(data))[..., 1] == luma).all()


def test_colour_of_three_bytes_that_is_ybr_after_all(dicom, dicom_bytes):
    from pydicom.pixels.processing import convert_color_space

    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    given = shown(dicom_bytes(ybr, PhotometricInterpretation="YBR_FULL_422"))
    assert (given == convert_color_space(ybr, "YBR_FULL", "RGB")).all()


def test_a_signed_flag_on_colour_means_nothing(dicom_bytes):
    assert (shown(dicom_bytes(COLOUR, PixelRepresentation=1)) == COLOUR).all()


def test_bits_that_do_not_fit_their_cell_are_refused(dicom_bytes):
    assert reason(dicom_bytes(GREY, BitsStored=12)) == "damaged"


# -- frames and fragments


def frames_of(source: bytes) -> list[np.ndarray]:
    return [np.asarray(picture.image)[..., 0] for _, picture in read_images(source)]


FRAMES = np.stack([GREY, GREY[::-1], GREY.T])


def test_frames_that_do_not_begin_on_bytes(dicom, dicom_bytes):
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    data = dicom(bits, BitsAllocated=1, BitsStored=1)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    assert (np.stack(frames_of(dicom_bytes(data))) == bits * 255).all()


@pytest.mark.parametrize("stated", [None, 0, 1, 2])
@pytest.mark.parametrize("coded", [False, True])
def test_frames_are_counted_in_the_data(dicom, dicom_bytes, stated, coded):
    data = dicom(FRAMES)
    if coded:
        streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in FRAMES]
        compressed(data, streams, JPEGLSLossless, has_bot=stated != 2)
    data.NumberOfFrames = stated
    assert (np.stack(frames_of(dicom_bytes(data))) == FRAMES).all()


# the last is as many as a header can say: nothing is done for each of those that are not there
@pytest.mark.parametrize("stated", [5, 2**31 - 1])
@pytest.mark.parametrize("coded", [False, True])
def test_frames_that_are_missing_are_said_behind_those_that_are_there(dicom, dicom_bytes, coded, stated):
    data = dicom(FRAMES)
    if coded:
        compressed(data, [jpeg_2000(frame) for frame in FRAMES], JPEG2000Lossless)
    data.NumberOfFrames = stated
    pictures = read_images(dicom_bytes(data))
    for frame in FRAMES:
        assert (np.asarray(next(pictures)[1].image)[..., 0] == frame).all()
    with pytest.raises(ImageReadError) as caught:
        next(pictures)
    assert caught.value.reason == "damaged"


def test_an_offset_table_that_points_nowhere_is_not_believed(dicom, dicom_bytes):
    streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in FRAMES]
    data = compressed(dicom(FRAMES), streams, JPEGLSLossless)
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    assert (np.stack(frames_of(dicom_bytes(data))) == FRAMES).all()
    data.ExtendedOffsetTable = struct.pack("<3Q", 0, 7, 12345)
    assert (np.stack(frames_of(dicom_bytes(data))) == FRAMES).all()


def test_fragments_of_odd_length(dicom, dicom_bytes):
    streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in FRAMES]
    items = [b"\xfe\xff\x00\xe0\0\0\0\0"]
    for even in streams:
        stream = even + b"\0" * (len(even) % 2 == 0)
        items.append(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(stream)) + stream)
    for padding in (b"", b"\0"):
        data = compressed(dicom(FRAMES), streams, JPEGLSLossless)
        data.PixelData = items[0] + b"".join(item + padding for item in items[1:])
        assert (np.stack(frames_of(dicom_bytes(data))) == FRAMES).all()


def test_a_codestream_without_items_around_it():
    kind, syntax = KINDS["grey 12 in 16, monochrome2"], SYNTAXES["jpeg-ls"]
    source = encoded(plain(kind), kind, kind.cells(), syntax, FAULTS["none"])
    (stream,) = codestreams(kind, kind.cells(), syntax, FAULTS["none"])
    at = source.rindex(b"\xe0\x7f\x10\x00OB")
    bare = source[: at + 8] + struct.pack("<I", len(stream)) + stream
    assert (shown(bare) == shown(source)).all()


# -- true reasons


def labelled(uid: str, frame: bytes | None = None) -> bytes:
    kind = KINDS["grey 12 in 16, monochrome2"]
    syntax = replace(SYNTAXES["jpeg-ls"], uid=uid)
    if frame is not None:
        syntax = replace(syntax, compress=lambda *_: frame)
    return encoded(plain(kind), kind, kind.cells(), syntax, FAULTS["none"])


@pytest.mark.parametrize(
    "uid",
    [
        *("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102"),
        *("1.2.840.113619.5.2", "1.2.3.4", "no uid"),
    ],
)
def test_other_transfer_syntaxes_are_unsupported(uid):
    assert reason(labelled(uid)) == "unsupported"


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.8.1"])
def test_streams_of_the_young_syntaxes_that_cannot_be_read_are_unsupported(uid):
    assert reason(labelled(uid, b"\xff\x0a" + bytes(100))) == "unsupported"


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
def test_streams_that_are_none_are_damaged(dicom, dicom_bytes, syntax):
    assert reason(dicom_bytes(compressed(dicom(GREY), [bytes(100)], syntax))) == "damaged"


def test_rows_without_pixels_are_no_pixels(dicom, dicom_bytes):
    data = dicom(RAMP, **WINDOW)
    del data.PixelData
    assert reason(dicom_bytes(data)) == "no pixels"
    data.PixelData = b""
    data["PixelData"].VR = "OW"
    assert reason(dicom_bytes(data)) == "no pixels"


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_pixels_without_a_size_are_damaged(dicom, dicom_bytes, keyword):
    data = dicom(RAMP, **WINDOW)
    delattr(data, keyword)
    assert reason(dicom_bytes(data)) == "damaged"


def test_a_file_cut_anywhere_is_truncated_or_has_no_pixels(dicom, dicom_bytes):
    data = compressed(dicom(FRAMES), [jpeg_2000(frame) for frame in FRAMES], JPEG2000Lossless)
    for source in (dicom_bytes(data), dicom_bytes(RAMP)):
        pixels = source.rindex(b"\xe0\x7f\x10\x00")
        for cut in range(140, len(source) - 8, 3):
            assert reason(source[:cut]) in {"truncated", *(["no pixels"] if cut <= pixels else [])}, cut


def test_a_codestream_that_stops_early_is_not_filled_with_grey(dicom, dicom_bytes):
    frame = bytes(imagecodecs.jpeg8_encode(np.tile(GREY, (8, 8)), level=95))
    data = compressed(dicom(np.tile(GREY, (8, 8))), [frame[: len(frame) * 2 // 3]], JPEGBaseline8Bit)
    assert reason(dicom_bytes(data)) == "damaged"


# -- without a preamble


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("dropped", [(), ("SOPClassUID", "SOPInstanceUID")])
def test_files_without_preamble_are_known_by_their_elements(dicom, implicit, little, dropped):
    data = dicom(GREY, Modality="CT", Manufacturer="Siemens")
    for keyword in dropped:
        delattr(data, keyword)
    del data.file_meta
    stream = io.BytesIO()
    data.save_as(stream, implicit_vr=implicit, little_endian=little)
    assert is_dicom(stream.getvalue()[:132])
    assert (shown(stream.getvalue())[..., 0] == GREY).all()


@pytest.mark.parametrize("data", [bytes(400), b"\x08\0" * 200, b"text " * 80, b"\x08\x00\x05\x00" + b"\xff" * 300])
def test_other_bytes_are_no_dicom(data):
    assert not is_dicom(data)


def test_the_syntax_is_that_of_the_data(dicom, dicom_bytes):
    """A file whose meta says compressed and whose pixels are native, and the other way round."""
    native = dicom_bytes(dicom(RAMP, **WINDOW))
    expected = shown(native)
    lying = dicom(RAMP, **WINDOW)
    lying.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert (shown(dicom_bytes(compressed(lying, [jpeg_2000(RAMP)], ExplicitVRLittleEndian))) == expected).all()


# -- what was left out is said, and what was meant is shown


def header_notes(source: bytes) -> str:
    return read_image(source).columns.get("header_notes", "")


@pytest.mark.parametrize("sign", [1, -1])
def test_values_that_lie_lower_than_high_bit_says(dicom, dicom_bytes, sign):
    values = RAMP if sign == 1 else RAMP.astype(np.int16) - 2048
    window = WINDOW | {"WindowCenter": 2048 if sign == 1 else 0}
    data = dicom(values, **window)
    data.HighBit = 15
    assert (shown(dicom_bytes(data)) == shown(dicom_bytes(values, **window))).all()
    assert header_notes(dicom_bytes(data)) == "HighBit taken to be 11"
    # and values that do lie up there
    data.PixelData = (values.view(np.uint16) << 4).tobytes()
    assert (shown(dicom_bytes(data)) == shown(dicom_bytes(values, **window))).all()
    assert header_notes(dicom_bytes(data)) == ""


def test_bits_above_the_stored_ones_are_said(dicom, dicom_bytes):
    assert header_notes(dicom_bytes(RAMP, BitsStored=10)) == "bits above the stored ones left out"
    signed = RAMP.astype(np.int16) - 1800
    for cells in (signed, signed.view(np.uint16) & 0xFFF):  # a sign that is extended, and one that is not
        assert header_notes(dicom_bytes(cells, BitsStored=12, PixelRepresentation=1)) == ""


@pytest.mark.parametrize(
    "rescale",
    [{"RescaleSlope": "2"}, {"RescaleIntercept": "-1024"}, {"RescaleSlope": "1e308", "RescaleIntercept": "0"}],
)
def test_a_rescale_that_cannot_be_used_is_left_out_and_said(dicom_bytes, rescale):
    data = dicom_bytes(RAMP, **WINDOW, **rescale)
    assert (shown(data) == shown(dicom_bytes(RAMP, **WINDOW))).all()
    assert header_notes(data) == "rescale ignored"


def test_an_impossible_spacing_is_said(dicom_bytes):
    data = dicom_bytes(RAMP, **WINDOW, PixelSpacing=["1", "20"], PixelAspectRatio=["1", "2"])
    assert shown(data).shape == (8, 16, 3)
    assert header_notes(data) == "PixelSpacing ignored"


def test_a_table_that_is_not_as_its_descriptor_says(dicom, dicom_bytes):
    data, item = dicom(RAMP, BitsStored=12), Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "US", list(range(4096)))
    data.VOILUTSequence = [item]
    assert header_notes(dicom_bytes(data)) == ""
    item["LUTData"].value = list(range(1000))
    assert header_notes(dicom_bytes(data)) == "VOILUTSequence read otherwise than its descriptor says"


def test_a_dark_palette_stays_dark(dicom, dicom_bytes):
    data = dicom(GREY, PhotometricInterpretation="PALETTE COLOR")
    for colour, step in (("Red", 0), ("Green", 40), ("Blue", 60)):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", (np.arange(256, dtype="<u2") * step).tobytes())
    picture = shown(dicom_bytes(data))
    assert (picture == np.stack([GREY * 0, GREY.astype(int) * 40 >> 8, GREY.astype(int) * 60 >> 8], -1)).all()
    assert header_notes(dicom_bytes(data)) == ""


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "1500", "WindowWidth": "4000"}])
def test_not_a_number_is_the_lowest_value(dicom_bytes, window):
    values = np.linspace(-1000, 3000, 64, dtype=np.float32).reshape(8, 8)
    values[0, 1:4] = np.nan, np.inf, -np.inf
    assert shown(dicom_bytes(values, **window))[0, 1:4, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize("value", ["YES", "yes ", "Y", "TRUE", "1"])
def test_burned_in_annotation_in_any_spelling(dicom_bytes, value):
    assert reason(dicom_bytes(RAMP, BurnedInAnnotation=value)) == "burned-in annotation"


def test_jpeg_labelled_with_a_transform_of_jpeg_2000_is_ybr(dicom, dicom_bytes):
    frame = bytes(imagecodecs.jpeg8_encode(COLOUR, level=95, subsampling="444"))
    at = frame.index(b"\xff\xe0")
    bare = frame[:at] + frame[at + 18 :]
    given = [
        shown(dicom_bytes(compressed(dicom(COLOUR, PhotometricInterpretation=label), [bare], JPEGBaseline8Bit)))
        for label in ("YBR_ICT", "YBR_FULL")
    ]
    assert (given[0] == given[1]).all()
