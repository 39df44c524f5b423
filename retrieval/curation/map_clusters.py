"""The clusters of a map, and their names by the labels that are typical of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from retr.index.disk.segments import id_hashes
from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# HDBSCAN compares all rows with all: of more than this, some are drawn, and the others join the nearest of them.
_MOST = 20_000
# A cluster has at least so many rows, and this share of all.
_LEAST, _SHARE = 5, 0.01
# A label names a cluster if so much of the cluster carries it, and so many times as much as of all; at most so many do.
_TYPICAL, _LIFT, _NAMES = 0.15, 1.4, 2


def find_clusters(xy: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.int64]:
    """Find the clusters of points float32 ``(n, 2)``: int64 ``(n,)``, -1 where a point is in none; the largest is 0."""
    with needed():
        from sklearn.cluster import HDBSCAN

    kept = np.arange(len(xy))
    if len(xy) > _MOST:
        kept = np.sort(np.argsort(id_hashes(ids), kind="stable")[:_MOST])
    least = max(_LEAST, round(_SHARE * len(kept)))
    if len(kept) < 2 * least:
        return np.full(len(xy), -1, np.int64)
    found = HDBSCAN(min_cluster_size=least, min_samples=_LEAST, copy=True).fit(xy[kept].astype(np.float64)).labels_
    if len(kept) < len(xy):
        with needed():
            from scipy.spatial import KDTree

        found = found[KDTree(xy[kept]).query(xy)[1]]
    found = np.asarray(found, np.int64)
    sizes = np.bincount(found[found >= 0], minlength=found.max(initial=-1) + 1)
    place = np.empty(len(sizes), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found < 0, -1, place[found]) if len(sizes) else found


def name_clusters(clusters: NDArray[np.int64], labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Name clusters by the labels that are most typical of each.

    A label is the more typical, the more of the cluster carries it and the rarer it is elsewhere: its share times the
    logarithm of 1 and its lift, as c-TF-IDF weighs words. A cluster of which none is typical is ``mixed``.

    Parameters
    ----------
    clusters
        int64 ``(n,)``, -1 for none.
    labels
        The labels of each row.

    >>> name_clusters(np.array([0, 0, 0, 1, 1, -1]), [["a"], ["a"], ["b"], ["c"], [], []])
    ('a, b', 'c')
    """
    whole = Counter(name for row in labels for name in row)
    names = []
    for cluster in range(int(clusters.max(initial=-1)) + 1):
        inside = np.flatnonzero(clusters == cluster)
        counts = Counter(name for at in inside.tolist() for name in labels[at])
        shares = {name: count / max(len(inside), 1) for name, count in counts.items()}
        lift = {name: share * len(labels) / whole[name] for name, share in shares.items()}
        typical = {
            name: share * np.log1p(lift[name])
            for name, share in shares.items()
            if share >= _TYPICAL and lift[name] >= _LIFT
        }
        best = sorted(typical, key=lambda name: (-typical[name], name))[:_NAMES]
        names.append(", ".join(best) or ("mixed" if whole else "cluster"))
    repeated, seen = Counter(names), Counter[str]()
    for at, name in enumerate(names):
        if repeated[name] > 1:
            seen[name] += 1
            names[at] = f"{name} ({seen[name]})"
    return tuple(names)
