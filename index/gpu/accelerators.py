"""Accelerators on GPUs: inverted lists copied from the file that `tune` wrote, and CAGRA graphs built where they lie.

Like those of `retr.index.accelerators.faiss_index` they only propose rows, which are scored from the stored vectors,
and only to questions like those that they were tuned on; what is asked under a filter is searched exactly
(`retr.index.gpu.placement`).

IVF has a GPU form with the codecs ``sq8`` and ``fp16``; `HNSW` and the RaBitQ codecs have none, and on a GPU an index
tuned to those is searched exactly (`retr.index.gpu.faiss_scan`). CAGRA needs faiss built with cuVS. Rows are shared
among GPUs: each holds a range of every segment's.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import IVF, Cagra
from retr.index.accelerators.faiss_index import MIN_ROWS, Refined, load
from retr.index.accelerators.faiss_library import load_faiss
from retr.index.gpu import devices
from retr.index.scan import exact
from retr.index.types import Block, Candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.accelerators.faiss_index import Stored
    from retr.index.disk.segments import Segment
    from retr.index.types import Accelerator

# What faiss returns for a query, and the most lists it searches.
_MAX_IVF = 2048
# CAGRA keeps at most so many rows of a query in a processor's own memory.
_MAX_CAGRA = 512
# Intermediate results of an IVF search: a score and a number for every list searched and row wanted.
_TEMPORARY_BYTES = 512 << 20
_MAX_BATCH = 4096


def has_form(config: Config) -> bool:
    """Return whether what `tune` chose has a form on GPUs."""
    return isinstance(config, Cagra) or (isinstance(config, IVF) and config.codec in {"sq8", "fp16"})


def has_cagra() -> bool:
    """Return whether the faiss installed was built with cuVS."""
    faiss = load_faiss()
    return hasattr(faiss, "GpuIndexCagra") and "CUVS" in faiss.get_compile_options()


class GpuAccelerators:
    """The accelerators of a snapshot's segments on GPUs.

    Attributes
    ----------
    accelerators
        One for each segment; ``None`` where it has none, and is scanned.

    Raises
    ------
    RetrError
        They do not fit, or the accelerators' files are damaged.
    """

    def __init__(self, segments: Sequence[Segment], config: Config, numbers: Sequence[int]) -> None:
        faiss = load_faiss()
        needed = sum(_bytes(segment, config) for segment in segments) // len(numbers)
        what = f"the {type(config).__name__} accelerators of {sum(map(len, segments))} rows"
        devices.require_memory(numbers, [needed] * len(numbers), what)
        gpus = _Gpus([(number, faiss.StandardGpuResources()) for number in numbers])
        self.accelerators: list[Accelerator | None] = []
        with devices.gpu_errors("taking the accelerators"):
            for segment in segments:
                parts = None
                if isinstance(config, Cagra) and len(segment) >= MIN_ROWS:
                    parts = gpus.graphs(segment.vectors, config)
                elif isinstance(config, IVF) and isinstance(accelerator := segment.accelerator(load), Refined):
                    parts = gpus.lists(accelerator.base)
                self.accelerators.append(_GpuAccelerator(gpus, parts, segment.vectors) if parts else None)


class _Gpus:
    """Some GPUs, each with faiss's resources for it; one search at a time, on all of them at once."""

    def __init__(self, gpus: Sequence[tuple[int, Any]]) -> None:
        self._gpus = gpus
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(gpus), "gpu")

    def _spans(self, rows: int) -> list[tuple[int, Any, int, int]]:
        """Return (number, resources, first row, row after the last) for every GPU that gets some."""
        bounds = np.linspace(0, rows, len(self._gpus) + 1).astype(np.int64).tolist()
        spans = zip(self._gpus, pairwise(bounds), strict=True)
        return [(*gpu, start, stop) for gpu, (start, stop) in spans if start < stop]

    def lists(self, base: Any) -> list[tuple[Any, int]]:
        """Copy inverted lists: an index for each GPU, whose rows count from 0."""
        faiss = load_faiss()
        options = faiss.GpuClonerOptions()
        options.use_cuvs = False
        options.allowCpuCoarseQuantizer = True
        spans = self._spans(base.ntotal)
        parts = []
        for number, resources, start, stop in spans:
            part = base
            if len(spans) > 1:
                part = faiss.IndexIVFScalarQuantizer(
                    base.quantizer, base.d, base.nlist, base.sq.qtype, base.metric_type, base.by_residual
                )
                part.own_fields = False
                part.sq, part.is_trained = base.sq, True
                base.copy_subset_to(part, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, start, stop)
            # inverted lists know the numbers of their rows
            parts.append((faiss.index_cpu_to_gpu(resources, number, part, options), 0))
        return parts

    def graphs(self, vectors: Stored, config: Cagra) -> list[tuple[Any, int]]:
        """Build a graph over each GPU's rows: indexes, and the number of the first row of each."""
        faiss = load_faiss()
        parts = []
        for number, resources, start, stop in self._spans(len(vectors)):
            settings = faiss.GpuIndexCagraConfig()
            settings.device, settings.graph_degree = number, config.links
            settings.intermediate_graph_degree = 2 * config.links
            graph = faiss.GpuIndexCagra(resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, settings)
            graph.train(np.ascontiguousarray(vectors[start:stop], np.float32))
            parts.append((graph, start))
        return parts

    def search(
        self, parts: Sequence[tuple[Any, int]], queries: NDArray[np.float32], wanted: int, settings: Any, size: int
    ) -> NDArray[np.int64]:
        """Return the rows ``(n, c)`` that all parts propose, -1 padded; ``wanted`` of each, where it has them."""

        def one(part: tuple[Any, int]) -> NDArray[np.int64]:
            index, start = part
            if not len(queries):
                return np.empty((0, min(wanted, index.ntotal)), np.int64)
            rows = devices.in_batches(
                lambda batch: index.search(batch, min(wanted, index.ntotal), params=settings)[1], queries, size
            )
            found = np.concatenate(rows)
            return np.where(found >= 0, found + start, -1)

        with self._lock, devices.gpu_errors("searching"):
            return np.concatenate(list(self._pool.map(one, parts)), axis=1)


class _GpuAccelerator:
    """One segment's accelerator: indexes with the number of the first row of each, beside the stored vectors."""

    def __init__(self, gpus: _Gpus, parts: list[tuple[Any, int]], vectors: Stored) -> None:
        self._gpus, self._parts, self._vectors = gpus, parts, vectors

    def search(self, queries: NDArray[np.float32], k: int, config: Config) -> Candidates:
        """Propose at most ``k`` rows for each query, best first; see `Accelerator.search`."""
        wanted = min(k * (config.refine if isinstance(config, IVF) else 1), _limit(config))
        settings, size = _settings(config, wanted)
        rows = self._gpus.search(self._parts, queries, wanted, settings, size)
        valid = rows >= 0
        width = max(1, int(valid.sum(axis=1).max(initial=0)))
        first = np.argsort(~valid, axis=1, kind="stable")[:, :width]
        rows = np.take_along_axis(np.where(valid, rows, -1), first, axis=1)
        rows = _once(rows)
        scores = exact.rescore([Block(self._vectors, 0)], queries, rows, cosine=False)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Candidates(np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1))


def _once(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put -1 where a row ``(n, c)`` comes a second time: a graph may be walked to the same place twice."""
    places = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, places, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    once = np.empty_like(rows)
    np.put_along_axis(once, places, ordered, axis=1)
    return once


def _bytes(segment: Segment, config: Config) -> int:
    """Estimate what a segment's accelerator takes of the GPUs' memory."""
    rows, dim = segment.vectors.shape
    if isinstance(config, Cagra):
        # float32 vectors, the graph and the one it is pruned from, the codes that the first graph is found with
        return rows * (4 * dim + 12 * config.links + dim) if rows >= MIN_ROWS else 0
    # lists are padded to 32 rows
    return int(1.2 * segment.info.accelerator.bytes) if segment.info.accelerator else 0


def _limit(config: Config) -> int:
    return _MAX_CAGRA if isinstance(config, Cagra) else _MAX_IVF


def _settings(config: Config, wanted: int) -> tuple[Any, int]:
    """Return faiss's search parameters, and how many queries to search at a time."""
    faiss = load_faiss()
    if isinstance(config, IVF):
        probes = min(config.probes, _MAX_IVF)
        size = _TEMPORARY_BYTES // (12 * probes * wanted)
        return faiss.SearchParametersIVF(nprobe=probes), max(1, min(size, _MAX_BATCH))
    assert isinstance(config, Cagra)
    settings = faiss.SearchParametersCagra()
    # a multiple of 32, and no smaller than what is wanted
    settings.itopk_size = min(_MAX_CAGRA, 32 * math.ceil(max(config.search_effort, wanted) / 32))
    return settings, _MAX_BATCH
