"""Search of cases against a brute-force oracle: parts, ties, conditions, exclusion, deletions, segments and shards."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index import item_tuning, measuring, plan, reach, tune
from retr.index.accelerators import approximate, config, faiss_index
from retr.index.accelerators.config import IVF
from retr.index.disk.manifest import TUNING
from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.item_search import Promise, promised, search_items
from retr.index.rows.items import items_of
from retr.index.scan import items as scan
from retr.index.scan.items import ItemQuestion
from retr.index.store import Store

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def pair(one, other, cosine):
    score = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return np.float32(min(max(score, -1.0), 1.0) if cosine else score)


def normal(vectors, cosine):
    if not cosine:
        return vectors
    exactly = vectors.astype(np.float64)
    norms = np.sqrt((exactly * exactly).sum(axis=1, keepdims=True))
    return (exactly / np.where(norms, norms, 1)).astype(np.float32)


def oracle(store, column, question, k, score, allowed, min_score):
    """Score every case by hand, and say which row is most like each part of the question."""
    cosine = store.manifest.encoder.similarity == "cosine"
    table = store.table(rows=np.arange(store.n_total)).to_pylist()
    parts, stored = normal(question.vectors, cosine), store.vectors()
    cases = {}
    for number, row in enumerate(table):
        if store.alive()[number] and allowed[number] and number not in question.exclude and row[column] is not None:
            cases.setdefault(row[column], []).append(number)
    found = []
    for case, rows in cases.items():
        pairs = np.array([[pair(part, stored[row], cosine) for row in rows] for part in parts])
        best = pairs.max(axis=1)
        if score == "maxsim":
            total = math.fsum(float(one) * weight for one, weight in zip(best, question.weights, strict=True))
        elif score == "best":
            total = best.max()
        else:
            weighted = parts.astype(np.float64) * question.weights[:, None]
            mean = [math.fsum(line) / math.fsum(question.weights) for line in weighted.T]
            dots = [sum(float(a) * b for a, b in zip(stored[row], mean, strict=True)) for row in rows]
            total = math.fsum(dots) / len(rows)
            total = min(max(total, -1.0), 1.0) if cosine else total
        matched = [
            min((row for row, like in zip(rows, line, strict=True) if like == line.max()), key=lambda r: table[r]["id"])
            for line in pairs
        ]
        if min_score is None or np.float32(total) >= min_score:
            found.append((-float(np.float32(total)), case, matched, best))
    return sorted(found, key=lambda one: one[:2])[:k]


def agrees(store, column, questions, found, k, score, allowed, min_score):
    names = items_of(store, column).names
    for question, answer in zip(questions, found, strict=True):
        expected = oracle(store, column, question, k, score, allowed, min_score)
        assert [names[number] for number in answer.items] == [case for _, case, _, _ in expected]
        assert answer.scores.tolist() == [-total for total, _, _, _ in expected]
        assert answer.rows.tolist() == [rows for _, _, rows, _ in expected]
        assert answer.pairs.tolist() == [best.tolist() for _, _, _, best in expected]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_oracle_agrees(data):
    n = data.draw(st.integers(1, 40), label="rows")
    dim = data.draw(st.sampled_from([1, 2, 3, 9]), label="dim")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    # few distinct vectors of small whole numbers: exact ties of pairs and of cases everywhere
    pool = rng.integers(-2, 3, (data.draw(st.integers(1, 8), label="distinct"), dim)).astype(np.float32)
    if data.draw(st.booleans(), label="near ties"):
        pool = pool + rng.integers(-1, 2, pool.shape).astype(np.float32) * np.float32(2**-22)
    groups = data.draw(st.integers(1, 8), label="groups")
    table = pa.table(
        {
            "id": [f"{name:03d}" for name in rng.permutation(n)],
            "study": pa.array([None if g == 0 else f"s{g}" for g in rng.integers(0, groups + 1, n)], pa.string()),
            "patient": pa.array([f"p{g}" for g in rng.integers(0, 4, n)], pa.string()),
            "n": pa.array(rng.integers(0, 5, n), pa.int64()),
        }
    )
    similarity = data.draw(st.sampled_from(["cosine", "dot"]), label="similarity")
    info = EncoderInfo("fake", dim, similarity, "none", text=False, weights_sha256="0", preprocessing="none")
    vectors = pool[rng.integers(0, len(pool), n)]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = Store.create(
            Path(folder) / "i",
            encoder=info,
            group="patient",
            dtype=data.draw(st.sampled_from(["float32", "float16"]), label="dtype"),
            shards=data.draw(st.sampled_from([1, 3]), label="shards"),
        )
        cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=2), label="cuts"))
        with store.writer() as writer:
            for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
                writer.append(table.slice(start, stop - start), vectors[start:stop])
                writer.commit()
            gone = np.flatnonzero(rng.random(writer.store.n_total) < data.draw(st.sampled_from([0, 0.3]), label="gone"))
            writer.delete(gone)
            store = writer.commit()
        total = store.n_total
        questions = [
            ItemQuestion(
                np.concatenate([pool[:1], rng.standard_normal((m - 1, dim)).astype(np.float32)]),
                rng.choice([0.5, 1.0, 2.0], m),
                np.unique(rng.integers(0, max(total, 1), data.draw(st.integers(0, 3)))),
            )
            for m in data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3), label="parts")
        ]
        if not total:
            return
        k, score = (
            data.draw(st.integers(1, groups + 2), label="k"),
            data.draw(st.sampled_from(["maxsim", "mean", "best"])),
        )
        where = data.draw(st.sampled_from([None, "n > 0", "n > 3"]), label="where")
        mask = rng.random(total) < 0.5 if data.draw(st.booleans(), label="mask") else None
        min_score = data.draw(st.sampled_from([None, 0.0, 0.5]), label="min_score")
        column = data.draw(st.sampled_from(["study", "patient"]), label="column")
        with pytest.MonkeyPatch.context() as patch:
            if data.draw(st.booleans(), label="small blocks"):
                patch.setattr(scan, "_BLOCK_SCORES", 1)
                patch.setattr(scan, "_CASE_SCORES", 3)
                patch.setattr(scan, "_RESCORED", 7)
            found = search_items(store, questions, column, k, score=score, where=where, mask=mask, min_score=min_score)
        allowed = np.ones(total, bool) if where is None else store.where(where)
        allowed = allowed & (True if mask is None else mask)
        assert all((answer.exact, answer.note) == (True, None) for answer in found)
        agrees(store, column, questions, found, k, score, allowed, min_score)


def scattered(path, *, n_cases=60, parts=40, dim=16, shards=1):
    """An index whose cases lie around centres, their rows in a mixed order, large enough for accelerators."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((n_cases, dim))
    case = rng.permutation(np.repeat(np.arange(n_cases), parts))
    vectors = centres[case] + 0.7 * rng.standard_normal((len(case), dim))
    info = EncoderInfo("fake", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info, shards=shards)
    table = pa.table({"id": [f"{i:05d}" for i in range(len(case))], "study": [f"s{c:03d}" for c in case]})
    with store.writer() as writer:
        writer.append(table, vectors.astype(np.float32))
        store = writer.commit()
    return store, centres


def asked(store, numbers):
    items = items_of(store, "study")
    return [
        ItemQuestion(np.asarray(store.vectors(items.rows(n)), np.float32), np.ones(len(items.rows(n))), items.rows(n))
        for n in numbers
    ]


def test_many_questions_at_once_are_answered_as_each_alone(tmp_path):
    store, _ = scattered(tmp_path / "i")
    questions = asked(store, range(9))
    for score in ("maxsim", "mean", "best"):
        together = search_items(store, questions, "study", 5, score=score)
        for question, answer in zip(questions, together, strict=True):
            [alone] = search_items(store, [question], "study", 5, score=score)
            assert alone.scores.tolist() == answer.scores.tolist()
            assert alone.items.tolist() == answer.items.tolist()
            assert alone.rows.tolist() == answer.rows.tolist()


def test_shards_answer_to_the_bit_as_one_folder_does(tmp_path):
    one, _ = scattered(tmp_path / "one")
    several, _ = scattered(tmp_path / "several", shards=3)
    assert len(several.segments) > 1
    for score in ("maxsim", "mean", "best"):
        for here, there in zip(
            search_items(one, asked(one, range(6)), "study", 5, score=score),
            search_items(several, asked(several, range(6)), "study", 5, score=score),
            strict=True,
        ):
            assert here.items.tolist() == there.items.tolist()
            assert here.scores.tolist() == there.scores.tolist()
            assert one.ids(here.rows.ravel()) == several.ids(there.rows.ravel())


def test_what_cannot_be_meant_is_said(tmp_path):
    store, _ = scattered(tmp_path / "i", n_cases=4, parts=3)
    [question] = asked(store, [0])
    with pytest.raises(UsageError, match="scored by maxsim, mean, best"):
        search_items(store, [question], "study", 1, score="sum")
    with pytest.raises(UsageError, match="k must be at least 1"):
        search_items(store, [question], "study", 0)
    with pytest.raises(UsageError, match="no cases by 'series'"):
        search_items(store, [question], "series", 1)
    with pytest.raises(UsageError, match="weight above 0"):
        search_items(store, [ItemQuestion(question.vectors, -question.weights, question.exclude)], "study", 1)
    with pytest.raises(UsageError, match=r"shape \(m, 16\)"):
        search_items(store, [ItemQuestion(question.vectors[:, :3], question.weights, question.exclude)], "study", 1)
    with pytest.raises(UsageError, match="a mask must be bool"):
        search_items(store, [question], "study", 1, mask=np.ones(3, bool))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """An index of 300 cases of ten parts that says what a case is, tuned so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_index, "MIN_ROWS", 500)
        patch.setattr(tune, "MIN_ROWS", 500)
        patch.setattr(approximate, "_SEARCH", 0.0)
        patch.setattr(approximate, "_LIST", 0.0)
        # what is measured of rows is tested beside `retr.index.tune`
        patch.setattr(measuring, "_QUERIES", 32)
        patch.setattr(measuring, "_TURNS", 1)
        patch.setattr(reach, "hard_questions", lambda _: [])
        # a reading of so few rows costs less than anything
        patch.setattr(item_tuning, "_cheaper", lambda *_: True)
        store, _ = scattered(tmp_path_factory.mktemp("tuned") / "i", n_cases=300, parts=10)
        with store.writer() as writer:
            writer.set_item("study")
            found = tune.tune(writer, recall=0.9, kinds=(IVF(),))
            store = writer.store
        yield store, found


def test_what_tune_measured_holds_for_other_cases_and_is_said(tuned):
    store, found = tuned
    assert found.items["rule"] == "study"
    for score in ("maxsim", "best"):
        noted = found.items[score]
        assert noted["recall"] >= 0.9
        questions = asked(store, range(0, 300, 7))
        near = search_items(store, questions, "study", 10, score=score)
        true = search_items(store, questions, "study", 10, score=score, exactly=True)
        assert all(not answer.exact for answer in near)
        assert all(answer.exact for answer in true)
        assert near[0].note == f"approximate: recall {noted['recall']:.3f} of the ten best cases when tuned"
        kept = [np.mean(one.scores >= other.scores[-1]) for one, other in zip(near, true, strict=True)]
        assert np.mean(kept) >= 0.85
        for one, other in zip(near, true, strict=True):
            # scores are those of the exact search, and what is found stands in its order
            exactly = dict(zip(other.items.tolist(), other.scores.tolist(), strict=True))
            found_too = [number for number in one.items.tolist() if number in exactly]
            assert found_too == [number for number in other.items.tolist() if number in found_too]
            scored = dict(zip(one.items.tolist(), one.scores.tolist(), strict=True))
            assert all(scored[number] == exactly[number] for number in found_too)
    assert plan.describe(store.manifest)["items"]["maxsim"]["recall"] == found.items["maxsim"]["recall"]


def test_questions_of_one_part_find_as_much(tuned):
    store, _ = tuned
    for score in ("maxsim", "best"):
        whole = asked(store, range(0, 300, 7))
        questions = [ItemQuestion(one.vectors[4:5], one.weights[:1], one.exclude) for one in whole]
        near = search_items(store, questions, "study", 10, score=score)
        true = search_items(store, questions, "study", 10, score=score, exactly=True)
        shares = [np.mean(one.scores >= other.scores[-1]) for one, other in zip(near, true, strict=True)]
        assert np.mean(shares) >= 0.85
        for question, answer in zip(questions, near, strict=True):
            assert not answer.exact
            assert not np.isin(answer.rows, question.exclude).any()


def test_a_setting_that_costs_no_less_than_exact_search_is_not_chosen(tuned):
    store, _ = tuned
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_tuning, "_cheaper", lambda *_: False)
        assert item_tuning.tune_items(store, 0.9, said.append) == {"rule": "study"}
    assert all("no setting reached the target at less cost" in line for line in said)


def test_a_note_of_another_way_to_search_promises_nothing(tuned):
    store, _ = tuned
    assert promised(store.manifest.extra, "study", "best") is not None
    noted = {TUNING: {"items": {"rule": "study", "best": {"depth": 10, "recall": 0.9}}}}
    assert promised(noted, "study", "best") is None


def test_what_was_not_measured_is_searched_exactly(tuned):
    store, _ = tuned
    questions = asked(store, [3])
    every = np.ones(store.n_total, bool)
    for options in ({"score": "mean"}, {"where": "study != 's001'"}, {"mask": every}, {"exactly": True}):
        [answer] = search_items(store, questions, "study", 5, **options)
        assert answer.exact
    [answer] = search_items(store, questions, "study", 200)
    assert answer.exact
    with store.writer() as writer:
        # rows that came later have no accelerator, and are found all the same
        writer.append(pa.table({"id": ["new"], "study": ["z"]}), questions[0].vectors[:1])
        later = writer.commit()
    [answer] = search_items(later, questions, "study", 5, score="best")
    assert not answer.exact
    assert items_of(later, "study").names[answer.items[0]] == "z"


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_with_all_rows_proposed_the_oracle_agrees(seed):
    rng = np.random.default_rng(seed)
    pool = rng.integers(-2, 3, (12, 4)).astype(np.float32)
    n = 160
    info = EncoderInfo("fake", 4, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "_MAX_K", 10**6)
        patch.setattr(approximate, "suits", lambda *_: True)
        store = Store.create(Path(folder) / "i", encoder=info)
        ids, studies = rng.permutation(n), rng.integers(0, 40, n)
        table = pa.table({"id": [f"{i:03d}" for i in ids], "study": [f"s{c:02d}" for c in studies]})
        with store.writer() as writer:
            writer.append(table, pool[rng.integers(0, 12, n)] + np.float32(0.01))
            writer.commit()
            writer.delete(rng.choice(n, 20, replace=False))
            writer.commit()
            writer.compact()
            kind, vectors = IVF(lists=4), writer.store.segments[0].vectors
            writer.accelerate(0, lambda file: faiss_index.train(vectors, kind, file, budget=1 << 20))
            writer.note(TUNING, {"index": config.to_json(IVF(lists=4, probes=4)), "recall": 1.0, "curve": []})
            store = writer.commit()
        questions = [
            ItemQuestion(pool[:m], np.ones(m), np.unique(rng.integers(0, store.n_total, 3))) for m in (1, 3, 6)
        ]
        for score in ("maxsim", "best"):
            found = search_items(store, questions, "study", 4, score=score, promise=Promise(n * 100, 4, 1.0))
            agrees(store, "study", questions, found, 4, score, np.ones(store.n_total, bool), None)
            assert not all(answer.exact for answer in found)
