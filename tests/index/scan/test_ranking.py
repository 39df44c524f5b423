"""The order of candidates against sorting by hand: ties everywhere, groups, gaps, and ids that are read once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.scan import ranking
from retr.index.types import Ask


def by_hand(rows, scores, ask, ids):
    ranked = sorted((-float(score), ids[row], row) for row, score in zip(rows, scores, strict=True) if row >= 0)
    best, seen = [], set()
    for score, _, row in ranked:
        group = -1 if ask.one_per is None else ask.one_per[row]
        if group not in seen and (ask.min_score is None or -score >= ask.min_score):
            best.append((row, -score))
            seen |= {group} - {-1}
    return best[: ask.k]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_candidates_are_ordered_by_score_then_id(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    n, total = data.draw(st.integers(1, 5), label="queries"), data.draw(st.integers(1, 30), label="rows")
    c = data.draw(st.integers(0, total), label="candidates")
    values = np.array([0.5, -0.0, 0.0, 0.25, 1, -1], np.float32)[: data.draw(st.integers(1, 6), label="scores")]
    rows, scores = np.full((n, c), -1, np.int64), np.full((n, c), -np.inf, np.float32)
    for query in range(n):
        count = int(rng.integers(0, c + 1))
        at = rng.permutation(c)[:count]
        rows[query, at] = rng.permutation(total)[:count]
        scores[query, at] = rng.choice(values, count)
    ask = Ask(
        k=data.draw(st.integers(1, total + 2), label="k"),
        allowed=None,
        exclude=[],
        one_per=rng.integers(-1, 6, total) if data.draw(st.booleans(), label="one_per") else None,
        min_score=data.draw(st.sampled_from([None, 0.0, 0.3, 2.0]), label="min_score"),
    )
    ids = [f"{name:02d}" for name in rng.permutation(total)]
    with ranking_by(data.draw(st.sampled_from([1, 40, 1 << 20]), label="at once")):
        kept, kept_scores = ranking.ranked(rows, scores, ask, lambda some: [ids[row] for row in some])
    assert kept.shape == kept_scores.shape == (n, ask.k)
    for query in range(n):
        here = kept[query] >= 0
        found = list(zip(kept[query, here].tolist(), kept_scores[query, here].tolist(), strict=True))
        assert found == by_hand(rows[query], scores[query], ask, ids)
        assert np.isneginf(kept_scores[query, ~here]).all()
        assert not here[len(found) :].any()


def ranking_by(at_once):
    from unittest.mock import patch

    return patch.object(ranking, "_AT_ONCE", at_once)


def test_ids_and_groups_are_read_once_however_many_queries_tie():
    n = 300
    asked = []

    class Groups:
        def __getitem__(self, rows):
            asked.append(len(rows))
            return rows // 2

    def ids_of(rows):
        asked.append(len(rows))
        return [f"{n - row:04d}" for row in rows]

    rows, scores = np.tile(np.arange(n), (n, 1)), np.ones((n, n), np.float32)
    ask = Ask(k=5, allowed=None, exclude=[], one_per=Groups(), min_score=None)
    kept, _ = ranking.ranked(rows, scores, ask, ids_of)
    assert asked == [n, n]
    assert (kept == [n - 1, n - 3, n - 5, n - 7, n - 9]).all()
