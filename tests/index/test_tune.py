"""Accelerators: the promised recall holds, and nothing that exact search guarantees is lost."""

from __future__ import annotations

import re
import shutil
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index import measuring, plan, tune
from retr.index.accelerators import approximate, config, faiss_index
from retr.index.accelerators.config import HNSW, IVF, Flat
from retr.index.disk import compaction
from retr.index.encoder import EncoderInfo
from retr.index.errors import MissingExtraError, UsageError
from retr.index.store import Store

N, DIM = 4000, 24


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(faiss_index, "MIN_ROWS", 500)
    monkeypatch.setattr(tune, "MIN_ROWS", 500)
    # a scan of so few rows costs less than anything
    monkeypatch.setattr(approximate, "_SEARCH", 0.0)
    monkeypatch.setattr(approximate, "_LIST", 0.0)


def clustered(n: int = N, seed: int = 0) -> np.ndarray:
    centres = np.random.default_rng(0).standard_normal((60, DIM))
    rng = np.random.default_rng(seed)
    return centres[rng.integers(0, 60, n)] + 0.5 * rng.standard_normal((n, DIM))


def spherical(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM))


def curved(n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = rng.random((n, 3)) * 6
    return np.concatenate([np.sin(t * (i + 1)) for i in range(DIM // 3)], axis=1) + 0.05 * rng.standard_normal((n, DIM))


def index(tmp_path, vectors, dtype="float16", cut=None) -> Store:
    info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(tmp_path / "tuned", encoder=info, dtype=dtype)
    n = len(vectors)
    table = pa.table({"id": [f"{i:06d}" for i in range(n)], "patient": [f"p{i // 5}" for i in range(n)], "n": range(n)})
    with store.writer() as writer:
        for start, stop in zip([0, *(cut or [])], [*(cut or []), n], strict=True):
            writer.append(table.slice(start, stop - start), vectors[start:stop])
            store = writer.commit()
    return store


def recall(store: Store, queries: np.ndarray) -> float:
    queries = queries.astype(np.float32)
    kth = store.search(queries, 10, exact=True).scores[:, -1:]
    return float((store.search(queries, 10).scores >= kth).mean())


@pytest.mark.parametrize("make_data", [clustered, spherical, curved])
def test_the_promised_recall_holds_on_queries_never_seen(tmp_path, make_data):
    store = index(tmp_path, make_data())
    other = np.random.default_rng(9).standard_normal((600, DIM)).astype(np.float32) + 0.3
    with store.writer() as writer:
        tuning = tune.tune(writer, recall=0.9, queries={"text": other})
        store = writer.store
    assert isinstance(tuning.config, IVF)
    assert set(tuning.recalls) == {"image", "unseen", "text"}
    assert tuning.recall >= 0.9
    unseen = np.random.default_rng(10).standard_normal((600, DIM)) + 0.3
    new = recall(store, make_data(600, seed=5))
    assert new >= tuning.recalls["image"] - 0.03
    assert new >= tuning.recall - 0.01
    assert recall(store, unseen) >= tuning.recalls["text"] - 0.03
    noted = Store.open(store.path).manifest.extra["tuning"]
    assert config.from_json(noted["index"]) == tuning.config
    assert noted["recall"] == pytest.approx(tuning.recall, abs=1e-4)
    assert len(noted["curve"]) > 5
    found = store.search(other[:1], 3)
    assert not found.exact
    assert "recall" in (found.note or "")
    assert store.check() == []


@pytest.mark.parametrize("kind", [IVF(), IVF(codec="sq8"), HNSW(), HNSW(codec="fp16")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_kind_finds_and_scores_like_the_exact_search(tmp_path, kind, dtype):
    store = index(tmp_path, clustered(), dtype=dtype)
    with store.writer() as writer:
        tuning = tune.tune(writer, recall=0.8, kinds=[kind])
        store = writer.store
    assert type(tuning.config) is type(kind)
    queries = clustered(50, seed=3).astype(np.float32)
    near, exact = store.search(queries, 10), store.search(queries, 10, exact=True)
    for i in range(50):
        scores = dict(zip(exact.rows[i].tolist(), exact.scores[i].tolist(), strict=True))
        for row, score in zip(near.rows[i].tolist(), near.scores[i].tolist(), strict=True):
            assert scores.get(row, score) == score
    assert (np.diff(near.scores, axis=1) <= 0).all()


@pytest.fixture
def tuned(tuned_once, tmp_path) -> Store:
    shutil.copytree(tuned_once.path, tmp_path / "copy")
    return Store.open(tmp_path / "copy")


@pytest.fixture(scope="module")
def tuned_once(tmp_path_factory) -> Store:
    """Three segments: two with an accelerator, a fresh one without, and deleted rows in all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_index, "MIN_ROWS", 500)
        patch.setattr(tune, "MIN_ROWS", 500)
        patch.setattr(compaction, "SEGMENT_ROWS", N - 1)
        return make_tuned(tmp_path_factory.mktemp("tuned"))


def make_tuned(tmp_path) -> Store:
    vectors = clustered(N + 300)
    store = index(tmp_path, vectors[:N], cut=[2000])
    with store.writer() as writer:
        tune.tune(writer, recall=0.95)
        ids = [f"new{i}" for i in range(300)]
        writer.append(pa.table({"id": ids, "patient": ["fresh"] * 300, "n": range(N, N + 300)}), vectors[N:])
        writer.delete(np.arange(0, N, 7))
        return writer.commit()


def test_rows_added_later_are_found_exactly(tuned):
    assert [info.accelerator is not None for info in tuned.manifest.segments] == [True, True, False]
    fresh = np.arange(N, N + 300)
    found = tuned.search(np.asarray(tuned.vectors(fresh), np.float32), 1)
    assert found.rows[:, 0].tolist() == fresh.tolist()
    assert not found.exact


@pytest.mark.parametrize("where", [None, "n % 2 = 0", "n < 60", "n < 1200", "patient = 'fresh'"])
@pytest.mark.parametrize("one_per", [None, "patient"])
def test_filters_and_groups_stay_exact_about_what_is_allowed(tuned, where, one_per):
    if where == "n % 2 = 0":
        where = None
        mask = np.arange(tuned.n_total) % 2 == 0
    else:
        mask = np.ones(tuned.n_total, bool)
    queries = clustered(20, seed=4).astype(np.float32)
    exclude = [np.random.default_rng(i).integers(0, tuned.n_total, 20) for i in range(20)]
    options = {"where": where, "mask": mask, "exclude": exclude, "one_per": one_per, "exclude_same": None}
    near = tuned.search(queries, 15, **options)
    truth = tuned.search(queries, 15, exact=True, **options)
    np.testing.assert_array_equal((near.rows >= 0).sum(axis=1), (truth.rows >= 0).sum(axis=1))
    allowed = mask & tuned.alive() & (tuned.where(where) if where else True)
    patients = np.array(tuned.table(["patient"], np.arange(tuned.n_total))["patient"].to_pylist(), object)
    for i, rows in enumerate(near.rows):
        kept = rows[rows >= 0]
        assert allowed[kept].all()
        assert not set(kept.tolist()) & set(exclude[i].tolist())
        assert len(set(kept.tolist())) == len(kept)
        if one_per:
            named = [patient for patient in patients[kept] if patient is not None]
            assert len(set(named)) == len(named)
    assert (near.rows == truth.rows).mean() > 0.8


def test_what_was_measured_is_shown(tuned, make):
    shown = plan.describe(tuned.manifest)
    assert shown["kind"] in {"ivf", "hnsw"}
    assert {"recall", "recalls", "k", "milliseconds", "bytes"} < shown.keys()
    assert all(
        re.fullmatch(
            r"(ivf|hnsw), \w+ \w+(, \w+ \w+)*: recall [01]\.\d{3} \(image\), [01]\.\d{3} \(unseen\), \d+\.\d\d ms", line
        )
        for line in shown["curve"]
    )
    assert plan.describe(make(3).manifest) == {"kind": "exact", "recall": 1.0}


def test_a_large_excluded_group_costs_no_rows(tuned, monkeypatch):
    query = np.asarray(tuned.vectors(np.array([N])), np.float32)
    truth = tuned.search(query, 10, exclude_same={"patient": ["fresh"]}, exact=True)
    found = tuned.search(query, 10, exclude_same={"patient": ["fresh"]})
    assert not found.exact
    assert (found.rows < N).all()
    assert np.isin(found.rows, truth.rows).mean() >= 0.9
    monkeypatch.setattr(approximate, "_MAX_EXCLUDED", 299)
    assert tuned.search(query, 10, exclude_same={"patient": ["fresh"]}).exact


def test_all_rows_can_be_asked_for(tuned):
    query = clustered(1, seed=8).astype(np.float32)
    found = tuned.search(query, tuned.n_total)
    assert (found.rows >= 0).sum() == len(tuned)


def test_an_accelerator_is_loaded_once(tuned):
    old, _, fresh = tuned.segments
    assert old.accelerator(faiss_index.load) is not None
    assert old.accelerator(faiss_index.load) is old.accelerator(faiss_index.load)
    assert fresh.accelerator(faiss_index.load) is None


def test_min_score_cuts(tuned):
    query = clustered(5, seed=8).astype(np.float32)
    found = tuned.search(query, 10, min_score=0.9)
    assert (found.scores[found.rows >= 0] >= np.float32(0.9)).all()


def test_a_query_gets_the_same_answer_alone_and_in_a_batch(tuned):
    queries = clustered(30, seed=2).astype(np.float32)
    together = tuned.search(queries, 10)
    for i in range(30):
        alone = tuned.search(queries[i : i + 1], 10)
        np.testing.assert_array_equal(alone.rows[0], together.rows[i])
        np.testing.assert_array_equal(alone.scores[0], together.scores[i])


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_without_its_accelerator_search_is_exact_and_says_so(tuned, damage):
    name = tuned.manifest.segments[0].accelerator.file
    file = tuned.path / name
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[:-9] if damage == "truncated" else bytes(4) + data[4:])
    store = Store.open(tuned.path)
    found = store.search(clustered(2).astype(np.float32), 3)
    assert found.exact
    why = f"the accelerator '{name}' is missing, cut short or changed"
    assert found.note == f"searched exactly: {why}; run `retr index tune` again"
    assert [finding.kind for finding in store.check()] == [damage]


def test_without_faiss_tuned_lists_are_searched_and_tuning_names_both_extras(tuned, monkeypatch):
    queries = clustered(2).astype(np.float32)
    truth = Store.open(tuned.path).search(queries, 3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    store = Store.open(tuned.path)
    found = store.search(queries, 3)
    assert not found.exact
    np.testing.assert_array_equal(found.rows, truth.rows)
    with store.writer() as writer, pytest.raises(MissingExtraError, match=r"retr\[cpu\].*retr\[gpu\]"):
        tune.tune(writer, recall=0.9)


def test_compaction_drops_accelerators_with_their_segments(tuned):
    with tuned.writer() as writer:
        writer.compact()
        store = writer.store
    assert not list(store.path.glob("segments/*.faiss"))
    assert store.search(clustered(2).astype(np.float32), 3).exact
    assert store.check() == []


def test_plain_faiss_opens_the_file(tuned):
    import faiss

    info = tuned.manifest.segments[0]
    opened = faiss.read_index(str(tuned.path / info.accelerator.file))
    assert (opened.ntotal, opened.d) == (info.rows, DIM)


def test_limits_are_kept(tmp_path):
    store = index(tmp_path, clustered())
    with store.writer() as writer:
        said: list[str] = []
        tight = tune.tune(writer, recall=0.9, memory=1000, kinds=[IVF()], say=said.append)
        assert (tight.config, tight.recall) == (Flat(), 1.0)
        assert any("allowed" in line for line in said)
        hurried = tune.tune(writer, recall=0.9, latency=1e-9, kinds=[IVF()])
        assert hurried.config == Flat()
        assert tune.tune(writer, recall=1).reason
        assert not list(store.path.glob("segments/*.faiss"))
        for wrong in (0, 1.5, -1):
            with pytest.raises(UsageError, match="recall"):
                tune.tune(writer, recall=wrong)


def test_a_small_index_stays_exact(make):
    store = make(30)
    with store.writer() as writer:
        assert tune.tune(writer, recall=0.9).config == Flat()
    assert not tune.needed(store)


def test_a_dominated_setting_is_tried_before_a_dearer_kind(monkeypatch):
    monkeypatch.setattr(tune, "by_turns", lambda _, searches: [float(i) for i in range(len(searches))])
    settings = [IVF(probes=48, refine=6), IVF(probes=96, refine=4), IVF(probes=64, refine=6), IVF(probes=128, refine=6)]
    points = [tune.Point(each, {"image": 0.99}, 0.0) for each in settings]
    questions = tune.Questions(np.empty((0, DIM), np.float32), [], np.empty(0, np.float32))
    store = None  # what is timed is patched away
    assert list(tune._cheapest_first(store, questions, points)) == settings


SETTINGS = st.builds(IVF, probes=st.integers(1, 6), refine=st.integers(1, 6)) | st.builds(
    HNSW, refine=st.integers(1, 3), search_effort=st.integers(16, 20)
)


class Timed:
    """A store of which only the time of a search is known: so long with each setting."""

    def __init__(self, seconds):
        self.plan, self.placement = types.SimpleNamespace(config=None), types.SimpleNamespace(device="cpu")
        self.seconds, self.now = seconds, 0.0

    def search(self, *_args):
        self.now += self.seconds(self.plan.config)


def ordered(settings, seconds) -> list:
    """Return settings as tune tries them, where each search takes as long as ``seconds`` says."""
    store = Timed(seconds)
    points = [tune.Point(setting, {"image": 1.0}, 1.0) for setting in settings]
    asked = types.SimpleNamespace(vectors=np.zeros((4, 2), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "clock", lambda _: lambda: store.now)
        return list(tune._cheapest_first(store, asked, points))


def looks_at(setting) -> tuple[int, int]:
    return setting.refine, setting.probes if isinstance(setting, IVF) else setting.search_effort


def dominates(one, other) -> bool:
    """Return whether one setting looks at no more than another in any way, and at less in one."""
    first, second = looks_at(one), looks_at(other)
    return first[0] <= second[0] and first[1] <= second[1] and first != second


@given(settings=st.lists(SETTINGS, max_size=12, unique_by=looks_at), seed=st.integers(0, 1000))
def test_a_setting_comes_after_all_that_dominate_it_whatever_was_timed(settings, seed):
    times = np.random.default_rng(seed).random(1 << 10)
    tried = ordered(settings, lambda setting: times[hash(looks_at(setting)) % len(times)])
    assert sorted(map(looks_at, tried)) == sorted(map(looks_at, settings))
    for place, setting in enumerate(tried):
        assert not any(dominates(later, setting) for later in tried[place + 1 :])


@given(settings=st.lists(SETTINGS, max_size=12, unique_by=looks_at), seed=st.integers(0, 1000))
def test_the_first_tried_is_the_cheapest_of_those_that_none_dominates(settings, seed):
    times = dict(zip(settings, np.random.default_rng(seed).permutation(len(settings)) + 1.0, strict=True))
    free = [setting for setting in settings if not any(dominates(other, setting) for other in settings)]
    tried = ordered(settings, times.__getitem__)
    assert tried[: len(free)] == sorted(free, key=times.__getitem__)


@given(
    curve=st.dictionaries(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.floats(0.5, 2), min_size=1, max_size=12)
)
def test_where_time_follows_what_is_looked_at_the_first_tried_is_the_cheapest_of_all(curve):
    """Noise of up to a factor of two cannot bring a dominated setting to the front, and without it none is cheaper."""
    settings = [IVF(probes=probes, refine=refine) for probes, refine in curve]
    true = {setting: setting.probes + 2.0 * setting.refine for setting in settings}
    assert true[ordered(settings, true.__getitem__)[0]] == min(true.values())
    noisy = {setting: true[setting] * curve[setting.probes, setting.refine] for setting in settings}
    first = ordered(settings, noisy.__getitem__)[0]
    assert not any(dominates(other, first) for other in settings)
