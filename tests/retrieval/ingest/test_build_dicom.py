"""DICOM files on their way into an index: frames are rows, headers are columns, nobody is named."""

from __future__ import annotations

import shutil

import pytest

from retr.index.errors import UsageError
from retr.index.store import Store
from retr.retrieval.audit.phi import scan
from retr.retrieval.index import Index
from retr.retrieval.ingest.build import build

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")


@pytest.fixture
def series(tmp_path):
    """Two slices and one file of fifteen frames out of pydicom's own test data, without suffixes."""
    from pydicom.data import get_testdata_file

    folder = tmp_path / "series"
    folder.mkdir()
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm", "rtdose.dcm")):
        shutil.copy(get_testdata_file(name, download=False), folder / f"IM{number:04d}")
    return folder


def test_every_frame_is_a_row(series, tmp_path, fake_encoder):
    report = build(series, tmp_path / "index", fake_encoder)
    assert report.rows == 17
    assert report.skipped == {}
    store = Store.open(tmp_path / "index")
    assert store.rows_of([f"IM0002#{frame}" for frame in range(1, 16)]).min() >= 0
    assert build(series, tmp_path / "index", fake_encoder).unchanged == 17
    picture = Index.open(tmp_path / "index", encoder=fake_encoder).picture("IM0002#7")
    assert (picture.width, picture.height) == tuple(
        store.table(["width", "height"], store.rows_of(["IM0002#7"])).to_pylist()[0].values()
    )


def test_every_nth_frame(series, tmp_path, fake_encoder):
    assert build(series, tmp_path / "index", fake_encoder, frames=4).rows == 2 + 4
    # kept for later builds
    pydicom.dcmread(series / "IM0002").save_as(series / "IM0003")
    assert build(series, tmp_path / "index", fake_encoder).rows == 2 + 4 + 4
    with pytest.raises(UsageError, match="built with frames 4, got: 1"):
        build(series, tmp_path / "index", fake_encoder, frames=1)


def test_headers_become_columns_and_nobody_is_named(series, tmp_path, fake_encoder):
    header = pydicom.dcmread(series / "IM0000")
    identity = [str(header.PatientID), str(header.PatientName), str(header.StudyInstanceUID)]
    build(series, tmp_path / "index", fake_encoder, group="patient")
    store = Store.open(tmp_path / "index")
    (row,) = store.table(["modality", "patient", "study"], store.rows_of(["IM0000"])).to_pylist()
    assert row["modality"] == "CT"
    assert len(row["patient"]) == len(row["study"]) == 64
    assert store.manifest.group == "patient"
    for file in store.path.rglob("*"):
        if file.is_file():
            assert not [value for value in identity if value.encode() in file.read_bytes()]
    assert scan(store) == []


def test_burned_in_annotations_are_refused_unless_told_otherwise(series, tmp_path, fake_encoder):
    header = pydicom.dcmread(series / "IM0000")
    header.BurnedInAnnotation = "YES"
    header.save_as(series / "IM0000")
    report = build(series, tmp_path / "index", fake_encoder)
    assert report.skipped == {"burned-in annotation": 1}
    assert build(series, tmp_path / "index", fake_encoder, allow_burned_in=True).rows == 17


def test_frames_that_are_copies_are_found(series, tmp_path, fake_encoder):
    shutil.copy(series / "IM0002", series / "IM0009")
    build(series, tmp_path / "index", fake_encoder)
    found = Index.open(tmp_path / "index").duplicates(exact_only=True)
    assert [(pair.a, pair.b) for pair in found.pairs] == [
        (f"IM0002#{frame}", f"IM0009#{frame}") for frame in range(1, 16)
    ]
