"""The one door to faiss: training, loading and searching an accelerator for one segment.

An accelerator proposes rows; it holds compressed vectors only. The candidates are scored again on the segment's own
memory-mapped vectors, through a faiss index that views them without a copy. It is disposable: plain
``faiss.read_index`` opens the file, and without it search is exact.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.config import HNSW, IVF
from retr.index.errors import IndexCorruptError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.config import Config

    Stored = NDArray[np.float32] | NDArray[np.float16]

# More points or rounds of k-means cost build time and change recall by less than a probe does.
_POINTS_PER_LIST = 48
_ITERATIONS = 10
_HNSW_SAMPLE = 20_000
_CHUNK_BYTES = 64 << 20
# Below this many rows a scan is as fast as anything else.
MIN_ROWS = 10_000


def load_faiss() -> Any:
    """Import faiss.

    Raises
    ------
    MissingExtraError
        Neither ``retr[cpu]`` nor ``retr[gpu]`` is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "cpu", "gpu") from error
    return faiss


def view(vectors: Stored) -> Any:
    """Give a faiss flat index over stored vectors ``(n, d)``, without copying them."""
    faiss = load_faiss()
    if vectors.dtype == np.float16:
        flat = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    else:
        flat = faiss.IndexFlatIP(vectors.shape[1])
    codes = np.ascontiguousarray(vectors).reshape(-1).view(np.uint8)
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(codes), codes.nbytes, flat.codes.owner)
    flat.ntotal = len(vectors)
    flat.referenced_objects = [codes]
    return flat


def train(vectors: Stored, config: IVF | HNSW, path: Path, *, budget: int, seed: int = 0) -> None:
    """Build an accelerator for one segment and write it with faiss.

    Parameters
    ----------
    vectors
        The segment's vectors ``(n, d)``, read in pieces.
    config
        What to build.
    path
        The file to write.
    budget
        Bytes that the training sample and the pieces may take.
    seed
        Of the training sample and of the centroids.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    faiss = load_faiss()
    rows, dim = vectors.shape
    index = faiss.index_factory(dim, config.factory(rows, dim), faiss.METRIC_INNER_PRODUCT)
    least, wanted = 1, _HNSW_SAMPLE
    if isinstance(config, IVF):
        ivf = faiss.extract_index_ivf(index)
        least, wanted = ivf.nlist, _POINTS_PER_LIST * ivf.nlist
        ivf.cp.niter, ivf.cp.seed, ivf.cp.min_points_per_centroid = _ITERATIONS, seed + 1, 1
    else:
        index.hnsw.efConstruction = config.build_effort
    wanted = max(least, min(rows, wanted, budget // 2 // (4 * dim)))
    sample = np.sort(np.random.default_rng(seed).choice(rows, wanted, replace=False))
    index.train(vectors[sample].astype(np.float32))
    step = max(1024, min(_CHUNK_BYTES, budget // 4) // (4 * dim))
    for start in range(0, rows, step):
        index.add(np.ascontiguousarray(vectors[start : start + step], np.float32))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        # faiss says why only inside its own text; what a file system refuses to write is nearly always space.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


@dataclass(frozen=True)
class Candidates:
    """Proposed rows, best first: local row numbers int64 ``(n, c)``, -1 padded, and float32 scores ``(n, c)``."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class Accelerator:
    """A loaded accelerator beside its segment's vectors.

    Raises
    ------
    IndexCorruptError
        The bytes are not an index faiss can read, or not one of these vectors.
    """

    def __init__(self, data: memoryview, vectors: Stored) -> None:
        faiss = load_faiss()
        try:
            self._base = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except (RuntimeError, ValueError) as error:
            raise IndexCorruptError("an accelerator cannot be read", hint="run `retr index tune` again") from error
        if self._base.ntotal != len(vectors) or self._base.d != vectors.shape[1]:
            raise IndexCorruptError("an accelerator belongs to other vectors", hint="run `retr index tune` again")
        self._vectors = view(vectors)
        self._refined = faiss.IndexRefine(self._base, self._vectors)

    @property
    def base(self) -> Any:
        """The faiss index that proposes, as it was read."""
        return self._base

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        config: Config,
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """Propose about ``k`` rows for each query.

        Parameters
        ----------
        queries
            float32 ``(n, d)``.
        allowed
            bool over the segment's rows; other rows are not proposed. Fewer than k may come back then.
        """
        faiss = load_faiss()
        rows = self._base.ntotal
        selector = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        inner: Any
        if isinstance(config, HNSW):
            effort = max(config.search_effort, k * config.refine)
            inner = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        elif isinstance(config, IVF):
            lists = faiss.extract_index_ivf(self._base).nlist
            inner = faiss.SearchParametersIVF(nprobe=min(config.probes, lists), sel=selector)
            if isinstance(self._base, faiss.IndexPreTransform):
                inner = faiss.SearchParametersPreTransform(index_params=inner)
        else:
            raise TypeError(type(config).__name__)
        factor = min(config.refine, max(1, rows // k))
        options = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
        scores, found = self._refined.search(queries, min(k, rows), params=options)
        return Candidates(found, scores)
