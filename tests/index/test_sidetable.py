"""Filters and groups give the same rows from the memory-mapped side table as from Parquet."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from retr.index import sidetable
from retr.index.errors import IndexCorruptError
from retr.index.store import Store

EXPRESSIONS = [
    "age >= 30",
    "age is null",
    "sex = 'F'",
    "sex is null or age < 5",
    "sex is not null and not sex like 'F%'",
    "sex in ('F', null)",
    "id like 'r1%'",
    "patient = 'p3'",
    "sex = patient",
    "day > '2024-01-05'",
    "id = 'r7' or flag",
]


def table(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table(
        {
            "id": [f"r{i}" for i in numbers],
            "age": pa.array([None if i % 7 == 3 else i % 90 for i in numbers], pa.int64()),
            "sex": [("F", "M", None)[i % 3] for i in numbers],
            "patient": [f"p{i // 8}" for i in numbers],
            "day": [dt.date(2024, 1, 1 + i % 20) for i in numbers],
            "flag": [i % 50 == 0 for i in numbers],
            "tags": [["x"]] * (stop - start),
            "path": [f"folder/{i}.png" for i in numbers],
        }
    )


@pytest.fixture
def both(make, monkeypatch) -> tuple[Store, Store]:
    """The same rows without side tables and, in its second and third segment, with."""
    stores = []
    for least in (10**9, 100):
        store = make(name=f"index{least}")
        with store.writer() as writer:
            monkeypatch.setattr(sidetable, "MIN_ROWS", 10**9)
            writer.append(table(0, 150), np.ones((150, 8)))
            writer.commit()
            monkeypatch.setattr(sidetable, "MIN_ROWS", least)
            writer.append(table(150, 300), np.ones((150, 8)))
            writer.commit()
            writer.append(table(300, 450).set_column(1, "age", pa.array([1.5] * 150)), np.ones((150, 8)))
            stores.append(writer.commit())
    plain, side = stores
    assert [info.columns is not None for info in side.manifest.segments] == [False, True, True]
    assert not any(info.columns for info in plain.manifest.segments)
    return plain, side


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_filters_give_the_same_rows(both, expression):
    plain, side = both
    np.testing.assert_array_equal(side.where(expression), plain.where(expression))
    assert side.check() == []


@pytest.mark.parametrize("column", ["sex", "patient", "age", "id", "flag"])
def test_groups_are_the_same(both, column):
    plain, side = (store.columns.groups(column) for store in both)
    assert (
        side.values.take(pa.array(np.maximum(side.codes, 0))).to_pylist()
        == plain.values.take(pa.array(np.maximum(plain.codes, 0))).to_pylist()
    )
    np.testing.assert_array_equal(side.codes < 0, plain.codes < 0)
    for code in range(min(80, len(side.values))):
        np.testing.assert_array_equal(side.rows(code), np.flatnonzero(side.codes == code))


def test_unique_texts_and_lists_stay_in_parquet(both):
    _, side = both
    names = sidetable.read(side.segments[1]._side).keys()
    assert set(names) == {"age", "sex", "patient", "day", "flag"}


def test_replaced_columns_replace_the_side_table(both):
    _, side = both
    with side.writer() as writer:
        writer.replace_columns(pa.table({"id": [f"r{i}" for i in range(450)], "sex": ["X"] * 450}))
        store = writer.commit()
    assert store.where("sex = 'X'").all()
    assert not store.where("sex = 'F'").any()
    assert store.check() == []


def test_compaction_makes_one_side_table(both):
    plain, side = both
    with side.writer() as writer:
        writer.delete(np.arange(10))
        writer.compact(purge=True)
        store = writer.store
    assert len(list(store.path.glob("segments/*.arrow"))) == 1
    for expression in EXPRESSIONS:
        np.testing.assert_array_equal(store.where(expression), plain.where(expression)[10:])


def test_a_damaged_side_table_is_said(both):
    _, side = both
    file = side.path / side.manifest.segments[1].columns.file
    data = file.read_bytes()
    file.write_bytes(bytes(len(data)))
    damaged = Store.open(side.path)
    with pytest.raises(IndexCorruptError, match="retr index check"):
        damaged.where("age > 3")
    assert [finding.kind for finding in damaged.check()] == ["altered"]
