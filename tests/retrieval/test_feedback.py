"""Questions moved by marked rows: the fit against scipy, and what a refined search keeps."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr import Index, Query, UnknownIdError, UsageError
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.feedback import moved
from retr.retrieval.query_vectors import resolve

N, DIM = 240, 12


def make(path, similarity="cosine"):
    """Two kinds in one half of the numbers, what they look like in the other; two rows a patient, some copies."""
    rng = np.random.default_rng(0)
    kind, patient = np.arange(N) // 2 % 2, np.arange(N) // 2
    vectors = rng.normal(size=(N, DIM))
    vectors[:, 0] = np.where(kind, 1.2, -1.2) + 0.4 * rng.normal(size=N)
    vectors[1::2] = vectors[::2] + 0.05 * rng.normal(size=(N // 2, DIM))  # the twin of each row
    info = EncoderInfo("none", DIM, similarity, "", text=False, weights_sha256="0", preprocessing="")
    store = Store.create(path, encoder=info, group="patient")
    table = {
        "id": [f"r{i:03}" for i in range(N)],
        "kind": ["ab"[k] for k in kind],
        "patient": [None if p == 119 else f"P{p}" for p in patient],
        "sha256": [f"h{'x' if i in (8, 100) else i}" for i in range(N)],
        "side": ["lr"[i % 2] for i in range(N)],
    }
    with store.writer() as writer:
        writer.append(pa.table(table), vectors)
        return writer.commit()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return Index.open(make(tmp_path_factory.mktemp("i") / "x").path)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_the_fit_is_the_minimum_of_the_stated_loss(seed, n, m):
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    q, like, unlike = unit(rng.normal(size=4)), unit(rng.normal(size=(n, 4))), unit(rng.normal(size=(m, 4)))
    rows, y = np.vstack([like, unlike]), np.repeat([1, -1], [n, m])
    weight = np.repeat([(n + m) / 2 / n, (n + m) / 2 / m], [n, m])

    def loss(at):
        return (
            ((at[:4] - q) ** 2).sum() / 2
            + at[4] ** 2 / 2
            + (weight * np.logaddexp(0, -y * (rows @ at[:4] + at[4]))).sum()
        )

    best = minimize(loss, np.r_[q, 0], tol=1e-12)
    np.testing.assert_allclose(moved(q, like, unlike), best.x[:4], atol=1e-4)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.booleans(), st.booleans())
def test_the_scale_of_dot_products_changes_no_order(scale, with_like, with_unlike):
    rng = np.random.default_rng(1)
    q, like, unlike = rng.normal(size=5), rng.normal(size=(3, 5)) * with_like, rng.normal(size=(2, 5)) * with_unlike
    one, other = moved(q, like, unlike), moved(q * scale, like * scale, unlike * scale)
    np.testing.assert_allclose(other / scale, one, rtol=1e-6)


def test_many_equal_rows_and_opposite_marks_end():
    row = unit(np.ones((1, 6)))
    assert np.isfinite(moved(row[0], np.repeat(row, 400, 0), np.repeat(row, 3, 0))).all()


class TestSearch:
    def test_it_finds_more_of_what_is_right(self, index):
        gains = []
        for one in ("r000", "r020", "r101", "r150", "r203"):
            query, kind = Query.id(one), index[one]["kind"]
            before = index.search(query, k=30, exclude_same="patient")
            marks = {"like": [], "unlike": []}
            for hit in before[:10]:
                marks["like" if hit.metadata["kind"] == kind else "unlike"].append(hit)
            after = index.search(query.refine(before, **marks), k=10, exclude_same="patient")
            seen = {hit.metadata["patient"] for hit in before[:10]}
            unseen = [hit for hit in before if hit.metadata["patient"] not in seen][:10]
            gains.append(
                np.mean([h.metadata["kind"] == kind for h in after])
                - np.mean([h.metadata["kind"] == kind for h in unseen])
            )
        assert np.mean(gains) > 0.1

    def test_marked_rows_and_their_copies_do_not_come_back(self, index):
        query = Query.id("r000").refine(like=["r008"], unlike=["r031"])
        everything = set(index.search(query, k=N).ids)
        assert {f"r{i:03}" for i in range(N)} - everything == {"r000", "r008", "r100", "r031"}
        assert len(index.search(query, k=N, include_self=True)) == N

    def test_the_patients_of_marked_rows_are_left_out_as_the_exclusion_says(self, index):
        query = Query.id("r000").refine(like=["r008"], unlike=["r031"])
        # by its vector a marked row's twin is the nearest
        assert "r009" in index.search(Query.id("r000").refine(like=["r008"] * 3), k=20).ids
        for same in ("patient", {"patient": None}, {"patient": "P77"}, ["patient"]):
            gone = {"P4", "P15", "P77" if same == {"patient": "P77"} else "P0"}
            hits = index.search(query, k=N, exclude_same=same)
            assert not gone & set(hits.metadata["patient"].to_pylist())
        by_vector = Query.vector(np.ones(DIM)).refine(unlike=["r031"])
        hits = index.search(by_vector, k=N, exclude_same={"patient": "P77"})
        assert not {"P15", "P77"} & set(hits.metadata["patient"].to_pylist())

    def test_a_marked_row_without_a_patient_is_said(self, index):
        hits = index.search(Query.id("r000").refine(like=["r238"]), k=N, exclude_same="patient")
        assert "the marked row 'r238' has no patient" in hits.note
        assert "r238" not in hits.ids
        assert "r239" in hits.ids

    def test_filters_groups_and_pages_are_kept(self, index):
        query = Query.id("r000").refine(like=["r008", "r016"], unlike=["r031"])
        asked = {"where": "side = 'l'", "one_per": "patient", "exclude_same": "patient"}
        whole = index.search(query, k=100, **asked)
        assert set(whole.metadata["side"].to_pylist()) == {"l"}
        pages = [index.search(query, k=30, offset=at, **asked) for at in (0, 30, 60, 90)]
        assert [one for page in pages for one in page.ids][:100] == whole.ids
        assert index.search([query, Query.id("r002")], k=4)[0] == index.search(query, k=4)

    def test_marks_alone_are_a_question(self, index):
        hits = index.search(Query(()).refine(like=["r008", "r016"]), k=3, exclude_same="patient")
        assert len(hits) == 3
        assert hits.query == "refined by 2 like"
        with pytest.raises(UsageError, match="no question by themselves"):
            index.search(Query(()).refine(unlike=["r008"]))

    def test_an_unknown_mark_is_one_line(self, index):
        query = Query.id("r000").refine(like=["r0000"])
        with pytest.raises(UnknownIdError, match="'r0000'"):
            index.search(query)

    def test_dot_products(self, tmp_path):
        index = Index.open(make(tmp_path / "x", "dot").path)
        query = Query.id("r000").refine(like=["r008"], unlike=["r031", "r003"])
        assert index.search(query, k=5).ids == index.search(query * 7, k=5).ids

    def test_the_remark_on_strange_pictures_is_not_of_refined_questions(self, index):
        from retr.retrieval.notices import _is_picture

        assert _is_picture(Query.id("r000"))
        assert not _is_picture(Query.id("r000").refine(like=["r008"]))


class TestMarks:
    def test_ids_hits_and_ranks(self, index):
        hits = index.search(id="r000", k=5)
        query = Query.id("r000").refine(hits, like=[1, hits[1]], unlike=[hits.ids[4], np.int64(5)])
        assert (query.like, query.unlike) == (tuple(hits.ids[:2]), (hits.ids[4],))
        assert Query.id("a").refine(hits[2:], like=[3]).like == (hits.ids[2],)

    def test_the_last_mark_counts(self):
        query = Query.id("q").refine(like=["a", "b"]).refine(unlike=["a"]).refine(like=["c", "c"])
        assert (query.like, query.unlike) == (("b", "c"), ("a",))
        assert query.describe() == "id 'q', refined by 2 like and 1 unlike"

    def test_arithmetic_keeps_them(self):
        query = Query.id("q").refine(like=["a"]) * 2 + Query.text("drusen").refine(like=["b"], unlike=["a"])
        assert (query.like, query.unlike, len(query.parts)) == (("b",), ("a",), 2)

    @pytest.mark.parametrize(
        ("marks", "said"),
        [
            ({"like": ["a"], "unlike": ["a"]}, "'a' is marked as like and as unlike"),
            ({"like": "a.png"}, "like is a list of ids"),
            ({"unlike": None}, "unlike is a list of ids"),
            ({"like": [0]}, "no hit of rank 0"),
            ({"like": [1]}, "no hit of rank 1"),
            ({"like": [True]}, "by its id, by a hit, or by a rank"),
            ({"unlike": [2.0]}, "by its id, by a hit, or by a rank"),
        ],
    )
    def test_what_is_no_mark(self, marks, said):
        with pytest.raises(UsageError, match=said):
            Query.id("q").refine(**marks)

    def test_json(self):
        query = Query.from_json({"id": "q", "like": ["a"], "unlike": ["b", "c"]})
        assert (query.like, query.unlike) == (("a",), ("b", "c"))
        assert Query.from_json({"like": ["a"]}).parts == ()
        with pytest.raises(UsageError, match="like is a list"):
            Query.from_json({"id": "q", "like": "a"})
        with pytest.raises(UsageError, match="a query needs one of"):
            Query.from_json({"unlike": ["a"]})

    def test_a_question_without_marks_is_resolved_as_before(self, index):
        found = resolve([Query.id("r003")], index_encoder(index), index.store)
        np.testing.assert_array_equal(found.vectors[0], unit(index.store.vectors(np.array([3]))[0]))


def index_encoder(index):
    from retr.retrieval.encoders.index_encoder import RecordedEncoder

    return RecordedEncoder(index.store.manifest.encoder, lambda: None)
