"""A purge is total or refused: every place in which an index can name or hold a row is searched for it."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.index.accelerators.config import Flat
from retr.index.disk import sidetable
from retr.index.disk.side_data import BUILT_IN, held
from retr.index.errors import RetrError, UsageError
from retr.index.rows.check import stale
from retr.index.store import Store
from retr.index.tune import Tuning
from retr.retrieval.archive import locations
from retr.retrieval.classify.probe import file_name
from retr.retrieval.deletion import delete
from retr.retrieval.text.align import FILE

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENT, RARE, WORD = "Qxv7-Okonkwo", "ichthyo-purpuritis", "zwitschermaschine"
PLANTED = (PATIENT, RARE, WORD, "unread-zx9.png")
CONDITION = f"patient = '{PATIENT}'"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen patients with two pictures each in folders of their own; the one to be purged has a broken file, too."""
    folder = tmp_path_factory.mktemp("made") / "archive"
    lines = ["path,label,patient,report,findings"]
    for number in range(32):
        patient = PATIENT if number < 2 else f"P{number // 2:02d}"
        file = folder / patient / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
        label = RARE if number == 0 else ("healthy", "glaucoma")[number % 2]
        lines.append(f"{patient}/{file.name},{label},{patient},{WORD if number < 2 else 'a pale disc'},x")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    for place in (PATIENT, "P07"):
        (folder / place / f"unread{'-zx9' if place == PATIENT else ''}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return folder


@pytest.fixture(scope="module")
def built(archive: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidetable, "MIN_ROWS", 1)
        patch.setenv("RETR_STATE_DIR", str(archive.parent / "state"))
        options = {"metadata": archive / "labels.csv", "group": "patient", "regions": "grid"}
        return Index.build(archive, archive.parent / "x.retr", encoder=FakeEncoder(), **options).path


@pytest.fixture
def index(built: Path, archive: Path, tmp_path: Path, fake_encoder, monkeypatch) -> Index:
    monkeypatch.setattr(sidetable, "MIN_ROWS", 1)
    shutil.copytree(built, tmp_path / "x.retr")
    index = Index.open(tmp_path / "x.retr", encoder=fake_encoder)
    locations.remember_source(index.store.uuid, "", str(archive))
    return index


def everything(*roots: Path) -> dict[str, bytes]:
    """Read every byte below some folders: as it lies there, and what readers of Parquet, Arrow and npz make of it."""
    found: dict[str, bytes] = {}
    for file in (file for root in roots for file in root.rglob("*") if file.is_file()):
        data = file.read_bytes()
        found[str(file)] = str(file).encode() + data
        if file.suffix == ".parquet":
            found[f"{file} read"] = (repr(pq.read_table(file).to_pydict()) + repr(pq.read_metadata(file))).encode()
            found[f"{file} statistics"] = repr(list(_groups(file))).encode()
        elif file.suffix == ".arrow":
            table = pa.ipc.open_file(data).read_all()
            words = [chunk.dictionary for column in table.columns for chunk in column.chunks if _coded(chunk)]
            found[f"{file} read"] = (repr(table.to_pydict()) + repr([part.to_pylist() for part in words])).encode()
        elif data[:2] == b"PK":
            with np.load(io.BytesIO(data)) as arrays:
                found[f"{file} read"] = b"".join(array.tobytes() for array in arrays.values())
    return found


def _groups(file: Path):
    metadata = pq.read_metadata(file)
    for group in range(metadata.num_row_groups):
        yield [metadata.row_group(group).column(i).to_dict() for i in range(metadata.num_columns)]


def _coded(chunk: pa.Array) -> bool:
    return pa.types.is_dictionary(chunk.type)


def needles(index: Index, where: str) -> list[bytes]:
    rows = np.flatnonzero(index.store.where(where))
    table = index.store.table(["id", "sha256"], rows)
    vectors = [vector.tobytes() for vector in index.store.vectors(rows)]
    arrays = [name for name, array in index.store.manifest.row_arrays.items() if array.kind == "regions"]
    vectors += [line.tobytes() for name in arrays for line in index.store.array(name, rows)]
    return [*(text.encode() for text in (*PLANTED, *table["id"].to_pylist(), *table["sha256"].to_pylist())), *vectors]


def held_in(planted: list[bytes], *roots: Path) -> list[tuple[str, bytes]]:
    return [(name, needle) for name, data in everything(*roots).items() for needle in planted if needle in data]


def test_a_purge_leaves_nothing_of_a_patient(index, archive):
    index.add(archive / PATIENT, name=f"{PATIENT}-again")
    index.calibrate("label")
    index.align("report")
    with index.store.writer() as writer:
        writer.note("suspects", {"classes": [RARE]})
        writer.note("key", "0123456789abcdef")
        writer.add_file("neighbours.bin", index.store.vectors().tobytes())
        writer.commit()
    index.refresh()
    state = Path(os.environ["RETR_STATE_DIR"])
    assert list((state / "files").glob(f"{index.store.uuid}*"))
    where = f"{CONDITION} or path like '{PATIENT}%'"
    planted = needles(index, where)
    before = {needle for _, needle in held_in(planted, index.path)}
    assert before == set(planted)
    done = delete(index, where=where, purge=True)
    assert (done.rows, done.skipped) == (4, 2)
    said = "; ".join(done.dropped)
    assert all(word in said for word in ("retr calibrate", file_name("label"), "retr align", "neighbours.bin"))
    assert held_in(planted, index.path, state) == []
    assert not list((state / "files").glob(f"{index.store.uuid}*"))
    extra = index.store.manifest.extra
    assert "build" in extra
    assert extra["key"] == "0123456789abcdef"
    assert {"calibration", "bridge", "suspects"}.isdisjoint(extra)
    assert locations.recall_sources(index.store.uuid) == {"": str(archive)}
    assert index.skipped()["path"].to_pylist() == ["P07/unread.png"]
    assert index.check() == []
    assert len(index) == 30


def calibrated(index: Index) -> None:
    index.calibrate("label", device_column="patient")


def again(index: Index) -> None:
    archive = Path(locations.recall_sources(index.store.uuid)[""])
    index.add(archive / PATIENT, name=f"{PATIENT}-again")


def noted(key: str, value: object) -> Callable[[Index], None]:
    def write(index: Index) -> None:
        with index.store.writer() as writer:
            writer.note(key, value)
            writer.commit()
        index.refresh()

    return write


def saved(index):
    """A set of the patient's rows, its question asked with one, committed; and another that no commit has taken in."""
    ids = index.table(["id"], where=CONDITION)["id"].to_pylist()
    index.sets.save(f"of {PATIENT}", list(index), question=index.search(id=ids[0], k=3), note=f"{ids[0]} again")
    index.set_group(index.info()["group"])
    index.sets.label(ids, f"as {ids[0]}", set="open")


# What hangs something of each kind on an index; a head makes another of it.
MADE: dict[str, Callable[[Index], object] | None] = {
    "build": again,
    "transform": lambda index: index.refit(),
    "bridge": lambda index: index.align("report"),
    "calibration": calibrated,
    "head": None,
    "identifiers": noted("identifiers", {"key": "0123456789abcdef", "columns": []}),
    "journal": saved,
    "map": lambda index: index.map(),
    "novelty": calibrated,
    "probe": calibrated,
    "regions": None,
    "words": lambda index: index.words(["report", "findings"]),
    "tuning": noted("tuning", Tuning(Flat(), 0.9, {"image": 1.0}, 0.1, 0, [], "few").to_json()),
}


def test_no_kind_of_side_data_holds_a_purged_patient(index, tmp_path, fake_encoder):
    head = index.adapt("label", tmp_path / "y.retr", fit=f"patient <> '{PATIENT}'").store
    for make in dict.fromkeys(MADE[name] for name in BUILT_IN):
        if make is not None:
            make(index)
    assert set(held(index.store.manifest)) | {"head"} == set(BUILT_IN)
    assert "head" in held(head.manifest)
    where = f"{CONDITION} or path like '{PATIENT}%'"
    for one in (index, Index(head, encoder=None)):
        assert one.check() == []
        # a head knows the names of all classes
        planted = [needle for needle in needles(one, where) if one is index or needle != RARE.encode()]
        assert {needle for _, needle in held_in(planted, one.path)} == set(planted)
        delete(one, where=where, purge=True)
        assert held_in(planted, one.path) == []
        assert one.check() == []
        assert stale(one.store) == []


def test_a_condition_on_metadata_reaches_the_files_that_were_not_read(index):
    done = delete(index, where=CONDITION, purge=True)
    assert (done.rows, done.skipped) == (2, 1)
    assert index.skipped()["path"].to_pylist() == ["P07/unread.png"]


@pytest.mark.parametrize(
    "asked", [{"where": "path = 'P07/unread.png'"}, {"ids": ["P07/unread.png"]}, {"where": "id like 'P07/unr%'"}]
)
def test_a_record_of_a_file_that_never_was_a_row_is_purged_by_its_path(index, asked):
    index.calibrate("label")
    done = delete(index, **asked, purge=True)
    assert (done.rows, done.skipped, done.dropped) == (0, 1, ())
    assert index.skipped()["path"].to_pylist() == [f"{PATIENT}/unread-zx9.png"]
    assert "calibration" in index.store.manifest.extra
    with pytest.raises(UsageError, match="no row has the id"):
        delete(index, ids=["P07/unread.png"])


def test_a_patient_with_other_rows_keeps_the_records_of_the_folder(index):
    assert delete(index, ids=["P07/014.png"], purge=True).skipped == 0


def test_a_purge_takes_what_was_deleted_before(index):
    planted = needles(index, CONDITION)
    index.delete(where=CONDITION)
    assert held_in(planted, index.path)
    assert index.delete(where=CONDITION, purge=True) == 0
    assert held_in(planted, index.path) == []


def test_an_adapted_index_is_not_purged_of_what_its_head_was_fitted_on(index, tmp_path, fake_encoder):
    sides = index.adapt("label", tmp_path / "y.retr", fit="patient <> 'P05'").store
    adapted = Index(sides, encoder=None)
    version = adapted.store.version
    with pytest.raises(RetrError, match=r"fitted on 2 of the rows, so it cannot be purged of them; purge the index it"):
        adapted.delete(where=CONDITION, purge=True)
    after = Store.open(adapted.path)
    assert (after.version, len(after), after.check()) == (version, 32, [])
    # What was held out has left nothing in the head.
    planted = needles(Index(after), "patient = 'P05'")[len(PLANTED) :]
    assert adapted.delete(where="patient = 'P05'", purge=True) == 2
    assert held_in(planted, adapted.path) == []
    assert len(adapted.search(id="P06/012.png", k=3)) == 3
    Index.open(adapted.path, encoder=None)
    from retr.retrieval.heads.adapted import load_for

    assert load_for(adapted.store, fake_encoder, {}).info.identity == adapted.store.manifest.encoder.identity


def test_an_index_loses_its_bridge_and_says_how_to_fit_it_again(index):
    index.align("report")
    done = delete(index, where=CONDITION, purge=True)
    assert done.dropped == ("the bridge from words (fit it again with `retr align --text-column report`)",)
    assert FILE not in index.store.manifest.files
    assert index.align("label").figures["rows"] == 30


@pytest.mark.parametrize("when", ["before it is named", "before the old files are gone"])
def test_a_killed_purge_is_nothing_or_finished_by_the_next_writer(index, monkeypatch, caplog, when):
    planted = needles(index, CONDITION)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        name = (
            "retr.index.rows.writer.publish"
            if when == "before it is named"
            else "retr.index.rows.writer.sweep_for_good"
        )
        patch.setattr(name, die)
        patch.setattr("retr.index.rows.writer.sweep", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            index.delete(where=CONDITION, purge=True)
    caplog.clear()
    left = Store.open(index.path)
    named = when == "before the old files are gone"
    assert len(left) == (30 if named else 32)
    assert ("a purge of this index was interrupted" in caplog.text) == named
    assert bool(left.check()) == named
    with left.writer():
        pass
    caplog.clear()
    assert Store.open(index.path).check() == []
    assert not caplog.text
    assert (held_in(planted, index.path) == []) == named


def test_a_purge_whose_old_files_stay_is_not_called_done(index, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    planted = needles(index, CONDITION)
    with monkeypatch.context() as patch:
        patch.setattr("retr.index.disk.sweep.sweep", refuse)
        patch.setattr("retr.index.rows.writer.sweep", lambda *_: None)
        with pytest.raises(RetrError, match=r"not purged: a file that held them cannot be removed \(Permission denied"):
            index.delete(where=CONDITION, purge=True)
    assert any(finding.kind == "unpurged" for finding in Store.open(index.path).check())
    index.compact()
    assert held_in(planted, index.path) == []
