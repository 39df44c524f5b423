"""Engines of approximate search side by side: how each builds its files, and how each serves from them.

Each is one thread. What a process needs to serve is all that it loads: building happens in another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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


# SVS compresses vectors on Intel's processors alone.
def _svs_compresses() -> bool:
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def _build_svs(vectors: NDArray[np.float32], folder: Path) -> None:
    """Build a graph over LeanVec codes (8 bits, fewer dimensions, then all) or, where there are none, over float16."""
    import svs

    dim = vectors.shape[1]
    parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=200)
    if _svs_compresses():
        source = folder / "source.fvecs"
        svs.write_vecs(np.array(vectors), str(source))
        loader = svs.VectorDataLoader(str(source), svs.float32, dim)
        bits = svs.LeanVecKind.lvq8
        data = svs.LeanVecLoader(loader, max(128, 5 * dim // 16), primary_kind=bits, secondary_kind=bits)
        index = svs.Vamana.build(parameters, data, svs.DistanceType.MIP, num_threads=1)
        source.unlink()
    else:
        index = svs.Vamana.build(parameters, np.array(vectors, np.float16), svs.DistanceType.MIP, num_threads=1)
    index.save(*(str(folder / part) for part in ("config", "graph", "data")))


def _serve_svs(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:
    import svs

    compressed = _svs_compresses()
    data = str(folder / "data")
    loader = svs.LeanVecLoader(data) if compressed else svs.VectorDataLoader(data, svs.float16, dim)
    graph = svs.GraphLoader(str(folder / "graph"))
    index = svs.Vamana(str(folder / "config"), graph, loader, svs.DistanceType.MIP, num_threads=1)
    form = f"LeanVec {max(128, 5 * dim // 16)}, " if compressed else "float16, "
    for effort in (10, 12, 14, *_EFFORTS):
        # More are scored again from all dimensions than are looked at in few.
        for capacity in (effort, 3 * effort // 2, 2 * effort) if compressed else (effort,):
            index.search_parameters = svs.VamanaSearchParameters(svs.SearchBufferConfig(effort, capacity))
            yield f"{form}window {effort}, {capacity}", lambda queries: index.search(queries, K)[0].astype(np.int64)


def _build_zvec(vectors: NDArray[np.float32], folder: Path) -> None:
    import zvec

    zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
    kind = zvec.HnswIndexParam(zvec.MetricType.IP, m=16, ef_construction=200, quantize_type=zvec.QuantizeType.INT8)
    field = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, vectors.shape[1], index_param=kind)
    index = zvec.create_and_open(str(folder / "index"), zvec.CollectionSchema("benchmark", vectors=[field]))
    for start in range(0, len(vectors), 1000):
        part = enumerate(vectors[start : start + 1000], start)
        index.insert([zvec.Doc(str(number), vectors={"vector": vector}) for number, vector in part])
    index.flush()
    index.optimize()
    index.close()


def _serve_zvec(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:  # noqa: ARG001 - one signature for all
    import zvec

    zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
    index = zvec.open(str(folder / "index"), zvec.CollectionOption(read_only=True))
    # It answers with numbers of its own, which are rows in the order of insertion.
    count = index.stats.doc_count
    for start in range(0, count, 10_000):
        own = range(start, min(start + 10_000, count))
        if index.resolve_internal_ids(np.array(own)) != [str(number) for number in own]:
            raise SystemExit("zvec numbers its rows in another order than they came in")
    for effort in _EFFORTS:
        how = zvec.HnswQueryParam(ef=effort, is_using_refiner=True)

        def search(queries: NDArray[np.float32], how: Any = how) -> NDArray[np.int64]:
            asked = (zvec.Query("vector", vector=query, param=how) for query in queries)
            return np.stack([index.query_internal_ids(query, topk=K) for query in asked])

        yield f"int8, M 16, ef {effort}", search


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
    "svs": Engine(_build_svs, _serve_svs),
    "zvec": Engine(_build_zvec, _serve_zvec),
    "autofaiss": Engine(_build_autofaiss, _serve_autofaiss),
}
