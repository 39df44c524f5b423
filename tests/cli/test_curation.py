"""``retr index outliers``, ``suspects`` and ``sample`` from the outside."""

from __future__ import annotations

import pytest
from fake_encoder import FakeEncoder, picture


@pytest.fixture
def index(tmp_path):
    """Twelve pictures of six patients in two classes."""
    from retr.retrieval.ingest.build import build

    folder = tmp_path / "archive"
    folder.mkdir()
    lines = ["path,patient,label"]
    for number in range(12):
        picture(number).save(folder / f"{number}.png")
        lines.append(f"{number}.png,P{number // 2},{('healthy', 'glaucoma')[number // 2 % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    build(folder, tmp_path / "index", FakeEncoder(), metadata=tmp_path / "labels.csv", group="patient")
    return tmp_path / "index"


def test_tables_and_sheets(retr, index, tmp_path):
    sheet = tmp_path / "sheet.html"
    done = retr("index", "outliers", "--index", index, "--n", 3, "--json", "--sheet", sheet)
    assert done.code == 0
    assert [row["rank"] for row in done.json] == [1, 2, 3]
    assert sheet.read_text().count("<figure>") == 3
    done = retr("index", "suspects", "--index", index, "--label", "label", "-n", 2, "--json", "--sheet", sheet)
    assert [row["given"] != row["likely"] for row in done.json] == [True, True]
    assert sheet.read_text().count("<figure>") == 2 + sum(len(row["evidence"]) for row in done.json)
    assert "labels are counted as wrong" in done.err
    done = retr("index", "sample", "--index", index, "-n", 20, "--strategy", "coverage", "--csv")
    assert len(done.out.splitlines()) == 13
    assert "no more than 12 rows" in done.err


def test_errors_are_one_line(retr, index):
    assert "'diverse'" not in retr("index", "sample", "--index", index, "--strategy", "best").error(2)
    assert "'nothing'" in retr("index", "suspects", "--index", index, "--label", "nothing").error(2)
    assert "no row to look at" in retr("index", "outliers", "--index", index, "--where", "patient = 'x'").error(2)
