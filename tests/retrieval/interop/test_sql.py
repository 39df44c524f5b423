"""SQL sees the live rows, and nothing else."""

from __future__ import annotations

import pytest

from retr import Index
from retr.index.errors import UsageError


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    return Index.build(archive, tmp_path / "x", encoder=fake_encoder, metadata=archive / "labels.csv")


def test_live_rows_are_asked(index):
    index.delete(where="patient = 'P00'")
    found = index.sql("SELECT label, count(*) AS n, max(age) AS oldest FROM rows GROUP BY label ORDER BY label")
    assert found.to_pylist() == [
        {"label": "glaucoma", "n": 5, "oldest": 51},
        {"label": "healthy", "n": 4, "oldest": 50},
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM '{file}'",
        "COPY rows TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{folder}/out.parquet'",
        "ATTACH '{folder}/out.db'",
        "EXPORT DATABASE '{folder}/out'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('HOME')",
        "SELECT * FROM index",
        "SELECT * FROM store",
        "SELECT nothing FROM rows",
        "SELECT",
        "nonsense",
    ],
)
def test_no_file_and_no_variable_is_reached(index, tmp_path, query):
    (tmp_path / "other.csv").write_text("a\n1\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        index.sql(query.format(file=tmp_path / "other.csv", folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_it_changes_it_changes_in_memory(index):
    with pytest.raises(UsageError):
        index.sql("DELETE FROM rows")
    assert len(index) == 12 and index.check() == []
