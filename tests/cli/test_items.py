"""``retr query --item`` and ``retr index item``: patients of fundus photographs, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

HRF = Path(__file__).parents[2] / "examples/hrf45"


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Thirty photographs of fifteen people, two of each, as a table has it."""
    from retr import Index

    folder = tmp_path_factory.mktemp("patients")
    lines = ["path,label,person,eye"]
    for file in sorted(HRF.glob("*/*.jpg")):
        number = int(file.name[:2])
        if number <= 10:
            (folder / file.parent.name).mkdir(exist_ok=True)
            shutil.copy(file, folder / file.parent.name / file.name)
            name = f"{file.parent.name}/{file.name}"
            lines.append(f"{name},{file.parent.name},{file.parent.name[0]}{(number + 1) // 2},{'LR'[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    path = folder / "index.retr"
    Index.build(folder, path, metadata=folder / "labels.csv", group="person", item="patient")
    return folder


def test_a_case_by_its_pictures_and_by_its_id(retr, patients):
    one, other = patients / "glaucoma/05_g.jpg", patients / "glaucoma/06_g.jpg"
    asked = ("query", "--index", patients / "index.retr", "--item", "declared", "-k", 4, "--json")
    done = retr(*asked, "--image", one, "--image", other)
    assert done.code == 0
    [answer] = done.json
    # both photographs are of the person g3
    assert answer["cases"] == retr(*asked, "--id", "g3").json[0]["cases"]
    assert len(answer["cases"]) == 4
    assert "g3" not in answer["cases"]
    for hit, parts in zip(answer["hits"], answer["parts"], strict=True):
        assert sorted(part["part"] for part in parts) == [1, 2]
        assert hit["id"] == parts[0]["id"]
        assert hit["score"] == pytest.approx(sum(part["score"] for part in parts), abs=1e-6)
    by_name = retr("query", "--index", patients / "index.retr", "--item", "person", "-k", 4, "--json", "--id", "g3")
    assert by_name.json == retr(*asked, "--id", "g3").json
    line = json.dumps({"image": [str(one), str(other)]})
    assert retr(*asked, "--batch", "-", stdin=line.encode()).json[0]["hits"] == answer["hits"]


def test_a_table_names_the_cases(retr, patients):
    asked = ("query", "--index", patients / "index.retr", "--item", "eye-pair", "--id", "h1", "-k", 3)
    done = retr(*asked)
    assert done.code == 0
    assert done.out.split()[:4] == ["rank", "score", "case", "id"]
    rows = retr(*asked, "--csv").out.splitlines()
    assert rows[0].startswith("rank,score,case,id,")
    assert len(rows) == 4
    assert len(retr(*asked, "--paths").out.splitlines()) == 3


def test_a_sheet_shows_cases(retr, patients, tmp_path):
    sheet = tmp_path / "sheet.html"
    asked = ("query", "--index", patients / "index.retr", "--item", "declared", "-k", 2, "--json", "--sheet", sheet)
    for given in (("--id", "g3"), ("--image", patients / "glaucoma"), ("--image", patients / "glaucoma/05_g.jpg")):
        done = retr(*asked, *given)
        assert done.code == 0
        page = sheet.read_text()
        assert "part 1" in page
        assert all(f">{case}<" in page for case in done.json[0]["cases"])
        assert str(patients) not in page


def test_options_that_mean_nothing_with_cases(retr, patients):
    asked = ("query", "--index", patients / "index.retr", "--item", "patient", "--id", "h1")
    assert "one_per is told by rows" in retr(*asked, "--one-per", "label").error(2)
    assert "cases are scored by" in retr(*asked, "--item-score", "median").error(2)
    assert "--explain is of one picture" in retr(*asked, "--explain", "--sheet", "x.html").error(2)
    assert "an item is a column" in retr(*asked[:3], "--item", "", "--id", "h1").error(2)
    assert "no cases by 'visit'" in retr(*asked[:3], "--item", "visit", "--id", "h1").error(2)


def test_what_a_case_is_can_be_declared_later(retr, hrf_copy):
    asked = ("query", "--index", hrf_copy, "--item", "declared", "--id", "glaucoma", "-k", 3, "--json")
    assert "does not say what a case is" in retr(*asked).error(2)
    assert retr("index", "item", "label", "--index", hrf_copy, "--json").json == [{"item": "label"}]
    assert set(retr(*asked).json[0]["cases"]) == {"healthy", "diabetic_retinopathy"}
    assert retr("index", "item", "--index", hrf_copy, "--json").json == [{"item": "label"}]
    assert retr("index", "item", "--none", "--index", hrf_copy, "--json").json == [{"item": None}]
    assert "no column tells patients apart" in retr("index", "item", "patient", "--index", hrf_copy).error(2)
