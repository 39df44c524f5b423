"""NIfTI volumes are cut, turned and windowed as a radiologist expects."""

import gzip
import io

import nibabel
import numpy as np
import pytest

from retr.index.errors import ImageReadError
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
    given = [suffix for suffix, _ in read_images(nifti(VOLUME), every=3)]
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
