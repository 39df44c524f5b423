"""NIfTI volumes are cut, turned and windowed as a radiologist expects."""

import gzip
import io
import struct

import nibabel
import numpy as np
import pytest

from retr.index.errors import ImageReadError, RetrError
from retr.retrieval.images import read_image, read_images

# x to the right, y to the front, z up; a bright corner tells the directions apart
VOLUME = np.random.default_rng(4).integers(0, 500, (10, 12, 8)).astype(np.int16)
VOLUME[9, 11, :] = 4000  # right front
VOLUME[0, :, 7] = 2000  # left, at the top
RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def nifti(volume: np.ndarray, affine: np.ndarray = RAS, kind: type = nibabel.Nifti1Image) -> bytes:
    return kind(volume, affine).to_bytes()


def slices(source: bytes, **options: object) -> list[np.ndarray]:
    return [np.asarray(picture.image)[..., 0] for _, picture in read_images(source, **options)]


def test_axial_slices_are_seen_from_the_feet():
    planes = slices(nifti(VOLUME))
    assert len(planes) == 8
    assert planes[0].shape == (12, 10)
    assert planes[0][0, 0] == 255  # the patient's right is on the left, the front at the top


def test_coronal_and_sagittal_slices_stand_upright():
    coronal = slices(nifti(VOLUME), axis="coronal")
    assert len(coronal) == 12
    assert coronal[5].shape == (8, 10)
    assert coronal[5][0, -1] > coronal[5][-1, -1]  # the top is up; left is on the right
    sagittal = slices(nifti(VOLUME), axis="sagittal")
    assert len(sagittal) == 10
    assert sagittal[9].shape == (8, 12)
    assert (sagittal[9][:, 0] == 255).all()  # the front is on the left


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SRA", "ALI"])
def test_every_storage_order_gives_the_same_slices(codes):
    image = nibabel.Nifti1Image(VOLUME, np.diag([1.0, 2.0, 1.0, 1.0]))
    target = nibabel.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
    for axis in ("axial", "coronal", "sagittal"):
        assert np.array_equal(slices(turned.to_bytes(), axis=axis), slices(image.to_bytes(), axis=axis))


def test_forms_of_the_file_agree():
    expected = slices(nifti(VOLUME))
    assert np.array_equal(slices(gzip.compress(nifti(VOLUME))), expected)
    assert np.array_equal(slices(nifti(VOLUME, kind=nibabel.Nifti2Image)), expected)
    big = nibabel.Nifti1Image(VOLUME, RAS, nibabel.Nifti1Header(endianness=">"))
    assert np.array_equal(slices(big.to_bytes()), expected)
    assert np.array_equal(slices(nifti(VOLUME.astype(np.float32) * 0.5)), expected)


def test_a_negative_slope_turns_bright_and_dark():
    image = nibabel.Nifti1Image(VOLUME, RAS)
    image.header.set_slope_inter(-1, 4000)
    data = bytearray(nifti(VOLUME))
    data[112:120] = np.array([-1, 4000], "<f4").tobytes()  # scl_slope, scl_inter
    assert slices(bytes(data))[0][0, 0] == 0


def test_one_window_for_all_slices_ignores_outliers():
    volume = np.random.default_rng(8).integers(0, 1000, (40, 40, 20)).astype(np.float32)
    volume[0, 0, 0] = 1e9
    volume[1, 1, 1] = np.nan
    planes = slices(nifti(volume))
    assert np.mean(planes) == pytest.approx(127, abs=5)


def test_every_nth_slice_and_the_middle_one():
    given = [suffix for suffix, _ in read_images(nifti(VOLUME), frames=3)]
    assert given == ["#1", "#4", "#7"]
    picture = read_image(nifti(VOLUME))
    assert picture.notes["slice"] == "axial 5 of 8"
    assert np.array_equal(np.asarray(picture.image)[..., 0], slices(nifti(VOLUME))[4])
    assert (picture.width, picture.height, picture.mode) == (10, 12, "I;16")


def test_voxels_become_square():
    picture = read_image(nifti(VOLUME, np.diag([1.0, 1.0, 3.0, 1.0])), axis="coronal")
    assert picture.image.size == (10, 24)
    assert (picture.width, picture.height) == (10, 8)


def test_of_a_series_the_first_volume_is_read():
    series = np.stack([VOLUME, VOLUME[::-1]], axis=3)
    assert np.array_equal(slices(nifti(series)), slices(nifti(VOLUME)))


def reason(data: bytes, **options: object) -> str:
    with pytest.raises(ImageReadError) as caught:
        list(read_images(data, **options))
    return caught.value.reason


def test_bad_volumes():
    data = nifti(VOLUME)
    assert reason(data[:-100]) == "truncated"
    assert reason(gzip.compress(data)[:-200]) == "truncated"
    assert reason(nifti(VOLUME.astype(np.complex64))) == "unsupported"
    pair = bytearray(data)
    pair[344:348] = b"ni1\0"
    assert reason(gzip.compress(pair)) == "unsupported"
    assert reason(data, max_pixels=50) == "too large"


def test_a_gzip_bomb_is_not_inflated():
    header = bytearray(nifti(np.zeros((1, 1, 1), np.int16)))
    header[40:56] = np.array([3, 30_000, 30_000, 30_000, 1, 1, 1, 1], "<i2").tobytes()
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        file.write(bytes(header))
        for _ in range(20):
            file.write(bytes(1 << 20))
    assert reason(stream.getvalue()) == "too large"


# -- headers of the wild, compared with nibabel ----------------------------------------------------------------------

FIELDS = {
    "dim": (40, "8h"),
    "intent": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "offset": (108, "f"),
    "slope": (112, "f"),
    "inter": (116, "f"),
    "qform": (252, "h"),
    "sform": (254, "h"),
    "quaternion": (256, "3f"),
    "rows": (280, "12f"),
}


def patched(data: bytes, **fields: float | tuple[float, ...]) -> bytes:
    changed = bytearray(data)
    for name, value in fields.items():
        at, kind = FIELDS[name]
        struct.pack_into(f"<{kind}", changed, at, *(value if isinstance(value, tuple) else (value,)))
    return bytes(changed)


def nibabel_slices(data: bytes) -> list[np.ndarray]:
    """The axial slices as `nibabel.load` gives the volume, windowed and turned in another way than the reader's."""
    volume = np.asarray(nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data)).dataobj).astype(float)
    while volume.ndim > 3:
        volume = volume[..., 0]
    low, high = np.percentile(volume[np.isfinite(volume)], (0.5, 99.5))
    shown = np.clip((np.nan_to_num(volume, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1) * 255
    return [np.flip(shown[:, :, z]).T for z in range(shown.shape[2])]


def turned(seed: int) -> tuple[float, ...]:
    quaternion = np.random.default_rng(seed).normal(size=4)
    return tuple(float(part) for part in quaternion[1:] / np.linalg.norm(quaternion))


NAN = float("nan")
HEADERS = [
    *(
        {
            "pixdim": (qfac, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
            "qform": qform,
            "sform": sform,
            "quaternion": turned(seed),
        }
        for seed, qfac in enumerate((0.0, 1.0, -1.0, 2.0, NAN))
        for qform in (0, 1, 7)
        for sform in (0, 1, 9)
    ),
    *(
        {"quaternion": quaternion, "qform": 1, "sform": 0}
        for quaternion in ((1.0000001, 0.0, 0.0), (0.7071069, 0.7071069, 0.0), (0.6, 0.8, 5e-7), (0.0, 0.0, 1.0))
    ),
    *({"slope": slope, "inter": inter} for slope in (0.0, NAN, float("-inf"), -1.0, 0.5) for inter in (0.0, 7.0)),
    *(
        {"pixdim": (1.0, *sizes, 1.0, 1.0, 1.0, 1.0), "qform": form, "sform": 1 - form}
        for sizes in ((0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -2.0))
        for form in (0, 1)
    ),
    {"bitpix": 99},
    {"offset": 368.0},
    {"dim": (4, 10, 12, 4, 2, 1, 1, 1)},
    {"dim": (7, 10, 12, 8, 1, 1, 1, 1)},
    {"dim": (5, 10, 12, 2, 1, 4, 1, 1), "intent": 1007},
    {"rows": (0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0), "sform": 1},
    {"rows": (0.9, 0.2, 0.0, 0.0, -0.2, 0.9, 0.1, 0.0, 0.0, -0.1, 1.0, 0.0), "sform": 1},
]


def same_as_nibabel(data: bytes) -> None:
    ours, theirs = [np.asarray(p.image)[..., 0].astype(int) for _, p in read_images(data)], nibabel_slices(data)
    assert len(ours) == len(theirs)
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.shape == wanted.shape
        assert np.abs(mine - wanted).max() <= 1


@pytest.fixture
def quiet_nibabel(monkeypatch):
    monkeypatch.setattr(nibabel.imageglobals.logger, "disabled", True)


@pytest.mark.parametrize("fields", HEADERS, ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_header_is_taken_as_nibabel_takes_it(fields, quiet_nibabel):
    same_as_nibabel(patched(nifti(VOLUME), **fields) + bytes(64))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_and_byte_order_is_read_as_nibabel_reads_it(dtype, quiet_nibabel):
    volume = VOLUME.clip(0, 120).astype(dtype)
    if dtype[0] == "f":
        volume[3:5], volume[0, 0, 0] = NAN, np.inf
    for order in "<>":
        same_as_nibabel(
            nibabel.Nifti1Image(volume, RAS, nibabel.Nifti1Header(endianness=order), dtype=dtype).to_bytes()
        )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({"datatype": code}, "unsupported") for code in (0, 1, 32, 128, 1792, 2304, 99)),
        ({"quaternion": (1.1, 0.0, 0.0), "qform": 1, "sform": 0}, "damaged"),
        ({"offset": 100.0}, "damaged"),
        ({"dim": (3, 10, 12, 0, 1, 1, 1, 1)}, "damaged"),
        ({"dim": (3, 10, 12, -8, 1, 1, 1, 1)}, "damaged"),
        ({"dim": (0, 10, 12, 8, 1, 1, 1, 1)}, "damaged"),
        ({"slope": 2.0, "inter": NAN}, "damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_nibabel_does_not_take_either(fields, expected):
    assert reason(patched(nifti(VOLUME), **fields)) == expected


def test_an_offset_of_zero_is_the_end_of_the_header():
    assert np.array_equal(slices(patched(nifti(VOLUME), offset=0.0)), slices(nifti(VOLUME)))


def test_gzip_compares_its_checksum():
    data = bytearray(gzip.compress(nifti(VOLUME)))
    assert len(slices(bytes(data) + b"what follows is no part of it")) == 8
    assert reason(bytes(data[:-4])) == "truncated"
    data[-8] ^= 1
    assert reason(bytes(data)) == "damaged"


def test_one_slice_is_read_through_a_window_of_its_own():
    source = nifti(np.repeat(np.arange(6, dtype=np.int16) * 100, 20).reshape(6, 4, 5).transpose(1, 2, 0))
    picture = read_image(source, frame=4, window=(300, 100))
    assert (picture.frame, picture.frames, picture.window) == (4, 6, (300, 100))
    assert np.asarray(picture.image).mean() == pytest.approx(127, abs=1)
    assert np.asarray(read_image(source, frame=5, window=(300, 100)).image).min() == 255
    for wrong in ({"frame": 7}, {"frame": 0}, {"window": (1.0, 0.0)}, {"window": (float("nan"), 1.0)}):
        with pytest.raises(RetrError):
            read_image(source, **wrong)
