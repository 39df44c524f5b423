"""Tables in memory give the same index as the Parquet file of the same cells."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr import Index, UsageError
from retr.retrieval.archive.in_memory import arrow_table

PATHS = [
    f"{label}/{number:03d}.{suffix}"
    for number, (label, suffix) in enumerate([("healthy", "png"), ("glaucoma", "jpg"), ("healthy", "tif")])
]


@pytest.fixture
def built(make_archive, tmp_path, make_encoder):
    """Build an index of three pictures with a table; return its rows and what was said."""
    archive = make_archive(3)

    def build(table, name="x.retr", **options):
        index = Index.build(archive, tmp_path / name, encoder=make_encoder(), metadata=table, **options)
        return index.table(), index.report.notes

    return build


def cells() -> dict[str, list]:
    zone = dt.timezone(dt.timedelta(hours=2))
    return {
        "path": PATHS,
        "patient": [7, 12, None],
        "age": [61, None, 40],
        "thickness": [0.25, float("nan"), None],
        "seen": [dt.date(2020, 1, 2), None, dt.date(2021, 1, 1)],
        "at": [dt.datetime(2020, 1, 2, 3, 4, tzinfo=zone), None, dt.datetime(2021, 5, 6, tzinfo=zone)],
        "site": ["A", "B", None],
        "smoker": [True, None, False],
        "score": [1.5, 2.5, 3.5],
        "number": ["1", "2", "3"],
    }


def test_pandas_is_read_as_its_parquet(built, tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(cells())
    frame["age"] = frame["age"].astype("Int64")
    frame["site"] = frame["site"].astype("category")
    frame["smoker"] = frame["smoker"].astype("boolean")
    frame["at"] = pd.to_datetime(frame["at"], utc=True).dt.tz_convert("Europe/Paris")
    frame.to_parquet(tmp_path / "t.parquet")
    wanted, said = built(tmp_path / "t.parquet", "file.retr", group="patient")
    for number, table in enumerate(
        (frame, frame.set_index("path"), frame.iloc[::-1].iloc[::-1], frame[frame.number != "x"])
    ):
        found, notes = built(table, f"{number}.retr", group="patient")
        assert (found, notes) == (wanted, said)
    assert found["patient"].to_pylist() == ["12", "7", None]
    assert str(found.schema.field("patient").type) == "string"
    assert [str(found.schema.field(name).type) for name in ("age", "seen", "at", "number")] == [
        *("int64", "date32[day]", "timestamp[us, tz=UTC]", "string")
    ]
    assert found["score_meta"].to_pylist() == [2.5, 1.5, 3.5]


def test_polars_pyarrow_dicts_and_rows_are_read_as_parquet(built, tmp_path):
    pl = pytest.importorskip("polars")
    columns = {**cells(), "thickness": [0.25, None, None], "at": [None, None, dt.datetime(2021, 5, 6, tzinfo=dt.UTC)]}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "t.parquet")
    wanted, said = built(tmp_path / "t.parquet", "file.retr")
    frame = pl.DataFrame(columns)
    rows = [{key: value for key, value in row.items() if value is not None} for row in table.to_pylist()]
    ways = [
        table,
        table.to_batches()[0],
        frame,
        frame.with_columns(pl.col("site", "path").cast(pl.Categorical)),
        columns,
        rows,
    ]
    for number, way in enumerate(ways):
        found, notes = built(way, f"{number}.retr")
        assert found.select(wanted.column_names).equals(wanted), number
        assert notes == said


def test_the_same_table_again_joins_nothing_and_another_does(built, tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"path": PATHS, "grade": [1, 2, 3]})
    built(frame)
    before = Index.open(tmp_path / "x.retr").store.version
    built(frame.copy())
    assert Index.open(tmp_path / "x.retr").store.version == before
    found, _ = built(frame.assign(grade=[4, 5, 6]))
    assert sorted(found["grade"].to_pylist()) == [4, 5, 6]


def test_paths_may_be_objects_and_absolute(built, make_archive):
    pd = pytest.importorskip("pandas")
    archive = make_archive(3)
    paths = [archive / path for path in PATHS]
    ways = [{"path": paths, "grade": [1, 2, 3]}, pd.DataFrame({"path": paths, "grade": [1, 2, 3]})]
    ways += [pd.DataFrame({"grade": [1, 2, 3]}, index=pd.Index(paths, name="path"))]
    for number, way in enumerate(ways):
        found, _ = built(way, f"{number}.retr")
        assert found["grade"].to_pylist() == [2, 1, 3]


def test_from_vectors_and_add_take_them_too(make_archive, tmp_path, fake_encoder):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"patient": [7.0, None]}, index=pd.Index(["a", "b"], name="id"))
    index = Index.from_vectors([[1.0, 0.0], [0.0, 1.0]], frame, tmp_path / "v.retr", encoder="mine", fingerprint="1")
    assert index["a"]["patient"] == "7"
    index = Index.build(make_archive(3), tmp_path / "x.retr", encoder=fake_encoder)
    index.add(make_archive(3, "more"), metadata=pd.DataFrame({"path": PATHS, "grade": [1, 2, 3]}))
    assert index["more/healthy/000.png"]["grade"] == 1


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"path": PATHS, "x": [1, "a", None]}, "got dict, whose column 'x' holds values of several types"),
        ({"path": PATHS, "x": [object()] * 3}, "got dict, whose column 'x'"),
        ({"path": PATHS, "x": [1]}, "cannot be read as a table, got dict"),
        ({"path": "a.png"}, "cannot be read as a table, got dict"),
        (5, "cannot be read as a table, got int"),
        ({"x": [1, 2, 3]}, "table 'dict' has no path column, only 'x'"),
        ([{"path": "other.png", "x": 1}], "no path of the table 'list' (column 'path') is a picture of the archive"),
        (
            {"path": PATHS, "x": [{"a": 1}] * 3},
            "column 'x' has the type 'struct<a: int64>', which an index cannot hold",
        ),
        ({"path": PATHS, " path": PATHS}, "has the column 'path' twice"),
        ([{"path": PATHS[0], "x": 1}, {"path": PATHS[0], "x": 2}], "different cells for the path"),
    ],
)
def test_what_is_no_table_is_refused(built, table, told):
    with pytest.raises(UsageError) as caught:
        built(table)
    assert told in str(caught.value)


def test_pandas_that_cannot_be_meant_names_the_column():
    pd = pytest.importorskip("pandas")
    with pytest.raises(UsageError, match="got DataFrame, whose column 'x' holds values of several types"):
        arrow_table(pd.DataFrame({"path": PATHS, "x": [1, "a", None]}))
    with pytest.raises(UsageError, match="has the column 'x' twice"):
        arrow_table(pd.DataFrame([[1, 2]], columns=["x", "x"]))
    assert arrow_table(pd.DataFrame({0: ["a"]})).column_names == ["0"]
    assert arrow_table({"path": [Path("a/b.png")]}).to_pydict() == {"path": ["a/b.png"]}
