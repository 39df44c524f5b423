"""A list of paths as the archive: the index of the table that names them, under ids that stay."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from retr import Index, UsageError
from retr.retrieval.archive.lists import PathsSource
from retr.retrieval.archive.sources import Skipped

NAMES = ["glaucoma/003.bmp", "healthy/000.png", "healthy/002.tif", "glaucoma/001.jpg"]


def contents(index: Index) -> tuple[object, ...]:
    vectors = index.store.vectors(np.arange(len(index))).tobytes()
    segments = [ref.sha256 for segment in index.store.manifest.segments for ref in segment.refs()]
    return index.table(), vectors, index.skipped().to_pylist(), segments


@pytest.fixture
def build(tmp_path, make_encoder):
    return lambda archive, name, **options: Index.build(archive, tmp_path / name, encoder=make_encoder(), **options)


def test_it_gives_the_index_of_the_table(archive, build, tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    table = archive / "list.csv"
    table.write_text("path\n" + "\n".join(NAMES) + "\n")
    wanted = contents(build(table, "csv.retr"))
    paths = [archive / name for name in NAMES]
    ways = [paths, tuple(map(str, paths)), (path for path in paths), pd.Series(paths, index=[9, 7, 5, 1])]
    ways += [np.array(list(map(str, paths))), [f"{archive}/./{name}" for name in NAMES]]
    for number, way in enumerate(ways):
        assert contents(build(way, f"{number}.retr")) == wanted
    monkeypatch.chdir(tmp_path)
    assert contents(build([f"archive/{name}" for name in NAMES], "relative.retr")) == wanted
    monkeypatch.chdir(archive / "healthy")
    index = build([os.path.relpath(path) for path in paths], "below.retr")
    assert contents(index) == wanted
    assert index.picture(NAMES[0]).width == 48


def test_what_is_missing_or_listed_again_is_a_record(archive, build):
    paths = [archive / name for name in NAMES]
    odd = [paths[0], archive / "gone.png", *paths[1:], archive / "healthy", str(paths[0]), archive / "labels.csv"]
    index = build(odd, "x.retr")
    assert sorted(index) == sorted(NAMES)
    records = {(row["path"], row["reason"]) for row in index.skipped().to_pylist()}
    assert records == {
        ("gone.png", "missing"),
        ("healthy", "not a file"),
        (NAMES[0], "listed twice"),
        ("labels.csv", "not an image"),
    }
    again = build(odd, "x.retr")
    assert again.report.unchanged == len(NAMES)


def test_ids_stay_where_a_later_list_is_shorter(archive, build):
    first = build([archive / name for name in NAMES], "x.retr")
    again = build([archive / "healthy/000.png", archive / "healthy/004.webp"], "x.retr")
    assert (again.report.unchanged, again.report.embedded, again.report.vanished) == (1, 1, 3)
    assert set(again) == {*first, "healthy/004.webp"}
    pruned = build([archive / "healthy/000.png"], "x.retr", prune=True)
    assert list(pruned) == ["healthy/000.png"]
    alone = build([archive / "healthy/000.png"], "alone.retr")
    assert list(alone) == ["000.png"]


def test_a_table_of_labels_may_spell_paths_as_the_list_does(archive, build, tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    for number, spelled in enumerate(
        (["archive/" + name for name in NAMES], NAMES, [str(archive / name) for name in NAMES])
    ):
        frame = pd.DataFrame({"path": spelled, "grade": range(4)})
        index = build(["archive/" + name for name in NAMES], f"{number}.retr", metadata=frame)
        assert [index[name]["grade"] for name in NAMES] == [0, 1, 2, 3]


def test_add_takes_one_too(archive, make_archive, build):
    index = build(archive, "x.retr")
    more = make_archive(3, "more")
    index.add([more / "healthy/000.png", more / "glaucoma/001.jpg"])
    assert index["more/healthy/000.png"]["path"] == "more/healthy/000.png"
    assert index.picture("more/glaucoma/001.jpg").width == 48
    index.add([more / "healthy/000.png", more / "healthy/002.tif"], name="more")
    assert "more/healthy/002.tif" in index


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([], "the list names no file"),
        (np.array("a.png"), "an archive is a path, or a list of paths, got ndarray"),
        (["a.png", None], "entry 2 of the list is no path but NoneType"),
        ([float("nan")], "entry 1 of the list is no path but float"),
        ([b"a.png"], "entry 1 of the list is no path but bytes"),
        (["a.png", " "], "entry 2 of the list is no path of a file"),
        (["a\ud800.png"], "entry 1 of the list is no path of a file"),
        (["https://x/a.png"], "entry 1 of the list is no path of a file"),
        (
            {"path": ["a.png"]},
            "an archive is a path, or a list of paths, got dict; of a table give its column of paths",
        ),
        (5, "an archive is a path, or a list of paths, got int"),
        (["no.png"], "archive 'a list of 1 paths' holds no picture that can be read (1 missing)"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(paths, told, build, tmp_path):
    with pytest.raises(UsageError) as caught:
        build(paths, "x.retr")
    assert told in str(caught.value)
    assert not (tmp_path / "x.retr").exists()


def test_a_set_has_one_order(archive):
    paths = {str(archive / name) for name in NAMES}
    assert [entry.path for entry in PathsSource(paths).entries()] == sorted(NAMES)
    assert [type(entry) for entry in PathsSource([Path("a"), Path("a")]).entries()] == [Skipped, Skipped]
