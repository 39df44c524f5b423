"""Filters through the store against what Python says of each row: every type of column, deletions, segments, shards."""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.rows import columns
from retr.index.store import Store

DIM = 5
DAYS = [None, dt.date(2024, 2, 29), dt.date(1969, 12, 31), dt.date(2031, 1, 1)]
KINDS = {
    "n": (pa.int64(), st.sampled_from([None, -(2**63), -3, -1, 0, 1, 2, 2, 7, 2**53 + 1, 2**63 - 1])),
    "whole": (pa.int64(), st.integers(-4, 4)),
    "x": (pa.float64(), st.sampled_from([None, math.nan, -0.0, 0.0, 0.1, -2.5, 3.0, math.inf, -math.inf])),
    "t": (pa.string(), st.sampled_from([None, "", "a", "A", "ab", "it's", "é", "e\u0301"])),
    "b": (pa.bool_(), st.sampled_from([None, True, False])),
    "d": (pa.date32(), st.sampled_from(DAYS)),
    "l": (pa.list_(pa.string()), st.sampled_from([None, [], ["a"]])),
}
SIGNS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
NUMBERS = ["-9223372036854775809", "-3", "-0.5", "0", "1", "1.5", "2", "6.999", "7", "9007199254740993", "1e30"]


def value(text: str):
    return int(text) if text.lstrip("-").isdigit() else float(text)


def missing(cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def composed(cell):
    return "é" if cell == "e\u0301" else cell


def known(name, holds):
    """Return a test that is unknown (None) where the cell is missing."""
    return lambda row: None if missing(row[name]) else holds(composed(row[name]))


@st.composite
def predicates(draw):
    """Return a predicate as text, and what it says of a row: True, False, or None for unknown."""
    name = draw(st.sampled_from(["n", "whole", "n", "whole", "x", "t", "b", "d", "l"]))
    if name == "l" or draw(st.integers(0, 7)) == 0:
        negated = draw(st.booleans())
        return f"{name} is {'not ' * negated}null", lambda row: missing(row[name]) != negated
    if name == "b":
        truth = draw(st.booleans())
        return f"b = {str(truth).lower()}", known("b", lambda cell: cell == truth)
    if name == "d":
        sign, day = draw(st.sampled_from(sorted(SIGNS))), draw(st.sampled_from(DAYS[1:]))
        return f"d {sign} '{day}'", known("d", lambda cell: SIGNS[sign](cell, day))
    literals = ["'a'", "'A'", "''", "'it''s'", "'é'"] if name == "t" else NUMBERS

    def meant(literal):
        return literal[1:-1].replace("''", "'") if name == "t" else value(literal)

    form = draw(st.sampled_from(["sign", "sign", "in", "between"]))
    if form == "sign":
        sign, literal = draw(st.sampled_from(sorted(SIGNS))), draw(st.sampled_from(literals))
        if name == "t":
            sign = draw(st.sampled_from(["=", "!="]))
        return f"{name} {sign} {literal}", known(name, lambda cell: SIGNS[sign](cell, meant(literal)))
    negated = draw(st.booleans())
    if form == "in" or name == "t":
        some = draw(st.lists(st.sampled_from(literals), min_size=1, max_size=4))
        said = f"{name} {'not ' * negated}{draw(st.sampled_from(['in', 'IN', 'In']))} ({', '.join(some)})"
        return said, known(name, lambda cell: (cell in [meant(one) for one in some]) != negated)
    low, high = draw(st.sampled_from(literals)), draw(st.sampled_from(literals))
    said = f"{name} {'not ' * negated}between {low} and {high}"
    return said, known(name, lambda cell: (meant(low) <= cell <= meant(high)) != negated)


@st.composite
def conditions(draw):
    said, holds = draw(predicates())
    if draw(st.integers(0, 3)) == 0:
        other, too = draw(predicates())
        join = draw(st.sampled_from(["and", "or"]))
        both = {
            "and": lambda a, b: False if a is False or b is False else None if None in {a, b} else True,
            "or": lambda a, b: True if a is True or b is True else None if None in {a, b} else False,
        }[join]
        first = holds
        return f"({said}) {join} ({other})", lambda row: both(first(row), too(row))
    return said, holds


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_filter_keeps_the_rows_that_python_says(data):
    """Before a column is sorted and after; the answers are the best of the rows kept, in order."""
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3), label="commits")
    n = sum(sizes)
    cells = {name: data.draw(st.lists(of, min_size=n, max_size=n), label=name) for name, (_, of) in KINDS.items()}
    table = pa.table(
        {"id": [f"{row:03d}" for row in range(n)]}
        | {name: pa.array(values, KINDS[name][0]) for name, values in cells.items()}
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    vectors = rng.integers(-2, 3, (n, DIM)).astype(np.float32)
    gone = np.flatnonzero(rng.random(n) < data.draw(st.sampled_from([0.0, 0.3]), label="deleted"))
    asked = [data.draw(conditions(), label="condition") for _ in range(4)]
    info = EncoderInfo("fake", DIM, "dot", "none", text=False, weights_sha256="0", preprocessing="none")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(columns, "_ORDERED_AFTER", data.draw(st.sampled_from([0, 1]), label="sorted after"))
        patch.setattr("retr.index.disk.sidetable.MIN_ROWS", data.draw(st.sampled_from([1, 1000]), label="mapped from"))
        looped = data.draw(st.booleans(), label="compiled loop")
        patch.setattr("retr.index.scan.matmul._worth_loop", lambda _: looped)
        shards = data.draw(st.sampled_from([1, 3]), label="shards")
        store = Store.create(Path(folder) / "index", encoder=info, shards=shards)
        with store.writer() as writer:
            start = 0
            for size in sizes:
                writer.append(table.slice(start, size), vectors[start : start + size])
                store, start = writer.commit(), start + size
            if len(gone):
                writer.delete(store.rows_of([f"{row:03d}" for row in gone]))
                store = writer.commit()
        query = rng.integers(-2, 3, (1, DIM)).astype(np.float32)
        scores = (vectors.astype(np.float64) @ query[0]).astype(np.float32)
        for said, holds in asked + asked[:2]:
            rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
            kept = [at for at, row in enumerate(rows) if holds(row) is True and at not in gone]
            mask, few = store.allowed(said).mask, store.allowed(said).rows
            assert sorted(store.ids(np.flatnonzero(mask))) == [f"{at:03d}" for at in kept], said
            assert few is None or few.tolist() == np.flatnonzero(mask).tolist()
            assert (few is None) == (len(kept) > n // 8)
            store._masks = type(store._masks)()  # so that it is evaluated anew
            for k in (1, 4, n):
                found = store.search(query, k, where=said)
                best = sorted(kept, key=lambda at: (-scores[at], at))[: min(k, n - len(gone))]
                there = found.rows[0] >= 0
                assert store.ids(found.rows[0][there]) == [f"{at:03d}" for at in best]
                np.testing.assert_array_equal(found.scores[0][there], scores[best])
                assert found.exact
