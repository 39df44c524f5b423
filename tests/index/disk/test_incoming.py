"""What comes in as a column keeps what tells its values apart, or is refused by name."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk import schema
from retr.index.disk.incoming import stored_column
from retr.index.errors import UsageError

LIST = pa.list_(pa.string())
MOMENT = dt.datetime(2020, 1, 1, 12, 30, 0, 123456)  # noqa: DTZ001 - as a table without zone gives it
NS = 1577881800123456789


def stored(values, kind):
    return stored_column(pa.chunked_array([pa.array(values, kind)]), "x")


@pytest.mark.parametrize(
    ("values", "kind", "expected", "as_type"),
    [
        ([1, None], pa.int8(), [1, None], "int64"),
        ([2**32 - 1], pa.uint32(), [2**32 - 1], "int64"),
        ([2**63 - 1], pa.uint64(), [2**63 - 1], "int64"),
        ([2**63, 2**63 + 1, None], pa.uint64(), ["9223372036854775808", "9223372036854775809", None], "string"),
        ([np.float16(1.5)], pa.float16(), [1.5], "double"),
        ([0.5, float("nan"), None, float("inf")], pa.float32(), [0.5, None, None, float("inf")], "double"),
        ([Decimal("1.50"), None], pa.decimal128(10, 2), [1.5, None], "double"),
        ([Decimal(7)], pa.decimal128(38, 0), [7], "int64"),
        ([Decimal(10**20), Decimal(10**20 + 1)], pa.decimal128(38, 0), [str(10**20), str(10**20 + 1)], "string"),
        ([Decimal("12345678901234.567")], pa.decimal128(30, 3), ["12345678901234.567"], "string"),
        (["x", None], pa.large_string(), ["x", None], "string"),
        (["x", None], pa.string_view(), ["x", None], "string"),
        ([b"x"], pa.large_binary(), [b"x"], "binary"),
        ([b"xy"], pa.binary(2), [b"xy"], "binary"),
        ([b"x"], pa.binary_view(), [b"x"], "binary"),
        ([MOMENT.date()], pa.date64(), [MOMENT.date()], "date32[day]"),
        ([MOMENT], pa.timestamp("us"), [MOMENT], "timestamp[us]"),
        ([NS], pa.timestamp("ns"), [MOMENT], "timestamp[us]"),
        ([NS], pa.timestamp("ns", tz="Asia/Tokyo"), [MOMENT.replace(tzinfo=dt.UTC)], "timestamp[us, tz=UTC]"),
        ([dt.time(1, 2, 3)], pa.time32("s"), ["01:02:03"], "string"),
        ([dt.time(1, 2, 3, 400000)], pa.time64("ns"), ["01:02:03.4"], "string"),
        ([True, None], pa.bool_(), [True, None], "bool"),
        ([None], pa.null(), [None], "null"),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.large_string()), ["a", "b", "a"], "string"),
        ([["a"], None], LIST, [["a"], None], "list<item: string>"),
        ([[1], []], pa.large_list(pa.int32()), [[1], []], "list<item: int64>"),
        ([[1.5, 2.5]], pa.list_(pa.float32(), 2), [[1.5, 2.5]], "list<item: double>"),
        ([["a"], ["b"]], pa.list_view(pa.string()), [["a"], ["b"]], "list<item: string>"),
    ],
)
def test_every_type_is_stored_as_one_of_a_few(values, kind, expected, as_type):
    column = stored(values, kind)
    assert str(column.type) == as_type
    assert column.to_pylist() == expected
    fields = pa.schema([pa.field("id", pa.string()), pa.field("x", column.type)])
    assert schema.from_json(schema.to_json(fields)) == fields


def test_runs_extensions_and_zeros():
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"])
    assert stored_column(pa.chunked_array([runs]), "x").to_pylist() == ["a", "a", "b"]
    name = uuid.UUID(int=7)
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([name.bytes, None], pa.binary(16)))
    assert stored_column(pa.chunked_array([ids]), "x").to_pylist() == [str(name), None]
    text = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'], pa.string()))
    assert stored_column(pa.chunked_array([text]), "x").to_pylist() == ['{"a": 1}']
    assert not np.signbit(stored([-0.0], pa.float64()).to_numpy()).any()


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("a", pa.int64())]),
        pa.map_(pa.string(), pa.int64()),
        pa.duration("s"),
        pa.month_day_nano_interval(),
        pa.list_(LIST),
        pa.list_(pa.duration("s")),
        pa.list_(pa.date32()),
    ],
)
def test_other_types_are_refused_by_name(kind):
    with pytest.raises(UsageError, match=r"has the type .*, which an index cannot hold; convert it to text"):
        stored([None], kind)


def test_a_moment_beyond_microseconds_is_refused():
    with pytest.raises(UsageError, match=r"'x' of the type 'timestamp\[s\]' holds a value"):
        stored([2**62], pa.timestamp("s"))
