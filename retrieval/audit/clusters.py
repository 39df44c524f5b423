"""Connected components of matching rows, and which of them cross a split or belong to several patients.

Copies of copies are copies: what matters is not which pairs were found but which rows are connected through them. A
cluster of ``n`` rows has up to ``n * n / 4`` pairs across a split, so that these are counted by arithmetic and listed
as far as a reader wants.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import chain, combinations, islice, product
from typing import TYPE_CHECKING

import numpy as np

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray


def components(n: int, edges: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the connected components of ``n`` nodes: int64 ``(n,)``.

    >>> components(5, [(0, 3), (3, 4)]).tolist()
    [0, 1, 2, 0, 0]
    """
    with needed():
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    pairs = np.fromiter(chain.from_iterable(edges), np.int64).reshape(-1, 2)
    if not n:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def several(labels: NDArray[np.int64]) -> list[list[int]]:
    """Return the nodes of each component that has more than one, in the order of the nodes.

    >>> several(np.array([0, 1, 2, 0, 0]))
    [[0, 3, 4]]
    """
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted(nodes.tolist() for nodes in found if len(nodes) > 1)


def count_crossing(values: Iterable[Hashable | None]) -> int:
    """Count the pairs of nodes whose values differ; a node of value ``None`` is in no such pair.

    >>> count_crossing(["train", "train", None, "test"])
    2
    """
    sizes = Counter(value for value in values if value is not None)
    return (sum(sizes.values()) ** 2 - sum(size * size for size in sizes.values())) // 2


def list_crossing(
    clusters: Sequence[Sequence[int]], values: Sequence[Hashable | None], limit: int
) -> list[tuple[int, int]]:
    """Return at most ``limit`` pairs of nodes of one cluster whose values differ, sorted.

    Every cluster gives one in turn, so that none is hidden behind a large one.

    >>> list_crossing([[0, 1, 2]], ["train", None, "test"], 10)
    [(0, 2)]
    """
    waiting = deque(_crossing(nodes, values) for nodes in clusters)

    def in_turn() -> Iterator[tuple[int, int]]:
        while waiting:
            pairs = waiting.popleft()
            for pair in islice(pairs, 1):
                yield pair
                waiting.append(pairs)

    return sorted(islice(in_turn(), limit))


def _crossing(nodes: Sequence[int], values: Sequence[Hashable | None]) -> Iterator[tuple[int, int]]:
    sides: dict[Hashable, list[int]] = {}
    for node in nodes:
        if values[node] is not None:
            sides.setdefault(values[node], []).append(node)
    for one, other in combinations(sides.values(), 2):
        for a, b in product(one, other):
            yield min(a, b), max(a, b)
