"""A volume gives the same pictures whether it comes as a DICOM series or as NIfTI, however it was acquired."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from volume_files import SHAPE, VALUES, dicom_file, rotation, series, volume

from retr.index.errors import ImageReadError, UsageError
from retr.retrieval.images import read_image, read_images
from retr.retrieval.read_options import ReadOptions

SAME = {"orient": True, "windows": "lung,mediastinum,bone,brain", "axis": "acquired"}


def pictures(sources, **options):
    """Return pixels by place and window."""
    found = []
    for source in sources:
        with suppress(ImageReadError):  # a file of which no slice is chosen
            found += [picture for _, picture in read_images(source, **options)]
    return {
        (one.columns["plane"], one.columns["slice_position"], one.columns.get("ct_window")): np.asarray(one.image)
        for one in found
    }


orders = st.permutations(range(3))
signs = st.tuples(*[st.sampled_from([-1, 1])] * 3)


@settings(max_examples=10, deadline=None)
@given(order=orders, signs=signs, angle=st.sampled_from([0.0, 0.1, -0.2, 0.3]))
def test_a_series_and_a_volume_give_the_same_pictures(order, signs, angle):
    axes = rotation(order, signs, angle)
    one, other = pictures(series(axes), **SAME), pictures([volume(axes)], **SAME)
    assert one.keys() == other.keys()
    assert len(one) == 4 * SHAPE[2]
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_what_is_stored_mirrored_is_told_apart_without_turning():
    axes = rotation((0, 1, 2), (-1, 1, 1), 0.0)
    stored, turned = (pictures(series(axes), windows="lung", orient=orient) for orient in (False, True))
    assert all(np.array_equal(stored[key][:, ::-1], turned[key]) for key in stored)


@pytest.mark.parametrize(
    ("axes", "plane"),
    [
        (rotation((0, 1, 2), (1, 1, 1), 0.0), "axial"),
        (rotation((0, 2, 1), (1, -1, 1), 0.0), "coronal"),
        (rotation((1, 2, 0), (1, -1, 1), 0.1), "sagittal"),
        (rotation((0, 1, 2), (1, 1, 1), np.pi / 4), "oblique"),
    ],
)
def test_planes_are_named_by_geometry(axes, plane):
    [(_, picture)] = read_images(series(axes)[0])
    assert picture.columns["plane"] == plane


def test_positions_rise_whichever_way_a_series_is_numbered():
    axes = rotation((0, 1, 2), (1, 1, 1), 0.0)
    found = [key[1] for key in pictures(series(axes))]
    assert found == [100.0 + 3 * number for number in range(6)]


@pytest.mark.parametrize(
    "wrong", [{"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]}, {"ImagePositionPatient": [1.0, 2]}]
)
def test_geometry_that_is_none_is_left_out(wrong):
    given = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0], **wrong}
    [(_, picture)] = read_images(dicom_file(VALUES[:, :, 0].T, **given), orient=True, slices="5mm")
    assert "plane" not in picture.columns
    assert "slice_position" not in picture.columns


def test_frames_of_one_file_say_where_they_lie():
    groups = []
    for number in range(6):
        group = Dataset()
        place, content = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, float(10 - 3 * (number // 2))]
        content.TemporalPositionIndex = 1 + number % 2
        group.PlanePositionSequence, group.FrameContentSequence = Sequence([place]), Sequence([content])
        groups.append(group)
    shared, plane = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([plane])
    data = dicom_file(
        VALUES.transpose(2, 1, 0),
        NumberOfFrames=6,
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )
    columns = [picture.columns for _, picture in read_images(data)]
    assert [(one["slice_position"], one["temporal_position"]) for one in columns] == [
        *((10.0, 1), (10.0, 2), (7.0, 1), (7.0, 2), (4.0, 1), (4.0, 2))
    ]
    # one slice in 6 mm, at both times: those that hold 6
    kept = [suffix for suffix, _ in read_images(data, slices="6mm")]
    assert kept == ["#3", "#4"]


def test_a_film_counts_its_frames_and_scans_of_a_series_are_told_apart():
    film = dicom_file(VALUES.transpose(2, 1, 0), NumberOfFrames=6, FrameTime="33", Modality="US")
    assert [one.columns["temporal_position"] for _, one in read_images(film)] == [1, 2, 3, 4, 5, 6]
    [(_, phase)] = read_images(dicom_file(VALUES[:, :, 0].T, AcquisitionNumber="2"))
    assert phase.columns["acquisition_number"] == 2
    assert "temporal_position" not in phase.columns


@settings(max_examples=4, deadline=None)
@given(step=st.sampled_from([3, 4.5, 6, 9, 12]), order=orders)
def test_slices_by_mm_are_the_same_of_both_and_one_for_each_step(step, order):
    axes = rotation(order, (1, 1, 1), 0.0)
    values = np.repeat(VALUES[:6, :4], 4, axis=2)
    options = {"windows": "lung", "orient": True, "axis": "acquired", "slices": f"{step}mm"}
    one, other = pictures(series(axes, values=values), **options), pictures([volume(axes, values=values)], **options)
    assert one.keys() == other.keys()
    assert abs(len(one) - 24 * 3 / step) <= 1
    places = np.sort([key[1] for key in one])
    assert (np.diff(places) <= step + 3).all()


def test_slices_without_content_are_left_out_of_both():
    values = np.full((32, 32, 6), -1000)
    values[8:24, 8:24, 2:5] = 60
    axes = rotation((0, 1, 2), (1, 1, 1), 0.0)
    options = {"windows": "mediastinum", "orient": True, "axis": "acquired", "slices": "content"}
    files = series(axes, values=values)
    for number in (0, 1, 5):
        with pytest.raises(ImageReadError) as caught:
            list(read_images(files[number], **options))
        assert caught.value.reason == "no slice chosen"
    one, other = pictures(files[2:5], **options), pictures([volume(axes, values=values)], **options)
    assert one.keys() == other.keys()
    assert [key[1] for key in one] == [106.0, 109.0, 112.0]


def test_one_picture_of_a_volume_is_by_content_where_that_is_asked():
    values = np.full((32, 32, 6), -1000)
    values[8:24, 8:24, 1] = 60
    data = volume(rotation((0, 1, 2), (1, 1, 1), 0.0), values=values)
    assert read_image(data).frame == 4
    assert read_image(data, slices="content").frame == 2


def test_windows_are_of_ct_alone_and_have_names():
    magnetic = dicom_file(VALUES[:, :, 0].T, Modality="MR")
    assert [suffix for suffix, _ in read_images(magnetic, windows="lung,bone")] == [""]
    axial = series(rotation((0, 1, 2), (1, 1, 1), 0.0))[0]
    found = dict(read_images(axial, windows="lung,bone"))
    assert [(name, picture.window) for name, picture in found.items()] == [
        ("#lung", (-600.0, 1500.0)),
        ("#bone", (400.0, 1800.0)),
    ]
    # -1350 HU and below are black, 150 and above are white
    values = np.array([[-1350, -600, 150, 1000]])
    assert np.asarray(read_image(dicom_file(values), windows="lung").image)[0, :, 0].tolist() == [0, 127, 255, 255]
    names = [suffix for suffix, _ in read_images(volume(np.eye(3)), windows="lung,bone", frames=5)]
    assert names == ["#1-lung", "#1-bone", "#6-lung", "#6-bone"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"slices": "some"},
        {"slices": "0mm"},
        {"slices": "-3mm"},
        {"windows": "liver"},
        {"windows": "lung,lung"},
        {"windows": ""},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        ReadOptions(**wrong)
