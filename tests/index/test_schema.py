"""What comes in as a column, how it is stored, and how the columns of two tables become one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from retr.index import schema
from retr.index.errors import UsageError

LIST = pa.list_(pa.string())


@pytest.mark.parametrize(
    ("incoming", "stored"),
    [
        (pa.int8(), "int64"),
        (pa.uint32(), "int64"),
        (pa.float16(), "double"),
        (pa.float32(), "double"),
        (pa.decimal128(10, 2), "double"),
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.binary(), "binary"),
        (pa.large_binary(), "binary"),
        (pa.binary(16), "binary"),
        (pa.date32(), "date32[day]"),
        (pa.date64(), "date32[day]"),
        (pa.timestamp("s"), "timestamp[us]"),
        (pa.timestamp("ns", tz="Europe/Berlin"), "timestamp[us, tz=UTC]"),
        (pa.bool_(), "bool"),
        (pa.null(), "null"),
        (pa.dictionary(pa.int8(), pa.large_string()), "string"),
        (LIST, "list<item: string>"),
        (pa.large_list(pa.int32()), "list<item: int64>"),
        (pa.list_(pa.float32()), "list<item: double>"),
    ],
)
def test_every_type_is_stored_as_one_of_a_few(incoming, stored):
    kind = schema.stored_type(incoming, "x")
    assert str(kind) == stored
    columns = [pa.field("id", pa.string()), pa.field("x", kind)]
    assert schema.from_json(schema.to_json(pa.schema(columns))) == pa.schema(columns)


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.duration("s"),
        pa.list_(LIST),
        pa.list_(pa.duration("s")),
    ],
)
def test_other_types_are_refused_by_name(kind):
    with pytest.raises(UsageError, match=r"'ward' has the type .*; convert it to one of: binary, bool, date32"):
        schema.stored_type(kind, "ward")


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
