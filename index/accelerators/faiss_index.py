"""Training, loading and searching an accelerator for one segment with faiss.

An accelerator proposes rows; it holds compressed vectors only. The candidates are scored again on the segment's own
memory-mapped vectors: bit codes as `retr.index.accelerators.rabitq` reads them, others through a faiss index that views
the vectors without a copy. Any program opens the file with ``faiss.read_index``. Bit codes stand in it once more, as
loops read them (`retr.index.disk.lists_file`): these are mapped, and need no faiss; of other kinds search is exact
without it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators.config import HNSW, IVF
from retr.index.accelerators.faiss_library import load_faiss
from retr.index.disk import lists_file
from retr.index.disk.faiss_file import require_whole
from retr.index.errors import IndexCorruptError
from retr.index.json_fields import stored
from retr.index.scan import exact
from retr.index.scan.processor import threads
from retr.index.types import Block, Candidates
from retr.index.vectors import unit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.accelerators.rabitq import BitLists
    from retr.index.accelerators.rotation import Rotation
    from retr.index.disk.lists_file import Lists
    from retr.index.types import Accelerator

    Stored = NDArray[np.float32] | NDArray[np.float16]

# More points or passes of k-means cost build time and change recall by less than a probe does.
_POINTS_PER_LIST = 48
_PASSES = 5
# A scalar quantiser learns its ranges from so many.
_CODEC_SAMPLE = 20_000
_CHUNK_BYTES = 64 << 20
# Below this many rows a scan is as fast as anything else.
MIN_ROWS = 10_000


def view(vectors: Stored) -> Any:
    """Return a faiss flat index over stored vectors ``(n, d)``, without copying them."""
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
    rotation = None
    if isinstance(config, IVF) and config.codec == "rabitq":
        from retr.index.accelerators.rotation import Rotation

        # A bit a dimension only says much when no dimension says more than another.
        rotation = Rotation(dim)
        index = faiss.IndexPreTransform(_transform(rotation), index)
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
        _set_centroids(index, sample, rotation, seed)
    index.train(np.ascontiguousarray(sample[:: max(1, wanted // _CODEC_SAMPLE)]))
    step = max(1024, min(_CHUNK_BYTES, budget // 4) // (4 * dim))
    for start in range(0, rows, step):
        index.add(np.ascontiguousarray(vectors[start : start + step], np.float32))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        # faiss says why only inside its own text; what a file system refuses to write is nearly always space.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    if rotation is not None:
        from retr.index.accelerators import rabitq

        rabitq.write_lists(faiss.downcast_index(index.index), rows, path)


def _transform(rotation: Rotation) -> Any:
    """Return a rotation as faiss has it."""
    faiss = load_faiss()
    matrix = rotation.matrix
    transform = faiss.LinearTransform(*matrix.shape, False)
    faiss.copy_array_to_vector(matrix.reshape(-1), transform.A)
    transform.is_trained = True
    transform.set_is_orthonormal()
    return transform


def _set_centroids(index: Any, sample: NDArray[np.float32], rotation: Rotation | None, seed: int) -> None:
    """Cluster the sample ``(n, d)`` by cosine and fill the coarse quantiser; faiss's training then leaves it alone."""
    faiss = load_faiss()
    ivf = faiss.extract_index_ivf(index)
    clustering = faiss.Kmeans(
        ivf.d,
        ivf.nlist,
        niter=_PASSES,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_LIST,
    )
    clustering.train(sample)
    centroids = unit(clustering.centroids)
    ivf.quantizer.add(centroids if rotation is None else rotation(centroids))


def load(data: memoryview, vectors: Stored) -> Accelerator:
    """Read what `train` wrote for a segment with the vectors ``(n, d)``.

    Raises
    ------
    IndexCorruptError
        The bytes are not an index faiss can read, or not one of these vectors.
    """
    with stored("an accelerator", "run `retr index tune` again"):
        index, lists = lists_file.split(data, *vectors.shape)
        if lists is None:
            require_whole(data, *vectors.shape)
    if lists is not None:
        return _bit_lists(lists, vectors)
    faiss = load_faiss()
    with stored("an accelerator", "run `retr index tune` again"):
        try:
            read = faiss.deserialize_index(np.frombuffer(index, np.uint8))
        except RuntimeError as error:
            raise ValueError("faiss refuses it") from error
    if not isinstance(read, faiss.IndexPreTransform):
        return Refined(read, vectors)
    return _bit_lists(_lists_of(read), vectors)


class Refined:
    """A faiss index whose candidates are scored again on the stored vectors.

    Attributes
    ----------
    base
        The index, as it was read.
    """

    def __init__(self, base: Any, vectors: Stored) -> None:
        self.base = base
        self._vectors = vectors
        self._refined = load_faiss().IndexRefine(base, view(vectors))

    def search(self, queries: NDArray[np.float32], k: int, config: Config) -> Candidates:
        """Propose about ``k`` rows for each query; see `Accelerator.search`."""
        faiss = load_faiss()
        inner: Any
        if isinstance(config, HNSW):
            inner = faiss.SearchParametersHNSW(efSearch=max(config.search_effort, k * config.refine))
        elif isinstance(config, IVF):
            inner = faiss.SearchParametersIVF(nprobe=min(config.probes, self.base.nlist))
        else:
            raise TypeError(type(config).__name__)
        k = min(k, self.base.ntotal)
        factor = min(config.refine, max(1, self.base.ntotal // k))
        settings = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
        rows = self._refined.search(queries, k, params=settings)[1]
        return Candidates(rows, exact.rescore([Block(self._vectors, 0)], queries, rows, cosine=False))


def _bit_lists(lists: Lists, vectors: Stored) -> BitLists:
    from retr.index.accelerators.rabitq import BitLists
    from retr.index.accelerators.rotation import Rotation

    return BitLists(lists, Rotation(vectors.shape[1]), vectors, threads=threads())


def _lists_of(index: Any) -> Lists:
    """Return the lists of an index of one-bit codes behind a rotation, as `train` once wrote it."""
    from retr.index.accelerators.rabitq import new_lists
    from retr.index.accelerators.rotation import Rotation

    faiss = load_faiss()
    lists = faiss.downcast_index(index.index)
    probe = np.arange(index.d, dtype=np.float32)[None]
    rotated = faiss.downcast_VectorTransform(index.chain.at(0)).apply(probe)
    if not isinstance(lists, faiss.IndexIVFRaBitQ) or not np.allclose(
        Rotation(index.d)(probe), rotated, rtol=1e-3, atol=1e-2
    ):
        raise IndexCorruptError("an accelerator is of an older kind", hint="run `retr index tune` again")
    return new_lists(lists)
