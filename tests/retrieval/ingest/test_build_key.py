"""The key of an index's hashes: noted with the first of them, and no other one after that."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from dicom_file import dicom

from retr.index.disk.manifest import IDENTIFIERS
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.machine.hash_key import fingerprint, hash_key_path, load_hash_key
from retr.index.store import Store
from retr.retrieval.index import Index

pytest.importorskip("pydicom", reason="needs the extra `dicom`")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(dicom(f"MRN{number}", number))
    return folder


@pytest.fixture
def index(folder, tmp_path, fake_encoder):
    return Index.build(folder, tmp_path / "i.retr", encoder=fake_encoder, group="patient")


def older(index):
    """Take the note away, as an older version would have left the index."""
    with index.store.writer() as writer:
        writer.note(IDENTIFIERS, None)
        writer.commit()
    index.refresh()


def test_the_first_hashes_bring_the_note_of_their_key(index):
    note = {"key": fingerprint(load_hash_key()), "columns": ["patient", "series", "study"]}
    assert index.store.manifest.extra[IDENTIFIERS] == note
    assert index.info()["key"] == note["key"]
    assert index.info()["hashed"] == note["columns"]


def test_pictures_without_a_header_need_no_key(archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "p.retr", encoder=fake_encoder, metadata=archive / "labels.csv")
    assert index.info()["key"] is None
    assert index.info()["hashed"] == []
    assert index.count(where="patient = 'P01'") == 3
    assert index.count(where="patient like 'P0%'") == 12
    assert not hash_key_path().exists()


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "changed"])
def test_another_key_or_none_is_refused_before_anything_is_written(index, folder, tmp_path, lost):
    key, version = hash_key_path().read_text(), index.store.version
    hash_key_path().unlink()
    if not lost:
        hash_key_path().write_text("another key, of the second user")
    (folder / "new.dcm").write_bytes(dicom("MRN9", 9))
    message = "which is not here.*RETR_KEY_FILE" if lost else "and the key in .* is '[0-9a-f]{16}'.*RETR_KEY_FILE"
    with pytest.raises(UsageError, match=message):
        Index.build(folder, index.path, encoder=index.encoder)
    with pytest.raises(UsageError, match="RETR_KEY_FILE"):
        index.add(folder, name="again")
    assert Store.open(index.path).version == version
    assert hash_key_path().exists() != lost, "no new key is made"
    hash_key_path().write_text(key)
    assert Index.build(folder, index.path, encoder=index.encoder).report.embedded == 1


def test_an_older_index_takes_the_key_that_gives_its_hashes_again(index, folder):
    older(index)
    assert index.info()["hashed"] == ["patient", "series", "study"]
    report = Index.build(folder, index.path, encoder=index.encoder).report
    assert any("its files agree" in note for note in report.notes)
    index.refresh()
    assert index.info()["key"] == fingerprint(load_hash_key())
    assert Index.build(folder, index.path, encoder=index.encoder).report.notes == ()


def test_an_older_index_refuses_a_key_that_gives_other_hashes(index, folder):
    older(index)
    hash_key_path().write_text("another key, of the second user")
    with pytest.raises(UsageError, match="another key than the one here"):
        Index.build(folder, index.path, encoder=index.encoder)
    hash_key_path().unlink()
    (folder / "new.dcm").write_bytes(dicom("MRN9", 9))
    with pytest.raises(UsageError, match="there is no key file"):
        Index.build(folder, index.path, encoder=index.encoder)
    assert not hash_key_path().exists()


def test_an_older_index_out_of_reach_of_its_files_says_so(index, folder, tmp_path, make_picture):
    older(index)
    shutil.rmtree(folder)
    more = tmp_path / "more"
    more.mkdir()
    make_picture(1).save(more / "a.png")
    report = index.add(more)
    assert any("no file of its rows could be read again" in note for note in report.notes)
    assert index.info()["key"] == fingerprint(load_hash_key())


def test_an_open_key_is_said_by_builds_and_by_questions_that_use_it(index, folder):
    hash_key_path().chmod(0o644)
    built = Index.build(folder, index.path, encoder=index.encoder)
    assert any("can be read by other users" in note for note in built.report.notes)
    assert built.search(id="0.dcm").note is None
    asked = built.search(id="0.dcm", exclude_same={"patient": "MRN1"})
    assert "can be read by other users" in asked.note


def test_a_crafted_note_is_a_damaged_index(index):
    manifest = index.store.manifest
    for note in (7, {"key": "x" * 16, "columns": []}, {"key": "0" * 16, "columns": ["path"]}, {"columns": ["patient"]}):
        with pytest.raises(IndexCorruptError, match="note of hashed identifiers"):
            Store(index.path, replace(manifest, extra={IDENTIFIERS: note}))


def test_the_table_says_whose_a_picture_is_and_else_its_header(folder, tmp_path, fake_encoder):
    table = tmp_path / "t.csv"
    table.write_text("path,patient\n0.dcm,17\n1.dcm,\n")
    index = Index.build(folder, tmp_path / "i.retr", encoder=fake_encoder, metadata=table)
    patients = [row["patient"] for row in index.table(["patient"]).to_pylist()]
    assert patients[0] == "17"
    assert all(len(patient) == 64 for patient in patients[1:])
    # joined anew: hashes that headers gave stay where the table says nothing
    table.write_text("path,patient\n0.dcm,17\n1.dcm,18\n")
    Index.build(folder, index.path, encoder=fake_encoder, metadata=table)
    index.refresh()
    assert index.table(["patient"])["patient"].to_pylist() == ["17", "18", patients[2]]
    # a renamed copy, and another patient's file under an old path
    shutil.copy(folder / "2.dcm", folder / "3.dcm")
    (folder / "2.dcm").write_bytes(dicom("MRN9", 9))
    Index.build(folder, index.path, encoder=fake_encoder)
    index.refresh()
    assert index.row("3.dcm")["patient"] == patients[2]
    assert index.row("2.dcm")["patient"] not in {None, patients[2]}
    assert index.count(where="patient = 'MRN9'") == 1
