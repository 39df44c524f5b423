"""``retr index words`` and ``retr query --in``: words of a table's column, for an encoder that knows none."""

import json

import pytest

from retr import Index
from retr.sample import sample_index


@pytest.fixture
def index(make_archive, make_encoder, tmp_path):
    archive = make_archive(6)
    lines = (archive / "labels.csv").read_text().splitlines()
    texts = ["findings", "large effusion", "no effusion", "Effusion, mass", "", "clear", "effusions"]
    table = tmp_path / "reports.csv"
    table.write_text("\n".join(f'{line},"{text}"' for line, text in zip(lines, texts, strict=True)) + "\n")
    return Index.build(archive, tmp_path / "x.retr", encoder=make_encoder(), metadata=table)


def test_words_are_kept_looked_for_and_shown(retr, index):
    at = ("--index", index.path)
    assert retr("index", "words", "--column", "findings", "--json", *at).json == [
        {"columns": ["findings"], "rows": 6, "read": 6, "terms": {"findings": 5}}
    ]
    done = retr("query", "--text", "effusion", "--in", "findings", "-k", 9, "--json", *at)
    wanted = index.search(text="effusion", in_="findings", k=9)
    assert len(wanted) == 3
    assert done.json == [json.loads(json.dumps(wanted.to_json()))]
    shown = retr("query", "--text", "effusion", "--in", "findings", *at)
    assert "findings: [Effusion], mass" in shown.out
    assert "by BM25" in shown.err
    done = retr("query", "--id", wanted.ids[0], "--text", "effusion", "--in", "findings", "--fuse", 0.3, "--json", *at)
    assert done.json[0]["weights"] == {"words": 0.7, "vectors": 0.3}
    done = retr("query", "--text", "zebra", "--in", "findings", *at)
    assert done.code == 3
    assert "holds one of the words" in done.err


def test_what_is_not_text_is_said_in_a_line(retr, index):
    done = retr("query", "--text", "effusion", "--in", "age", "--index", index.path)
    assert done.code != 0
    assert "'age' holds int64" in done.err
    assert "Traceback" not in done.err
    assert retr("index", "words", "--index", index.path).code != 0


def test_pictures_and_texts_that_find_each_other_are_counted(retr):
    index = sample_index()
    index.align("caption", where="patient < 'P06'")
    at = ("eval", "text", "--column", "caption", "--index", index.path)
    assert retr(*at, "--json").json == [json.loads(json.dumps(index.evaluate_text("caption").to_json()))]
    shown = retr(*at, "-k", "1,2")
    assert "text to image, recall@2" in shown.out
    assert "12 rows take no part" in shown.err
    refused = retr(*at, "-k", "one")
    assert (refused.code, "-k takes depths" in refused.err) == (2, True)


def test_judgements_are_measured_by_words(retr, tmp_path):
    index = sample_index()
    best = index.search(text="left glaucoma", in_="caption", k=1).ids[0]
    (tmp_path / "q.tsv").write_text("q1\tleft glaucoma\n")
    (tmp_path / "j.qrels").write_text(f"q1 0 {best} 2\n")
    at = ("eval", "graded", tmp_path / "j.qrels", "--questions", tmp_path / "q.tsv", "--in", "caption")
    done = retr(*at, "-k", "3", "--json", "--index", index.path)
    assert done.json[0]["ndcg"][0]["value"] == 1
    assert "nDCG@3" in retr(*at, "-k", "3", "--index", index.path).out
