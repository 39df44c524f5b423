"""An index of volumes: the same vectors from DICOM and NIfTI, its options kept, faults of a series told."""

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from volume_files import SPACING, VALUES, dicom_file, rotation, series, volume

from retr import Index, UsageError

AXIAL = rotation((0, 1, 2), (1, 1, 1), 0.0)
OPTIONS = {"windows": "lung,mediastinum", "orient": True, "axis": "acquired"}


@pytest.fixture(autouse=True, scope="module")
def _key(tmp_path_factory):
    """One key of hashes for all tests here."""
    file = tmp_path_factory.mktemp("key") / "hash.key"
    file.write_text("5" * 64)
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_KEY_FILE", str(file))
        yield


def write(folder, files):
    folder.mkdir(parents=True)
    for number, data in enumerate(files):
        # names say nothing of the order
        (folder / f"{(number * 7) % 31:02d}.dcm").write_bytes(data)
    return folder


def placed(places, **attributes):
    """Return slices at these places."""
    return [
        dicom_file(
            VALUES[:, :, number % VALUES.shape[2]].T + number,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, place],
            **attributes,
        )
        for number, place in enumerate(places)
    ]


def vectors(index):
    """Return the vector of each row by its place and window."""
    table = index.store.table(["slice_position", "ct_window"]).to_pylist()
    return dict(zip(((row["slice_position"], row["ct_window"]) for row in table), index.store.vectors(), strict=True))


def test_the_same_vectors_from_a_series_and_from_a_volume(tmp_path):
    axes = rotation((0, 2, 1), (-1, 1, 1), 0.2)
    files = write(tmp_path / "dicom", series(axes))
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti/scan.nii").write_bytes(volume(axes))
    one = Index.build(files, tmp_path / "one", encoder=FakeEncoder(), **OPTIONS)
    other = Index.build(tmp_path / "nifti", tmp_path / "other", encoder=FakeEncoder(), **OPTIONS)
    first, second = vectors(one), vectors(other)
    assert first.keys() == second.keys()
    assert len(first) == 2 * VALUES.shape[2]
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_windows_are_parts_and_the_question_is_read_as_the_rows_were(tmp_path):
    folder = write(tmp_path / "a/one", series(AXIAL))
    (tmp_path / "a/scan.nii").write_bytes(volume(AXIAL, values=VALUES[:, :, ::-1] // 2))
    index = Index.build(tmp_path / "a", tmp_path / "i", encoder=FakeEncoder(), item="volume", **OPTIONS)
    hits = index.search(image=folder, item=True, k=1, include_self=True)
    assert len(hits.parts[0]) == 10
    assert all(pair["score"] == pytest.approx(1, abs=1e-5) for pair in hits.parts[0])
    # the picture of a row, by its window, and as a question by its name
    lung, soft = (np.asarray(index.picture(f"scan.nii#3-{name}").image) for name in ("lung", "mediastinum"))
    assert not np.array_equal(lung, soft)
    hits = index.search(image=f"{tmp_path}/a/scan.nii#3-mediastinum", k=1, include_self=True)
    assert hits.ids == ["scan.nii#3-mediastinum"]
    with pytest.raises(UsageError, match="built with windows"):
        Index.build(tmp_path / "a", tmp_path / "i", encoder=FakeEncoder(), windows="bone")


def test_what_a_header_says_of_planes_can_be_asked_for(tmp_path):
    write(tmp_path / "a/one", series(AXIAL))
    write(tmp_path / "a/two", series(rotation((0, 2, 1), (1, -1, 1), 0.0), SeriesInstanceUID="1.2.3.5"))
    index = Index.build(tmp_path / "a", tmp_path / "i", encoder=FakeEncoder())
    assert index.search(id="one/00.dcm", k=20, where="plane = 'coronal'").ids != []
    assert all(one.startswith("two/") for one in index.search(id="one/00.dcm", k=20, where="plane = 'coronal'").ids)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([0, 3, 6, 9, 12], None),
        ([0, 3, 6, 12, 15, 24], "3 slices are missing"),
        ([0, 3, 3, 6, 9], "1 lie where another does"),
        ([0, 3, 6, 10, 13, 16], "1 are spaced unlike"),
    ],
)
def test_faults_of_a_series_are_told(tmp_path, places, said):
    folder = write(tmp_path / "a", placed([float(place) for place in places]))
    from retr.retrieval.ingest.build import build

    report = build(folder, tmp_path / "i", FakeEncoder())
    told = [note for note in report.notes if note.startswith("slices of series")]
    assert (said is None and told == []) or said in told[0]


def test_times_and_scans_at_one_place_are_no_copies(tmp_path):
    from retr.retrieval.ingest.build import build

    files = [*placed([0.0, 3.0, 6.0], AcquisitionNumber="1"), *placed([0.0, 3.0, 6.0, 9.0], AcquisitionNumber="2")[1:]]
    report = build(write(tmp_path / "a", files), tmp_path / "i", FakeEncoder())
    assert not any(note.startswith("slices of series") for note in report.notes)
    assert SPACING[2] == 3.0
