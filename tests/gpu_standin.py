"""faiss's GPU classes on the CPU: the same names, arguments and limits, to test the logic above them anywhere.

As the real ones do they hold float16, ignore selectors without a word, refuse k above 2,048, and run out of memory.
`SIGNATURES` says which of faiss's own names are stood in for; a test compares them with faiss-gpu
where that is installed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pytest

MAX_K = 2048
# Names, and the fields of the configurations that are set.
SIGNATURES = {
    "GpuIndexFlatConfig": ("device", "useFloat16", "use_cuvs"),
    "GpuIndexFlatIP": ("add", "search", "ntotal"),
    "StandardGpuResources": (),
    "get_num_gpus": (),
    "GpuClonerOptions": ("use_cuvs", "allowCpuCoarseQuantizer"),
    "index_cpu_to_gpu": (),
}
# Only where faiss was built with cuVS.
CUVS_SIGNATURES = {
    "GpuIndexCagraConfig": ("device", "graph_degree", "intermediate_graph_degree"),
    "GpuIndexCagra": ("train", "search", "ntotal"),
    "SearchParametersCagra": ("itopk_size",),
}


class Gpus:
    """Pretended GPUs.

    Attributes
    ----------
    count
        How many.
    free
        Free bytes of each, or ``None`` where they cannot be asked.
    batch
        The most queries a search has memory for.
    repeats
        Whether a graph gives its best row twice.
    asked
        The k of every search.
    placed
        The GPU of every index made, in order.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, count: int, *, free: int | None = None, cuvs: bool = False
    ) -> None:
        import faiss

        from retr.index.gpu import devices

        self.faiss, self.count, self.free, self.batch = faiss, count, free, 10**9
        self.repeats = False
        self.asked: list[int] = []
        self.placed: list[int] = []
        fakes = {
            "get_num_gpus": lambda: self.count,
            "StandardGpuResources": object,
            "GpuIndexFlatConfig": lambda: SimpleNamespace(device=0, useFloat16=False, use_cuvs=False),
            "GpuIndexFlatIP": self._flat,
            "GpuClonerOptions": lambda: SimpleNamespace(use_cuvs=True, allowCpuCoarseQuantizer=False),
            "index_cpu_to_gpu": self._clone,
        }
        assert fakes.keys() == SIGNATURES.keys()
        if cuvs:
            fakes |= {
                "GpuIndexCagraConfig": lambda: SimpleNamespace(
                    device=0, graph_degree=64, intermediate_graph_degree=128
                ),
                "GpuIndexCagra": lambda _, dim, metric, config: _Graph(
                    self, faiss.IndexFlat(dim, metric), config.device
                ),
                "SearchParametersCagra": lambda: SimpleNamespace(itopk_size=64),
            }
            assert fakes.keys() == SIGNATURES.keys() | CUVS_SIGNATURES.keys()
        monkeypatch.setattr(faiss, "get_compile_options", lambda: "OPTIMIZE GPU CUVS" if cuvs else "OPTIMIZE GPU")
        for name, fake in fakes.items():
            monkeypatch.setattr(faiss, name, fake, raising=False)
        monkeypatch.setattr(devices, "free_bytes", lambda number: self.free)

    def _flat(self, resources: object, dim: int, config: SimpleNamespace) -> _Index:
        assert config.useFloat16
        assert not config.use_cuvs
        faiss = self.faiss
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        return _Index(self, index, config.device)

    def _clone(self, resources: object, device: int, index: Any, options: SimpleNamespace) -> _Lists:
        assert not options.use_cuvs
        if not isinstance(index, self.faiss.IndexIVFScalarQuantizer):
            raise RuntimeError("Error: This index type is not implemented on GPU.")
        return _Lists(self, self.faiss.clone_index(index), device)


class _Index:
    def __init__(self, gpus: Gpus, index: Any, device: int) -> None:
        assert 0 <= device < gpus.count
        self._gpus, self._index = gpus, index
        gpus.placed.append(device)

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: np.ndarray) -> None:
        assert vectors.dtype == np.float32
        assert self.ntotal == 0, "a second add moves all that is there"
        self._index.add(vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self._require(queries, k)
        # the real ones round the queries to float16 as well
        return self._index.search(queries.astype(np.float16).astype(np.float32), k)

    def _require(self, queries: np.ndarray, k: int) -> None:
        if k > MAX_K:
            raise RuntimeError(f"Error: GPU index only supports min/max-K selection up to {MAX_K} (requested {k})")
        if len(queries) > self._gpus.batch:
            raise RuntimeError("Error: StandardGpuResources: alloc fail type TemporaryMemoryOverflow\n")
        self._gpus.asked.append(k)


class _Lists(_Index):
    def search(self, queries: np.ndarray, k: int, *, params: Any) -> tuple[np.ndarray, np.ndarray]:
        self._require(queries, k)
        assert params.nprobe <= MAX_K
        return self._index.search(queries, k, params=params)


class _Graph(_Index):
    def train(self, vectors: np.ndarray) -> None:
        self.add(vectors)

    def search(self, queries: np.ndarray, k: int, *, params: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
        self._require(queries, k)
        assert k <= params.itopk_size <= 512
        assert params.itopk_size % 32 == 0
        scores, rows = self._index.search(queries, k)
        if self._gpus.repeats:
            scores[:, -1], rows[:, -1] = scores[:, 0], rows[:, 0]
        return scores, rows
