"""The map: kept, filled up with new rows, named by labels, purged, and written for others."""

from __future__ import annotations

import io
import json
import re
import sys
import types
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retr.index.errors import MissingExtraError, RetrError, UsageError
from retr.retrieval.curation.map import FILE
from retr.retrieval.curation.map_clusters import find_clusters, name_clusters
from retr.retrieval.curation.map_page import page, write_map
from retr.retrieval.index import Index

CLASSES = ("cataract", "drusen", "</script>")


class Plain:
    """Stands for UMAP, which takes seconds to compile: the first two components that it is given."""

    def __init__(self, *, init: Any, **settings: Any) -> None:
        assert settings["random_state"] == 0
        self.init = init

    def fit_transform(self, parts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert len(parts) == len(self.init)
        return self.init


@pytest.fixture
def plain(monkeypatch):
    module = types.ModuleType("umap")
    module.UMAP = Plain
    monkeypatch.setitem(sys.modules, "umap", module)


@pytest.fixture
def index(tmp_path):
    """Sixty rows of three classes."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    table = {"id": [f"r{at:02d}" for at in range(60)], "label": [CLASSES[code] for code in codes], "x": list(range(60))}
    vectors = np.eye(8)[codes] + rng.normal(0, 0.05, (60, 8))
    return Index.from_vectors(vectors, table, tmp_path / "index", encoder="m", fingerprint="1")


def add(index: Index, vectors: Any, names: list[str]) -> None:
    import pyarrow as pa

    with index.store.writer() as writer:
        writer.append(pa.table({"id": names, "label": ["drusen"] * len(names)}), np.asarray(vectors))
        writer.commit()
    index.refresh()


@pytest.mark.usefixtures("plain")
class TestMap:
    def test_alike_rows_lie_together_and_clusters_have_their_names(self, index):
        drawn = index.map()
        assert (drawn.xy.shape, drawn.xy.dtype, len(drawn)) == ((60, 2), np.float32, 60)
        assert sorted(drawn.names) == sorted(CLASSES)
        inside = drawn.clusters >= 0
        named = np.array(drawn.names)[drawn.clusters[inside]]
        assert (named == np.array(drawn.labels)[inside]).all()
        assert inside.mean() > 0.9

    def test_it_is_kept_and_the_same_when_made_again(self, index):
        with pytest.raises(RetrError, match="no map"):
            index.map(fit=False)
        drawn, version = index.map(), index.version
        assert FILE in index.store.manifest.files
        assert index.map(fit=False).xy.tobytes() == drawn.xy.tobytes() == index.map().xy.tobytes()
        assert index.version == version
        assert index.map(refit=True).xy.tobytes() == drawn.xy.tobytes()
        assert Index.open(index.path).check() == []

    def test_new_rows_are_placed_beside_their_like_and_the_others_stay(self, index):
        before = index.map()
        add(index, np.eye(8)[[1, 1]] + 0.01, ["new-a", "new-b"])
        assert index.store.check() == []
        from retr.index.rows.check import stale

        assert any("2 rows have no place on the map" in phrase for phrase in stale(index.store))
        version = index.version
        unsaved = index.map(fit=False)
        assert index.version == version
        after = index.map()
        assert index.version == version + 1
        assert after.xy.tobytes() == unsaved.xy.tobytes()
        assert after.xy[:60].tobytes() == before.xy.tobytes()
        assert after.placed.tolist() == [False] * 60 + [True] * 2
        assert {after.names[one] for one in after.clusters[60:]} == {"drusen"}
        middle = before.xy[np.array(before.labels) == "drusen"].mean(axis=0)
        assert np.linalg.norm(after.xy[60] - middle) < 0.2 * np.ptp(before.xy)
        assert not any("map" in phrase for phrase in stale(index.store))

    def test_deleted_rows_leave_it_and_a_purge_drops_it(self, index):
        from retr.retrieval.deletion import delete

        before = index.map()
        index.delete(ids=["r00"])
        index.compact()
        assert index.map(fit=False).xy.tobytes() == before.xy[1:].tobytes()
        done = delete(index, ids=["r01"], purge=True)
        assert any("the map" in phrase for phrase in done.dropped)
        assert FILE not in index.store.manifest.files
        assert index.check() == []

    def test_a_damaged_file_is_said(self, index):
        from retr.index.errors import IndexCorruptError
        from retr.retrieval.curation.map import MapKind

        index.map()
        with index.store.writer() as writer:
            writer.add_file(FILE, b"nothing", kind=MapKind())
            writer.commit()
        index.refresh()
        with pytest.raises(IndexCorruptError, match="retr map --refit"):
            index.map()
        assert [finding.file for finding in index.check()]
        index.map(refit=True)
        assert index.check() == []

    def test_what_is_written_for_others(self, index, tmp_path):
        drawn = index.map()
        write_map(drawn, index.store, tmp_path / "map.parquet")
        table = pq.read_table(tmp_path / "map.parquet")
        assert {"id", "label", "x", "y", "cluster", "x_of_row"} <= set(table.column_names)
        assert np.array_equal(table["x"].to_numpy(), drawn.xy[:, 0])
        assert table["x_of_row"].to_pylist() == list(range(60))
        write_map(drawn, index.store, tmp_path / "map.html")
        text = (tmp_path / "map.html").read_text()
        # a label cannot end the script that holds it, and nothing is fetched
        assert text.count("</script>") == 2
        assert not re.search(r"https?://|src=|@import", text)
        held = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
        assert set(held["values"]) == set(CLASSES)
        assert held["ids"] == drawn.ids

    def test_a_picture_of_it(self, index, tmp_path):
        pytest.importorskip("matplotlib")
        write_map(index.map(), index.store, tmp_path / "map.png")
        shown = np.asarray(Image.open(io.BytesIO((tmp_path / "map.png").read_bytes())).convert("RGB"))
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 10

    def test_what_is_refused(self, index, tmp_path):
        with pytest.raises(UsageError, match="labl"):
            index.map("labl")
        with pytest.raises(UsageError, match=r"a map is written as .html, .png, .parquet, got 'map.svg'"):
            write_map(index.map(), index.store, tmp_path / "map.svg")
        few = Index.from_vectors(np.eye(4), {"id": list("abcd")}, tmp_path / "few", encoder="m", fingerprint="1")
        with pytest.raises(UsageError, match="at least 20 rows, the index has 4"):
            few.map()
        assert page(index.map()).startswith("<!doctype html>")


def test_umap_is_asked_for(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"umap-learn is not installed.*retr\[eval\]"):
        index.map()


@pytest.mark.slow
def test_with_umap_itself(index):
    pytest.importorskip("umap")
    drawn = index.map()
    assert sorted(drawn.names) == sorted(CLASSES)
    assert index.map(refit=True).xy.tobytes() == drawn.xy.tobytes()


def test_clusters_without_labels_and_of_one_name():
    xy = np.concatenate([np.random.default_rng(0).normal(at, 0.1, (30, 2)) for at in (0, 5, 10)]).astype(np.float32)
    xy = np.concatenate([xy, [[100, 100]]]).astype(np.float32)
    clusters = find_clusters(xy, [str(at) for at in range(91)])
    assert (clusters.max(), clusters[90]) == (2, -1)
    assert name_clusters(clusters, [()] * 91) == ("cluster (1)", "cluster (2)", "cluster (3)")
    assert name_clusters(clusters, [("a",)] * 91) == ("mixed (1)", "mixed (2)", "mixed (3)")
    assert find_clusters(xy[:4], list("abcd")).tolist() == [-1] * 4
