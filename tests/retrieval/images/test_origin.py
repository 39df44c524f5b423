"""A picture that remembers its file is, to a search, the file itself; a part of it is of the same patient."""

from __future__ import annotations

import pickle

import pytest

from retr import Index, UsageError, read_picture


@pytest.fixture
def index(make_archive, make_encoder, tmp_path):
    archive = make_archive(8)
    Index.build(archive, tmp_path / "index", encoder=make_encoder(), metadata=archive / "labels.csv", group="patient")
    return Index.open(tmp_path / "index", encoder=make_encoder()), archive


def test_its_copies_are_left_out_as_those_of_the_file(index):
    opened, archive = index
    file = min(archive.rglob("*.png"))
    picture = pickle.loads(pickle.dumps(read_picture(file.read_bytes())))
    assert picture == read_picture(file)
    assert opened.search(image=picture, k=8).ids == opened.search(image=file, k=8).ids
    assert len(opened.search(image=picture, k=8)) == 7
    assert len(opened.search(image=picture.image, k=8)) == 8, "pixels alone have no file"


def test_the_patient_that_a_header_states_stays_with_every_part():
    pytest.importorskip("pydicom")
    from dicom_file import dicom

    picture = read_picture(dicom("P17", 0))
    assert picture.origin.stated["patient"] == picture.crop(0, 0, 0.5, 1).origin.stated["patient"] == "P17"
    assert picture.crop(0, 0, 0.5, 1).origin.sha256 is None
    assert "P17" not in repr(picture)


@pytest.mark.parametrize("part", [(0, 0, 0, 1), (-0.1, 0, 0.5, 0.5), (0.6, 0, 0.5, 1), (0, 0, float("nan"), 1)])
def test_a_part_that_is_not_within_is_refused(make_picture, part):
    with pytest.raises(UsageError, match="from 0 to 1"):
        read_picture(make_picture(0)).crop(*part)
