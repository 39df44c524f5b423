"""Texts become numbers only where the spelling says nothing more than the number."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index.errors import UsageError
from retr.retrieval.archive.column_types import as_declared, doubts, identifying, looks_numeric, narrow, read_types


def column(*cells: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (("61", "", "NA"), [61, None, None]),
        (("-0", "0", "7"), [0, 0, 7]),
        (("9223372036854775807",), [2**63 - 1]),
        (("-0.00", "0.00", "1.25", "-1.25"), [0.0, 0.0, 1.25, -1.25]),
        (("1.50", "0.75", "nan"), [1.5, 0.75, None]),
        (("+1.25", "-0.50", "0.00"), [1.25, -0.5, 0.0]),
        (("30.0", "41.0"), [30.0, 41.0]),
        (("1", "2.5", "0.30000000000000004", "1e-05"), [1.0, 2.5, 0.30000000000000004, 1e-05]),
        (("True", "false", ""), [True, False, None]),
    ],
)
def test_faithful_cells_become_numbers(cells, numbers):
    found = narrow(column(*cells))
    assert not pa.types.is_string(found.type)
    assert found.to_pylist() == numbers
    assert [str(value) for value in found.to_pylist()] == [str(value) for value in numbers]


@pytest.mark.parametrize(
    "cells",
    [
        ("1.1", "1.10", "1.2"),
        ("1E3", "1000"),
        ("1E3",),
        ("1e5", "100000"),
        ("1e999", "2e999"),
        ("0012", "7"),
        ("00.5",),
        ("30", "30.0"),
        ("12345678901234567890", "12345678901234567891"),
        ("9223372036854775808", "1"),
        ("0.12345678901234567", "0.12345678901234568"),
        ("+1.5", "1.5"),
        ("7", "x"),
        ("inf", "1"),
        ("1_000", "2"),
        ("\uff11", "2"),
        (" 1", "2"),
    ],
)
def test_cells_whose_spelling_says_more_stay_text(cells):
    assert narrow(column(*cells)).to_pylist() == list(cells)


@given(st.lists(st.from_regex(r"[-+]?[0-9]{0,3}\.?[0-9]{0,3}(e[-+]?[0-9]{1,2})?", fullmatch=True), max_size=5))
def test_different_texts_are_never_one_number(cells):
    found = narrow(column(*cells))
    if pa.types.is_string(found.type):
        assert found.to_pylist() == [cell or None for cell in cells]
        return
    pairs = {
        (cell.lstrip("+-") if not float(cell) else cell, value)
        for cell, value in zip(cells, found.to_pylist(), strict=True)
        if cell
    }
    assert len({value for _, value in pairs}) == len(pairs)
    assert all(value == float(cell) for cell, value in pairs)


def test_identifiers_stay_as_they_are_spelled():
    assert identifying(column("1.0", "2.0", "017", "nan", ""), "p").to_pylist() == ["1.0", "2.0", "017", None, None]
    assert identifying(column("17.0", "18.0"), "p").to_pylist() == ["17.0", "18.0"]
    # as pandas writes integers beside an empty cell
    assert identifying(column("17.0", "18.0", ""), "p").to_pylist() == ["17", "18", None]
    assert identifying(pa.chunked_array([[17, None]]), "p").to_pylist() == ["17", None]


def test_a_declared_type_holds():
    assert as_declared(column("1E3", " 007", "+2.5", "NA"), "x", "number").to_pylist() == [1000.0, 7.0, 2.5, None]
    assert as_declared(column("7", ""), "x", "number").to_pylist() == [7, None]
    assert as_declared(column("7", ""), "x", "text").to_pylist() == ["7", None]
    assert as_declared(pa.chunked_array([[7]]), "x", "text").to_pylist() == ["7"]
    assert as_declared(column("12345678901234567890"), "x", "number").type == pa.float64()
    with pytest.raises(UsageError, match="declared a number, but row 2"):
        as_declared(column("7", "x"), "x", "number")
    assert looks_numeric(column("1E3", "007", ""))
    assert not looks_numeric(column("", ""))
    with pytest.raises(UsageError, match="type of column 'a' must be number or text, got: 'date'"):
        read_types({"a": "date"})


def test_what_may_not_be_meant_as_it_is_written_is_said_and_not_shown():
    assert doubts(pa.chunked_array([["P1", "P2", "", None, "017", "17", "1.0"]]), "patient") == []
    said = doubts(pa.chunked_array([["Smith", "smith ", "nan", "NaN", "NA", "x", "\uff58"]]), "who")
    assert [line.split(": ")[1].partition(" (")[0] for line in said] == [
        "nan counts as missing",
        "NA, null and the like are identifiers here",
        "2 of its values differ from another in blanks, capitals or width alone",
    ]
    assert "smith" not in "".join(said).lower()
