"""Random where-expressions over columns of every type, answered by retr and by DuckDB, row for row.

Each expression is asked of three stores of the same rows: a plain table, an index that reads its Parquet, and one with
memory-mapped side tables. NaN is loaded into DuckDB as null, which is what it means here. Three things are asked in a
spelling of DuckDB's own: moments as typed literals (it would cut a text to a day beside a date column), exponents only
where a double holds the integers, and no integer beyond 2**53 beside a float column, which DuckDB rounds and retr
compares exactly; SQLite, which is exact too, is asked for those by the tests.

Run ``python -m retr.benchmarks.filters_duckdb``; prints how often each operator met each type, without nulls, with
nulls in the column, and with a null among the values.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.disk import sidetable
from retr.index.disk.schema import TYPES
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.where.evaluate import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Pair = tuple[str, str]  # an expression, or a part of one, as retr and as DuckDB read it

ROWS = 40
_SIGNS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_BIG = 2**53


@dataclass(frozen=True)
class Kind:
    """A type of column: its values, and literals to ask for."""

    arrow: pa.DataType
    duck: str
    values: tuple[Any, ...]
    literals: tuple[Pair, ...] = ()
    partners: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


def _same(*texts: str) -> tuple[Pair, ...]:
    return tuple((text, text) for text in texts)


def _moments(*texts: str) -> tuple[Pair, ...]:
    def typed(text: str) -> str:
        word = "DATE" if len(text) == 10 else "TIMESTAMPTZ" if text[-3] == ":" and text[-6] in "+-" else "TIMESTAMP"
        return f"{word} '{text}'"

    return tuple((f"'{text}'", typed(text)) for text in texts)


_DAYS = tuple(dt.date(*day) for day in ((1969, 12, 31), (1970, 1, 1), (2024, 2, 29), (2024, 5, 31), (1, 1, 1)))
_CLOCKS = tuple(
    dt.datetime(*moment)  # noqa: DTZ001 - stored without a zone
    for moment in (
        (2024, 2, 29),
        (2024, 2, 29, 12, 30),
        (2024, 5, 31, 0, 0, 0, 1),
        (1969, 12, 31, 23, 59, 59, 999_999),
        (1970, 1, 1),
    )
)
_ASKED = _moments(
    "2024-02-29",
    "1970-01-01",
    "1969-12-31",
    "2024-02-29 12:30",
    "2024-05-31 00:00:00.000001",
    "2024-02-29 14:30:00+02:00",
    "10000-01-01",
)
_SMALL = _same("0", "-0", "-0.0", "1", "-1", "+2", "1.5", "2.0", "1e0", ".5", "3.", "9007199254740992", "1e30")
_LARGE = _same(
    *("0", "-1", "1.5", "9007199254740993", "9007199254740992", "-9223372036854775808", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "99999999999999999999", "-99999999999999999999.5"),
)
KINDS = {
    "bool": Kind(pa.bool_(), "BOOLEAN", (True, False), _same("true", "FALSE"), ("bool",)),
    "int": Kind(pa.int64(), "BIGINT", (0, 1, -1, 2, _BIG), _SMALL, ("int", "big", "uint", "double", "decimal")),
    "big": Kind(
        pa.int64(),
        "BIGINT",
        (0, _BIG, _BIG + 1, -_BIG - 1, 2**63 - 1, -(2**63)),
        _LARGE,
        ("int", "big", "uint", "decimal"),
    ),
    "uint": Kind(pa.uint64(), "UBIGINT", (0, 1, _BIG + 1, 2**63, 2**64 - 1), _LARGE, ("int", "big", "uint", "decimal")),
    "decimal": Kind(
        pa.decimal128(18, 3),
        "DECIMAL(18,3)",
        tuple(map(Decimal, ("0", "0.1", "1.5", "-2", "123456789012345.678"))),
        _same("0", "0.1", "0.1004", "1.50", "-2", "123456789012345.678", "99999999999999999999"),
        ("int", "big", "uint", "decimal", "double"),
    ),
    "double": Kind(
        pa.float64(),
        "DOUBLE",
        (0.0, -0.0, 0.1, 1.5, -2.0, 1e30, math.nan, math.inf, 9007199254740992.0),
        (*_SMALL, *_same("0.1", "-2", "1e300")),
        ("int", "double", "decimal"),
    ),
    "text": Kind(
        pa.string(),
        "VARCHAR",
        ("", "a", "A", "a_b", "axb", "a%b", "C:\\data\\a.png", "it's", "é", "日本", "😀b", "a\nb", "[a.b]*", "10"),
        _same("'a'", "''", "'it''s'", "'C:\\data\\a.png'", "'é'", "'😀b'", "'B'", "'10'"),
        ("text",),
        (
            "%",
            "",
            "a",
            "a%",
            "%b",
            "%a%",
            "_",
            "__",
            "a_b",
            "a\\_b",
            "C:\\%",
            "%\\a%",
            "[%]*",
            "%.%",
            "a%b",
            "_b",
            "%_",
        ),
    ),
    "date": Kind(pa.date32(), "DATE", _DAYS, _ASKED, ("date", "timestamp", "timestamptz")),
    "timestamp": Kind(pa.timestamp("us"), "TIMESTAMP", _CLOCKS, _ASKED, ("date", "timestamp", "timestamptz")),
    "timestamptz": Kind(
        pa.timestamp("us", "UTC"),
        "TIMESTAMPTZ",
        tuple(moment.replace(tzinfo=dt.UTC) for moment in _CLOCKS),
        _ASKED,
        ("date", "timestamp", "timestamptz"),
    ),
    "list": Kind(pa.list_(pa.string()), "VARCHAR[]", ([], ["x"], ["x", "y"])),
    "binary": Kind(pa.binary(), "BLOB", (b"", b"\x00x")),
    "null": Kind(pa.null(), "BIGINT", (None,), _same("1", "null"), ("null",)),
}


@dataclass
class Coverage:
    """How often each operator met each type: without nulls, with nulls in a column, with a null among the values."""

    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def missing(self) -> list[tuple[str, str]]:
        """Return the operators that a type allows and that never met it."""
        met = {(sign, kind) for sign, kind, _ in self.seen}
        return [
            (sign, name) for name, kind in KINDS.items() for sign in _operators(name, kind) if (sign, name) not in met
        ]

    def to_json(self) -> dict[str, Any]:
        """Return one line an operator, and one for the columns that were compared with each other."""
        signs = sorted({sign for sign, _, _ in self.seen})
        table = {}
        for sign in signs:
            cells = {
                name: "/".join(str(self.seen[sign, name, how]) for how in ("none", "column", "literal"))
                for name in KINDS
                if any(self.seen[sign, name, how] for how in ("none", "column", "literal"))
            }
            table[sign] = ", ".join(f"{name} {cell}" for name, cell in cells.items())
        pairs = ", ".join(f"{a}-{b} {count}" for (a, b), count in sorted(self.pairs.items()))
        return {"operator: type without nulls/with nulls in the column/with a null value": table, "columns": pairs}


def _operators(name: str, kind: Kind) -> list[str]:
    signs = ["is null", "is not null"]
    if kind.literals:
        signs += [*_SIGNS, "in", "not in", "between", "not between"]
    if kind.patterns:
        signs += ["like", "not like"]
    return signs + (["is"] if name == "bool" else [])


class Generator:
    """Makes tables and expressions over them, and counts what they hold."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self.coverage = Coverage()
        self._with_nulls: set[str] = set()

    def table(self) -> pa.Table:
        """Make a table with one column a kind, some of them with nulls."""
        columns: dict[str, Any] = {"id": [f"r{number}" for number in range(ROWS)]}
        self._with_nulls = {"null"}
        for name, kind in KINDS.items():
            share = self._random.choice([0.0, 0.2, 0.6])
            values = [None if self._random.random() < share else self._random.choice(kind.values) for _ in range(ROWS)]
            if None in values:
                self._with_nulls.add(name)
            columns[f"c_{name}"] = pa.array(values, kind.arrow)
        return pa.table(columns)

    def expression(self, depth: int = 2) -> Pair:
        """Make an expression, in retr's and in DuckDB's spelling."""
        how = self._random.random()
        if depth == 0 or how < 0.4:
            return self._predicate()
        inner = self.expression(depth - 1)
        if how < 0.5:
            return _each(lambda text: f"not ({text})", inner)
        if how < 0.6:
            return _each(lambda text: f"({text})", inner)
        word, other = self._random.choice(["and", "or", "AND", "Or"]), self.expression(depth - 1)
        return f"{inner[0]} {word} {other[0]}", f"{inner[1]} {word} {other[1]}"

    def _predicate(self) -> Pair:
        name = self._random.choice(list(KINDS))
        kind = KINDS[name]
        sign = self._random.choice(_operators(name, kind))
        column = f"c_{name}"
        left = (column, column)
        if sign == "is":
            values: list[Pair] = []
            asked: tuple[str, ...] = ("", "")
        elif sign in {"is null", "is not null"}:
            values, asked = [], (f" {sign}",) * 2
        elif "like" in sign:
            values = _same(f"'{self._random.choice(kind.patterns)}'")[:]  # type: ignore[assignment]
            asked = tuple(f" {sign} {text}" for text in values[0])
        elif "in" in sign.split():
            values = [self._literal(kind) for _ in range(self._random.randint(1, 4))]
            asked = tuple(f" {sign} ({', '.join(texts)})" for texts in zip(*values, strict=True))
        elif "between" in sign:
            values = [self._value(name, kind), self._value(name, kind)]
            asked = tuple(f" {sign} {low} and {high}" for low, high in zip(*values, strict=True))
        else:
            values = [self._value(name, kind)]
            asked = tuple(f" {sign} {text}" for text in values[0])
            if self._random.random() < 0.15:  # the other way round
                left, asked = values[0], (f" {sign} {column}",) * 2
        null = "literal" if ("null", "null") in values else "column" if name in self._with_nulls else "none"
        self.coverage.seen[sign, name, null] += 1
        return left[0] + asked[0], left[1] + asked[1]

    def _literal(self, kind: Kind) -> Pair:
        return ("null", "null") if self._random.random() < 0.1 else self._random.choice(kind.literals)

    def _value(self, name: str, kind: Kind) -> Pair:
        if self._random.random() < 0.7:
            return self._literal(kind)
        partner = self._random.choice(kind.partners)
        self.coverage.pairs[name, partner] += 1
        return f"c_{partner}", f"c_{partner}"


def _each(change: Callable[[str], str], pair: Pair) -> Pair:
    return change(pair[0]), change(pair[1])


class Oracle:
    """DuckDB, with one table of the same rows."""

    def __init__(self) -> None:
        import duckdb

        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET TimeZone = 'UTC'")

    def load(self, table: pa.Table) -> None:
        """Take over the rows, NaN as null."""
        columns = ", ".join(f"c_{name} {kind.duck}" for name, kind in KINDS.items())
        self._connection.execute(f"CREATE OR REPLACE TABLE t (row BIGINT, {columns})")
        marks = ", ".join("?" for _ in range(len(KINDS) + 1))
        for number, row in enumerate(table.drop_columns(["id"]).to_pylist()):
            values = [None if isinstance(value, float) and math.isnan(value) else value for value in row.values()]
            self._connection.execute(f"INSERT INTO t VALUES ({marks})", [number, *values])  # noqa: S608

    def truths(self, expressions: Sequence[str]) -> NDArray[np.bool_]:
        """Return where expressions are true: bool ``(len(expressions), rows)``; one statement asks them all."""
        asked = ", ".join(f"({expression}) IS TRUE" for expression in expressions)
        return np.array(self._connection.execute(f"SELECT {asked} FROM t ORDER BY row").fetchall(), bool).T  # noqa: S608


def stores(table: pa.Table, folder: Path) -> Iterator[Store]:
    """Keep the columns that an index can hold in two indexes, of which the second has side tables."""
    held = table.select([field.name for field in table.schema if str(field.type) in TYPES])
    info = EncoderInfo("none", 1, "dot", "none", text=False, weights_sha256="0" * 64, preprocessing="none")
    least = sidetable.MIN_ROWS
    for number, rows in enumerate((least, 1)):
        store = Store.create(folder / f"{time.monotonic_ns()}-{number}", encoder=info)
        try:
            sidetable.MIN_ROWS = rows
            with store.writer() as writer:
                writer.append(held, np.ones((table.num_rows, 1), np.float32))
                yield writer.commit()
        finally:
            sidetable.MIN_ROWS = least


def compare(count: int, seed: int, *, each: int = 250) -> tuple[Coverage, list[str]]:
    """Ask ``count`` random expressions, ``each`` over one table; give the coverage, and those answered differently."""
    generator, oracle = Generator(seed), Oracle()
    different = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, count, each):
            table = generator.table()
            oracle.load(table)
            indexes = list(stores(table, Path(folder)))
            pairs = [generator.expression() for _ in range(min(each, count - start))]
            truths = oracle.truths([theirs for _, theirs in pairs])
            for (ours, _), expected in zip(pairs, truths, strict=True):
                answers = [
                    Condition(ours, dict(zip(table.schema.names, table.schema.types, strict=True))).mask(
                        ROWS, table.column
                    )
                ]
                if all(f"c_{name}" in indexes[0].schema.names for name in KINDS if f"c_{name}" in ours):
                    answers += [store.where(ours) for store in indexes]
                if not all(np.array_equal(answer, expected) for answer in answers):
                    different.append(ours)
    return generator.coverage, different


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    coverage, different = compare(asked.count, asked.seed)
    figures = {
        "expressions": asked.count,
        "answered differently": len(different),
        "examples": different[:5],
        "never met": [f"{sign} {kind}" for sign, kind in coverage.missing()],
        **coverage.to_json(),
    }
    record("filters_duckdb", figures)


if __name__ == "__main__":
    main()
