"""``retr index sql``."""

from __future__ import annotations

import json

from fake_encoder import FakeEncoder

from retr import Index


def test_rows_are_asked_in_sql(retr, archive, tmp_path):
    Index.build(archive, tmp_path / "x", encoder=FakeEncoder(), metadata=archive / "labels.csv")
    query = "SELECT label, count(*) AS n FROM rows GROUP BY label ORDER BY label"
    done = retr("index", "sql", query, "--index", tmp_path / "x", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"label": "glaucoma", "n": 6},
        {"label": "healthy", "n": 6},
    ]
    wrong = retr("index", "sql", "SELECT lable FROM rows", "--index", tmp_path / "x")
    assert (wrong.code, wrong.out) == (2, "") and "lable" in wrong.err
