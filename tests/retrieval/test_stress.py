"""Sixteen threads ask one open index while a writer commits, deletes and compacts: every answer is that of one version.

``RETR_STRESS_SECONDS`` lets it run longer than the second or two that the suite gives it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from fake_encoder import DIM, FakeEncoder, picture
from patience import until

from retr import Index, Query, RetrError, UnknownIdError
from retr.index.store import Store
from retr.retrieval.encoders import registry
from retr.retrieval.encoders.spec import Card, Spec

SECONDS = float(os.environ.get("RETR_STRESS_SECONDS", "1"))
THREADS, ROWS, BATCH = 16, 240, 24
_PICTURES = [np.asarray(picture(seed)) for seed in range(4)]
_VECTORS = np.random.default_rng(5).normal(size=(4, DIM)).astype(np.float32)


@pytest.fixture
def loads(monkeypatch):
    found = []

    def load(*, device="auto", precision="auto"):
        time.sleep(0.02)
        found.append(FakeEncoder(batch_size=1))
        return found[-1]

    spec = Spec(Card(name="fake", summary="", modality="", dim=None, text=False, licence="", source=""), load)
    monkeypatch.setattr(registry, "get_spec", lambda _: spec)
    return found


def rows(first, count):
    """Rows from a number on: four to a patient, of three classes that lie apart; and their vectors."""
    numbers = np.arange(first, first + count)
    labels = numbers // 4 % 3
    table = {
        "id": [f"{number:05d}.png" for number in numbers],
        "sha256": [f"{number:064x}" for number in numbers],
        "label": [f"class {label}" for label in labels],
        "patient": [f"P{number // 4:04d}" for number in numbers],
        "age": (numbers * 7 % 60 + 20).tolist(),
    }
    vectors = [np.random.default_rng(number).normal(size=DIM) + 2 * np.eye(DIM)[number // 4 % 3] for number in numbers]
    return pa.table(table), np.array(vectors, np.float32)


def asked(number):
    """The question of a number: what is called with an index, and gives what can be compared."""
    seed = number // len(_QUESTIONS)
    return partial(_QUESTIONS[number % len(_QUESTIONS)], seed=seed)


def _row(index, seed):
    try:
        return index[f"{seed * 13 % (2 * ROWS):05d}.png"]
    except UnknownIdError as error:
        return error.message


def _by_id(index, seed, **options):
    try:
        return index.search(id=f"{seed * 5 % ROWS:05d}.png", k=6, **options)
    except UnknownIdError as error:
        return error.message


def _classified(index, seed, **way):
    return [answer.to_json() for answer in index.classify([_PNG[seed % len(_PNG)]], **way)]


_QUESTIONS = [
    lambda index, seed: index.search(image=_PICTURES[seed % 4], k=5),
    lambda index, seed: index.search(vector=_VECTORS[seed % 4], k=7),
    lambda index, seed: index.search(vectors=_VECTORS, k=3, where=f"age >= {20 + seed % 50}"),
    lambda index, seed: index.search(vector=_VECTORS[seed % 4], k=4, where="label in ('class 1', 'class 2')"),
    lambda index, seed: _by_id(index, seed, exclude_same="patient"),
    lambda index, seed: _by_id(index, seed, one_per="patient", min_score=0.1),
    lambda index, seed: index.search(Query.vector(_VECTORS[0]) + Query.image(_PICTURES[seed % 4]) * 0.5, k=3),
    lambda index, seed: _classified(index, seed, by="label"),
    lambda index, seed: _classified(index, seed, probe="label"),
    lambda index, seed: (len(index), index.table(["id"], where=f"age = {20 + seed % 60}").to_pydict()),
    _row,
]


def _png(seed):
    import io

    sink = io.BytesIO()
    picture(seed).save(sink, "png")
    return sink.getvalue()


_PNG = [_png(seed) for seed in range(2)]


def write(path, ended, versions, seconds, answered):
    """Commit, delete and compact; keep a copy of each version beside the index until it has been answered from."""
    store, first, turn = Store.open(path), ROWS, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or turn < 6:
        with store.writer() as writer:
            if turn % 3 == 0:
                writer.append(*rows(first, BATCH))
                first += BATCH
                writer.commit()
            elif turn % 3 == 1:
                writer.delete(writer.store.live_rows()[turn % 7 :: 9])
                writer.commit()
            else:
                writer.compact()
        store = Store.open(path)
        copy = path.with_name(f"version-{store.version}.retr")
        shutil.copytree(path, copy)
        versions[store.version] = copy
        turn += 1
        until(lambda newest=store.version: newest in answered)


def test_answers_are_those_of_a_serial_run_on_the_same_version(tmp_path, loads):
    path = tmp_path / "x.retr"
    store = Store.create(path, encoder=FakeEncoder().info, group="patient")
    with store.writer() as writer:
        writer.append(*rows(0, ROWS))
        writer.commit()
    Index.open(path).calibrate("label", alpha=0.2)
    start, ended, versions = Store.open(path).version, threading.Event(), {}
    shutil.copytree(path, tmp_path / "first.retr")
    versions[start] = tmp_path / "first.retr"
    index = Index.open(path)
    counter, found, moved, answered = iter(range(10**9)), [], [], set()

    def serve():
        while not ended.is_set():
            number = next(counter)
            if number % 17 == 0:
                moved.append(index.refresh())
            now = index.snapshot()
            # some threads ask the index itself, which others move on meanwhile
            if number % 5 == 0:
                _asked_or_error(index, number)
            found.append((now.store.version, number, _asked_or_error(now, number)))
            answered.add(now.store.version)

    with ThreadPoolExecutor(THREADS + 1) as pool:
        serving = [pool.submit(serve) for _ in range(THREADS)]
        try:
            pool.submit(write, path, ended, versions, SECONDS, answered).result()
        finally:
            ended.set()
        for one in serving:
            one.result()
    assert len(loads) <= 2, "the calibration's index loads none"
    assert any(moved)
    assert versions.keys() == answered
    loads.clear()
    serial = {version: Index.open(copy) for version, copy in versions.items()}
    for version, number, answer in found[:: max(1, len(found) // 150)]:
        assert answer == _asked_or_error(serial[version], number), (version, number)


def _asked_or_error(index, number):
    """A probe that has gone stale with the rows is an answer, too."""
    try:
        return asked(number)(index)
    except RetrError as error:
        return str(error)
