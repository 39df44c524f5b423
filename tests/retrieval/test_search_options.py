"""``exact=``, ``effort=``, ``offset=`` and ``columns=`` of a search, on a tuned index and on a plain one."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from retr import Index, Query, UsageError
from retr.index.accelerators import faiss_index
from retr.index.accelerators.config import HNSW, IVF
from retr.index.disk.manifest import TUNING
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import Tuning

N, DIM = 2400, 16
INFO = EncoderInfo("none", DIM, "cosine", "", text=False, weights_sha256="0", preprocessing="")


def make(path) -> Store:
    vectors = np.random.default_rng(0).standard_normal((N, DIM))
    vectors[N // 2 :] = vectors[: N // 2]  # every score stands twice: ties
    store = Store.create(path, encoder=INFO)
    table = pa.table(
        {
            "id": [f"{(i * 7919) % N:05d}" for i in range(N)],
            "path": [f"p{i}" for i in range(N)],
            "label": ["ab"[i % 2] for i in range(N)],
            "patient": [f"p{i // 3}" for i in range(N)],
        }
    )
    with store.writer() as writer:
        writer.append(table, vectors)
        return writer.commit()


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("i") / "plain").path


@pytest.fixture(scope="module", params=[IVF(codec="sq8"), HNSW(links=4, build_effort=8)], ids=["ivf", "hnsw"])
def tuned_path(tmp_path_factory, request):
    """An index with an accelerator, as `tune` leaves it: its choice takes longer than all of these tests."""
    pytest.importorskip("faiss")
    store = make(tmp_path_factory.mktemp("i") / "tuned")
    with store.writer() as writer:
        writer.accelerate(0, partial(faiss_index.train, store.segments[0].vectors, request.param, budget=1 << 30))
        writer.note(TUNING, Tuning(request.param, 0.9, {"image": 0.9}, 0.001, 1).to_json())
        writer.commit()
    return store.path


@pytest.fixture
def plain(plain_path) -> Index:
    return Index.open(plain_path)


@pytest.fixture
def tuned(tuned_path) -> Index:
    return Index.open(tuned_path)


def questions(n=40):
    return np.random.default_rng(1).standard_normal((n, DIM)).astype(np.float32)


def found(answers, truth):
    pairs = zip(answers, truth, strict=True)
    return np.mean([len(set(one.ids) & set(other.ids)) / len(other) for one, other in pairs])


class TestOffset:
    @pytest.mark.parametrize("k", [7, 50])
    @pytest.mark.parametrize(
        "asked", [{}, {"where": "label = 'a'"}, {"one_per": "patient"}, {"exclude_same": {"patient": "p7"}}]
    )
    def test_pages_are_one_long_answer(self, plain, k, asked):
        whole = plain.search(vector=questions()[0], k=150, **asked)
        pages = [plain.search(vector=questions()[0], k=k, offset=at, **asked) for at in range(0, 150, k)]
        assert [hit.id for page in pages for hit in page][:150] == whole.ids
        assert [hit.rank for page in pages for hit in page][:150] == whole.ranks.tolist()
        assert np.concatenate([page.scores for page in pages])[:150].tolist() == whole.scores.tolist()

    def test_pages_of_a_tuned_index_are_exact(self, tuned):
        whole = tuned.search(vector=questions()[0], k=60, exact=True)
        pages = [tuned.search(vector=questions()[0], k=20, offset=at) for at in (0, 20, 40)]
        assert [hit.id for page in pages for hit in page] == whole.ids
        assert all(page.exact for page in pages)

    def test_the_end(self, plain):
        vector = questions()[0]
        assert len(plain.search(vector=vector, k=10, offset=N - 3)) == 3
        beyond = plain.search(vector=vector, k=10, offset=10 * N)
        assert (len(beyond), len(list(beyond)), beyond.table.num_rows) == (0, 0, 0)
        few = plain.search(vector=vector, k=10, offset=2, min_score=plain.search(vector=vector, k=4).scores[-1])
        assert few.ranks.tolist() == [3, 4]

    def test_several_questions(self, plain):
        whole = plain.search(vectors=questions(), k=9)
        assert [hits[4:].ids for hits in whole] == [
            hits.ids for hits in plain.search(vectors=questions(), k=5, offset=4)
        ]

    def test_of_a_row_that_is_left_out(self, plain):
        whole = plain.search(id="00007", k=6)
        assert plain.search(id="00007", k=3, offset=3) == whole[3:]

    @pytest.mark.parametrize("offset", [-1, 1.0, 1.5, True, "3"])
    def test_what_cannot_be_meant(self, plain, offset):
        with pytest.raises(UsageError, match="offset must be a whole number"):
            plain.search(vector=questions()[0], offset=offset)


class TestEffort:
    def test_more_finds_more(self, tuned):
        truth = tuned.search(vectors=questions(), k=10, exact=True)
        assert all(hits.exact and hits.note is None for hits in truth)
        little = tuned.search(vectors=questions(), k=10, effort=1)
        much = tuned.search(vectors=questions(), k=10, effort=2048)
        assert not any(hits.exact for hits in [*little, *much])
        assert found(much, truth) > 0.9
        assert found(much, truth) > found(little, truth) + 0.1
        assert "effort 1 instead of the" in little[0].note
        assert "recall" not in tuned.search(vector=questions()[0], effort=1).note.split("whose")[0]
        assert "recall" in tuned.search(vector=questions()[0]).note

    def test_it_changes_no_other_search(self, tuned):
        before = tuned.search(vectors=questions(), k=10)
        tuned.search(vectors=questions(), k=10, effort=1)
        assert tuned.search(vectors=questions(), k=10) == before

    def test_the_tuned_effort_keeps_its_promise(self, tuned):
        config = tuned.store.plan.config
        effort = config.probes if isinstance(config, IVF) else config.search_effort
        vector = questions()[0]
        assert tuned.search(vector=vector, effort=effort) == tuned.search(vector=vector)

    def test_an_untuned_index_refuses_it(self, plain, tmp_path):
        with pytest.raises(UsageError, match=r"effort 8 says how far .* and this one is searched exactly"):
            plain.search(vector=questions()[0], effort=8)
        with pytest.raises(UsageError, match="searched exactly"):
            plain.search(image=tmp_path / "no such picture.png", effort=8)
        with pytest.raises(UsageError, match="searched exactly"):
            plain.store.search(questions(), 3, effort=8)

    @pytest.mark.parametrize("effort", [0, -4, 1.5, True, 1 << 20])
    def test_what_cannot_be_meant(self, tuned, effort):
        with pytest.raises(UsageError, match="effort must be a whole number"):
            tuned.search(vector=questions()[0], effort=effort)

    @pytest.mark.parametrize("other", [{"exact": True}, {"offset": 0}])
    def test_exact_search_has_none(self, tuned, other):
        with pytest.raises(UsageError, match="no effort"):
            tuned.search(vector=questions()[0], effort=8, **other)


class TestColumns:
    def test_only_those_are_read(self, plain, monkeypatch):
        read = []
        table = Store.table
        monkeypatch.setattr(
            Store, "table", lambda self, columns=None, rows=None: read.append(columns) or table(self, columns, rows)
        )
        hits = plain.search(vector=questions()[0], k=3, columns=["label"])
        assert not read, "nothing before it is asked for"
        assert len(hits.ids) == len(hits.scores) == 3
        assert not read, "ids alone"
        assert hits.metadata.column_names == ["id", "label"]
        assert read == [["id", "label"]]
        assert hits.metadata.column_names == ["id", "label"]
        assert all(set(hit.metadata) == {"label"} for hit in hits)
        assert [hit.path for hit in hits] == table(plain.store, ["path"], hits.rows)["path"].to_pylist()

    def test_what_was_not_read_travels_all_the_same(self, plain):
        asked = {"vector": questions()[0], "k": 3}
        one, other = plain.search(**asked), plain.search(**asked)
        assert pickle.loads(pickle.dumps(one)) == other
        assert plain.search(**asked)[1:] == other[1:]
        assert plain.search(**asked).with_note("n").ids == other.ids
        assert plain.search(**asked).with_note("n") != other
        assert not hasattr(one, "unheard_of")
        several = plain.search(vectors=questions()[:3], k=2)
        assert [hits.metadata["id"].to_pylist() for hits in several] == [hits.ids for hits in several]
        assert [hits.paths for hits in several] == [[hit.path for hit in hits] for hits in several]

    def test_any_order_and_none(self, plain):
        hits = plain.search(vector=questions()[0], k=3, columns=("patient", "id", "patient"))
        assert hits.table.column_names == ["rank", "score", "id", "patient"]
        assert plain.search(vector=questions()[0], k=3, columns=[]).metadata.column_names == ["id"]
        whole = plain.search(vector=questions()[0], k=3)
        assert whole.metadata.column_names == ["id", "path", "label", "patient"]
        assert hits.ids == whole.ids

    def test_an_unknown_one_is_refused_before_anything_is_read(self, plain, tmp_path):
        with pytest.raises(UsageError, match="there is no column 'lable'; did you mean 'label'"):
            plain.search(image=tmp_path / "no such picture.png", columns=["lable"])
        with pytest.raises(UsageError, match=r"write columns=\['label'\]"):
            plain.search(Query.vector(questions()[0]), columns="label")
        for bad in ([3], pa.array([3])):
            with pytest.raises(UsageError, match="columns are a list of texts, got one of the type"):
                plain.search(Query.vector(questions()[0]), columns=bad)


def test_what_is_no_question(plain):
    with pytest.raises(UsageError, match="a query vector must be a list of numbers"):
        plain.search(vector=[1j] * DIM)
    with pytest.raises(UsageError, match="not finite"):
        plain.search(vectors=[[1e300] * DIM])
    with pytest.raises(UsageError, match="which are text, got: 3"):
        plain.search(id=3)
