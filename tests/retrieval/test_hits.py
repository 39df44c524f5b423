"""`Hits`: a sequence, a value, a table, and what a notebook shows of it."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from retr import Hit, Hits, Index, Query
from retr.index.errors import MissingExtraError

NASTY = "<script>alert('x')</script>\u202e"


@pytest.fixture
def labelled(archive):
    lines = ["path,score,rank,finding,visits,dose"]
    for number, file in enumerate(sorted(p for p in archive.rglob("*") if p.suffix != ".csv" and p.is_file())):
        lines.append(f'{file.relative_to(archive)},{number},{number},"{NASTY}",{number or ""},{number / 4}')
    (archive / "labels.csv").write_text("\n".join(lines))
    return archive


@pytest.fixture
def index(labelled, tmp_path, fake_encoder) -> Index:
    return Index.build(labelled, tmp_path / "x.retr", encoder=fake_encoder, metadata=labelled / "labels.csv")


@pytest.fixture
def hits(index) -> Hits:
    return index.search(vector=np.ones(56), k=12)


def test_hits_are_a_sequence(hits):
    listed = list(hits)
    assert len(hits) == len(listed) == 12
    assert [hits[at] for at in range(12)] == listed == [hits[at] for at in range(-12, 0)]
    assert hits[np.int64(3)] == listed[3]
    assert isinstance(hits[0], Hit)
    for bad in (12, -13):
        with pytest.raises(IndexError):
            hits[bad]
    with pytest.raises(TypeError):
        hits["rank"]
    assert listed[0] in hits
    assert list(reversed(hits)) == listed[::-1]


@pytest.mark.parametrize(
    "part", [slice(2, 5), slice(None), slice(-3, None), slice(None, None, -1), slice(1, 9, 3), slice(20, 30)]
)
def test_a_slice_is_hits_with_the_same_ranks(hits, part):
    some, listed = hits[part], list(hits)[part]
    assert isinstance(some, Hits)
    assert list(some) == listed
    assert some.ids == [hit.id for hit in listed]
    assert some.scores.tolist() == [hit.score for hit in listed]
    assert some.ranks.tolist() == [hit.rank for hit in listed]
    assert some.table["id"].to_pylist() == some.ids
    assert (some.query, some.note, some.exact) == (hits.query, hits.note, hits.exact)


def test_equal_hits_are_equal_and_others_not(index, hits):
    again = index.search(vector=np.ones(56), k=12)
    assert hits == again
    assert hits[:3] == again[:3]
    assert hits[:3] != hits[1:4]
    assert hits != index.search(vector=-np.ones(56), k=12)
    assert hits != "hits"
    assert [hits, again].count(again) == 2
    with pytest.raises(TypeError):
        hash(hits)


def test_a_missing_number_is_equal_to_itself():
    def made(cells):
        table = pa.table({"id": ["a", "b"], "x": pa.array(cells), "y": [[1.0], [float("nan"), 2.0]]})
        one = np.ones(2)
        return Hits(one.astype(np.float32), one.astype(int), one.astype(int), table, ["a", "b"])

    assert made([float("nan"), None]) == made([float("nan"), None])
    assert made([float("nan"), None]) != made([None, float("nan")])
    assert made([float("nan"), 0.0]) != made([float("nan"), None])
    assert made([1, 2]) != made(["1", "2"])


def test_the_table_has_rank_and_score_of_the_hits(hits):
    table = hits.table
    assert table.column_names[:3] == ["rank", "score", "id"]
    assert table["rank"].to_pylist() == list(range(1, 13))
    assert table["score"].to_pylist() == hits.scores.tolist()
    assert {"rank_meta", "score_meta"} <= set(table.column_names)
    assert table["score_meta"].to_pylist() == [hit.metadata["score_meta"] for hit in hits]
    assert hits[3:3].table.schema == table.schema


def test_pandas_keeps_whole_numbers_whole(hits):
    frame = hits.to_pandas()
    assert frame["rank"].tolist() == list(range(1, 13))
    assert frame["id"].tolist() == hits.ids
    assert str(frame["visits"].dtype) == "Int64"
    assert frame["visits"].isna().sum() == 1
    assert str(frame["score_meta"].dtype) == "int64"
    assert str(frame["score"].dtype) == "float32"


def test_polars(hits):
    pytest.importorskip("polars")
    frame = hits.to_polars()
    assert frame["id"].to_list() == hits.ids
    assert frame.columns == hits.table.column_names


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_is_named_with_its_pip_line(hits, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{package} is not installed; install it with `pip install {package}`"):
        getattr(hits, f"to_{package}")()


def test_hits_travel_without_the_index(index, hits):
    shutil.rmtree(index.path)
    assert pickle.loads(pickle.dumps(hits)) == hits


class TestNotebook:
    def test_pictures_and_text_of_the_hits(self, hits):
        page = hits[:3]._repr_html_()
        assert page.count("<img ") == page.count("data:image/jpeg;base64,") == 3
        assert "<script" not in page
        assert "\u202e" not in page
        assert "&lt;script&gt;" in page
        assert all(hit.id in page for hit in hits[:3])

    def test_it_is_bounded(self, index, archive, fake_encoder):
        for number in range(20):
            shutil.copy(archive / "healthy/000.png", archive / f"healthy/copy{number}.png")
        index = Index.build(archive, index.path, encoder=fake_encoder)
        page = index.search(vector=np.ones(56), k=30)._repr_html_()
        assert page.count("<img ") == 12
        assert "and 18 more" in page

    def test_a_missing_archive_or_file_is_said(self, index, archive):
        (archive / "healthy/000.png").unlink()
        (archive / "healthy/002.tif").write_bytes(b"II*\0 no longer a picture")
        page = index.search(vector=np.ones(56), k=12)._repr_html_()
        assert page.count("<img ") == 10
        assert page.count("not on this machine") == 2
        shutil.rmtree(archive)
        page = index.search(vector=np.ones(56), k=12)._repr_html_()
        assert page.count("not on this machine") == 12

    def test_no_folder_of_this_machine(self, index, archive, tmp_path):
        asked = tmp_path / "it's here" / "x y.png"
        asked.parent.mkdir()
        shutil.copy(archive / "healthy/000.png", asked)
        hits = index.search(Query.image(asked) + Query.image(archive / "healthy/004.webp"), exclude_same={"dose": 99.0})
        assert str(tmp_path) in hits.query
        page = hits._repr_html_()
        assert str(tmp_path) not in page
        assert "x y.png" in page
        assert "004.webp" in page

    def test_no_hits(self, index):
        assert "no hits" in index.search(vector=np.ones(56), where="dose > 99")._repr_html_()


def test_hits_have_all_that_a_sequence_has(hits):
    assert isinstance(hits, Sequence)
    assert hits.index(hits[3]) == 3
    assert hits.count(hits[3]) == 1
    assert hits[3] in hits
    assert [hit.rank for hit in reversed(hits)] == list(range(12, 0, -1))
    with pytest.raises(IndexError, match=r"there is no hit \[12\]: the answer has 12"):
        hits[12]
    for wrong in ("a", None, [0, 1], 1.0, np.array([0]), np.arange(3)):
        with pytest.raises(TypeError, match=f"by a number or a slice, got {type(wrong).__name__}"):
            hits[wrong]
    assert hits[np.int64(2)] == hits[2]


def test_hits_are_compared_with_anything_without_an_error(hits):
    for other in (np.arange(3), np.arange(12), hits.scores, hits.table, hits.to_pandas(), hits.to_polars(), [*hits], 3):
        assert (hits == other) is False
        assert (hits != other) is True
    assert (np.arange(12) == hits) is False
    assert hits == mock.ANY
