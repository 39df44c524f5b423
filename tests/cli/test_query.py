"""``retr query`` and ``retr show`` on real photographs, through the command line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HRF = Path(__file__).parents[2] / "examples/hrf45"
IMAGE = HRF / "glaucoma/05_g.jpg"


def test_five_real_neighbours_without_the_query_itself(retr, hrf_index):
    done = retr("query", "--image", IMAGE, "-k", 5, "--json", "--index", hrf_index)
    assert done.code == 0
    answer = done.json[0]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    assert all(hit["id"] != "glaucoma/05_g.jpg" for hit in answer["hits"])
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[0] < 1
    assert {"path", "label", "folder"} <= set(answer["hits"][0])


def test_neighbours_are_the_nearest_by_cosine(retr, hrf_index):
    """Against numpy, over the vectors as any reader of the files finds them."""
    manifest = json.loads(next(hrf_index.glob("manifests/*.json")).read_text())
    vectors = np.load(hrf_index / manifest["segments"][0]["vectors"]["file"]).astype(np.float64)
    ids = retr("index", "ls", "--ids", "--index", hrf_index).out.splitlines()
    own = ids.index("glaucoma/05_g.jpg")
    scores = vectors @ vectors[own]
    scores[own] = -2
    expected = [ids[i] for i in np.argsort(-scores)[:7]]
    hits = retr("query", "--id", "glaucoma/05_g.jpg", "-k", 7, "--json", "--index", hrf_index).json[0]["hits"]
    assert [hit["id"] for hit in hits] == expected
    assert [hit["score"] for hit in hits] == pytest.approx(np.sort(scores)[::-1][:7], abs=1e-5)


def test_the_query_itself_when_asked_for(retr, hrf_index):
    done = retr("query", "--image", IMAGE, "-k", 1, "--include-self", "--json", "--index", hrf_index)
    best = done.json[0]["hits"][0]
    assert best["id"] == "glaucoma/05_g.jpg"
    assert best["score"] == pytest.approx(1, abs=1e-4)


def test_an_image_from_standard_input(retr, hrf_index):
    typed = retr("query", "--image", IMAGE, "--json", "--index", hrf_index).json[0]["hits"]
    piped = retr("query", "--image", "-", "--json", "--index", hrf_index, stdin=IMAGE.read_bytes()).json[0]["hits"]
    assert piped == typed


def test_several_images_are_several_queries(retr, hrf_index):
    other = HRF / "healthy/02_h.jpg"
    both = retr("query", "--image", IMAGE, "--image", other, "--json", "--index", hrf_index).json
    assert len(both) == 2
    alone = retr("query", "--image", other, "--json", "--index", hrf_index).json
    assert both[1]["hits"] == alone[0]["hits"]


def test_where_allows_only_rows_that_satisfy_it(retr, hrf_index):
    done = retr("query", "--image", IMAGE, "-k", 45, "--where", "label = 'healthy'", "--json", "--index", hrf_index)
    hits = done.json[0]["hits"]
    assert len(hits) == 15
    assert {hit["label"] for hit in hits} == {"healthy"}


def test_exclude_same_and_one_per(retr, hrf_index):
    same = retr("query", "--image", IMAGE, "-k", 45, "--exclude-same", "label", "--json", "--index", hrf_index)
    assert {hit["label"] for hit in same.json[0]["hits"]} == {"healthy", "diabetic_retinopathy"}
    given = retr("query", "--image", IMAGE, "-k", 45, "--exclude-same", "label=healthy", "--json", "--index", hrf_index)
    assert {hit["label"] for hit in given.json[0]["hits"]} == {"glaucoma", "diabetic_retinopathy"}
    one = retr("query", "--image", IMAGE, "-k", 45, "--one-per", "label", "--json", "--index", hrf_index)
    assert sorted(hit["label"] for hit in one.json[0]["hits"]) == ["diabetic_retinopathy", "glaucoma", "healthy"]


def test_marks_refine_every_question(retr, hrf_index):
    plain = ("query", "--id", "glaucoma/05_g.jpg", "--index", hrf_index, "--json", "-k", 45)
    first = [hit["id"] for hit in retr(*plain).json[0]["hits"]]
    done = retr(*plain, "--like", first[0], "--like", first[1], "--unlike", first[2])
    again = [hit["id"] for hit in done.json[0]["hits"]]
    assert set(first) - set(again) == set(first[:3])
    assert again != first[3:]
    assert done.json[0]["query"].endswith("refined by 2 like and 1 unlike")
    alone = retr("query", "--like", first[0], "--index", hrf_index, "--json", "-k", 5)
    assert len(alone.json[0]["hits"]) == 5
    for wrong, said in (
        (("--unlike", "none.png"), "none.png"),
        (("--like", first[0], "--unlike", first[0]), "as like and as unlike"),
        (("--batch", "-", "--like", first[0]), "--batch excludes"),
    ):
        failed = retr(*plain, *wrong)
        assert failed.code not in {0, 3}
        assert said in failed.err
    line = json.dumps({"id": "glaucoma/05_g.jpg", "like": first[:2], "unlike": [first[2]]})
    batch = retr("query", "--batch", "-", "--index", hrf_index, "--json", "-k", 45, stdin=line.encode())
    assert batch.json == done.json
    diverse = retr(*plain, "--diverse", 0.5)
    assert {hit["id"] for hit in diverse.json[0]["hits"]} == set(first)
    assert "not in the order of scores" in diverse.json[0]["note"]


def test_min_score_and_an_answer_of_nothing(retr, hrf_index):
    everything = retr("query", "--id", "glaucoma/05_g.jpg", "-k", 44, "--json", "--index", hrf_index).json[0]["hits"]
    bound = everything[9]["score"]
    done = retr("query", "--id", "glaucoma/05_g.jpg", "-k", 44, "--min-score", bound, "--json", "--index", hrf_index)
    assert done.json[0]["hits"] == everything[:10]
    nothing = retr("query", "--id", "glaucoma/05_g.jpg", "--min-score", 1.5, "--json", "--index", hrf_index)
    assert nothing.code == 3
    assert nothing.json[0]["hits"] == []
    assert "nothing found" in nothing.err


def test_forms_of_output(retr, hrf_index):
    args = ("query", "--id", "glaucoma/05_g.jpg", "-k", 3, "--index", hrf_index)
    hits = retr(*args, "--json").json[0]["hits"]
    assert retr(*args, "--ids").out.splitlines() == [hit["id"] for hit in hits]
    rows = list(csv.DictReader(io.StringIO(retr(*args, "--csv").out)))
    assert [row["id"] for row in rows] == [hit["id"] for hit in hits]
    assert [float(row["score"]) for row in rows] == [hit["score"] for hit in hits]
    table = retr(*args)
    assert table.err == ""
    for hit in hits:
        assert hit["id"] in table.out


def test_a_column_that_is_not_there_is_named(retr, hrf_index):
    asked = ("query", "--id", "glaucoma/05_g.jpg", "--index", hrf_index, "--columns")
    assert "width" in retr(*asked, "width").out.splitlines()[0]
    assert retr(*asked, "width,nope").error(2).startswith("error: there is no column 'nope'; ")


def test_a_batch_of_json_lines(retr, hrf_index):
    mixed = {"id": [{"id": "healthy/02_h.jpg", "weight": 2}, {"id": "healthy/03_h.jpg", "weight": -1}]}
    lines = [{"id": "healthy/02_h.jpg"}, {"image": str(IMAGE)}, mixed]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    answers = retr("query", "--batch", "-", "--json", "--index", hrf_index, stdin=data).json
    assert len(answers) == 3
    assert answers[1]["hits"] == retr("query", "--image", IMAGE, "--json", "--index", hrf_index).json[0]["hits"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "2:healthy/02_h.jpg"}', '"weight": 2.0}'),
        (b"[" * 100_000, "too deep"),
        (b'{"vector": [' + b"9" * 5000 + b"]}", "too long a number"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b'{"id": "\\ud800"}', "no row has the id"),
        (b'{"image": "a\\u0000b.png"}', "no file is called 'a\\x00b.png'"),
        (b'{"id": "healthy/02_h.jpg", "k": 3}', "asked of the whole batch; give -k,"),
        (b'{"id": "healthy/02_h.jpg", "minScore": 0.5}', "give --min-score"),
        (b'{"id": "healthy/02_h.jpg", "exclude-same": "label"}', "write 'exclude_same', or rename"),
        (b'{"id": "healthy/02_h.jpg", "Not": "haze"}', "write 'not', or rename"),
    ],
)
def test_a_batch_that_cannot_be_meant(retr, hrf_index, line, words):
    assert words in retr("query", "--batch", "-", "--index", hrf_index, stdin=line).error(2)


def test_a_batch_from_another_system(retr, hrf_index):
    lines = b'\xef\xbb\xbf{"id": "healthy/02_h.jpg", "remark": "a\xe2\x80\xa8b"}\r\n\r\n{"id": "healthy/03_h.jpg"}\r\n'
    assert len(retr("query", "--batch", "-", "--json", "--index", hrf_index, stdin=lines).json) == 2


def test_a_weight_that_was_read_is_said(retr, hrf_index):
    other = HRF / "healthy/02_h.jpg"
    done = retr("query", "--image", f"2:{other}", "--json", "--index", hrf_index)
    assert "weight 2 for" in done.err
    assert done.json[0]["hits"][0]["id"] != "healthy/02_h.jpg"
    assert "weight -1 for" in retr("query", "--image", f"-1:{other}", "--index", hrf_index).err
    assert "weight 2 for 'haze'" in retr("query", "--not", "2:haze", "--index", hrf_index).err
    batch = b'{"text": "12:30 scan"}\n{"text": ["2:drusen", "3:haze"]}'
    said = retr("query", "--batch", "-", "--index", hrf_index, stdin=batch).err.splitlines()
    assert said[0] == (
        "the text '2:drusen' of the batch is taken as it stands; "
        'a weight is a field of its own: {"text": "drusen", "weight": 2.0}'
    )
    assert len(said) == 2  # and that this encoder has no text side


def test_show_gives_everything_of_one_row(retr, hrf_index):
    row = retr("show", "glaucoma/05_g.jpg", "--json", "--index", hrf_index).json[0]
    assert row["label"] == "glaucoma"
    assert row["size"] == IMAGE.stat().st_size


def test_show_gets_the_picture_back_out_of_the_archive(retr, tmp_path):
    retr("index", "build", HRF, "--index", tmp_path / "x.retr")
    done = retr("show", "glaucoma/05_g.jpg", "--out", tmp_path / "found.png", "--index", tmp_path / "x.retr")
    assert done.code == 0
    line = retr("show", "glaucoma/05_g.jpg", "--out", tmp_path / "x.nope", "--index", tmp_path / "x.retr").error(2)
    assert line == "error: no kind of picture is called 'x.nope'; end its name in .png, .jpg or .tif"
    with Image.open(tmp_path / "found.png") as found, Image.open(IMAGE) as original:
        assert np.array_equal(np.asarray(found), np.asarray(original.convert("RGB")))


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["query", "--id", "glaucoma/05_g.jpg"], {"torch", "onnxruntime", "transformers", "sklearn", "timm", "PIL"}),
        (["query", "--image", str(IMAGE)], {"torch", "transformers", "sklearn", "timm", "scipy"}),
    ],
    ids=["by id", "by image"],
)
def test_a_query_loads_only_what_it_needs(hrf_index, arguments, absent):
    code = f"""
import sys
from retr.cli.main import main
try:
    main({[*arguments, "--ids", "--index", str(hrf_index)]!r})
except SystemExit as stop:
    assert not stop.code, stop.code
sys.stderr.write(" ".join(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert absent & set(done.stderr.split()) == set()


def test_a_plain_search_imports_no_other_kind_of_answer(hrf_index):
    code = f"""
import sys
from retr import Index
Index.open({str(hrf_index)!r}).search(image={str(IMAGE)!r}, k=3)
sys.stderr.write(" ".join(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stderr.split() if name.startswith("retr.retrieval.")}
    others = {"classify", "evaluation", "audit", "text", "tuning", "deletion", "exporting", "importing", "sheet"}
    assert {name for name in loaded if name.split(".")[2] in others} == set()
    # an index may have a head: what fits one is not loaded
    assert {name for name in loaded if name.startswith("retr.retrieval.heads.")} <= {
        "retr.retrieval.heads.adapted",
        "retr.retrieval.heads.head",
    }


def test_pages_and_columns(retr, hrf_index):
    asked = ("query", "--id", "glaucoma/05_g.jpg", "--index", hrf_index)
    whole = retr(*asked, "-k", 10, "--json").json[0]["hits"]
    page = retr(*asked, "-k", 5, "--offset", 5, "--json").json[0]["hits"]
    assert page == whole[5:]
    assert retr(*asked, "-k", 5, "--offset", 5, "--ids").out.splitlines() == [hit["id"] for hit in whole[5:]]
    table = list(csv.reader(io.StringIO(retr(*asked, "--columns", "label", "--exact", "--csv").out)))
    assert table[0] == ["rank", "score", "id", "label"]
    assert [row[3] for row in table[1:]] == [hit["label"] for hit in whole[:5]]
    done = retr(*asked, "--offset", 100)
    assert done.code == 3
    assert "no row is allowed by the conditions after the first 100" in done.err
    done = retr(*asked, "--effort", 8)
    assert done.code == 2
    assert done.err.startswith("error: effort 8 says how far an approximate index looks")
