"""The one door to faiss: training, loading and searching an accelerator for one segment.

An accelerator proposes rows; it holds compressed vectors only. The candidates are scored again on the segment's own
memory-mapped vectors, through a faiss index that views them without a copy. It is disposable: plain
``faiss.read_index`` opens the file, and without it search is exact.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.config import HNSW, IVF
from retr.index.errors import IndexCorruptError, MissingExtraError
from retr.index.processor import openblas_kernels
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.config import Config

    Stored = NDArray[np.float32] | NDArray[np.float16]

# More points or passes of k-means cost build time and change recall by less than a probe does.
_POINTS_PER_LIST = 48
_PASSES = 3
# A scalar quantiser learns its ranges from so many.
_CODEC_SAMPLE = 20_000
_CHUNK_BYTES = 64 << 20
# Below this many rows a scan is as fast as anything else.
MIN_ROWS = 10_000
# From this many queries faiss compares them with all centroids in one matrix product.
_PRODUCT_QUERIES = 20
# Fewer queries find their lists among compressed centroids, this many times as many of which are then compared exactly.
_COARSE_REFINE = 4


def load_faiss() -> Any:
    """Import faiss.

    Raises
    ------
    MissingExtraError
        Neither ``retr[cpu]`` nor ``retr[gpu]`` is installed.
    """
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        return faiss
    try:
        with _current_kernels():
            import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "cpu", "gpu") from error
    return faiss


@contextmanager
def _current_kernels() -> Iterator[None]:
    """Let the OpenBLAS inside faiss's wheels use this processor while it is loaded.

    That OpenBLAS (0.3.15, 2021) takes a processor newer than itself for one without AVX and multiplies matrices at a
    fifth of the speed; it reads which kernels to take from the environment, once.
    """
    name = "OPENBLAS_CORETYPE"
    kernels = None if name in os.environ else openblas_kernels()
    if kernels is None:
        yield
        return
    os.environ[name] = kernels
    try:
        yield
    finally:
        del os.environ[name]


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
    least, wanted = 1, _CODEC_SAMPLE
    if isinstance(config, IVF):
        least = faiss.extract_index_ivf(index).nlist
        wanted = _POINTS_PER_LIST * least
    else:
        index.hnsw.efConstruction = config.build_effort
    wanted = max(least, min(rows, wanted, budget // 2 // (4 * dim)))
    chosen = np.sort(np.random.default_rng(seed).choice(rows, wanted, replace=False))
    sample = vectors[chosen].astype(np.float32)
    if isinstance(config, IVF):
        _give_centroids(index, sample, seed)
    index.train(np.ascontiguousarray(sample[:: max(1, wanted // _CODEC_SAMPLE)]))
    step = max(1024, min(_CHUNK_BYTES, budget // 4) // (4 * dim))
    for start in range(0, rows, step):
        index.add(np.ascontiguousarray(vectors[start : start + step], np.float32))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        # faiss says why only inside its own text; what a file system refuses to write is nearly always space.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def _give_centroids(index: Any, sample: NDArray[np.float32], seed: int) -> None:
    """Cluster the sample ``(n, d)`` by cosine and fill the coarse quantiser; faiss's training then leaves it alone."""
    from sklearn.cluster import MiniBatchKMeans

    faiss = load_faiss()
    ivf = faiss.extract_index_ivf(index)
    clustering = MiniBatchKMeans(
        ivf.nlist,
        init="random",
        n_init=1,
        max_iter=_PASSES,
        batch_size=max(8192, 4 * ivf.nlist),
        compute_labels=False,
        reassignment_ratio=0,
        random_state=seed,
    )
    centroids = unit(clustering.fit(sample).cluster_centers_)
    if isinstance(index, faiss.IndexPreTransform):
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.init(seed + 1)
        centroids = rotation.apply(centroids)
    ivf.quantizer.add(centroids)


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
        self._refined = faiss.IndexRefine(self._base, view(vectors))
        self._lists = _Lists(self._base) if isinstance(self._base, faiss.IndexPreTransform) else None
        self._settings: dict[tuple[Config, int], Any] = {}

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
            float32 ``(n, d)``, contiguous.
        allowed
            bool over the segment's rows; other rows are not proposed. Fewer than k may come back then.
        """
        faiss = load_faiss()
        n, k = len(queries), min(k, self._base.ntotal)
        settings = self._settings.get((config, k)) if allowed is None else None
        if settings is None:
            settings = self._prepared(config, k, allowed)
            if allowed is None:
                self._settings[config, k] = settings
        scores, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
        # What faiss's own Python wrapper does beside this costs a tenth of a single query.
        pointers = [faiss.swig_ptr(array) for array in (queries, scores, rows)]
        with self._lists.serving(n, config) if self._lists is not None else nullcontext():
            self._refined.search_c(n, pointers[0], k, pointers[1], pointers[2], settings)
        return Candidates(rows, scores)

    def _prepared(self, config: Config, k: int, allowed: NDArray[np.bool_] | None) -> Any:
        faiss = load_faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        inner: Any
        if isinstance(config, HNSW):
            effort = max(config.search_effort, k * config.refine)
            inner = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        elif isinstance(config, IVF):
            lists = faiss.extract_index_ivf(self._base).nlist
            inner = faiss.SearchParametersIVF(nprobe=min(config.probes, lists), sel=selector)
            if self._lists is not None:
                inner = faiss.SearchParametersPreTransform(index_params=inner)
        else:
            raise TypeError(type(config).__name__)
        factor = min(config.refine, max(1, self._base.ntotal // k))
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)


class _Lists:
    """Codes of the centroids, by which a few queries find their lists.

    A batch is compared with all centroids in one matrix product. For a few queries faiss has no such product, and
    reading all centroids would cost as much as the rest of the search; a bit a dimension says which are worth it.
    """

    def __init__(self, index: Any) -> None:
        faiss = load_faiss()
        self._ivf = faiss.extract_index_ivf(index)
        self._centroids = faiss.downcast_index(self._ivf.quantizer)
        vectors = self._centroids.reconstruct_n(0, self._ivf.nlist)
        codes = faiss.IndexRaBitQFastScan(self._ivf.d, faiss.METRIC_INNER_PRODUCT)
        values = faiss.IndexScalarQuantizer(self._ivf.d, faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT)
        for part in (codes, values):
            part.train(vectors)
            part.add(vectors)
        self._coded = faiss.IndexRefine(codes, values)
        self._coded.k_factor = _COARSE_REFINE

    @contextmanager
    def serving(self, n: int, config: Config) -> Iterator[None]:
        """Use the codes meanwhile, if ``n`` queries are few; other threads may search, either way is good for them."""
        if n >= _PRODUCT_QUERIES or not isinstance(config, IVF) or 2 * _COARSE_REFINE * config.probes > self._ivf.nlist:
            yield
            return
        self._ivf.quantizer = self._coded
        try:
            yield
        finally:
            # faiss's index frees whatever stands there in the end, and takes for its own what is put there.
            self._ivf.quantizer = self._centroids
            self._coded.thisown = True
