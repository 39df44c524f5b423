"""The cluster step of RetiZero's retrieval: UMAP to 256 dimensions, then HDBSCAN, over the whole pool of images."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import missing, needed
from retr.index.machine.waiting import waiting
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

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


def check_clusters(n: int) -> None:
    """Refuse what `clusters` cannot do, so that it can be known before ``n`` images are embedded.

    Raises
    ------
    MissingExtraError
        If umap-learn or hdbscan is not installed.
    UsageError
        If the pool is too small for 256 dimensions.
    """
    smallest = UMAP_SETTINGS["n_components"] + 2  # the spectral start needs more points than dimensions
    if n < smallest:
        raise UsageError(
            f"the published clustering needs at least {smallest} images, got {n}",
            hint="give more images, or leave the cluster step out with --no-clusters",
        )
    for package in ("umap", "hdbscan"):
        if find_spec(package) is None:
            raise missing(package)


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
    MissingExtraError, UsageError
        As `check_clusters`.
    """
    check_clusters(len(embeddings))
    # umap says that a fixed seed means one thread, scikit-learn deprecates names that hdbscan uses
    with ignoring(), waiting(f"clustering {len(embeddings)} images (UMAP, HDBSCAN)"):
        with needed():
            import hdbscan
            import umap

        placed = umap.UMAP(**UMAP_SETTINGS).fit_transform(embeddings)
        labels = hdbscan.HDBSCAN(**HDBSCAN_SETTINGS).fit_predict(placed)
    return np.asarray(labels, np.int64)


def versions() -> dict[str, str]:
    """Versions of the packages that the cluster labels depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("umap-learn", "hdbscan", "numba", "pynndescent", "numpy", "scipy")}
