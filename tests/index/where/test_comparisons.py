"""Values compared exactly: numbers of every size and type, moments, patterns; NaN and zero with a sign."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from retr.benchmarks import filters_duckdb
from retr.index.disk import sidetable
from retr.index.errors import FilterError
from retr.index.where import comparisons
from retr.index.where.comparisons import Number, moment
from retr.index.where.evaluate import Condition

NAN = float("nan")
TABLE = pa.table(
    {
        "big": pa.array([2**53 + 1, 2**63 - 1, -(2**63), None]),
        "unsigned": pa.array([2**53 + 1, 2**64 - 1, 0, None], pa.uint64()),
        "tiny": pa.array([127, -128, 0, None], pa.int8()),
        "double": pa.array([2.0**53, -0.0, NAN, None]),
        "half": pa.array([1.5, -0.0, NAN, None], pa.float16()),
        "cents": pa.array([Decimal("0.10"), Decimal("-1.25"), Decimal(10) ** 15, None], pa.decimal128(20, 2)),
        "view": pa.array(["a_b", "axb", "a\nb", None], pa.string_view()),
        "coded": pa.array(["C:\\x", "\U0001f600", "[a.b]*", None]).dictionary_encode(),
        "weights": pa.array([1.5, NAN, -0.0, None]).dictionary_encode(),
        "day": pa.array([dt.date(2020, 1, 1), dt.date(9999, 12, 31), dt.date(1, 1, 1), None]),
        "at": pa.array([1_577_836_800_000_000, 1_577_836_800_000_001, None, None]).cast(pa.timestamp("us")),
        "flag": pa.array([True, False, None, None]),
        "both": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), pa.array(["a", None])),
    }
)


def types_of(table):
    return dict(zip(table.schema.names, table.schema.types, strict=True))


def rows(expression: str) -> list[int]:
    return np.flatnonzero(Condition(expression, types_of(TABLE)).mask(4, TABLE.column)).tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("big = 9007199254740993", [0]),
        ("big = 9007199254740992.0", []),
        ("big > 9007199254740992.5", [0, 1]),
        ("big in (9007199254740993, 1.5, null)", [0]),
        ("big not in (9007199254740993, 1.5, null)", []),
        ("big not in (9007199254740993, 1.5)", [1, 2]),
        ("big < 9223372036854775808", [0, 1, 2]),
        ("big >= -9223372036854775808", [0, 1, 2]),
        ("big > -99999999999999999999.5", [0, 1, 2]),
        ("big != 1e999999999", [0, 1, 2]),
        (f"big < {'9' * 5000}", [0, 1, 2]),
        ("tiny between 1e-999999999 and 127.5", [0]),
        ("tiny > -128.5", [0, 1, 2]),
        ("tiny = 300", []),
        ("unsigned > big", [1, 2]),
        ("unsigned = big", [0]),
        ("unsigned = 18446744073709551615", [1]),
        ("unsigned > -1", [0, 1, 2]),
        ("double < big", [0, 1]),
        ("double <> big", [0, 1]),
        ("unsigned > double", [0, 1]),
        ("double < 9007199254740993", [0, 1]),
        ("double in (9007199254740993)", []),
        ("double in (0, 9007199254740992)", [0, 1]),
        ("double not in (1)", [0, 1]),
        ("double is null", [2, 3]),
        ("double is not null", [0, 1]),
        ("not double = 0", [0]),
        ("double < 1e400", [0, 1]),
        ("half in (0, 1.5)", [0, 1]),
        ("half < cents", []),
        ("cents = 0.1", [0]),
        ("cents < 0.1001", [0, 1]),
        ("cents > -1.251", [0, 1, 2]),
        ("cents = 1000000000000000", [2]),
        ("cents < big", [0, 1]),
        ("cents < 123456789012345678901234567890", [0, 1, 2]),
        ("view like 'a_b'", [0, 1, 2]),
        ("view not like 'a%x%'", [0, 2]),
        ("view like '%_%'", [0, 1, 2]),
        ("view = coded", []),
        ("coded like 'C:\\%'", [0]),
        ("coded like '_'", [1]),
        ("coded like '[_.%]*'", [2]),
        ("coded like '%\\x'", [0]),
        ("weights is null", [1, 3]),
        ("weights in (0)", [2]),
        ("weights > 1", [0]),
        ("both is null", [1, 2]),
        ("both <> 'b'", [0, 3]),
        ("day < '10000-01-01'", [0, 1, 2]),
        ("day > '0001-01-01'", [0, 1]),
        ("day >= '2019-12-31 23:59:59.9999999'", [0, 1]),
        ("day = at", [0]),
        ("day < at", []),
        ("at > day", []),
        ("at <= '2020-01-01 00:00:00.0000009'", [0]),
        ("at in ('2020-01-01 00:00:00.000001', '2020-01-01 00:00:00.0000001')", [1]),
        ("at = '2020-01-01T02:00+02:00'", [0]),
        ("flag > false", [0]),
        ("flag in (false, null)", [1]),
        ("flag not in (false)", [0]),
        ("0.1 = 1e-1 and 'b' > 'B' and 2 not in (1)", [0, 1, 2, 3]),
        ("null in (1) or 1 is null or 2 not in (1, null) or null like 'a'", []),
        ("'a_' like 'a_' and null is null", [0, 1, 2, 3]),
    ],
)
def test_exactly_and_in_three_values(expression, expected):
    assert rows(expression) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2020-1-1",
        "2020-02-30",
        "2020-13-01",
        "20200101",
        "2020-W01-1",
        "2020-01-01 24:00",
        "2020-01-01 10",
        "2020-01-01Z",
        " 2020-01-01",
        "2020-01-01 10:00+25:00",
        "２０２０-01-01",
        "",
    ],
)
def test_what_is_no_day_is_refused(text):
    with pytest.raises(FilterError, match=r"is not a date.*2024-05-31 14:30:00"):
        rows(f"day = '{text}'")
    with pytest.raises(FilterError, match="is not a date"):
        rows(f"at in ('2020-01-01', '{text}')")


def test_a_moment_is_read_to_the_last_digit():
    assert moment("1970-01-01") == 0
    assert moment("1970-01-01 00:00:00.0000001") * 10 == 1
    assert moment("1969-12-31T23:00-01:00") == 0
    assert moment("10000-01-01") - moment("9999-12-31") == 86_400_000_000


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("view = 1", "the column 'view' is text, 1 is a number.*--type view=number"),
        ("1 = view", "1 is a number, the column 'view' is text.*--type view=number"),
        ("big in (1, 'a', null)", "'big' is a number, 'a' is text.*--type big=text"),
        ("flag = 1", "'flag' is true or false, 1 is a number.*write true or false"),
        ("big like '1%'", "'like' needs text.*--type big=text"),
        ("big < 1e99999999999999999999", "the exponent of a number is too large"),
        ("view = '\udcff'", "not UTF-8"),
        ("big = 0x10", "cannot read '0x10' at column 7.*numbers are written like 60"),
        ("big = 1_000", "cannot read '1_000'"),
        ("big = --5", "cannot read '--5'"),
        ("big = ١٢", "cannot read '١٢'"),
        ("view like '" + "a_" * 200_000 + "'", "the pattern is too long"),
        ("(" * 10_000 + "big = 1" + ")" * 10_000, "too many parentheses"),
    ],
)
def test_mistakes_end_in_a_short_line(expression, message):
    with pytest.raises(FilterError, match=message) as caught:
        rows(expression)
    assert len(str(caught.value)) < 500


def test_nesting_that_does_not_nest_and_long_lists():
    assert rows("not " * 10_001 + "big = 1") == [0, 1, 2]
    assert rows(" or ".join(["big = 9007199254740993"] * 3000)) == [0]
    assert rows(f"tiny in ({', '.join(map(str, range(30_000)))})") == [0, 2]


@pytest.mark.parametrize("least", [1, 10**9], ids=["side table", "parquet"])
def test_zero_has_no_sign_and_nan_no_value_in_groups(make, monkeypatch, least):
    monkeypatch.setattr(sidetable, "MIN_ROWS", least)
    store = make()
    sphere = pa.array([0.0, -0.0, NAN, NAN, 1.5, None])
    with store.writer() as writer:
        writer.append(pa.table({"id": list("abcdef"), "sphere": sphere}), np.ones((6, 8)))
        store = writer.commit()
    groups = store.columns.groups("sphere")
    assert groups[np.arange(6)].tolist() == [0, 0, -1, -1, 1, -1]
    asked = pa.array([-0.0, *np.arange(2.0, 30.0), 1.5])
    assert [groups.rows(asked)[at].tolist() for at in (0, -1)] == [[0, 1], [4]]
    assert [found.tolist() for found in groups.rows(asked[:1])] == [[0, 1]]

    def hits(**options: object) -> list[int]:
        found = store.search(np.ones((1, 8), np.float32), 10, **options)  # type: ignore[arg-type]
        return sorted(found.rows[0][found.rows[0] >= 0].tolist())

    assert hits(one_per="sphere") == [0, 2, 3, 4, 5]
    assert hits(exclude_same={"sphere": [-0.0]}) == [2, 3, 4, 5]
    assert hits(exclude_same={"sphere": [NAN]}) == [0, 1, 2, 3, 4, 5]
    assert hits(where="sphere is null") == [2, 3, 5]


def test_duckdb_chooses_the_same_rows():
    """Random expressions over every type, with and without side tables; every operator meets every type it can."""
    coverage, different = filters_duckdb.compare(2000, seed=1)
    assert different == []
    assert coverage.missing() == []


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int64(), pa.uint64()])
@pytest.mark.parametrize("literal", ["-1", "0", "1", "1.5", "127", "128", "255", "1e30", "-1e30", "9007199254740993"])
def test_whole_numbers_compare_alike_with_and_without_arrow(kind, literal):
    """The way past Arrow, of columns without nulls, gives what Arrow gives of the same values."""
    limits = np.iinfo(kind.to_pandas_dtype())
    values = [int(limits.min), 0, 1, 2, 127, int(limits.max)]
    column, number = pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)]), Number.parse(literal)
    for function in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        truth = comparisons.whole_numbers(function, column, number)
        assert truth.tolist() == comparisons.compare(function, column, number).to_pylist()
    assert comparisons.whole_numbers("less", pa.array([1, None], kind), number) is None


def test_conditions_join_what_is_known_everywhere_with_what_is_not():
    table = pa.table({"whole": [1, 2, 3, 4], "part": [1.0, None, 3.0, None]})
    asked = {
        "whole >= 2 and part > 0": "c",
        "whole >= 2 or part > 0": "abcd",
        "not (whole < 2 or part > 5)": "c",
        "not (whole < 3)": "cd",
        "whole > 1 and not whole = 3": "bd",
        "not whole between 2 and 3": "ad",
    }
    for condition, ids in asked.items():
        mask = Condition(condition, types_of(table)).mask(4, table.column)
        assert "".join(np.array(list("abcd"))[mask]) == ids, condition
