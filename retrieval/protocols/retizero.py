"""RetiZero's image-to-image retrieval, exactly as published, and the same question asked strictly.

Published (arXiv 2406.09317, and its script): one pool of images is query set and gallery; the
similarity of query q and gallery item j is ``s_j / (s_j + |e_q - e_j|)`` with ``s_j = |e_j| / 2``, so it is
asymmetric; the pool is clustered by UMAP and HDBSCAN, and similarities across clusters are halved; of the k
+ 1 best the first is dropped, taken to be the query itself; the score is the share of the k that have the
query's class. Strict: the encoder's own score, the query left out by identity, and every picture of its
patient with it.

Nothing here reads a file or knows an encoder: arrays in, numbers out.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import MissingExtraError, UsageError
from retr.retrieval.metrics import any_hit_at, precision_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

KS = (1, 3, 5)
# Top-5 of the abstract; the paper's other cells are not known here, and stay empty.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "retrieval_top5": {"EYE-15": 0.9500, "EYE-52": 0.8860},
    "zero_shot_top5": {"EYE-15": 0.8430, "EYE-52": 0.7561},
}
PUBLISHED_SOURCE = "arXiv 2406.09317, abstract"
UMAP_SETTINGS: Mapping[str, Any] = {
    "n_neighbors": 20,
    "n_components": 256,
    "min_dist": 0.0,
    "metric": "euclidean",
    "random_state": 42,
}
HDBSCAN_SETTINGS: Mapping[str, Any] = {
    "min_cluster_size": 100,
    "metric": "euclidean",
    "cluster_selection_method": "leaf",
}
_BLOCK = 1024  # queries scored at once: bounds the memory at block x pool


def similarity(queries: NDArray[np.floating], gallery: NDArray[np.floating]) -> NDArray[np.float32]:
    """Score every gallery row for every query by the published formula.

    Parameters
    ----------
    queries
        float ``(n, d)``, not normalised: the formula uses the length of the vectors.
    gallery
        float ``(m, d)``.

    Returns
    -------
    NDArray
        float32 ``(n, m)`` between 0 and 1; 1, but for rounding, where the vectors are equal.

    Examples
    --------
    >>> similarity(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 8.0]])).round(3)[0].astype(str).tolist()
    ['1.0', '0.444']
    """
    import torch

    # The published script measures distances by torch.cdist in float32: a product of matrices, whose
    # rounding leaves a vector up to 0.1 % short of 1 from itself. "Drop the first" meets that rounding, so
    # it is kept.
    left, right = (torch.tensor(np.asarray(x, np.float32)) for x in (queries, gallery))
    scale = right.norm(dim=1) / 2
    score: NDArray[np.float32] = (scale / (scale + torch.cdist(left, right))).numpy()
    return np.nan_to_num(score, copy=False, nan=1.0)  # 0 / 0: two zero vectors, equal like any equal vectors


def halve_across_clusters(
    scores: NDArray[np.float32], query_clusters: NDArray[np.integer], gallery_clusters: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Halve the score ``(n, m)`` of every pair in different clusters; noise (-1) is a cluster too."""
    same = query_clusters[:, None] == gallery_clusters
    return scores * np.where(same, np.float32(1), np.float32(0.5))


def drop_first(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Take the k + 1 best and drop the first, assumed, not checked, to be the query: int64 ``(n, k)``.

    Of equal scores the later row comes first, as in the published script (an ascending sort, read backwards).
    """
    return np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, 1 : k + 1]


def excluding(scores: NDArray[np.float32], forbidden: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """Take the k best rows that are not ``forbidden`` ``(n, m)``: int64 ``(n, k)``, padded with -1."""
    allowed = np.where(forbidden, -np.inf, scores)
    best = np.argsort(-allowed, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(allowed, best, axis=1)), best, -1)


def clusters(embeddings: NDArray[np.floating]) -> NDArray[np.int64]:
    """Cluster the pool with the published settings and seed: UMAP to 256 dimensions, then HDBSCAN.

    Parameters
    ----------
    embeddings
        float ``(n, d)``, as they came from the encoder.

    Returns
    -------
    NDArray
        int64 ``(n,)``, -1 for noise. Labels depend on the versions of umap-learn and hdbscan (`versions`).

    Raises
    ------
    MissingExtraError
        If umap-learn or hdbscan is not installed.
    UsageError
        If the pool is too small for 256 dimensions.
    """
    smallest = UMAP_SETTINGS["n_components"] + 2  # the spectral start needs more points than dimensions
    if len(embeddings) < smallest:
        raise UsageError(
            f"the published clustering needs at least {smallest} images, got {len(embeddings)}",
            hint="give more images, or leave the cluster step out with --no-clusters",
        )
    with warnings.catch_warnings():
        # umap says that a fixed seed means one thread, scikit-learn deprecates names that hdbscan uses
        warnings.simplefilter("ignore")
        try:
            import hdbscan
            import umap
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "eval") from None
        placed = umap.UMAP(**UMAP_SETTINGS).fit_transform(embeddings)
        labels = hdbscan.HDBSCAN(**HDBSCAN_SETTINGS).fit_predict(placed)
    return np.asarray(labels, np.int64)


def versions() -> dict[str, str]:
    """Versions of the packages that the cluster labels depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("umap-learn", "hdbscan", "numba", "pynndescent", "numpy", "scipy")}


@dataclass(frozen=True)
class Answers:
    """Who was found for each query: ``hits`` bool ``(n, max(KS))``, in rank order."""

    hits: NDArray[np.bool_]

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean precision@k and any-hit@k, as the JSON report writes them."""
        return {
            "precision": {str(k): float(precision_at(self.hits, k).mean()) for k in KS},
            "any_hit": {str(k): float(any_hit_at(self.hits, k).mean()) for k in KS},
        }


@dataclass(frozen=True)
class Pool:
    """The images of one run.

    Attributes
    ----------
    embeddings
        float32 ``(n, d)``, not normalised.
    labels
        int64 ``(n,)``, the class of each image.
    groups
        int64 ``(n,)``, the patient of each image (every image its own where no patient is known).
    cosine
        Whether the encoder's own score is cosine (else the dot product).
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    cosine: bool = True

    def own_vectors(self) -> NDArray[np.float32]:
        """Vectors whose dot product is the encoder's own score."""
        if not self.cosine:
            return self.embeddings
        length = np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        return np.asarray(self.embeddings / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


#: What is changed at each step from the published protocol to the strict one, in words and as a JSON key.
STEPS = (
    ("published", "as published, without the cluster step"),
    ("self_by_identity", "the query is left out by identity instead of dropping the first"),
    ("patient_excluded", "and every picture of the query's patient is left out"),
    ("strict", "and the encoder's own score replaces the published similarity: the strict protocol"),
)


def retrieve(pool: Pool, labels_of_clusters: NDArray[np.int64] | None = None) -> dict[str, Answers]:
    """Ask every image of the pool for its neighbours, by each step of `STEPS` and by the clustered protocol.

    Parameters
    ----------
    pool
        The images.
    labels_of_clusters
        From `clusters`; without them there is no ``"clustered"`` answer.

    Returns
    -------
    dict
        An `Answers` for every key of `STEPS`, and ``"clustered"``.
    """
    n, depth = len(pool.labels), max(KS)
    if n <= depth:
        raise UsageError(f"retrieval at {depth} needs more than {depth} images, got {n}")
    vectors = pool.own_vectors()
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        scores = similarity(pool.embeddings[rows], pool.embeddings)
        itself = rows[:, None] == np.arange(n)
        patient = itself | (pool.groups[rows, None] == pool.groups)
        best = {
            "published": drop_first(scores, depth),
            "self_by_identity": excluding(scores, itself, depth),
            "patient_excluded": excluding(scores, patient, depth),
            "strict": excluding(vectors[rows] @ vectors.T, patient, depth),
        }
        if labels_of_clusters is not None:
            halved = halve_across_clusters(scores, labels_of_clusters[rows], labels_of_clusters)
            best["clustered"] = drop_first(halved, depth)
        for name, neighbours in best.items():
            same = pool.labels[neighbours] == pool.labels[rows, None]
            found.setdefault(name, []).append(same & (neighbours >= 0))
    return {name: Answers(np.concatenate(parts)) for name, parts in found.items()}


def near_duplicates(pool: Pool, threshold: float = 0.999) -> dict[str, Any]:
    """Count pairs of images whose cosine is at least ``threshold``, and which of them should surprise."""
    length = np.linalg.norm(pool.embeddings, axis=1, keepdims=True)
    unit = pool.embeddings / np.maximum(length, np.finfo(np.float32).tiny)
    pairs = across = conflicting = 0
    for start in range(0, len(unit), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(unit)))
        first, second = np.nonzero(unit[rows] @ unit.T >= threshold)
        first = first + start
        first, second = first[first < second], second[first < second]
        pairs += len(first)
        across += int((pool.groups[first] != pool.groups[second]).sum())
        conflicting += int((pool.labels[first] != pool.labels[second]).sum())
    return {
        "cosine_at_least": threshold,
        "pairs": pairs,
        "of_different_patients": across,
        "of_different_classes": conflicting,
    }
