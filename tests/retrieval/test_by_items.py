"""Answers by cases, from pictures on disk: series of DICOM files, volumes, patients with two eyes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from PIL import Image

from retr import Index, Query, UsageError
from retr.answers import from_arrow, to_arrow
from retr.retrieval.hits import Hits


def series(folder, patient, study, slices, *, seed):
    """Write a DICOM series whose slices are alike."""
    import pydicom
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    base, rng = rng.integers(30, 220, (4, 4)), np.random.default_rng([seed, study])
    for number in range(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
        uid = f"1.2.{seed}.{study}.{number + 1}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
        data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.{study}", f"1.2.{study}.{seed}"
        data.PatientID, data.Modality = patient, "CT"
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        pixels = np.clip(base + rng.integers(-12, 13, (4, 4)), 0, 255).astype(np.uint8)
        data.PixelData = pixels.repeat(4, axis=0).repeat(4, axis=1).tobytes()
        pydicom.dcmwrite(folder / f"{number:03d}.dcm", data, enforce_file_format=True)


@pytest.fixture(autouse=True, scope="module")
def _key(tmp_path_factory):
    """One key of hashes for all tests here."""
    file = tmp_path_factory.mktemp("key") / "hash.key"
    file.write_text("5" * 64)
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_KEY_FILE", str(file))
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Six patients with a study each; two series are of one pattern, P0's and P1's, and so on."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(6):
        series(folder / f"p{number}/ct", f"MRN{number}", number + 1, 3 + number % 2, seed=100 + number // 2)
    return folder


@pytest.fixture(scope="module")
def index(archive, tmp_path_factory):
    return Index.build(archive, tmp_path_factory.mktemp("index") / "i", encoder=FakeEncoder(), item="study")


def test_a_case_is_found_by_its_folder_by_its_pictures_and_by_its_id(index, archive):
    assert index.info()["item"] == "study"
    study = dict(zip(index.table()["id"].to_pylist(), index.table()["study"].to_pylist(), strict=True))
    mine, other = study["p2/ct/000.dcm"], study["p3/ct/000.dcm"]
    assert mine != other
    files = sorted((archive / "p2/ct").iterdir())
    by_folder = index.search(image=archive / "p2/ct", item=True, k=2)
    by_files = index.search(Query(tuple(part for file in files for part in Query.image(file).parts)), item="study", k=2)
    by_hash = index.search(id=mine, item="declared", k=2)
    # the real identifier means its hash
    by_identifier = index.search(id="1.2.3", item="study", k=2)
    for hits in (by_folder, by_files, by_hash, by_identifier):
        # its own case is not among the answers
        assert hits.cases[0] == other
        assert mine not in hits.cases
        assert hits.ids[0].startswith("p3/ct/")
        assert hits.scores.tolist() == by_folder.scores.tolist()
        assert hits.exact
    assert [part["part"] for part in sorted(by_folder.parts[0], key=lambda part: part["part"])] == [1, 2, 3]
    assert by_folder.parts[0][0]["id"] == by_folder.ids[0]
    assert by_folder.scores[0] == pytest.approx(sum(part["score"] for part in by_folder.parts[0]))


def test_one_slice_leaves_out_its_study_and_the_same_patient_too(index, archive):
    slice_ = archive / "p2/ct/000.dcm"
    hits = index.search(image=slice_, item=True, k=10)
    assert len(hits) == 5
    assert not any(name.startswith("p2/") for name in hits.ids)
    kept = index.search(image=slice_, item=True, k=10, include_self=True)
    assert kept.ids[0].startswith("p2/")
    assert len(kept) == 6
    # whose it is comes from the header; another patient may be named beside
    apart = index.search(image=slice_, item=True, k=10, include_self=True, exclude_same=["patient"])
    assert apart.cases == hits.cases
    fewer = index.search(image=slice_, item=True, k=10, exclude_same={"patient": [None, "MRN3"]})
    assert len(fewer) == 4
    assert not any(name.startswith("p3/") for name in fewer.ids)


def test_conditions_choose_parts_and_pages_follow_each_other(index):
    whole = index.search(id="1.2.1", item=True, k=5)
    pages = [index.search(id="1.2.1", item=True, k=2, offset=at) for at in (0, 2, 4)]
    assert [case for page in pages for case in page.cases] == whole.cases
    assert [rank for page in pages for rank in page.ranks.tolist()] == [1, 2, 3, 4, 5]
    assert [part for page in pages for part in page.parts] == whole.parts
    only = index.search(id="1.2.1", item=True, k=5, where="path like '%/000.dcm'")
    assert len(only) == 5
    assert all(name.endswith("000.dcm") for name in only.ids)
    assert len(index.search(id="1.2.1", item=True, k=5, min_score=float(whole.scores[2]))) == 3
    assert index.search(id="1.2.1", item=True, k=5, where="patient = 'nobody'").cases == []


def test_scores(index):
    by = {score: index.search(id="1.2.1", item=True, k=5, item_score=score) for score in ("maxsim", "mean", "best")}
    rows = [part["score"] for part in by["best"].parts[0]]
    assert by["best"].scores[0] == max(rows)
    assert by["mean"].scores[0] <= by["best"].scores[0]
    assert by["maxsim"].scores[0] > by["mean"].scores[0]


def test_an_answer_travels(index):
    hits = index.search(id="1.2.1", item=True, k=3)
    told = json.loads(json.dumps(hits.to_json()))
    assert (told["cases"], told["parts"]) == (hits.cases, hits.parts)
    [back] = from_arrow(to_arrow([hits]))
    assert back == hits
    assert (back.cases, back.parts) == (hits.cases, hits.parts)
    assert hits[1:].cases == hits.cases[1:]
    assert hits[1:].parts == hits.parts[1:]
    assert isinstance(hits[1:], Hits)
    assert hits.table.column_names[:4] == ["rank", "score", "case", "id"]
    assert hits.table["case"].to_pylist() == hits.cases
    assert "cases" not in index.search(id=hits.ids[0], k=1).to_json()


def test_options_without_a_meaning_are_refused(index):
    for options, word in (
        ({"one_per": "patient"}, "one_per"),
        ({"diverse": 0.3}, "diverse"),
        ({"effort": 3}, "effort"),
        ({"in_": "modality"}, "in_"),
    ):
        with pytest.raises(UsageError, match=f"{word} is told by rows"):
            index.search(id="1.2.1", item=True, **options)
    with pytest.raises(UsageError, match="weight above 0"):
        index.search(Query.id("p0/ct/000.dcm") - Query.id("p1/ct/000.dcm"), item=True)
    with pytest.raises(UsageError, match="marks move"):
        index.search(Query.id("p0/ct/000.dcm").refine(like=["p1/ct/000.dcm"]), item=True)
    with pytest.raises(UsageError, match="neither a case nor a row"):
        index.search(id="1.2.99", item=True)
    with pytest.raises(UsageError, match="scored by"):
        index.search(id="1.2.1", item=True, item_score="median")


def test_what_a_case_is_must_be_there(index, tmp_path):
    with pytest.raises(UsageError, match="no cases by 'visit'"):
        index.search(id="1.2.1", item="visit")
    folder = tmp_path / "plain"
    folder.mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    with pytest.raises(UsageError, match="no cases by 'study'"):
        Index.build(folder, tmp_path / "i", encoder=FakeEncoder(), item="study")
    assert not (tmp_path / "i").exists()
    plain = Index.build(folder, tmp_path / "i", encoder=FakeEncoder())
    with pytest.raises(UsageError, match="does not say what a case is"):
        plain.search(id="a.png", item=True)
    with pytest.raises(UsageError, match="no cases by 'eye-pair'"):
        plain.set_item("eye-pair")


def test_the_rule_is_kept_by_later_builds_and_taken_back(archive, tmp_path):
    index = Index.build(archive, tmp_path / "i", encoder=FakeEncoder(), item="series", shards=2)
    again = Index.build(archive, tmp_path / "i", encoder=FakeEncoder())
    assert again.info()["item"] == "series"
    assert index.search(id="1.2.1.100", item=True, k=2).cases == again.search(id="1.2.1.100", item="series", k=2).cases
    again.compact()
    assert again.info()["item"] == "series"
    again.set_item(None)
    assert again.info()["item"] is None
    assert again.check() == []


def test_eyes_of_one_patient_are_a_pair(tmp_path, make_picture):
    folder = tmp_path / "eyes"
    folder.mkdir()
    lines = ["path,patient,side"]
    for number in range(4):
        for side in ("left", "right"):
            make_picture(10 * (number // 2) + (side == "left"), (40, 40)).rotate(3 * number).save(
                folder / f"{number}{side}.png"
            )
            lines.append(f"{number}{side}.png,P{number},{side}")
        make_picture(90 + number).save(folder / f"{number}other.png")
        lines.append(f"{number}other.png,P{number},")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    index = Index.build(
        folder, tmp_path / "i", encoder=FakeEncoder(), metadata=folder / "labels.csv", group="patient", item="eye-pair"
    )
    hits = index.search(id="P0", item=True, k=4)
    assert len(hits) == 3
    assert hits.cases[0] == "P1"
    assert not any("other" in part["id"] for parts in hits.parts for part in parts)
    assert "4 rows are parts of no case" in str(hits.note)


def test_a_volume_is_asked_with_as_a_whole(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    folder = tmp_path / "volumes"
    folder.mkdir()
    for number in range(4):
        rng = np.random.default_rng(number // 2)
        base = rng.integers(0, 200, (4, 4, 5)).repeat(4, axis=0).repeat(4, axis=1)
        noise = np.random.default_rng(50 + number).integers(0, 25, base.shape)
        nibabel.save(nibabel.Nifti1Image((base + noise).astype(np.int16), np.eye(4)), folder / f"{number}.nii.gz")
    index = Index.build(folder, tmp_path / "i", encoder=FakeEncoder(), item="volume")
    assert len(index) == 20
    hits = index.search(image=folder / "2.nii.gz", item=True, k=3)
    assert hits.cases[0] == "3.nii.gz"
    assert "2.nii.gz" not in hits.cases
    assert len(hits.parts[0]) == 5
    # a slice of one volume is most like that of the same place in its twin
    assert {(part["part"], part["id"]) for part in hits.parts[0]} == {(n, f"3.nii.gz#{n}") for n in range(1, 6)}
    [one] = index.search(image=f"{folder}/2.nii.gz#3", item=True, k=1).parts
    assert [part["id"] for part in one] == ["3.nii.gz#3"]


def test_copies_of_the_question_elsewhere_are_no_parts(tmp_path, make_picture):
    folder = tmp_path / "copies"
    folder.mkdir()
    lines = ["path,visit"]
    for number, visit in enumerate("abc"):
        for part in range(3):
            make_picture(10 * number + part).save(folder / f"{visit}{part}.png")
            lines.append(f"{visit}{part}.png,{visit}")
    # one picture of the first visit lies in the second, too
    (folder / "b9.png").write_bytes((folder / "a0.png").read_bytes())
    lines.append("b9.png,b")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    index = Index.build(folder, tmp_path / "i", encoder=FakeEncoder(), metadata=folder / "labels.csv", item="visit")
    whole = index.search(id="a", item=True, k=3)
    assert sorted(whole.cases) == ["b", "c"]
    assert "b9.png" not in {part["id"] for parts in whole.parts for part in parts}
    # all visits that hold the picture alone, or half of the pictures, are its own
    assert index.search(image=folder / "a0.png", item=True, k=3).cases == ["c"]
    two = Query.image(folder / "a0.png") + Query.image(folder / "a1.png")
    assert index.search(two, item=True, k=3).cases == ["c"]
    three = two + Query.image(folder / "a2.png")
    assert sorted(index.search(three, item=True, k=3).cases) == ["b", "c"]
    kept = index.search(three, item=True, k=3, include_self=True)
    assert kept.cases[0] == "a"
    assert kept.scores[0] == pytest.approx(3, abs=1e-5)


def test_a_file_of_a_folder_that_cannot_be_read_is_told(index, archive, tmp_path):
    import shutil

    place = shutil.copytree(archive / "p4/ct", tmp_path / "ct")
    (place / "999.dcm").write_bytes((place / "000.dcm").read_bytes()[:-100])
    (place / "notes.txt").write_text("no picture")
    hits = index.search(image=place, item=True, k=1)
    assert "1 files of the question cannot be read" in str(hits.note)
    assert hits.ids[0].startswith("p5/")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no picture"):
        index.search(image=tmp_path / "empty", item=True)
