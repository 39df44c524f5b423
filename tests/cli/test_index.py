"""``retr index`` on real photographs, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retr.cli._output import Output
from retr.cli.build import _report
from retr.index.store import Store
from retr.retrieval.ingest.report import BuildReport

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_build_says_what_it_did_and_a_second_one_has_nothing_to_do(retr, tmp_path):
    archive = shutil.copytree(HRF / "healthy", tmp_path / "archive")
    (archive / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (archive / "note.txt").write_text("no picture")
    done = retr("index", "build", archive, "--index", tmp_path / "x.retr")
    assert done.code == 0
    assert done.out.startswith("15 rows (15 embedded, 1 other files)")
    assert "broken.jpg" in done.out
    again = retr("index", "build", archive, "--index", tmp_path / "x.retr", "--json").json[0]
    assert (again["rows"], again["embedded"], again["unchanged"]) == (15, 0, 15)


def test_the_index_is_found_in_this_folder_or_a_parent(retr, tmp_path, monkeypatch):
    monkeypatch.delenv("RETR_INDEX", raising=False)
    shutil.copytree(HRF / "glaucoma", tmp_path / "glaucoma")
    monkeypatch.chdir(tmp_path)
    assert retr("index", "build", "glaucoma").code == 0
    assert (tmp_path / ".retr").is_dir()
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert retr("index", "info", "--json").json[0]["rows"] == 15
    monkeypatch.chdir("/")
    monkeypatch.setenv("RETR_INDEX", str(tmp_path / ".retr"))
    assert retr("index", "info", "--json").json[0]["rows"] == 15


def test_info_is_one_object(retr, hrf_index):
    info = retr("index", "info", "--json", "--index", hrf_index).json[0]
    assert info["rows"] == 45
    assert info["encoder"] == "lite"
    # 45 rows span 44 directions
    assert (info["dim"], info["similarity"]) == (44, "cosine")
    assert {"id", "path", "size", "mtime", "sha256", "width", "height", "mode", "folder", "label"} <= set(
        info["columns"]
    )


def test_float16_takes_half_the_room_and_gives_the_same_neighbours(retr, hrf_index, tmp_path):
    path = tmp_path / "half.retr"
    build = ("index", "build", HRF, "--index", path)
    assert retr(*build, "--dtype", "float16", "--json").json[0]["embedded"] == 45
    infos = [retr("index", "info", "--json", "--index", index).json[0] for index in (hrf_index, path)]
    assert [info["dtype"] for info in infos] == ["float32", "float16"]
    single, half = (Store.open(index) for index in (hrf_index, path))
    assert 2 * half.vectors().nbytes == single.vectors().nbytes
    ids = single.table(["id"])["id"].to_pylist()
    queries = np.asarray(single.vectors(single.rows_of(ids)))
    expected = queries @ queries.T
    found = half.search(queries, 10)
    for query, rows, scores in zip(expected, found.rows, found.scores, strict=True):
        names = half.table(["id"], rows)["id"].to_pylist()
        # the same rows in the same order, but where float32's own scores are nearer than float16 can tell
        np.testing.assert_allclose(scores, np.sort(query)[::-1][:10], atol=1e-3)
        np.testing.assert_allclose(scores, [query[ids.index(name)] for name in names], atol=1e-3)
    # later builds keep the type, and another one is not made of it in silence
    assert retr(*build, "--json").json[0]["unchanged"] == 45
    assert retr(*build, "--dtype", "float16", "--json").json[0]["unchanged"] == 45
    said = retr(*build, "--dtype", "float32").error(2)
    assert "'float16', got: 'float32'" in said
    assert Store.open(path).manifest.dtype == "float16"


def test_an_unknown_type_of_vectors_leaves_no_index(retr, tmp_path):
    said = retr("index", "build", HRF / "healthy", "--index", tmp_path / "x.retr", "--dtype", "int8").error(2)
    assert "'float32' or 'float16', got 'int8'" in said
    assert not (tmp_path / "x.retr").exists()


def test_nothing_in_an_index_names_the_place_of_its_archive(hrf_index):
    """An index travels; the path of the archive on this machine must not."""
    place = str(HRF.parent).encode()
    for file in hrf_index.rglob("*"):
        if file.is_file():
            assert place not in file.read_bytes(), file


def test_ls_lists_chosen_rows(retr, hrf_index, placed):
    rows = retr("index", "ls", "--where", "label = 'glaucoma'", "--json", "--index", hrf_index).json
    assert len(rows) == 15
    assert {row["label"] for row in rows} == {"glaucoma"}
    paths = retr("index", "ls", "--where", "label = 'glaucoma'", "--paths", "--index", placed).out.splitlines()
    assert paths == [str(HRF / row["path"]) for row in rows]
    table = retr("index", "ls", "--limit", 2, "--index", hrf_index).out.splitlines()
    assert table[0].split() == ["id", "width", "height", "folder", "label"]
    hashes = retr("index", "ls", "--where", "label = 'glaucoma'", "--columns", "sha256", "--index", hrf_index)
    assert hashes.out.split() == ["sha256", *(f"{row['sha256'][:12]}..." for row in rows)]
    limited = retr("index", "ls", "--limit", 2, "--columns", "id,label", "--csv", "--index", hrf_index)
    assert limited.out.splitlines()[0] == "id,label"
    assert len(limited.out.splitlines()) == 3
    assert "43 more rows" in limited.err


def test_a_build_says_what_can_be_done_about_what_it_did_not_read(capsys):
    _report(Output(), BuildReport(skipped={"burned-in annotation": 1, "truncated": 2}))
    assert "--allow-burned-in" in capsys.readouterr().err
    _report(Output(), BuildReport(skipped={"truncated": 2}))
    assert capsys.readouterr().err == ""


def test_ls_with_no_row_exits_with_3(retr, hrf_index):
    assert retr("index", "ls", "--where", "label = 'nothing'", "--index", hrf_index).code == 3


def test_delete_by_id_and_by_condition(retr, hrf_copy):
    assert retr("index", "delete", "healthy/01_h.jpg", "--yes", "--json", "--index", hrf_copy).json == [
        {"deleted": 1, "left": 44, "purged": False}
    ]
    done = retr("index", "delete", "--where", "label = 'glaucoma'", "--yes", "--json", "--index", hrf_copy)
    assert done.json[0]["left"] == 29
    assert retr("index", "delete", "--where", "label = 'glaucoma'", "--yes", "--index", hrf_copy).code == 3
    compacted = retr("index", "compact", "--index", hrf_copy)
    assert compacted.code == 0
    assert "the transform may still hold the deleted rows" in compacted.err
    assert "transform" not in retr("index", "compact", "--index", hrf_copy).err
    assert retr("index", "check", "--index", hrf_copy).code == 0
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["rows"] == 29


def test_delete_asks_first(retr, hrf_copy):
    done = retr("index", "delete", "healthy/01_h.jpg", "--index", hrf_copy, stdin=b"n\n")
    assert done.code == 1
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["rows"] == 45


def test_purge_leaves_no_byte_of_the_rows(retr, hrf_copy):
    row = json.loads(retr("show", "glaucoma/05_g.jpg", "--json", "--index", hrf_copy).out)
    done = retr("index", "delete", "glaucoma/05_g.jpg", "--purge", "--yes", "--index", hrf_copy)
    assert done.code == 0
    for file in hrf_copy.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert b"05_g.jpg" not in data
            assert row["sha256"].encode() not in data


def test_add_a_further_folder_under_its_own_name(retr, hrf_copy, tmp_path):
    shutil.copytree(HRF / "healthy", tmp_path / "second")
    done = retr("index", "add", tmp_path / "second", "--json", "--index", hrf_copy)
    assert done.json[0]["rows"] == 60
    assert done.json[0]["reused"] == 15, "byte-identical files keep their vectors"
    ids = retr("index", "ls", "--where", "id like 'second/%'", "--ids", "--index", hrf_copy).out.splitlines()
    assert len(ids) == 15


def test_group_declares_the_patient_column(retr, hrf_copy):
    assert retr("index", "group", "label", "--json", "--index", hrf_copy).json == [{"group": "label"}]
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["group"] == "label"
    assert "'nothing'" in retr("index", "group", "nothing", "--index", hrf_copy).error(2)
    # without a column it is shown and stays
    assert retr("index", "group", "--json", "--index", hrf_copy).json == [{"group": "label"}]
    assert "give one of them" in retr("index", "group", "label", "--none", "--index", hrf_copy).error(2)
    taken_back = retr("index", "group", "--none", "--json", "--index", hrf_copy)
    assert taken_back.json == [{"group": None}]
    assert "no column tells patients apart: it was 'label'" in taken_back.err


def test_an_index_that_is_searched_exactly_says_so(retr, hrf_copy):
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["search"] == {"kind": "exact", "recall": 1.0}
    assert retr("index", "tune", "--json", "--index", hrf_copy).json[0]["index"] == {"kind": "exact"}
    assert "flat" not in retr("index", "tune", "--index", hrf_copy).out
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["search"]["kind"] == "exact"


@pytest.mark.parametrize("command", [("index", "check"), ("index", "compact"), ("index", "info")])
def test_commands_that_only_need_the_index(retr, hrf_copy, command):
    assert retr(*command, "--index", hrf_copy).code == 0


def test_a_transform_is_fitted_again_and_an_index_moved_to_another_encoder(retr, hrf_copy, placed):
    fitted = retr("index", "refit", "--dim", "12", "--json", "--index", hrf_copy)
    assert fitted.json == [{"rows": 45, "fitted_on": 45, "dim": 12}]
    assert retr("index", "info", "--json", "--index", hrf_copy).json[0]["transform"]["fitted"]
    assert "--power" in retr("index", "refit", "--power", "3", "--index", hrf_copy).error(2)
    other = "last" if Store.open(hrf_copy).manifest.encoder.options.get("feature") == "layers" else "layers"
    moved = ("index", "reembed", "--transform", "none", "--set", f"feature={other}", "--json", "--index", hrf_copy)
    first = retr(*moved)
    assert first.code == 0, first.err
    assert first.json[0]["embedded"] == 45
    info = retr("index", "info", "--json", "--index", hrf_copy).json[0]
    assert (info["rows"], info["transform"]) == (45, None)
    assert retr("index", "check", "--index", hrf_copy).code == 0
    assert retr(*moved).json[0]["embedded"] == 0
    assert "'pca'" in retr("index", "reembed", "--transform", "pca", "--index", hrf_copy).error(2)
