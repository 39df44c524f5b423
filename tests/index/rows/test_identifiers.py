"""Identifiers are text: what is one stays one, and what differs stays different."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.index.rows.identifiers import identifier_text, identifier_texts, lossy


def texts(values: list[object], kind: pa.DataType) -> list[str | None]:
    column = identifier_texts(pa.chunked_array([pa.array(values, kind)]), "patient")
    assert column.type == pa.string()
    result: list[str | None] = column.to_pylist()
    return result


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([17, None], pa.int64()),
        ([17, None], pa.uint8()),
        ([17.0, None], pa.float64()),
        ([17.0, float("nan")], pa.float64()),
        ([17.0, None], pa.float32()),
        ([np.float16(17), None], pa.float16()),
        (["17", None], pa.string()),
        (["17", None], pa.large_string()),
        (["17", None], pa.string_view()),
        (["17", None], pa.dictionary(pa.int8(), pa.string())),
        ([17, None], pa.dictionary(pa.int8(), pa.int64())),
        ([b"17", None], pa.binary()),
        ([Decimal(17), None], pa.decimal128(38, 0)),
        ([Decimal(17), None], pa.decimal128(10, 2)),
    ],
)
def test_one_identifier_is_one_text_whatever_type_it_comes_as(values: list[object], kind: pa.DataType) -> None:
    assert texts(values, kind) == ["17", None]


def test_different_texts_and_large_numbers_stay_different() -> None:
    spelled = ["1.1", "1.10", "1E3", "1000", "00123", "123", " 123", ""]
    assert texts(list(spelled), pa.string()) == spelled
    assert texts([2**63, 2**63 + 1], pa.uint64()) == ["9223372036854775808", "9223372036854775809"]
    ids = [Decimal(12345678901234567890123456789012345678), Decimal(12345678901234567890123456789012345679)]
    assert texts(list(ids), pa.decimal128(38, 0)) == [str(value) for value in ids]
    assert texts([Decimal("345.10"), Decimal("345.20")], pa.decimal128(9, 2)) == ["345.10", "345.20"]
    assert texts([2.0**53, 2.0**53 + 2], pa.float64()) == ["9007199254740992", "9007199254740994"]
    assert texts([0.1, -0.0, 1e22, float("inf")], pa.float64()) == ["0.1", "0", "1" + "0" * 22, "inf"]
    assert texts([1.1, 2.0], pa.float32()) == ["1.1", "2"]
    assert texts([b"\xff\x00"], pa.binary(2)) == ["ff00"]
    assert texts([dt.date(2024, 5, 31)], pa.date32()) == ["2024-05-31"]


def test_floats_that_may_have_merged_identifiers_are_noticed() -> None:
    assert lossy(pa.chunked_array([pa.array([2.0**53])]))
    assert lossy(pa.chunked_array([pa.array([2.0**24], pa.float32())]))
    assert not lossy(pa.chunked_array([pa.array([2.0**24, None, float("nan"), float("inf")])]))
    assert not lossy(pa.chunked_array([pa.array([2**60])]))


def test_what_cannot_identify_is_refused() -> None:
    for column in (pa.array([[1]]), pa.array([{"a": 1}]), pa.array([1], pa.duration("s"))):
        with pytest.raises(UsageError, match="'patient' has the type"):
            identifier_texts(pa.chunked_array([column]), "patient")
    with pytest.raises(UsageError, match="list"):
        identifier_text([1])


@given(st.lists(st.floats(allow_nan=True) | st.none() | st.integers(-(2**53), 2**53).map(float), max_size=8))
def test_a_column_is_written_as_its_values_are(values: list[float | None]) -> None:
    found = texts(list(values), pa.float64())
    assert found == [identifier_text(value) for value in values]
    kept = [text for text in found if text is not None]
    assert len(set(kept)) == len({value for value in values if value is not None and value == value})
