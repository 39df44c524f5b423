"""Rows in the shard of their patient: as they are added, as they move, and as there are other shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sets_kind import ARRAY, KIND, digits, equip, members

from retr.index.disk import side_data
from retr.index.errors import RetrError
from retr.index.rows.placing import shard_of, shards_of
from retr.index.store import Store


def places(store: Store) -> dict[str, int]:
    """Return the shard of each live row, by its id."""
    found = {}
    for number, folder in enumerate(store.manifest.folders):
        found |= dict.fromkeys(Store.open(store.path / folder).table(["id"])["id"].to_pylist(), number)
    return found


def by_id(store: Store) -> dict[str, Any]:
    """Return all of each live row by its id, its vector to the bit."""
    live = store.live_rows()
    pairs = zip(store.table(rows=live).to_pylist(), store.vectors(live), strict=True)
    return {row["id"]: (row, vector.tobytes()) for row, vector in pairs}


def set_column(store: Store, column: str, values: dict[str, str | None]) -> Store:
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": list(values), column: pa.array(list(values.values()), pa.string())}))
        return writer.commit()


def test_the_rows_of_a_patient_lie_together(make):
    store = make(40, 30, 30, shards=3, group="patient")
    patients = {row["id"]: row["patient"] for row in store.table().to_pylist()}
    assert places(store) == {row: shard_of(patient, 3) for row, patient in patients.items()}
    assert len(set(places(store).values())) == 3


def test_a_row_without_a_patient_lies_with_its_study_or_file_or_by_its_id(make):
    store = make(shards=5, group="patient")
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(8)],
            "patient": ["a", "e\u0301", "\u00e9", None, " ", None, None, None],
            "study": [None, None, None, "s", "s", None, None, None],
            "path": ["f"] * 6 + [None, None],
        }
    )
    with store.writer() as writer:
        writer.append(table, np.eye(8))
        store = writer.commit()
    wanted = ["a", "\u00e9", "\u00e9", "s", "s", "f", "r6", "r7"]
    assert places(store) == {f"r{i}": shard_of(text, 5) for i, text in enumerate(wanted)}
    rows = store.rows_of(["r7", "r0"])
    assert shards_of(store, rows, 5).tolist() == [shard_of("r7", 5), shard_of("a", 5)]


def test_a_column_that_tells_nothing_apart_places_nothing(make):
    store = make(shards=3)
    table = pa.table({"id": ["a", "b"], "study": pa.array([[1], None], pa.list_(pa.int64()))})
    with store.writer() as writer:
        writer.append(table, np.eye(2, 8))
        store = writer.commit()
    assert places(store) == {name: shard_of(name, 3) for name in "ab"}


def test_rows_move_in_the_commit_that_changes_their_patient(make):
    store = make(40, shards=4, group="patient")
    before = by_id(store)
    moved = {f"r{i}": "new" for i in range(0, 40, 3)}
    store = set_column(
        store, "patient", {row["id"]: moved.get(row["id"], row["patient"]) for row, _ in before.values()}
    )
    after = by_id(store)
    assert {name: vector for name, (_, vector) in after.items()} == {name: v for name, (_, v) in before.items()}
    assert {places(store)[name] for name in moved} == {shard_of("new", 4)}
    assert store.check() == []
    # another column that tells patients apart
    with store.writer() as writer:
        writer.set_group("sex")
        store = writer.commit()
    assert by_id(store) == after
    assert places(store) == {name: shard_of(row["sex"] or name, 4) for name, (row, _) in after.items()}


def test_a_column_that_does_not_tell_patients_apart_moves_nothing(make):
    store = make(40, shards=4, group="patient")
    files = {info.vectors for info in store.manifest.segments}
    store = set_column(store, "note", {f"r{i}": f"n{i}" for i in range(40)})
    assert {info.vectors for info in store.manifest.segments} == files


def test_an_id_is_unique_over_all_shards(make):
    store = make(40, shards=4, group="patient")
    with store.writer() as writer:
        writer.append(pa.table({"id": ["r3"], "patient": ["another"]}), np.ones((1, 8)))
        with pytest.raises(RetrError, match="'r3' is in the index already"):
            writer.commit()
        row = store.rows_of(["r3"])
        writer.delete(row)
        writer.append(pa.table({"id": ["r3"], "patient": ["another"]}), np.ones((1, 8)))
        store = writer.commit()
    assert (len(store), places(store)["r3"]) == (40, shard_of("another", 4))


@pytest.mark.parametrize("ways", [(3, 1), (1, 4, 2), (2, 5, 5, 1, 3)])
def test_rows_stay_as_they_are_whatever_the_shards(make, ways):
    store = make(30, 20, 9, group="patient", shards=ways[0])
    with store.writer() as writer:
        writer.delete(store.live_rows()[::7])
        store = writer.commit()
    before = by_id(store)
    for shards in ways[1:]:
        with store.writer() as writer:
            writer.shard(shards)
            store = writer.commit()
        assert by_id(store) == before
        assert store.check() == []
        assert len({info.folder for info in store.manifest.segments}) <= max(shards, 1)
        assert (store.path / "shards").exists() == (shards > 1)
        if shards > 1:
            assert len(list((store.path / "shards").iterdir())) == shards
    with store.writer() as writer:
        writer.compact()
        assert by_id(writer.store) == before
        # one segment a shard, without the deleted rows
        assert writer.store.n_total == len(before)


def test_commits_merge_the_small_segments_of_each_shard(make):
    store = make(shards=2, group="patient")
    with store.writer() as writer:
        for start in range(0, 120, 10):
            table = pa.table(
                {"id": [f"r{i}" for i in range(start, start + 10)], "patient": [f"p{i}" for i in range(10)]}
            )
            writer.append(table, np.ones((10, 8)))
            store = writer.commit()
    assert len(store) == 120
    assert len(store.manifest.segments) <= 4


@pytest.fixture
def numbered(make, monkeypatch) -> Store:
    """Forty rows with side data that name some of them by number."""
    monkeypatch.setattr(side_data, "_registered", dict(side_data._registered))
    side_data.register(KIND)
    ids = [f"r{i:03}" for i in range(40)]
    with make().writer() as writer:
        writer.append(pa.table({"id": ids}), np.random.default_rng(0).standard_normal((40, 8)))
        writer.commit()
        equip(writer, {"some": [1, 5, 22, 39], "others": [7, 8]})
        return writer.commit()


def test_side_data_that_names_rows_by_number_follows_them(numbered):
    store, wanted = numbered, members(numbered)
    for shards in (3, 2, 1):
        with store.writer() as writer:
            writer.shard(shards)
            store = writer.commit()
        assert members(store) == wanted
        assert store.check() == []
    with store.writer() as writer:
        writer.shard(3)
        writer.commit()
        ids = [f"n{i:03}" for i in range(9)]
        writer.append(pa.table({"id": ids}), np.ones((9, 8)), arrays={ARRAY: digits(ids)})
        writer.delete(writer.store.rows_of(["r000", "r002"]))
        store = writer.commit()
        assert members(store) == wanted
        writer.purge()
        assert members(writer.store) == wanted
        assert writer.store.check() == []


def test_rows_do_not_move_under_side_data_that_nobody_here_knows(numbered):
    before = by_id(numbered)
    del side_data._registered[KIND.name]
    with numbered.writer() as writer:
        writer.shard(3)
        with pytest.raises(RetrError, match="kind 'sets'"):
            writer.commit()
    assert by_id(Store.open(numbered.path)) == before
