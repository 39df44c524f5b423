"""Searches of shards that are held elsewhere: equal to the bit, refused in one line, or said to be partial."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from shards_standin import Shards

from retr.index.encoder import EncoderInfo
from retr.index.errors import FilterError, RetrError, UsageError
from retr.index.item_search import search_items
from retr.index.rows.items import items_of
from retr.index.scan.items import ItemQuestion
from retr.index.scatter import spans
from retr.index.store import Store

DIM = 8


@pytest.fixture
def whole(tmp_path):
    """Rows of 40 patients, each with two studies and some rows of none; some are deleted."""
    rng = np.random.default_rng(0)
    info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0" * 64, preprocessing="none")
    store = Store.create(tmp_path / "i", encoder=info, shards=3, group="patient")
    table = pa.table(
        {
            "id": [f"r{number:03}" for number in range(240)],
            "patient": [f"p{number // 6}" for number in range(240)],
            "study": [f"s{number // 3}" if number % 11 else None for number in range(240)],
            "kind": [str(number % 3) for number in range(240)],
        }
    )
    with store.writer() as writer:
        writer.append(table, rng.integers(-1, 2, (240, DIM)).astype(np.float32) + np.float32(1e-3))
        writer.commit()
        writer.delete(np.arange(0, 240, 17))
        return writer.commit()


@pytest.fixture
def far(whole):
    store = Store.open(whole.path)
    store.remote = Shards(whole.path)
    return store


def test_a_shard_is_one_run_of_rows(whole, make):
    every = spans(whole.manifest)
    assert [span.number for span in every] == [0, 1, 2]
    assert [every[0].start, *(span.stop for span in every)] == [0, *(span.start for span in every[1:]), whole.n_total]
    assert sum(span.live for span in every) == len(whole)
    rows = np.array([0, every[1].start, every[1].stop - 1, every[2].start])
    assert every[1].rows(rows).tolist() == [0, every[1].stop - every[1].start - 1]
    assert every[1].whole(np.array([[0, -1]])).tolist() == [[every[1].start, -1]]
    (alone,) = spans(make(5, name="alone").manifest)
    assert (alone.start, alone.stop) == (0, 5)


@pytest.mark.parametrize("score", ["maxsim", "mean", "best"])
@pytest.mark.parametrize("rule", ["patient", "study"])
def test_cases_are_the_same(whole, far, rule, score):
    rng = np.random.default_rng(1)
    questions = [
        ItemQuestion(
            rng.integers(-1, 2, (parts, DIM)).astype(np.float32) + np.float32(0.01),
            np.linspace(0.5, 2, parts),
            np.sort(rng.choice(whole.n_total, 20, replace=False)),
        )
        for parts in (1, 3, 12)
    ]
    mask = rng.random(whole.n_total) < 0.7
    for options in ({}, {"where": "kind != '1'"}, {"mask": mask}, {"min_score": 0.2}, {"where": "kind = 'none'"}):
        for k in (1, 7, 1000):
            near = search_items(whole, questions, rule, k, score=score, **options)
            for one, other in zip(near, search_items(far, questions, rule, k, score=score, **options), strict=True):
                assert (one.items.tolist(), one.rows.tolist()) == (other.items.tolist(), other.rows.tolist())
                assert (one.scores.tobytes(), one.pairs.tobytes()) == (other.scores.tobytes(), other.pairs.tobytes())
                assert (one.exact, one.note) == (other.exact, other.note)
    assert len(items_of(whole, rule)) > 7


def test_cases_that_lie_in_several_shards_are_refused(far):
    with pytest.raises(UsageError, match="some cases by 'kind' have parts in several shards"):
        search_items(far, [ItemQuestion(np.ones((1, DIM), np.float32), np.ones(1), np.empty(0, np.int64))], "kind", 3)
    assert not far.remote.asked


def test_what_cannot_be_asked_is_refused_before_anybody_is_asked(far):
    query = np.ones((1, DIM), np.float32)
    for wrong in (
        lambda: far.search(query[:, 1:], 3),
        lambda: far.search(query * np.nan, 3),
        lambda: far.search(query, 0),
        lambda: far.search(query, 3, one_per="nothing"),
        lambda: far.search(query, 3, exclude=[]),
        lambda: far.search(query, 3, exclude_same={"nothing": ["x"]}),
        lambda: far.search(query, 3, mask=np.ones(3, bool)),
    ):
        with pytest.raises(UsageError):
            wrong()
    assert not far.remote.asked
    with pytest.raises(FilterError):
        far.search(query, 3, where="kind =")


def test_a_part_of_the_rows_is_said(whole, far):
    query = np.ones((2, DIM), np.float32)
    far.remote.down = {1}
    with pytest.raises(RetrError, match="shard 1 did not answer"):
        far.search(query, 5)
    found = far.search(query, 500, partial=True)
    here = spans(whole.manifest)[1]
    mask = np.ones(whole.n_total, bool)
    mask[here.start : here.stop] = False
    near = whole.search(query, 500, mask=mask)
    assert found.rows.tolist() == near.rows.tolist()
    assert found.scores.tobytes() == near.scores.tobytes()
    assert found.searched == (len(whole) - here.live) / len(whole)
    assert not found.exact
    share = f"{np.floor(1000 * found.searched) / 10:g} %"
    assert found.note == f"partial: {share} of the rows were searched, shard 1 did not answer"
    asked = [ItemQuestion(query, np.ones(2), np.empty(0, np.int64))]
    [cases] = search_items(far, asked, "patient", 3, partial=True)
    [same] = search_items(whole, asked, "patient", 3, mask=mask)
    assert cases.items.tolist() == same.items.tolist()
    assert (cases.searched, cases.exact) == (found.searched, False)
    far.remote.down = {0, 1, 2}
    with pytest.raises(RetrError, match="did not answer"):
        far.search(query, 5, partial=True)


def test_a_newer_version_is_asked_of_the_same_machines(whole, far):
    with whole.writer() as writer:
        writer.delete(np.array([1]))
        writer.commit()
    newer = far.newest()
    assert newer.remote is far.remote
    assert whole.newest().remote is None
