"""What a lookup finds is what a scan finds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index.rows import text_lookup
from retr.index.rows.columns import Groups
from retr.index.rows.text_lookup import TextLookup

# K of Kelvin reads as K, a semicolon of Greek as ours; some end alike
WORDS = [
    "a",
    "",
    "b" * 64,
    "c" + "b" * 63,
    "x/" + "b" * 16,
    "b" * 16,
    "K",
    "\u212a",
    ";",
    "\u037e",
    "é",
    "e\u0301",
    "a\0",
]
TEXTS = st.one_of(st.none(), st.sampled_from(WORDS), st.text(max_size=20))
PARTS = st.lists(st.tuples(st.lists(TEXTS, max_size=12), st.booleans(), st.integers(0, 3)), max_size=4)


def column(values, coded, cut):
    array = pa.array(values, pa.string())
    whole = array.dictionary_encode() if coded else array
    # offsets into shared buffers, as slices of a mapped file have
    return pa.chunked_array([whole.slice(0, cut), whole.slice(cut)], whole.type)


def lookup(parts):
    return TextLookup(Groups(parts, pa.string()), parts)


@given(parts=PARTS, asked=st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=20)), max_size=4))
def test_the_rows_of_a_text_are_those_of_a_scan(parts, asked):
    parts = [column(*part) for part in parts]
    found, scan = lookup(parts), Groups(parts, pa.string())
    values = [value for part in parts for value in part.to_pylist()]
    for text in [*asked, *(value for value in values if value is not None)]:
        rows = found.rows(text)
        assert rows.dtype == np.int64
        assert rows.tolist() == scan.rows(pa.array([text], pa.string()))[0].tolist()
    assert [found.text(row) for row in range(len(values))] == values


def test_many_rows_are_scanned_before_they_are_sorted():
    part = pa.chunked_array([pa.array([f"{i % 500:064x}" for i in range(20_000)])])
    one = lookup([part])
    with patch.object(text_lookup.TextLookup, "_sorted", autospec=True, side_effect=TextLookup._sorted) as sort:
        for asked in range(12):
            assert one.rows(f"{7:064x}").tolist() == list(range(7, 20_000, 500))
            assert sort.call_count == (asked >= 8)


@pytest.mark.parametrize("rows", [100, 20_000])
def test_threads_share_a_lookup_that_is_sorted_once(rows):
    part = pa.chunked_array([pa.array([f"{i // 2:064x}" for i in range(rows)])])
    one = lookup([part])
    with patch.object(text_lookup.TextLookup, "_sorted", autospec=True, side_effect=TextLookup._sorted) as sort:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: one.rows(f"{i:064x}").tolist(), range(50)))
    assert found == [[2 * i, 2 * i + 1] for i in range(50)]
    assert sort.call_count == 1
