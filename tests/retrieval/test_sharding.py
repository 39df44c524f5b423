"""An index in shards is the same index: its answers, its tables, and whatever is fitted on its rows."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from retr import Index, Query
from retr.index import tune
from retr.index.accelerators import faiss_index
from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def pair(tmp_path, fake_encoder) -> tuple[Index, Index]:
    """Rows in an order that is not that of their ids, in one folder and in three shards."""
    rng = np.random.default_rng(0)
    n, dim = 120, fake_encoder.info.dim
    order, classes = rng.permutation(n), rng.integers(0, 3, n)
    vectors = rng.normal(size=(3, dim))[classes] + 1.5 * rng.normal(size=(n, dim))
    # what ties
    vectors[-10:] = vectors[:10]
    table = pa.table(
        {
            "id": [f"r{i:03}" for i in order],
            "patient": [f"P{i // 3}" if i % 11 else None for i in order],
            "label": ["abc"[one] for one in classes],
            "caption": [f"{'abc'[one]} eye {i % 5}" for one, i in zip(classes, order, strict=True)],
            "age": [int(i % 60) for i in order],
        }
    )
    one = Index.from_vectors(vectors, table, tmp_path / "one/index", encoder=fake_encoder, group="patient")
    shutil.copytree(tmp_path / "one", tmp_path / "shards")
    other = Index.open(tmp_path / "shards/index", encoder=fake_encoder)
    assert len(other.shard(3).rows) == 3
    return one, other


def by_id(index: Index) -> tuple[list[dict[str, Any]], bytes]:
    rows = index.store.rows_of(sorted(index))
    return index.store.table(rows=rows).to_pylist(), index.store.vectors(rows).tobytes()


def asked(index: Index, **options: Any) -> list[Any]:
    queries = [Query.id(f"r{i:03}") for i in (1, 5, 60, 62)]
    queries += [Query.id("r005") - 0.5 * Query.id("r070"), Query.vector(np.ones(index.store.manifest.encoder.dim))]
    hits = index.search(queries, **options)
    return [(one.ids, np.asarray(one.scores).tobytes(), [hit.metadata for hit in one]) for one in hits]


def test_answers_are_the_same(pair):
    one, other = pair
    for options in (
        {"k": 120},
        {"k": 9, "where": "age < 30 and label != 'b'"},
        {"k": 9, "one_per": "patient", "min_score": 0.1},
        {"k": 5, "one_per": "label", "where": "age > 5"},
    ):
        assert asked(one, **options) == asked(other, **options)
    for name in ("r001", "r101"):
        found = [index.search(id=name, k=20, exclude_same="patient") for index in pair]
        assert found[0].ids == found[1].ids
    one.delete(where="age = 7")
    other.delete(where="age = 7")
    assert asked(one, k=50) == asked(other, k=50)
    one.delete(where="age = 8", purge=True)
    other.delete(where="age = 8", purge=True)
    assert asked(one, k=50) == asked(other, k=50)
    other.compact()
    assert by_id(one) == by_id(other)
    assert other.check() == []
    assert (other.info()["shards"], one.info()["shards"], other.info()["format"]) == (3, 1, 3)


FITS: dict[str, Callable[[Index], Any]] = {
    "retrieval": lambda index: repr(index.evaluate("retrieval", "label")),
    "probe": lambda index: repr(index.evaluate("probe", "label")),
    "calibrate": lambda index: repr(index.calibrate("label")),
    "by neighbours": lambda index: (index.classify_rows(by="label"), by_id(index))[1],
    "by a probe": lambda index: (index.classify_rows(probe="label"), by_id(index))[1],
    "outliers": lambda index: list(index.outliers(30)),
    "suspects": lambda index: list(index.suspects("label")),
    "align": lambda index: (index.align("caption"), index.bridge.matrix.tobytes())[1],
    "refit": lambda index: (index.refit(), by_id(index), index.store.file("transform.npz"))[1:],
}


def test_what_is_fitted_is_the_same_to_the_bit(pair, tmp_path, fake_encoder):
    for name, fit in FITS.items():
        assert fit(pair[0]) == fit(pair[1]), name
    adapted = []
    for index, path in zip(pair, ("a", "b"), strict=True):
        index.adapt("label", tmp_path / path)
        adapted.append(by_id(Index.open(tmp_path / path)))
    assert adapted[0] == adapted[1]


def test_a_build_in_shards_goes_on_in_them(make_archive, tmp_path, make_encoder):
    archive = make_archive(30)
    how: dict[str, Any] = {"metadata": archive / "labels.csv", "group": "patient", "commit_rows": 7}
    one = Index.build(archive, tmp_path / "one", encoder=make_encoder(), **how)
    other = Index.build(archive, tmp_path / "shards", encoder=make_encoder(), shards=4, **how)
    assert by_id(one) == by_id(other)
    assert other.info()["shards"] == 4
    # one patient's rows lie together
    for index, encoder in ((one, make_encoder()), (other, make_encoder())):
        (archive / "healthy" / "000.png").unlink(missing_ok=True)
        again = Index.build(archive, index.path, encoder=encoder, prune=True, **how)
        assert (again.report.unchanged, again.report.removed, encoder.encoded) == (29, 1, 0)
        (archive / "healthy" / "000.png").touch()
        (archive / "healthy" / "000.png").unlink()
    one.refresh()
    other.refresh()
    assert by_id(one) == by_id(other)
    with pytest.raises(UsageError, match=r"has 4 shards, got: 2"):
        Index.build(archive, other.path, encoder=make_encoder(), shards=2)
    with pytest.raises(UsageError, match=r"has 1 shard, got: 4"):
        Index.build(archive, one.path, encoder=make_encoder(), shards=4)


def test_shards_that_cannot_be_meant_leave_nothing(archive, tmp_path, fake_encoder):
    with pytest.raises(UsageError, match="from 1 to 1024 shards"):
        Index.build(archive, tmp_path / "new", encoder=fake_encoder, shards=0)
    assert not (tmp_path / "new").exists()


def test_the_recall_that_tuning_promises_is_that_of_all_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(faiss_index, "MIN_ROWS", 500)
    monkeypatch.setattr(tune, "MIN_ROWS", 500)
    monkeypatch.setattr(tune, "EXACT_SECONDS", 0.0)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 16))[rng.integers(0, 40, 1300)] + 0.5 * rng.normal(size=(1300, 16))
    table = {"id": [f"r{i}" for i in range(len(vectors))]}
    index = Index.from_vectors(vectors, table, tmp_path / "i", encoder="mine", fingerprint="1")
    index.shard(2)
    tuned = index.tune(recall=0.9)
    assert all(info.accelerator for info in index.store.manifest.segments), tuned.reason
    asked = (vectors[::13] + 0.05 * rng.normal(size=(100, 16))).astype(np.float32)
    fast, exact = (index.store.search(asked, 10, exact=how).rows.tolist() for how in (False, True))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(fast, exact, strict=True)]) / 10 >= 0.9
    # each shard alone has its own part of it
    assert not Index.open(index.path / "shards/0001").store.search(asked, 10).exact
    assert index.shard(1).accelerators == 2
    assert index.store.search(asked, 10).exact
