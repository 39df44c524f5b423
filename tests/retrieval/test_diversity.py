"""Maximal marginal relevance against its definition, and as an option of a search."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr import Index, Query, UsageError
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.diversity import CANDIDATES, marginal_relevance

N, DIM = 500, 8


def make(path, similarity="cosine"):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(25, DIM))
    vectors = np.repeat(centres, N // 25, axis=0) + 0.05 * rng.normal(size=(N, DIM))
    info = EncoderInfo("none", DIM, similarity, "", text=False, weights_sha256="0", preprocessing="")
    store = Store.create(path, encoder=info)
    with store.writer() as writer:
        columns = {"id": [f"r{i:03}" for i in range(N)], "kind": [f"k{i // 20}" for i in range(N)]}
        writer.append(pa.table({**columns, "side": ["lr"[i % 2] for i in range(N)]}), vectors)
        return writer.commit()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return Index.open(make(tmp_path_factory.mktemp("i") / "x").path)


def by_definition(scores, vectors, share):
    """The formula of the docs, one step at a time."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    pairs = [alike[i, j] for i in range(len(alike)) for j in range(i)]

    def scaled(x, low, high):
        return (x - low) / (high - low) if high > low else 0.0

    order = [0]
    while len(order) < len(scores):
        value = {}
        for i in range(len(scores)):
            if i not in order:
                redundant = max(0.0, *(scaled(alike[i, j], min(pairs), max(pairs)) for j in [*order, order[0]]))
                value[i] = (1 - share) * scaled(scores[i], min(scores), max(scores)) - share * redundant
        best = max(value.values())
        order.append(min(i for i, one in value.items() if one == best))
    return order


@given(st.integers(0, 10_000), st.integers(3, 12), st.sampled_from([0.1, 0.3, 0.7, 1.0]))
def test_the_order_is_that_of_the_definition(seed, n, share):
    rng = np.random.default_rng(seed)
    scores, vectors = -np.sort(-rng.random(n)), rng.normal(size=(n, 4))
    assert marginal_relevance(scores, vectors, share).tolist() == by_definition(scores, vectors, share)


def test_equal_rows_and_scores_keep_their_order():
    assert marginal_relevance(np.full(4, 0.5), np.ones((4, 3)), 0.5).tolist() == [0, 1, 2, 3]


def test_it_spreads_the_hits_and_keeps_their_scores(index):
    plain, spread = (index.search(id="r007", k=10, **asked) for asked in ({}, {"diverse": 0.7}))
    kinds = [len({hit.metadata["kind"] for hit in hits}) for hits in (plain, spread)]
    assert kinds[0] == 1 < kinds[1]
    assert spread.ids[0] == plain.ids[0]
    every = index.search(id="r007", k=N)
    whole = dict(zip(every.ids, every.scores.tolist(), strict=True))
    assert [whole[name] for name in spread.ids] == spread.scores.tolist()
    assert spread.ranks.tolist() == list(range(1, 11))
    assert "not in the order of scores: diverse 0.7" in spread.note
    assert "diverse" not in (plain.note or "")
    assert index.search(id="r007", k=10, diverse=0) == plain


@pytest.mark.parametrize("asked", [{}, {"where": "side = 'l'"}, {"one_per": "kind"}, {"min_score": 0.2}])
def test_pages_are_parts_of_one_order_whatever_k(index, asked):
    whole = index.search(id="r100", k=N, diverse=0.4, **asked)
    pages = [index.search(id="r100", k=70, offset=at, diverse=0.4, **asked) for at in range(0, N, 70)]
    assert [name for page in pages for name in page.ids] == whole.ids
    assert set(whole.ids) == set(index.search(id="r100", k=N, **asked).ids)
    # beyond the candidates by score
    assert whole.ids[CANDIDATES:] == index.search(id="r100", k=N, **asked).ids[CANDIDATES:]


def test_filters_exclusions_and_groups_hold(index):
    hits = index.search(id="r100", k=8, diverse=0.6, where="side = 'l'", one_per="kind", exclude_same="kind")
    assert {hit.metadata["side"] for hit in hits} == {"l"}
    assert len({hit.metadata["kind"] for hit in hits}) == 8
    assert "k5" not in {hit.metadata["kind"] for hit in hits}


def test_a_batch_is_answered_as_each_alone(index):
    ids = ["r001", "r250", "r499"]
    together = index.search([Query.id(one) for one in ids], k=6, diverse=0.3)
    assert together == [index.search(id=one, k=6, diverse=0.3) for one in ids]


def test_dot_products_of_any_size(tmp_path):
    index = Index.open(make(tmp_path / "x", "dot").path)
    vector = np.asarray(index.store.vectors(np.array([7])))[0] * 1000
    one, other = (index.search(vector=vector * scale, k=10, diverse=0.7).ids for scale in (1, 0.001))
    assert one == other
    assert len({index[name]["kind"] for name in one}) > 1


def test_an_empty_answer_and_a_single_one(index):
    assert len(index.search(id="r001", diverse=0.5, where="side = 'x'")) == 0
    assert index.search(id="r001", diverse=0.5, where="id = 'r002'").ids == ["r002"]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_is_from_0_to_1(index, share):
    with pytest.raises(UsageError, match="diverse is a share from 0"):
        index.search(id="r001", diverse=share)
