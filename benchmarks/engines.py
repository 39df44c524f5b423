"""Engines of approximate search side by side: how each builds its files, and how each serves from them.

Each is one thread. What a process needs to serve is all that it loads: building happens in another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

K = 10
Search: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.int64]]
_EFFORTS = (16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128, 160, 192, 256, 512)


@dataclass(frozen=True)
class Engine:
    """``build(vectors (n, d), folder)`` writes its files; ``serve(folder, d)`` gives settings of growing cost."""

    build: Callable[[NDArray[np.float32], Path], None]
    serve: Callable[[Path, int], Iterator[tuple[str, Search]]]


def _build_retr(vectors: NDArray[np.float32], folder: Path) -> None:
    from functools import partial

    from retr.index.accelerators.config import IVF, to_json
    from retr.index.accelerators.faiss_index import train
    from retr.index.disk.manifest import TUNING
    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store

    dim = vectors.shape[1]
    info = EncoderInfo("benchmark", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    with Store.create(folder, encoder=info, dtype="float16").writer() as writer:
        for start in range(0, len(vectors), 50_000):
            part = vectors[start : start + 50_000]
            writer.append(pa.table({"id": [str(number) for number in range(start, start + len(part))]}), part)
        writer.commit()
        writer.compact()
        for position, segment in enumerate(writer.store.segments):
            writer.accelerate(position, partial(train, segment.vectors, IVF(), budget=2 << 30))
        writer.note(TUNING, {"index": to_json(IVF()), "recall": 0.0})
        writer.commit()


def _serve_retr(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    from retr.index.accelerators.config import IVF
    from retr.index.store import Store

    store = Store.open(folder)
    grid = itertools.product(
        (4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 96, 128), (2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20)
    )
    for probes, refine in sorted(grid, key=sum):
        store.plan.config = IVF(probes=probes, refine=refine)
        yield f"probes {probes}, refine {refine}", lambda queries: store.search(queries, K).rows


def _build_hnswlib(vectors: NDArray[np.float32], folder: Path) -> None:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.set_num_threads(1)
    index.add_items(vectors)
    index.save_index(str(folder / "index"))


def _serve_hnswlib(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:
    import hnswlib

    index = hnswlib.Index("ip", dim)
    index.load_index(str(folder / "index"))
    index.set_num_threads(1)
    for effort in _EFFORTS:
        index.set_ef(effort)
        yield f"M 16, ef {effort}", lambda queries: index.knn_query(queries, K)[0].astype(np.int64)


def _build_usearch(vectors: NDArray[np.float32], folder: Path) -> None:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(folder / "index"))


def _serve_usearch(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    from usearch.index import Index

    index = Index.restore(str(folder / "index"))
    for effort in _EFFORTS:
        index.expansion_search = effort
        yield (
            f"bf16, expansion {effort}",
            lambda queries: np.atleast_2d(index.search(queries, K, threads=1).keys).astype(np.int64),
        )


def _build_faiss_hnsw(vectors: NDArray[np.float32], folder: Path) -> None:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    index.add(vectors)
    faiss.write_index(index, str(folder / "index"))


def _serve_faiss_hnsw(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    import faiss

    index: Any = faiss.read_index(str(folder / "index"))
    for effort in _EFFORTS:
        index.hnsw.efSearch = effort
        yield f"M 16, efSearch {effort}", lambda queries: index.search(queries, K)[1]


def _build_fast_scan(codec: str) -> Callable[[NDArray[np.float32], Path], None]:
    """Return what builds inverted lists of 4-bit or 1-bit codes for faiss's fast scan, refined from float16."""

    def build(vectors: NDArray[np.float32], folder: Path) -> None:
        import faiss

        n, dim = vectors.shape
        lists = 4 * int(n**0.5)
        name = f"IVF{lists},PQ{dim // 4}x4fsr" if codec == "pq" else f"RR{dim},IVF{lists},RaBitQfs"
        index: Any = faiss.index_factory(dim, f"{name},Refine(SQfp16)", faiss.METRIC_INNER_PRODUCT)
        index.train(np.array(vectors[:: max(1, n // (48 * lists))]))
        index.add(np.array(vectors))
        faiss.write_index(index, str(folder / "index"))

    return build


def _serve_fast_scan(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    import faiss

    index: Any = faiss.read_index(str(folder / "index"))
    lists: Any = faiss.extract_index_ivf(index.base_index)
    grid = itertools.product((4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128), (4, 6, 10, 16, 24))
    for probes, refine in sorted(grid, key=sum):
        lists.nprobe, index.k_factor = probes, float(refine)
        yield f"probes {probes}, refine {refine}", lambda queries: index.search(queries, K)[1]


def _build_glass(vectors: NDArray[np.float32], folder: Path) -> None:
    import glass

    glass.Index("HNSW", "IP", "SQ8U", 32, 200).build(np.array(vectors)).save(str(folder / "index"))
    np.save(folder / "vectors.npy", vectors)


def _serve_glass(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    import glass

    glass.set_num_threads(1)
    searcher = glass.Searcher(glass.Graph(str(folder / "index")), np.load(folder / "vectors.npy"), "IP", "SQ8U", "FP16")
    searcher.optimize(1)

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        found = searcher.batch_search(queries, K, 1)
        rows = found[0] if isinstance(found, tuple) else found
        return np.asarray(rows, np.int64).reshape(len(queries), K)

    for effort in _EFFORTS:
        searcher.set_ef(effort)
        yield f"R 32, ef {effort}", search


def _build_autofaiss(vectors: NDArray[np.float32], folder: Path) -> None:
    from autofaiss import build_index

    build_index(
        np.array(vectors),
        save_on_disk=True,
        index_path=str(folder / "index"),
        index_infos_path=str(folder / "infos.json"),
        nb_cores=1,
    )


def _serve_autofaiss(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    import faiss

    index = faiss.read_index(str(folder / "index"))
    yield f"its own choice, {type(index).__name__}", lambda queries: index.search(queries, K)[1]


ENGINES: dict[str, Engine] = {
    "retr": Engine(_build_retr, _serve_retr),
    "hnswlib": Engine(_build_hnswlib, _serve_hnswlib),
    "usearch": Engine(_build_usearch, _serve_usearch),
    "faiss-hnsw": Engine(_build_faiss_hnsw, _serve_faiss_hnsw),
    "faiss-pq": Engine(_build_fast_scan("pq"), _serve_fast_scan),
    "faiss-rabitq": Engine(_build_fast_scan("rabitq"), _serve_fast_scan),
    "pyglass": Engine(_build_glass, _serve_glass),
    "autofaiss": Engine(_build_autofaiss, _serve_autofaiss),
}
