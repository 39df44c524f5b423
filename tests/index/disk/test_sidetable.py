"""Filters and groups give the same rows from the memory-mapped side table as from Parquet."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr.index.disk import segment_writer, segments, sidetable
from retr.index.disk.current import publish
from retr.index.disk.files import reference
from retr.index.errors import IndexCorruptError
from retr.index.rows import columns
from retr.index.rows.check import check_path
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
def both(make, monkeypatch, unmerged) -> tuple[Store, Store]:
    """The same rows without side tables and, in its second and third segment, with; two record batches each."""
    monkeypatch.setattr(segments, "ROW_GROUP", 40)
    monkeypatch.setattr(segment_writer, "ROW_GROUP", 40)
    monkeypatch.setattr(sidetable, "BATCH_ROWS", 80)
    monkeypatch.setattr(sidetable, "_FEW_ROWS", 100)
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


@pytest.mark.parametrize("column", ["sex", "patient", "age", "id", "flag", "day"])
def test_groups_are_the_same(both, column):
    plain, _ = both
    values = plain.table([column])[column]
    asked = values.unique().drop_null()
    truth = values.to_pylist()
    for some in (asked.slice(0, 3), asked):
        for store in both:
            found = store.columns.groups(column).rows(some)
            for value, rows in zip(some.to_pylist(), found, strict=True):
                assert rows.tolist() == [row for row, other in enumerate(truth) if other == value]
    rows = np.random.default_rng(0).permutation(450)[:200]
    some = np.array([3, 449])
    for store in both:
        groups, one = store.columns.groups(column), store.columns.groups(column)
        # few are looked up alone; of many all are known at once
        assert (groups[some][0] == groups[some][1]) == (truth[3] == truth[449])
        codes = groups[rows]
        assert one._codes is None
        assert groups._codes is not None
        words = dict(zip(codes.tolist(), (truth[row] for row in rows), strict=True))
        assert [words[code] for code in codes.tolist()] == [truth[row] for row in rows]
        assert len(set(words.values())) == len(words)
        assert words.get(-1) is None


def test_a_value_that_no_row_has_is_in_no_group(both):
    for store in both:
        for column in ("patient", "path"):
            found = store.columns.groups(column).rows(pa.array([f"p{i}x" for i in range(20)]))
            assert [len(rows) for rows in found] == [0] * 20
        assert len(store.columns.groups("sex")[np.empty(0, np.int64)]) == 0


def test_only_live_rows_are_found_by_value(both):
    for store in both:
        with store.writer() as writer:
            writer.delete(np.array([8, 170]))
            store = writer.commit()  # noqa: PLW2901
        found = store.rows_with("patient", pa.array(["p1", "p21", "none"]))
        assert [rows.tolist() for rows in found] == [[*range(9, 16)], [168, 169, *range(171, 176)], []]


def test_rows_are_the_same_in_any_order(both):
    plain, side = both
    assert side.segments[1].mapped("sex", side.schema).num_chunks == 2
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(450), 2))
    for names in (None, ["day", "tags"], ["id"]):
        assert side.table(names).equals(plain.table(names))
        for some in (rows, rows[:90], rows[:1]):
            assert side.table(names, some).equals(plain.table(names, some))


def test_columns_read_from_parquet_are_kept_up_to_a_bound(make, monkeypatch):
    store = make(30, 20)
    read = []
    table = segments.Segment.table
    monkeypatch.setattr(
        segments.Segment, "table", lambda self, names, schema: (read.append(*names), table(self, names, schema))[1]
    )

    def reads(expression: str) -> int:
        del read[:]
        store.columns.where(expression)
        return len(read)

    assert [reads("age > 3"), reads("age > 5")] == [2, 0]
    monkeypatch.setattr(columns, "_KEEP_BYTES", 1)
    assert [reads("sex = 'F'"), reads("age > 3"), reads("age > 3")] == [2, 2, 2]
    both = sum(part.table(["age"], store.schema).nbytes for part in store.segments)
    monkeypatch.setattr(columns, "_KEEP_BYTES", both)
    assert [reads("age > 3"), reads("age > 3")] == [1, 0]


def test_repeated_texts_are_codes_and_long_values_stay_in_parquet(make, monkeypatch):
    monkeypatch.setattr(sidetable, "MIN_ROWS", 100)
    store = make()
    with store.writer() as writer:
        long = table(0, 300).append_column("report", pa.array([f"{i} " * 400 for i in range(300)]))
        writer.append(long, np.ones((300, 8)))
        store = writer.commit()
    segment = store.segments[0]
    kinds = {name: segment.mapped(name, store.schema) for name in store.schema.names}
    assert {name for name, column in kinds.items() if column is None} == {"report"}
    assert {n for n, c in kinds.items() if c is not None and pa.types.is_dictionary(c.type)} == {"sex", "patient"}
    assert store.table(rows=np.array([299, 0])).to_pylist() == [long.to_pylist()[299], long.to_pylist()[0]]


def test_side_tables_as_the_first_versions_wrote_them_are_read(make, monkeypatch):
    """One batch without ids and unique texts, and dictionaries in order of appearance."""

    def first_version(root, parquet, name):
        rows = pq.read_table(root / parquet).select(["age", "sex", "patient", "day", "flag"])
        columns = [pa.concat_arrays(column.chunks) for column in rows.columns]
        coded = [one.dictionary_encode() if pa.types.is_string(one.type) else one for one in columns]
        batch = pa.record_batch(coded, rows.column_names)
        with (root / name).open("xb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return reference(root, name)

    monkeypatch.setattr(sidetable, "write", first_version)
    store = make()
    with store.writer() as writer:
        writer.append(table(0, 300), np.ones((300, 8)))
        store = writer.commit()
    rows = np.array([299, 3, 170, 3])
    assert store.table(rows=rows).equals(table(0, 300).take(rows))
    assert np.flatnonzero(store.where("sex = 'F' and patient in ('p3', 'p4')")).tolist() == [24, 27, 30, 33, 36, 39]
    patients = store.columns.groups("patient")
    assert [found.tolist() for found in patients.rows(pa.array(["p37", "p99", "p0"]))] == [
        [*range(296, 300)],
        [],
        [*range(8)],
    ]
    assert len(set(patients[np.array([0, 7, 8, 299])].tolist())) == 3


def test_replaced_columns_replace_the_side_table(both):
    _, side = both
    with side.writer() as writer:
        writer.replace_columns(pa.table({"id": [f"r{i}" for i in range(450)], "sex": ["X"] * 450}))
        store = writer.commit()
    assert all(info.columns is not None for info in store.manifest.segments)
    assert store.where("sex = 'X'").all()
    assert not store.where("sex = 'F'").any()
    assert store.check() == []


def test_compaction_makes_one_side_table(both):
    plain, side = both
    with side.writer() as writer:
        writer.delete(np.arange(10))
        writer.purge()
        store = writer.store
    assert len(list(store.path.glob("segments/*.arrow"))) == 1
    for expression in EXPRESSIONS:
        np.testing.assert_array_equal(store.where(expression), plain.where(expression)[10:])


def test_a_side_table_of_another_length_is_said(both):
    _, side = both
    with side.writer() as writer:
        writer.append(table(450, 600).slice(0, 120), np.ones((120, 8)))
        side = writer.commit()
    first, *rest, last = side.manifest.segments
    assert last.columns is not None
    swapped = dataclasses.replace(rest[0], columns=last.columns)
    publish(side.path, dataclasses.replace(side.manifest, segments=(first, swapped, *rest[1:])))
    with pytest.raises(IndexCorruptError, match="holds 120 rows instead of 150; run `retr index check`"):
        Store.open(side.path).where("age > 3")


def test_a_damaged_side_table_is_said(both):
    _, side = both
    info = side.manifest.segments[1]
    file = side.path / info.columns.file
    data = file.read_bytes()
    file.write_bytes(bytes(len(data)))
    with pytest.raises(IndexCorruptError, match=f"^'{info.columns.file}' was changed after it was written; run `retr "):
        Store.open(side.path)
    assert [finding.kind for finding in check_path(side.path)] == ["altered"]
    first, second, *rest = side.manifest.segments
    signed = dataclasses.replace(second, columns=reference(side.path, info.columns.file))
    publish(side.path, dataclasses.replace(side.manifest, segments=(first, signed, *rest)))
    message = f"^the side table of '{info.name}' is not readable; run `retr index check`$"
    with pytest.raises(IndexCorruptError, match=message):
        Store.open(side.path)
    assert [finding.kind for finding in check_path(side.path)] == ["misaligned"]
