"""Copies among many: no cluster is so large that its parts are not found to be one."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.audit import copies
from retr.retrieval.audit.clusters import components
from retr.retrieval.audit.copies import find_copies

DIM = 8
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)


class Shown:
    """What pictures show, a number each; -1 cannot be read."""

    def __init__(self, shows):
        self.shows = shows

    def hashes(self, chosen):
        # each in the left half of 32 x 32 places: no other's mirror image
        hashes = np.eye(512, dtype=np.float32).reshape(512, 32, 16)
        hashes = np.concatenate([hashes, np.zeros_like(hashes)], axis=2).reshape(512, 1024)
        return {at: None if self.shows[at] < 0 else hashes[self.shows[at]] for at in chosen}


def store_of(path, vectors):
    import pyarrow as pa

    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        writer.append(pa.table({"id": [f"{i:04d}" for i in range(len(vectors))]}), unit(vectors).astype(np.float32))
        return writer.commit()


def find(store, shows, threshold):
    rows = store.live_rows()
    return find_copies(store, rows, np.arange(len(rows)), Shown(shows), threshold)


def same(labels):
    return np.asarray(labels)[:, None] == np.asarray(labels)


@pytest.mark.parametrize(
    ("sizes", "batch"), [((20, 20), 256), ((17, 1), 256), ((40, 30, 25), 256), ((40, 30, 25), 20), ((3, 100), 20)]
)
def test_clusters_of_more_copies_than_are_compared_at_a_time(tmp_path, monkeypatch, sizes, batch):
    """Each encoding's copies are nearest to each other; only beyond them lie those of the other encodings."""
    vectors = np.concatenate([np.tile(np.eye(DIM)[0] + 0.1 * np.eye(DIM)[1 + i], (n, 1)) for i, n in enumerate(sizes)])
    monkeypatch.setattr(copies, "_BATCH", batch)
    vectors += 1e-4 * np.random.default_rng(0).normal(size=vectors.shape)
    found = find(store_of(tmp_path / "x.retr", vectors), [0] * len(vectors), 0.9)
    assert same(components(len(vectors), found.edges)).all()


def test_rows_with_too_many_candidates_are_counted(tmp_path):
    """Forty pictures that the encoder takes for one, and none a copy: of each only the nearest are compared."""
    vectors = np.eye(DIM)[0] + 1e-3 * np.random.default_rng(0).normal(size=(40, DIM))
    found = find(store_of(tmp_path / "x.retr", vectors), list(range(40)), 0.9)
    assert (found.edges, found.stopped, found.unreadable) == ({}, 40, 0)
    assert 40 * 16 / 2 <= found.candidates <= 40 * 16
    assert find(store_of(tmp_path / "y.retr", vectors[:16]), list(range(16)), 0.9).stopped == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 3)), min_size=1, max_size=16), st.randoms())
@settings(max_examples=25, deadline=None)
def test_as_all_pairs(tmp_path_factory, rows, random):
    """Where everything fits into one look: against comparing all pairs."""
    places, shows = zip(*rows, strict=True)
    noise = np.random.default_rng(random.randrange(1 << 30)).normal(size=(len(rows), DIM))
    vectors = unit(np.eye(DIM)[list(places)] + 0.05 * noise).astype(np.float32)
    found = find(store_of(tmp_path_factory.mktemp("all") / "x.retr", vectors), shows, 0.8)
    cosines = vectors @ vectors.T
    candidates = [(a, b) for a, b in combinations(range(len(rows)), 2) if cosines[a, b] >= 0.8]
    assert found.candidates == len(candidates)
    assert sorted(found.edges) == [(a, b) for a, b in candidates if shows[a] == shows[b] >= 0]
    compared = {at for pair in candidates for at in pair}
    assert found.unreadable == sum(shows[at] < 0 for at in compared)
