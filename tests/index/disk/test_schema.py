"""What comes in as a column, how it is stored, and how the columns of two tables become one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk import schema
from retr.index.disk.current import publish
from retr.index.errors import UsageError
from retr.index.store import Store

LIST = pa.list_(pa.string())


def test_the_id_comes_first_and_values_are_kept():
    table = pa.table({"n": pa.array([1, None], pa.int8()), "id": pa.array(["a", "b"]).dictionary_encode()})
    stored = schema.stored_table(table)
    assert stored.schema == pa.schema([("id", pa.string()), ("n", pa.int64())])
    assert stored.to_pydict() == {"id": ["a", "b"], "n": [1, None]}
    assert schema.stored_table(pa.table({"n": pa.array([], pa.int8()), "id": pa.nulls(0)})).schema == stored.schema


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"n": [1]}), r"needs the column 'id', got \['n'\]"),
        (pa.table([["a"], [1], [2]], names=["id", "n", "n"]), r"twice: \['id', 'n', 'n'\]; rename"),
        (pa.table({"id": [1]}), "'id' must be text, got 'int64'"),
        (pa.table({"id": [None]}), "'id' has an empty entry"),
    ],
)
def test_tables_without_a_usable_id_are_refused(table, message):
    with pytest.raises(UsageError, match=message):
        schema.stored_table(table)


def test_two_schemas_become_one_that_holds_both():
    old = pa.schema([("id", pa.string()), ("a", pa.int64()), ("b", pa.null()), ("c", pa.float64()), ("d", LIST)])
    new = pa.schema([("id", pa.string()), ("e", pa.bool_()), ("a", pa.float64()), ("b", LIST), ("c", pa.int64())])
    both = [("a", pa.float64()), ("b", LIST), ("c", pa.float64()), ("d", LIST)]
    assert schema.widen(old, new) == pa.schema([("id", pa.string()), *both, ("e", pa.bool_())])
    assert schema.widen(old, pa.schema([("d", pa.null())])) == old
    with pytest.raises(UsageError, match=r"'a' holds 'int64' in this index and 'string' in the new rows; convert"):
        schema.widen(old, pa.schema([("a", pa.string())]))


def test_a_table_is_brought_to_a_wider_schema():
    target = pa.schema([("id", pa.string()), ("x", pa.float64()), ("y", pa.int64())])
    table = schema.conform(pa.table({"x": [1, 2], "id": ["a", "b"]}), target)
    assert table.schema == target
    assert table.to_pydict() == {"id": ["a", "b"], "x": [1.0, 2.0], "y": [None, None]}


def test_days_that_pythons_calendar_does_not_reach_are_text():
    day = pa.array([0, 5_000_000, None], pa.int32()).cast(pa.date32())
    at = pa.array([5, None, 10**18]).cast(pa.timestamp("us", "UTC"))
    found = schema.records(pa.table({"day": day, "at": at, "n": [1, 2, 3]}))
    assert found[0] == {"day": "1970-01-01", "at": "1970-01-01T00:00:00.000005+00:00", "n": 1}
    assert found[1:] == [
        {"day": "15659-07-15", "at": None, "n": 2},
        {"day": None, "at": "33658-09-27T01:46:40.000000+00:00", "n": 3},
    ]
    near = pa.table({"day": day.slice(0, 1)})
    assert schema.records(near) == near.to_pylist()
    assert schema.records(pa.table({"day": day, "near": near["day"].combine_chunks().take([0, 0, 0])}))[2] == {
        "day": None,
        "near": near["day"][0].as_py(),
    }
    assert schema.records(pa.table({"day": day.slice(0, 0)})) == []


def test_no_integer_is_rounded_by_a_fraction_beside_it(make):
    def added(store, ids, numbers):
        with store.writer() as writer:
            writer.append(pa.table({"id": ids, "acc": numbers}), np.ones((len(ids), 8)))
            return writer.commit()

    large, small, fraction = pa.array([2**53 + 1]), pa.array([2**53]), pa.array([1.5])
    for first, second in ((large, fraction), (fraction, large)):
        store = added(make(name=f"of {first.type}"), ["a"], first)
        with pytest.raises(UsageError, match=r"'acc' would hold fractions beside integers.*--type acc=text"):
            added(store, ["b"], second)
        assert Store.open(store.path).table(["acc"]).to_pylist() == [{"acc": first[0].as_py()}]
    store = added(added(make(), ["a"], small), ["b"], fraction)
    assert store.table(["acc"])["acc"].to_pylist() == [2.0**53, 1.5]
    with make(name="at once").writer() as writer:
        writer.append(pa.table({"id": ["a"], "acc": large}), np.ones((1, 8)))
        with pytest.raises(UsageError, match="--type acc=text"):
            writer.append(pa.table({"id": ["b"], "acc": fraction}), np.ones((1, 8)))
        assert len(writer.commit()) == 1


def test_an_index_that_rounded_one_before_can_be_read(make):
    store = make()
    with store.writer() as writer:
        writer.append(pa.table({"id": ["a"], "acc": [2**53 + 1]}), np.ones((1, 8)))
        manifest = writer.commit().manifest
    fields = [pa.field("acc", pa.float64()) if f.name == "acc" else f for f in manifest.schema]
    publish(store.path, dataclasses.replace(manifest, version=manifest.version + 1, schema=pa.schema(fields)))
    store = Store.open(store.path)
    assert store.table(["acc"])["acc"].to_pylist() == [2.0**53]
    assert store.where("acc > 9e15").tolist() == [True]
