"""Connected rows and pairs across a border, against the plainest way to find them."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.retrieval.audit.clusters import components, count_crossing, list_crossing, several

N = 9
EDGES = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), max_size=14)
VALUES = st.lists(st.sampled_from([None, "train", "test", "val"]), min_size=N, max_size=N)


def connected(edges):
    """Which pairs of nodes a walk leads between: Warshall's closure."""
    reach = np.eye(N, dtype=bool)
    for a, b in edges:
        reach[a, b] = reach[b, a] = True
    for k in range(N):
        reach |= np.outer(reach[:, k], reach[k])
    return reach


@given(EDGES, VALUES, st.integers(1, 40))
@settings(deadline=None)
def test_pairs_across_a_border(edges, values, limit):
    reach = connected(edges)
    labels = components(N, edges)
    np.testing.assert_array_equal(labels[:, None] == labels, reach)
    clusters = several(labels)
    assert clusters == [
        list(one) for one in sorted({tuple(np.flatnonzero(row).tolist()) for row in reach}) if len(one) > 1
    ]
    expected = [
        (a, b)
        for a, b in combinations(range(N), 2)
        if reach[a, b] and None not in {values[a], values[b]} and values[a] != values[b]
    ]
    assert sum(count_crossing(values[at] for at in cluster) for cluster in clusters) == len(expected)
    listed = list_crossing(clusters, values, limit)
    assert listed == expected if limit >= len(expected) else len(listed) == limit
    assert set(listed) <= set(expected)


def test_a_large_cluster_hides_no_small_one():
    clusters = [list(range(1000)), [1000, 1001], [1002, 1003]]
    values = ["train", "test"] * 502
    listed = list_crossing(clusters, values, 5)
    assert len(listed) == 5
    assert {(1000, 1001), (1002, 1003)} <= set(listed)
    assert count_crossing(values[:1000]) == 250_000


def test_no_rows_at_all():
    labels = components(0, [])
    assert (len(labels), several(labels), list_crossing([], [], 3)) == (0, [], [])
