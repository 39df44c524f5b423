"""What is made of the rows that accelerators propose, with accelerators of a few lines in place of faiss's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.accelerators import approximate
from retr.index.accelerators.approximate import Bound
from retr.index.accelerators.config import HNSW, IVF
from retr.index.scan import exact
from retr.index.types import Ask, Block, Candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

DIM = 5


@dataclass
class Proposing:
    """Proposes the best rows of a block, but never those that it forgets; the best first, or in the order given."""

    vectors: np.ndarray
    forgets: Sequence[int] = ()
    heeds: bool = True
    order: Sequence[int] | None = None
    asked: list[tuple] = field(default_factory=list)

    def search(self, queries, k, config):
        self.asked.append((len(queries), k, config))
        return self.proposed(queries, k)

    def best_first(self, queries, k, *, reach, most=None, allowed=None, exclude=None, groups=None, apart=0):
        assert groups is None or len(groups) == len(self.vectors)
        self.asked.append((len(queries), k, reach, most))
        return self.proposed(queries, k, allowed, exclude)

    def proposed(self, queries, k, allowed=None, exclude=None):
        scores = (queries.astype(np.float64) @ self.vectors.T.astype(np.float64)).astype(np.float32)
        scores[:, list(self.forgets)] = -np.inf
        if allowed is not None and self.heeds:
            scores[:, ~allowed] = -np.inf
        for number, rows in enumerate(exclude or [] if self.heeds else []):
            scores[number, rows] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows = np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)
        scores = np.where(rows >= 0, np.take_along_axis(scores, rows, axis=1), -np.float32(np.inf))
        order = slice(None) if self.order is None else list(self.order)
        return Candidates(np.where(np.isneginf(scores), -1, rows)[:, order], scores[:, order])


def blocks_of(vectors, cuts=()):
    return [Block(part, start) for part, start in zip(np.split(vectors, cuts), [0, *cuts], strict=True)]


def ask(k=10, n=1, **options) -> Ask:
    nothing = [np.empty(0, np.int64)] * n
    return Ask(**{"k": k, "allowed": None, "exclude": nothing, "one_per": None, "min_score": None, **options})


@dataclass
class Graph:
    """Proposes like `Proposing`, but only knows how to answer what it was tuned on."""

    inner: Proposing

    def search(self, queries, k, config):
        return self.inner.search(queries, k, config)


BOUND = Bound(0.5)


def both(blocks, accelerators, queries, asked, config=None, cosine=False, bound=BOUND):
    how = {"max_norm": 10.0, "cosine": cosine, "ids_of": lambda rows: [f"{row:06d}" for row in rows.tolist()]}
    near = approximate.search(blocks, accelerators, config or HNSW(), queries, asked, bound, **how)
    return near, exact.search(blocks, queries, asked, **how)


@pytest.fixture
def unhelped(monkeypatch):
    """Refuse to search exactly."""

    def refuse(*given, **more):
        raise AssertionError("searched exactly")

    monkeypatch.setattr(approximate.exact, "search", refuse)


@pytest.fixture
def unhelped_over_segments(monkeypatch):
    """Refuse to search more than a fresh segment exactly."""
    search = exact.search

    def one(blocks, *given, **more):
        assert len(blocks) == 1, "searched exactly"
        return search(blocks, *given, **more)

    monkeypatch.setattr(approximate.exact, "search", one)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_where_nothing_is_missed_the_answer_is_that_of_the_exact_search(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    n = data.draw(st.integers(1, 80), label="rows")
    vectors = rng.standard_normal((n, DIM)).astype(data.draw(st.sampled_from(["f4", "f2"]), label="dtype"))
    ties = data.draw(st.booleans(), label="ties")
    if ties:
        vectors = vectors[rng.integers(0, min(n, 6), n)]
    blocks = blocks_of(
        vectors, sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=2) if n > 1 else st.just([]), label="cuts"))
    )
    built = [data.draw(st.booleans(), label="built") for _ in blocks]
    accelerators = [Proposing(block.vectors) if yes else None for block, yes in zip(blocks, built, strict=True)]
    queries = rng.standard_normal((3, DIM)).astype(np.float32)
    asked = ask(
        data.draw(st.integers(1, 12), label="k"),
        allowed=rng.random(n) < 0.6 if data.draw(st.booleans(), label="allowed") else None,
        exclude=[
            np.unique(rng.integers(0, n, most)) for most in (0, 3, data.draw(st.integers(0, 9), label="excluded"))
        ],
        one_per=rng.integers(-1, 5, n) if data.draw(st.booleans(), label="one_per") else None,
        min_score=data.draw(st.sampled_from([None, 0.0, 0.5]), label="min_score"),
    )
    near, truth = both(blocks, accelerators, queries, asked)
    np.testing.assert_array_equal(near.scores, truth.scores)
    if not ties:
        np.testing.assert_array_equal(near.rows, truth.rows)
    for rows, excluded in zip(near.rows, asked.exclude, strict=True):
        found = rows[rows >= 0]
        assert len(set(found.tolist())) == len(found)
        assert not np.isin(found, excluded).any()
        assert asked.allowed is None or asked.allowed[found].all()
    assert near.exact is False


def test_more_copies_than_are_asked_for_are_found_in_a_fresh_segment():
    vectors = np.concatenate([line(70)[10:], np.repeat(ALONG, 30, axis=0), line(70)[10:]])
    blocks = blocks_of(vectors, [60])
    near, truth = both(blocks, [Proposing(blocks[0].vectors), None], ALONG, ask(5))
    np.testing.assert_array_equal(near.scores, truth.scores)
    np.testing.assert_array_equal(near.rows, truth.rows)


def line(n: int) -> np.ndarray:
    """Rows whose score with `ALONG` falls with their number: 1 - number / n."""
    return np.outer(1 - np.arange(n) / n, np.eye(DIM)[0]).astype(np.float32)


ALONG = np.eye(1, DIM, dtype=np.float32)


def test_accelerators_are_believed_about_what_they_do_not_propose(unhelped):
    blocks = blocks_of(line(100), [50])
    accelerators = [Proposing(blocks[0].vectors, (0, 2)), Proposing(blocks[1].vectors, (1,))]
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: rows.tolist()}
    found = approximate.search(blocks, accelerators, HNSW(), ALONG, ask(50), BOUND, **how)
    assert found.rows[0].tolist() == [1, *range(3, 51), 52]
    np.testing.assert_array_equal(found.scores[0], line(100)[found.rows[0], 0])


def test_a_query_left_short_is_searched_exactly_and_the_others_are_not():
    """The second query's accelerator rows are all excluded, so that nothing is left of what was proposed."""
    vectors = line(60)
    accelerator = Proposing(vectors, (0, *range(20, 60)))
    queries = np.concatenate([ALONG, ALONG, ALONG])
    asked = ask(5, n=3, exclude=[np.empty(0, np.int64), np.arange(1, 17), np.array([1])])
    near, truth = both(blocks_of(vectors), [accelerator], queries, asked)
    assert near.rows[0].tolist() == [1, 2, 3, 4, 5]
    assert near.rows[1].tolist() == truth.rows[1].tolist() == [0, 17, 18, 19, 20]
    assert near.rows[2].tolist() == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(near.scores[1], truth.scores[1])


@pytest.mark.parametrize("count", [3, 9])
def test_as_many_as_are_allowed_are_enough(unhelped, count):
    """Where fewer than k rows are allowed at all, an answer of that many is not short."""
    vectors = line(40)
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: rows.tolist()}
    asked = ask(10, allowed=np.arange(40) >= 40 - count)
    found = approximate.search(blocks_of(vectors), [Proposing(vectors)], HNSW(), ALONG, asked, BOUND, **how)
    assert found.rows[0].tolist() == [*range(40 - count, 40), *[-1] * (10 - count)]
    every = approximate.search(blocks_of(vectors), [Proposing(vectors)], HNSW(), -ALONG, ask(40), BOUND, **how)
    assert every.rows[0].tolist() == [*range(39, -1, -1)]
    few = approximate.search(blocks_of(vectors[:4]), [Proposing(vectors[:4])], HNSW(), -ALONG, ask(10), BOUND, **how)
    assert few.rows[0].tolist() == [3, 2, 1, 0, *[-1] * 6]


@pytest.mark.parametrize("fresh", [False, True])
def test_as_many_as_are_allowed_are_enough_over_several_segments(unhelped_over_segments, fresh):
    vectors = line(40)
    blocks = blocks_of(vectors, [20])
    accelerators = [Proposing(blocks[0].vectors), None if fresh else Proposing(blocks[1].vectors)]
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: rows.tolist()}
    allowed = np.isin(np.arange(40), [*range(15, 20), 37, 38])
    found = approximate.search(blocks, accelerators, HNSW(), ALONG, ask(10, allowed=allowed), BOUND, **how)
    assert found.rows[0].tolist() == [*range(15, 20), 37, 38, -1, -1, -1]


@pytest.mark.parametrize("forbidden", [[0], [0, 25], [0, 1, 25, 26]])
def test_rows_that_are_left_out_leave_no_query_short_over_several_segments(unhelped, forbidden):
    """The query's own row is the best of all, and takes no place of those that are found."""
    vectors = line(60)[[*range(0, 60, 2), *range(1, 60, 2)]]
    blocks = blocks_of(vectors, [20, 40])
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: [f"{row:06d}" for row in rows.tolist()]}
    accelerators = [Proposing(block.vectors) for block in blocks]
    asked = ask(5, exclude=[np.array(forbidden)])
    found = approximate.search(blocks, accelerators, HNSW(), ALONG, asked, Bound(0.0), **how)
    best = np.argsort(-vectors[:, 0], kind="stable")
    assert found.rows[0].tolist() == best[~np.isin(best, forbidden)][:5].tolist()


@pytest.mark.parametrize(
    ("query", "k", "least", "rows"),
    [(ALONG, 10, 0.875, range(6)), (ALONG, 5, 0.1, range(5)), (-ALONG, 40, -0.98, range(39, 0, -1))],
)
def test_a_least_score_that_was_passed_is_no_reason_to_look_further(unhelped, query, k, least, rows):
    vectors = line(40)
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: rows.tolist()}
    found = approximate.search(
        blocks_of(vectors), [Proposing(vectors)], HNSW(), query, ask(k, min_score=least), BOUND, **how
    )
    assert found.rows[0].tolist() == [*rows, *[-1] * (k - len(rows))]
    assert np.isneginf(found.scores[0, len(rows) :]).all()


def test_a_least_score_that_was_not_passed_is():
    """Of the rows proposed to the first query, none lies below, and one at the least score; to the second, most do."""
    vectors = line(40)
    accelerator = Proposing(vectors, (1, *range(21, 40)))
    queries = np.concatenate([ALONG, ALONG / 2])
    near, truth = both(blocks_of(vectors), [accelerator], queries, ask(25, n=2, min_score=0.5))
    assert near.rows.tolist() == truth.rows.tolist() == [[*range(21), *[-1] * 4], [0, *[-1] * 24]]


def test_proposals_may_come_in_any_order():
    rng = np.random.default_rng(0)
    vectors = line(40)
    for order in ([0, 3, 1, 2, 4, 5], [5, 4, 3, 2, 1, 0], *(rng.permutation(6) for _ in range(5))):
        near = both(blocks_of(vectors), [Proposing(vectors, order=order)], ALONG, ask(6))[0]
        assert near.rows[0].tolist() == [*range(6)]
        assert (np.diff(near.scores) < 0).all()


def test_the_best_of_several_segments_are_kept():
    vectors = np.random.default_rng(0).standard_normal((900, DIM)).astype(np.float32)
    queries = np.random.default_rng(1).standard_normal((50, DIM)).astype(np.float32)
    blocks = blocks_of(vectors, [300, 600])
    near, truth = both(blocks, [Proposing(block.vectors) for block in blocks], queries, ask(20, n=50))
    np.testing.assert_array_equal(near.rows, truth.rows)


@pytest.mark.parametrize("forbidden", [[2], range(0, 40, 2)])
def test_what_is_not_allowed_is_dropped_even_where_an_accelerator_proposes_it(forbidden):
    vectors = line(40)
    allowed = ~np.isin(np.arange(40), forbidden)
    accelerators = [Proposing(vectors[:21], heeds=False), None]
    near, truth = both(blocks_of(vectors, [21]), accelerators, ALONG, ask(4, allowed=allowed))
    assert near.rows.tolist() == truth.rows.tolist() == [np.flatnonzero(allowed)[:4].tolist()]


@pytest.mark.parametrize("forgets", [(), (0, 1, 2)])
def test_scores_of_cosine_stay_within_one(forgets):
    """A product of two unit vectors may be rounded to a little more than one."""
    vectors = np.repeat(ALONG, 3, axis=0) * np.array([[-1.0000001], [1.0000001], [0.5]], np.float32)
    for k in (3, 5):
        near, truth = both(blocks_of(vectors), [Proposing(vectors, forgets)], ALONG, ask(k), cosine=True)
        assert near.scores.tolist() == truth.scores.tolist() == [[1.0, 0.5, -1.0, *[-np.inf] * (k - 3)]]


@pytest.mark.parametrize(
    ("asked", "few", "wanted"),
    [
        (ask(10), True, 10),
        (ask(10, n=2, exclude=[np.arange(1), np.arange(0)]), True, 11),
        (ask(4, exclude=[np.arange(7)]), True, 11),
        (ask(10, exclude=[np.arange(2)]), False, 10),
        (ask(11), False, 11),
        (ask(10, allowed=np.ones(500, bool)), False, 10),
        (ask(1, one_per=np.arange(500)), False, 4),
        (ask(10, exclude=[np.arange(7)], one_per=np.arange(500)), False, 40),
        (ask(10, n=0), True, 10),
    ],
)
def test_few_rows_of_all_are_asked_for_as_it_was_tuned_and_all_else_to_a_bound(asked, few, wanted):
    vectors = line(500)
    n = len(asked.exclude)
    queries = np.repeat(ALONG, n, axis=0)
    for bound, way in [(BOUND, (IVF(probes=3),)), (Bound(0.5, most=9, few=0.25), (0.25, 9))]:
        accelerator = Proposing(vectors)
        both(blocks_of(vectors), [accelerator], queries, asked, IVF(probes=3), bound=bound)
        spare = wanted if few and len(way) == 1 else asked.k * (4 if asked.one_per is not None else 1)
        assert accelerator.asked == [(n, spare, *(way if few else (0.5, bound.most)))]
        assert approximate.measured(asked) == few
        graph = Graph(Proposing(vectors))
        near, truth = both(blocks_of(vectors), [graph], queries, asked, HNSW(), bound=bound)
        assert len(graph.inner.asked) == few
        np.testing.assert_array_equal(near.rows, truth.rows)


def test_groups_of_many_rows_are_looked_for_further_down(unhelped):
    """Of the first 40 rows, and of the first 320 of the second query, too few are of different groups."""
    vectors = line(2000)
    accelerator = Proposing(vectors)
    how = {"max_norm": 1.0, "cosine": False, "ids_of": lambda rows: rows.tolist()}
    groups = np.arange(2000) // 20
    asked = ask(10, n=2, one_per=groups, exclude=[np.empty(0, np.int64), np.arange(0)])
    queries = np.concatenate([ALONG, ALONG])
    found = approximate.search(blocks_of(vectors), [accelerator], HNSW(), queries, asked, BOUND, **how)
    assert found.rows[0].tolist() == list(range(0, 200, 20))
    assert [want for _, want, *_ in accelerator.asked] == [40, 320]


def test_each_segment_hears_of_its_own_rows_alone():
    vectors = line(200)
    blocks = blocks_of(vectors, [120])
    heard = []
    for accelerator in (accelerators := [Proposing(block.vectors) for block in blocks]):
        accelerator.best_first = lambda queries, k, *, inner=accelerator.best_first, **asked: (
            heard.append(asked) or inner(queries, k, **asked)
        )
    allowed = np.arange(200) % 3 == 0
    near, truth = both(
        blocks, accelerators, ALONG, ask(20, allowed=allowed, exclude=[np.array([3, 119, 120, 150, 180])])
    )
    np.testing.assert_array_equal(near.rows, truth.rows)
    assert [asked["exclude"][0].tolist() for asked in heard] == [[3, 119], [0, 30, 60]]
    assert [asked["allowed"].tolist() for asked in heard] == [allowed[:120].tolist(), allowed[120:].tolist()]


@pytest.mark.parametrize("forgets", [(), range(41)])
def test_equal_scores_go_by_id(forgets):
    """One row and ten groups of four that are equal: as they are proposed, and as the exact search finds them."""
    vectors = np.concatenate([2 * ALONG, np.repeat(line(10), 4, axis=0)])
    names = np.random.default_rng(0).permutation(41)
    how = {"max_norm": 2.0, "cosine": False, "ids_of": lambda rows: [f"{names[row]:02d}" for row in rows.tolist()]}
    queries = np.concatenate([ALONG, -ALONG])
    found = approximate.search(
        blocks_of(vectors), [Proposing(vectors, forgets)], HNSW(), queries, ask(9, n=2), BOUND, **how
    )
    groups = [sorted(range(first, first + 4), key=lambda row: names[row]) for first in range(1, 41, 4)]
    assert found.rows[0].tolist() == [0, *groups[0], *groups[1]]
    assert found.rows[1, :8].tolist() == [*groups[9], *groups[8]]


@pytest.mark.parametrize(
    ("asked", "suited"),
    [
        (ask(500), True),
        (ask(501), False),
        (ask(allowed=np.arange(10_000) < 4_000), True),
        (ask(allowed=np.arange(10_000) < 200), False),
        # in a batch the rows are copied together once for all
        (ask(n=100, allowed=np.arange(10_000) < 4_000), False),
        (ask(n=2, exclude=[np.arange(0), np.arange(2048)]), True),
        (ask(n=2, exclude=[np.arange(2049), np.arange(0)]), False),
        (ask(n=0), True),
    ],
)
def test_what_a_scan_answers_at_no_more_cost_is_not_for_accelerators(asked, suited):
    assert approximate.suits(asked, 10_000, 512) is suited


@pytest.mark.parametrize(("k", "suited"), [(2048, True), (2049, False)])
def test_no_accelerator_proposes_more_than_2048_rows(k, suited):
    assert approximate.suits(ask(k), 10_000_000, 512) is suited
