"""Real identifiers are kept where that is asked, by the user alone, and forgotten with their rows."""

from __future__ import annotations

import threading

import pytest
from dicom_file import dicom
from fake_encoder import FakeEncoder

from retr import Index
from retr.index.errors import RetrError
from retr.retrieval.archive.kept_identifiers import KeptIdentifiers


def whose(number: int) -> dict[str, str]:
    return {"patient": f"P-{number}-Okonkwo", "study": f"1.2.{number}", "instance": f"1.3.{number}"}


def test_what_was_noted_is_found_until_it_is_forgotten():
    kept = KeptIdentifiers("u")
    assert (kept.kept, kept.of(["a"])) == (False, {})
    kept.note([(f"{number}.dcm", whose(number)) for number in range(2000)])
    kept.note([("7.dcm", whose(3000)), ("none.png", {})])
    assert kept.of([f"{number}.dcm" for number in range(2000)]) == {
        f"{number}.dcm": whose(number if number != 7 else 3000) for number in range(2000)
    }
    kept.retain(f"{number}.dcm" for number in range(0, 2000, 2))
    assert kept.of(["1.dcm", "2.dcm", "none.png"]) == {"2.dcm": whose(2)}
    data = b"".join(file.read_bytes() for file in kept.path.parent.iterdir())
    assert (b"P-1-Okonkwo" in data, b"P-3000-Okonkwo" in data, b"P-2-Okonkwo" in data) == (False, False, True)
    kept.forget()
    assert not kept.kept
    kept.retain([])
    kept.forget()


def test_several_write_at_once():
    def write(start):
        for number in range(start, start + 20):
            KeptIdentifiers("u").note([(f"{number}.dcm", whose(number))])

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 80, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeptIdentifiers("u").of([f"{number}.dcm" for number in range(80)])) == 80


def test_a_file_that_is_no_database_is_said(tmp_path):
    kept = KeptIdentifiers("u")
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(b"no database" * 1000)
    for attempt in (lambda: kept.of(["a"]), lambda: kept.note([("a", whose(1))]), lambda: kept.retain(["a"])):
        with pytest.raises(RetrError, match="that this machine keeps cannot be read or written"):
            attempt()
    kept.forget()
    # nor is a link followed
    kept.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RetrError):
        kept.note([("a", whose(1))])
    assert not (tmp_path / "elsewhere").exists()


def test_files_of_a_folder_lead_back_too(tmp_path):
    (tmp_path / "archive").mkdir()
    for number in range(4):
        (tmp_path / f"archive/{number}.dcm").write_bytes(dicom(f"P{number}", number, frames=1 + number))
    index = Index.build(tmp_path / "archive", tmp_path / "x", encoder=FakeEncoder())
    assert index.links(["3.dcm#2"], "x:{instance}") == [None]
    # what was embedded without is read again, and not embedded
    again = Index.build(tmp_path / "archive", index.path, encoder=FakeEncoder(), keep_identifiers=True, rehash=True)
    assert again.report is not None and (again.report.unchanged, again.report.embedded) == (10, 0)
    assert index.links(["3.dcm#2", "0.dcm"], "x:{patient}/{study}/{series}/{instance}") == [
        "x:P3/1.2.4/1.2.4.1/1.2.3.4",
        "x:P0/1.2.1/1.2.1.1/1.2.3.1",
    ]
    # of a file that keeps a frame the line stays
    again.delete(ids=["3.dcm#1"], purge=True)
    again.delete(where="patient = 'P1'", purge=True)
    kept = KeptIdentifiers(index.store.uuid)
    assert sorted(kept.of(["0.dcm", "1.dcm", "2.dcm", "3.dcm"])) == ["0.dcm", "2.dcm", "3.dcm"]
