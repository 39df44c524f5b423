"""``retr eval`` on the photographs that ship."""

from __future__ import annotations

import csv
import io

import pytest


def test_retrieval_as_one_object(retr, hrf_index):
    done = retr("eval", "retrieval", "--label", "label", "--json", "--index", hrf_index)
    assert done.code == 0
    found = done.json[0]
    assert (found["evaluation"], found["queries"], found["classes"]) == ("retrieval", 45, 3)
    one = found["metrics"]["precision@1"]
    assert one["low"] <= one["value"] <= one["high"]
    assert {row["class"] for row in found["per_class"]} == {"diabetic_retinopathy", "glaucoma", "healthy"}
    assert "no group key" in found["notes"][0]
    again = retr("eval", "retrieval", "--label", "label", "--json", "--index", hrf_index)
    assert again.json == done.json


def test_the_numbers_are_those_of_the_queries(retr, hrf_index):
    """precision@1 counted from `retr query`, one row at a time."""
    ids = retr("index", "ls", "--ids", "--index", hrf_index).out.splitlines()
    asked = [argument for name in ids for argument in ("--id", name)]
    answers = retr("query", *asked, "-k", 1, "--json", "--index", hrf_index).json
    right = [answer["hits"][0]["label"] == name.split("/")[0] for name, answer in zip(ids, answers, strict=True)]
    found = retr("eval", "retrieval", "--label", "label", "--json", "--index", hrf_index).json[0]
    assert found["metrics"]["precision@1"]["value"] == pytest.approx(sum(right) / 45)


def test_tables_for_people_and_csv(retr, hrf_index):
    table = retr("eval", "retrieval", "--label", "label", "--subgroups", "folder", "--index", hrf_index)
    assert "precision@5" in table.out
    assert "per subgroup" in table.out
    rows = list(
        csv.DictReader(io.StringIO(retr("eval", "probe", "--label", "label", "--csv", "--index", hrf_index).out))
    )
    assert "balanced_accuracy" in {row["measure"] for row in rows}


def test_the_report_is_written(retr, hrf_index, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    assert retr("eval", "neighbours", "--label", "label", "--html", page, "--index", hrf_index).code == 0
    assert "<svg" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retrieval", "--label", "diagnosis"), "diagnosis"),
        (("retrieval", "--label", "label", "--group", "patient"), "the same patient cannot be excluded"),
        (("retrieval", "--label", "label", "-k", "1,x"), "got: '1,x'"),
        (("retrieval", "--label", "label", "-k", "0"), "got: [0]"),
        (("retrieval", "--label", "label", "--subgroups", "device"), "device"),
        (("zero-shot", "--label", "label", "--labels", "odir"), "embeds images only"),
        (("probe", "--label", "label", "--group", "folder", "--same-patient"), "exclude each other"),
    ],
)
def test_mistakes_are_one_line(retr, hrf_index, arguments, words):
    done = retr("eval", *arguments, "--index", hrf_index)
    assert done.code in {1, 2}
    assert words in done.err
    assert len(done.err.strip().splitlines()) <= 2
