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

from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.item_search import search_items
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
