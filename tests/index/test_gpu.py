"""The scan on GPUs: the same answers as on the CPU. Its logic is tested everywhere, with float16 shards on the CPU."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index import gpu
from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.store import Store

faiss = pytest.importorskip("faiss")
N_GPUS = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


@pytest.fixture
def store(tmp_path) -> Store:
    info = EncoderInfo("fake", 32, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    created = Store.create(tmp_path / "index", encoder=info)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 32))
    vectors = centres[rng.integers(0, 40, 5000)] + 0.5 * rng.standard_normal((5000, 32))
    vectors[100:160] = vectors[100]
    table = pa.table({"id": [f"{i:05d}" for i in range(5000)], "patient": [f"p{i // 4}" for i in range(5000)]})
    with created.writer() as writer:
        writer.append(table.slice(0, 3000), vectors[:3000])
        writer.commit()
        writer.append(table.slice(3000), vectors[3000:])
        writer.delete(np.arange(0, 3000, 9))
        return writer.commit()


def pretend(monkeypatch, devices: int) -> list[int]:
    """Put shards on the CPU, as float16, that ignore selectors as the real ones do; record the k asked for."""
    asked: list[int] = []

    class Shard:
        def __init__(self, dim: int) -> None:
            self.index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

        @property
        def ntotal(self) -> int:
            return self.index.ntotal

        def add(self, vectors: np.ndarray) -> None:
            self.index.add(vectors)

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            asked.append(k)
            return self.index.search(queries, k)

    monkeypatch.setattr(gpu, "_flat", lambda _, dim, device: Shard(dim))
    monkeypatch.setattr(gpu.load_faiss(), "get_num_gpus", lambda: devices, raising=False)
    return asked


def compare(store: Store) -> None:
    placed = Store.open(store.path)
    placed.place("cuda")
    assert placed.gpu is not None
    queries = np.random.default_rng(1).standard_normal((30, 32)).astype(np.float32)
    queries[:5] = store.vectors(np.array([100, 101, 1, 4000, 2]))
    mask = np.random.default_rng(2).random(store.n_total) < 0.6
    exclude = [np.random.default_rng(i).integers(0, store.n_total, 50) for i in range(30)]
    for options in (
        {"k": 10},
        {"k": 70},
        {"k": 3000},
        {"k": 10, "mask": mask, "exclude": exclude},
        {"k": 10, "where": "patient < 'p11'"},
        {"k": 10, "one_per": "patient", "min_score": 0.1},
    ):
        plain, fast = store.search(queries, **options), placed.search(queries, **options)
        np.testing.assert_array_equal(fast.rows, plain.rows)
        np.testing.assert_array_equal(fast.scores, plain.scores)
        assert fast.exact


@pytest.mark.parametrize("devices", [1, 3])
def test_the_answers_are_those_of_the_cpu(store, monkeypatch, devices):
    monkeypatch.setattr(gpu, "_BATCH", 7)
    monkeypatch.setattr(gpu, "_CHUNK_ROWS", 900)
    asked = pretend(monkeypatch, devices)
    compare(store)
    assert asked
    assert max(asked) <= gpu.MAX_K


@pytest.mark.gpu
@pytest.mark.skipif(N_GPUS == 0, reason="faiss sees no GPU")
def test_a_real_gpu_gives_the_answers_of_the_cpu(store):
    compare(store)


def test_without_a_gpu_the_choice_is_said_or_quietly_the_cpu(store, monkeypatch):
    monkeypatch.setattr(gpu.load_faiss(), "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(UsageError, match="no GPU"):
        store.place("cuda")
    store.place("auto")
    assert store.gpu is None
    with pytest.raises(UsageError, match="'tpu'"):
        store.place("tpu")
