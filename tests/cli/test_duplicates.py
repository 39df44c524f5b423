"""``retr index duplicates``, ``retr index leaks`` and ``retr index check --phi`` from the outside."""

from __future__ import annotations

import shutil

import pytest
from fake_encoder import FakeEncoder, picture


@pytest.fixture
def index(tmp_path):
    """Eight pictures, two of them the same bytes, in two parts of a split, built with the fake encoder."""
    from retr.retrieval.ingest.build import build

    folder = tmp_path / "archive"
    folder.mkdir()
    lines = ["path,patient,split,seen_by"]
    for number in range(7):
        picture(number).save(folder / f"{number}.png")
        lines.append(f"{number}.png,P{number // 2},{('train', 'test')[number % 2]},Dr. Weber")
    shutil.copy(folder / "0.png", folder / "copy.png")
    lines.append("copy.png,P9,test,")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    build(folder, tmp_path / "index", FakeEncoder(), metadata=tmp_path / "labels.csv", group="patient")
    return tmp_path / "index"


def test_duplicates(retr, index):
    done = retr("index", "duplicates", "--index", index, "--exact-only", "--json")
    assert done.code == 0
    assert done.json == [
        {"a": "0.png", "b": "copy.png", "kind": "exact", "cosine": 1.0, "agreement": None, "across": True, "how": None}
    ]
    assert "1 exact and 0 near duplicates" in done.err


def test_geometry_compares_pixels(retr, index):
    done = retr("index", "duplicates", "--index", index, "--exact-only", "--geometry")
    assert "only bytes" in done.error(2)


def test_leaks(retr, index):
    done = retr("index", "leaks", "--index", index, "--split", "split", "--exact-only", "--json")
    assert done.code == 1
    assert {(row["kind"], row["a"]) for row in done.json} == {
        ("patient", "P0"),
        ("patient", "P1"),
        ("patient", "P2"),
        ("exact", "0.png"),
    }
    assert "3 patients and 1 duplicates cross 'split'" in done.err


def test_leaks_by_geometry(retr, index):
    done = retr("index", "leaks", "--index", index, "--split", "split", "--exact-only", "--geometry")
    assert "only bytes" in done.error(2)
    asked = ("index", "leaks", "--index", index, "--split", "split", "--threshold", 0.9999, "--geometry", "--json")
    done = retr(*asked)
    assert done.code == 1
    assert [row["a"] for row in done.json if row["kind"] not in {"patient", "exact"}] == []
    assert "pairs were compared by where their keypoints lie" in done.err
    (index.parent / "archive" / "3.png").write_bytes((index.parent / "archive" / "0.png").read_bytes())
    changed = retr(*asked)
    assert changed.json == done.json
    assert "1 rows could not be read again, or have another file by now, and were not compared" in changed.err


def test_a_split_column_that_is_not_there(retr, index):
    assert "'spilt'" in retr("index", "leaks", "--index", index, "--split", "spilt", "--exact-only").error(2)


def test_check_phi(retr, index):
    done = retr("index", "check", "--index", index, "--phi", "--json")
    assert done.code == 1
    assert [(row["column"], row["kind"], row["rows"]) for row in done.json] == [("seen_by", "name", 7)]
    assert "Weber" not in done.out
    assert retr("index", "check", "--index", index).code == 0


def test_rows_that_a_search_for_leaks_cannot_place_are_said(retr, tmp_path):
    from retr.retrieval.ingest.build import build

    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(4):
        picture(number).save(folder / f"{number}.png")
    table = "path,patient,split\n0.png,,train\n1.png,P1,\n2.png,P2,train\n3.png,,\n"
    (tmp_path / "labels.csv").write_text(table)
    build(folder, tmp_path / "index", FakeEncoder(), metadata=tmp_path / "labels.csv", group="patient")
    done = retr("index", "leaks", "--index", tmp_path / "index", "--split", "split", "--exact-only")
    assert done.code == 0
    assert "2 rows have no 'split'" in done.err
    assert "1 rows do not say whose they are" in done.err


def test_a_copy_in_no_part_hides_no_leak_and_long_lists_say_what_is_left_out(retr, tmp_path):
    from retr.retrieval.ingest.build import build

    folder = tmp_path / "archive"
    folder.mkdir()
    lines = ["path,patient,split"]
    for number, part in enumerate(["", "train", "Train", "test", "test"]):
        picture(0).save(folder / f"{number}.png")
        lines.append(f"{number}.png,P{number},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    where = tmp_path / "index"
    build(folder, where, FakeEncoder(), metadata=tmp_path / "labels.csv", group="patient")
    done = retr("index", "leaks", "--index", where, "--split", "split", "--exact-only", "--pairs", 2, "--json")
    assert done.code == 1
    assert [row["kind"] for row in done.json] == ["exact", "exact"]
    assert "0 patients and 5 duplicates cross 'split'" in done.err
    assert "3 more pairs: --pairs 5 lists them" in done.err
    assert "'Train', 'train' are taken as different parts" in done.err
    assert "2 'test'" in done.err
    across = retr("index", "duplicates", "--index", where, "--exact-only", "--across", "--pairs", 4, "--json")
    assert (across.code, len(across.json)) == (0, 4)
    assert "6 more pairs: --pairs 10 lists them" in across.err


def test_nobody_knows_what_crosses_without_a_column_that_says_whose(retr, tmp_path):
    from retr.retrieval.ingest.build import build

    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(2):
        picture(0).save(folder / f"{number}.png")
    build(folder, tmp_path / "index", FakeEncoder())
    assert "whose" in retr("index", "duplicates", "--index", tmp_path / "index", "--exact-only", "--across").error(2)
