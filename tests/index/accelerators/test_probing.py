"""Whatever is allowed, the answer is exact or its recall is the one stated."""

from __future__ import annotations

import datetime as dt
import math
import re
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index import adverse, tune
from retr.index.accelerators import approximate, faiss_index
from retr.index.accelerators.approximate import Bound
from retr.index.accelerators.config import IVF, to_json
from retr.index.disk.manifest import TUNING
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.vectors import unit

N, DIM, CLASSES = 12_000, 48, 40
TARGET = 0.95


def vectors_of(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows around 40 centres, some close together, of sizes that differ much; return them and their classes."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres = fixed.standard_normal((CLASSES, DIM)) + 2 * fixed.standard_normal((5, DIM))[np.arange(CLASSES) % 5]
    shares = 1 / (1 + np.arange(CLASSES))
    classes = rng.choice(CLASSES, n, p=shares / shares.sum())
    return unit(centres[classes] + 0.8 * rng.standard_normal((n, DIM))), classes


@dataclass(frozen=True)
class Archive:
    store: Store
    vectors: np.ndarray
    classes: np.ndarray


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    vectors, classes = vectors_of(N, 1)
    info = EncoderInfo("fake", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    columns = {"id": [f"{i:05d}" for i in range(N)], "class": [f"c{c}" for c in classes], "site": ["x"] * N}
    columns["patient"] = [f"p{i // 3}" for i in range(N)]
    # what hangs together with the vectors, and is missing for whole classes
    along = np.argsort(np.argsort(vectors @ np.random.default_rng(5).standard_normal(DIM)))
    columns["age"] = [
        None if c % 7 == 3 else 20 + 70 * place // N for place, c in zip(along.tolist(), classes, strict=True)
    ]
    columns["day"] = [dt.date(2010, 1, 1) + dt.timedelta(days=place * 3650 // N) for place in along.tolist()]
    columns["report"] = [f"{'large' if c % 3 else 'small'} finding {c} in picture {i}" for i, c in enumerate(classes)]
    with Store.create(tmp_path_factory.mktemp("probing") / "index", encoder=info, dtype="float16").writer() as writer:
        # two segments, as they grow
        for part in (slice(0, 9000), slice(9000, N)):
            writer.append(pa.table(columns).slice(part.start, part.stop - part.start), vectors[part])
            writer.commit()
        with pytest.MonkeyPatch.context() as small:
            small.setattr(tune, "MIN_ROWS", 2000)
            tuning = tune.tune(writer, recall=TARGET)
        assert isinstance(tuning.config, IVF)
        assert tuning.config.codec == "rabitq"
        assert tuning.filtered.recall >= TARGET
    store = Store.open(writer.store.path)
    return Archive(store, np.asarray(store.vectors(np.arange(N)), np.float32), classes)


@pytest.fixture(autouse=True)
def never_scanned_for_its_cost(monkeypatch):
    monkeypatch.setattr(approximate, "_SEARCH", 0.0)
    monkeypatch.setattr(approximate, "_LIST", 0.0)


def stated(note: str) -> float:
    return float(re.match(r"approximate: recall ([01]\.\d{3}) when tuned", note)[1])


def recall(found, truth) -> float:
    k = (truth.rows >= 0).sum(axis=1)
    last = np.take_along_axis(truth.scores, np.maximum(k, 1)[:, None] - 1, axis=1)
    assert ((found.rows >= 0).sum(axis=1) == k).all(), "as many as there are"
    return float(((found.scores >= last) & (found.rows >= 0)).sum() / max(1, k.sum()))


KINDS = ["classes", "one side", "near", "far", "rest", "beyond a row", "unrelated", "the rarest classes", "lists"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    share=st.floats(0.005, 0.6),
    k=st.sampled_from([1, 10, 37]),
    seed=st.integers(0, 1 << 20),
    one_per=st.sampled_from([None, None, "patient"]),
    lone=st.booleans(),
)
def test_the_recall_stated_holds_under_adverse_filters(archive, kind, share, k, seed, one_per, lone):
    rng = np.random.default_rng(seed)
    pool, pool_classes = vectors_of(3000, 2)
    asked = rng.choice(pool_classes)
    # questions of one class, and those most like it: so many that chance does not decide
    liking = pool @ pool[pool_classes == asked].mean(axis=0) + (pool_classes == asked)
    queries = pool[np.argsort(-liking)[: 200 if k == 1 else 60]]
    middle = queries.mean(axis=0)
    scores, sizes = archive.vectors @ middle, np.bincount(archive.classes, minlength=CLASSES)
    means = np.stack([archive.vectors[archive.classes == c].sum(axis=0) for c in range(CLASSES)]) / sizes[:, None]

    def whole(liking: np.ndarray) -> np.ndarray:
        order = np.argsort(-liking)
        few = order[: 1 + np.searchsorted(np.cumsum(sizes[order]), share * N)]
        return np.isin(archive.classes, few)

    mask = {
        "classes": lambda: whole(rng.random(CLASSES)),
        "one side": lambda: (
            archive.vectors @ (side := rng.standard_normal(DIM)) > np.quantile(archive.vectors @ side, 1 - share)
        ),
        "near": lambda: whole(means @ middle),
        "far": lambda: whole(-means @ middle),
        "rest": lambda: scores <= np.quantile(scores, share),
        "beyond a row": lambda: (
            (other := archive.vectors @ archive.vectors[rng.integers(N)]) <= np.quantile(other, share)
        ),
        "unrelated": lambda: rng.random(N) < share,
        "the rarest classes": lambda: whole(-sizes),
        # what is allowed lies where the search looks last, and a few rows where it looks first
        "lists": lambda: (scores <= np.quantile(scores, share)) | (rng.random(N) < 0.004),
    }[kind]()
    exclude = None if lone else [np.argsort(-np.where(mask, archive.vectors @ query, -2))[:15] for query in queries]
    options = {"mask": mask, "exclude": exclude, "one_per": one_per}
    truth = archive.store.search(queries, k, **options, exact=True)
    found = archive.store.search(queries, k, **options)
    assert found.exact or "under adverse filters" in found.note
    assert recall(found, truth) >= (1.0 if found.exact else stated(found.note)) - 0.01


@pytest.mark.parametrize(
    "where",
    [
        "class in ('c5', 'c11', 'c17', 'c23', 'c29', 'c35') or report like '%finding 7 %'",
        "report like 'small%' and class not in ('c0', 'c3')",
        "age is null",
        "age >= 84 or age is null and class != 'c3'",
        "day between '2018-01-01' and '2019-01-31' and not report like '%finding 0 %'",
        "age in (25, 26, 27, 60, 61, 88, 89)",
    ],
)
def test_the_recall_stated_holds_under_conditions_that_hang_together_with_the_vectors(archive, where):
    """Asked from far away and from near, with rows left out, and with one row a patient."""
    pool, _ = vectors_of(1500, 2)
    likeness = pool @ archive.vectors[archive.store.where(where)].mean(axis=0)
    for queries in (pool[np.argsort(likeness)[:40]], pool[np.argsort(-likeness)[:40]]):
        first = archive.store.search(queries, 10, where=where, exact=True)
        for one_per, exclude in ((None, None), ("patient", [np.sort(rows[rows >= 0]) for rows in first.rows])):
            options = {"where": where, "one_per": one_per, "exclude": exclude}
            truth = archive.store.search(queries, 10, **options, exact=True)
            found = archive.store.search(queries, 10, **options)
            assert "under adverse filters" in found.note
            assert recall(found, truth) >= stated(found.note) - 0.01


def test_deletions_are_a_filter_too(archive, tmp_path):
    path = shutil.copytree(archive.store.path, tmp_path / "index")
    rows = np.flatnonzero(np.isin(archive.classes, [0, 1, 2]))
    with Store.open(path).writer() as writer:
        writer.delete(rows)
        store = writer.commit()
    pool, classes = vectors_of(3000, 2)
    queries = pool[classes < 3][:60]
    found, truth = store.search(queries, 10), store.search(queries, 10, exact=True)
    assert "under adverse filters" in found.note
    assert not np.isin(found.rows, rows).any()
    assert recall(found, truth) >= stated(found.note) - 0.01


def test_an_index_that_was_tuned_before_filters_were_measured_looks_at_all_that_is_allowed(archive, tmp_path):
    path = shutil.copytree(archive.store.path, tmp_path / "index")
    with Store.open(path).writer() as writer:
        noted = dict(writer.store.manifest.extra[TUNING])
        del noted["filtered"]
        noted.pop("few", None)
        noted["index"], noted["recall"] = to_json(IVF(probes=2, refine=1)), 0.99
        writer.note(TUNING, noted)
        store = writer.commit()
    pool, _ = vectors_of(60, 2)
    scores = archive.vectors @ pool[0]
    for mask in (scores <= np.quantile(scores, 0.3), np.isin(archive.classes, np.arange(0, CLASSES, 2))):
        found, truth = store.search(pool, 10, mask=mask), store.search(pool, 10, mask=mask, exact=True)
        assert not found.exact
        assert "how it fares under filters was not measured" in found.note
        assert recall(found, truth) >= 0.995
    # few rows of all are still found as it was tuned
    assert store.search(pool, 10).note == "approximate: recall 0.990 when tuned"


def test_a_limit_on_lists_is_heeded_under_a_filter_and_said(archive):
    pool, _ = vectors_of(60, 2)
    mask = np.isin(archive.classes, np.arange(0, CLASSES, 2))
    truth = archive.store.search(pool, 10, mask=mask, exact=True)
    little, much = (archive.store.search(pool, 10, mask=mask, effort=effort) for effort in (1, 400))
    assert "effort 1 instead of the" in little.note
    assert recall(much, truth) > 0.99
    assert float(np.mean(little.scores >= truth.scores[:, -1:])) < 0.9


@pytest.mark.parametrize("reach", [0.2, 0.5, float("inf")])
def test_a_query_gets_the_same_answer_alone_in_a_batch_and_from_threads(archive, monkeypatch, reach):
    queries, _ = vectors_of(30, 3)
    accelerator = archive.store.plan.accelerators[0][0]
    rows = len(archive.store.segments[0])
    allowed = np.random.default_rng(0).random(rows) < 0.3
    exclude = [np.unique(np.random.default_rng(i).integers(0, rows, i)) for i in range(30)]
    how = {"reach": reach, "allowed": allowed}
    monkeypatch.setattr(accelerator, "_threads", 3)
    together = accelerator.best_first(queries, 10, exclude=exclude, **how)
    monkeypatch.setattr(accelerator, "_threads", 1)
    for number in range(30):
        alone = accelerator.best_first(queries[number : number + 1], 10, exclude=exclude[number : number + 1], **how)
        np.testing.assert_array_equal(alone.rows[0], together.rows[number])
        np.testing.assert_array_equal(alone.scores[0], together.scores[number])


@settings(max_examples=25, deadline=None)
@given(dim=st.integers(1, 70), n=st.integers(1, 300), k=st.integers(1, 40), seed=st.integers(0, 99))
def test_without_a_bound_all_that_is_allowed_is_found(tmp_path_factory, dim, n, k, seed):
    """Of any vectors, not of unit length alone: copies, zeros, one dimension."""
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((n, dim)) * rng.choice([0, 1, 5], (n, 1))).astype(rng.choice(["f4", "f2"]))
    vectors = vectors[rng.integers(0, n, n)] if seed % 3 == 0 else vectors
    path = tmp_path_factory.mktemp("any") / "lists.faiss"
    faiss_index.train(vectors, IVF(lists=5), path, budget=1 << 26, seed=seed)
    accelerator = faiss_index.load(memoryview(path.read_bytes()), vectors)
    queries, allowed = rng.standard_normal((3, dim)).astype(np.float32), rng.random(n) < rng.random()
    exclude = [np.unique(rng.integers(0, n, size)) for size in (0, 3, 20)]
    found = accelerator.best_first(queries, k, reach=float("inf"), allowed=allowed, exclude=exclude)
    for number, query in enumerate(queries):
        may = allowed.copy()
        may[exclude[number]] = False
        products = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        best = np.sort(products[may])[::-1][:k]
        rows = found.rows[number][found.rows[number] >= 0]
        assert may[rows].all()
        assert len(set(rows.tolist())) == len(rows) == len(best)
        np.testing.assert_array_equal(found.scores[number, : len(rows)], products[rows])
        if n >= 50:
            assert np.mean(found.scores[number, : len(best)] >= best[-1:]) >= 0.9 if len(best) else True


def test_questions_are_made_of_what_the_archive_holds(archive):
    asked = list(adverse.questions(archive.store))
    assert {question.sort for question in asked} == {
        "deep",
        "unrelated",
        "one side",
        "near",
        "far",
        "all but the nearest",
        "columns",
    }
    for question in asked:
        allowed = question.ask.allowed
        assert (allowed is None) == (question.sort == "deep")
        if allowed is not None:
            assert 0.004 < allowed.mean() < 0.61
        own = np.concatenate(question.ask.exclude)
        np.testing.assert_array_equal(question.vectors, unit(archive.vectors[own]))
    near, far = (next(q for q in asked if q.sort == sort and q.ask.allowed.mean() < 0.1) for sort in ("near", "far"))
    means = [(archive.vectors[q.ask.allowed] @ q.vectors.T).mean() for q in (near, far)]
    assert means[0] > means[1] + 0.3


@pytest.mark.parametrize("column", ["patient", "class", "site"])
def test_the_best_of_each_group_are_found_where_all_lists_are_read(archive, column, monkeypatch):
    """Of groups of three, of some that hold most rows, and of a single one."""
    monkeypatch.setattr(archive.store.plan, "promises", replace(archive.store.plan.promises, bound=Bound(math.inf)))
    queries = vectors_of(60, 3)[0]
    for k in (1, 10, approximate._MOST_GROUPS + 1):
        options = {"k": k, "one_per": column, "where": "class != 'c1'"}
        found, truth = archive.store.search(queries, **options), archive.store.search(queries, **options, exact=True)
        assert not found.exact
        assert recall(found, truth) > 0.999
