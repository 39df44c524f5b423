"""Processes that hold shards: what is asked of them, and what becomes of a state, a machine, an answer that is late."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ALL_COMPLETED, ThreadPoolExecutor, wait
from types import SimpleNamespace

import numpy as np
import pytest

from retr import Index
from retr.index.errors import IndexNotFoundError, RetrError, UsageError
from retr.index.scatter import spans
from retr.retrieval.cluster import connection, holder
from retr.retrieval.cluster.connection import Connection, Place
from retr.retrieval.cluster.holder import Holder
from retr.retrieval.cluster.holders import Holders, manifests_of

DIM = 8


class GoneError(Exception):
    pass


class TaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class Machines:
    """Stands for `Connection`: each holder is a thread of this process; ``do`` is asked before one answers."""

    def __init__(self, count=2, do=lambda number: None):
        self.count, self.do = count, do
        self.held, self.stopped, self.closed = [], [], 0
        self._pool = ThreadPoolExecutor(32)
        errors = SimpleNamespace(RayError=GoneError, RayTaskError=TaskError)
        self.ray = SimpleNamespace(exceptions=errors, wait=self._wait, get=self._get, cancel=lambda ref: ref.cancel())

    def __call__(self, address):
        return self

    def places(self):
        return [Place(f"node{number}", 0, f"host{number}", 3.0, 0) for number in range(self.count)]

    def hold(self, kind, place, *arguments):
        one, number = kind(*arguments), len(self.held)
        self.held.append((place.node, arguments[1], one))

        def answer(*asked):
            self.do(number)
            return one.answer(*asked)

        return SimpleNamespace(answer=self._remote(answer), prepare=self._remote(one.prepare), number=number)

    def _remote(self, function):
        return SimpleNamespace(remote=lambda *arguments: self._pool.submit(function, *arguments))

    def _wait(self, refs, num_returns, timeout):
        done = wait(refs, timeout, ALL_COMPLETED).done
        return list(done), [ref for ref in refs if ref not in done]

    def _get(self, ref):
        try:
            return ref.result()
        except GoneError:
            raise
        except Exception as error:
            raise TaskError(error) from error

    def stop(self, actor):
        self.stopped.append(actor.number)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    # set for the process by each holder
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def index(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"id": [f"r{at}" for at in range(90)], "patient": [f"p{at // 3}" for at in range(90)]}
    vectors = rng.standard_normal((90, DIM)).astype(np.float32)
    index = Index.from_vectors(vectors, rows, tmp_path / "i", encoder="mine", fingerprint="1", group="patient")
    index.shard(3)
    return index


def far(index, machines, seconds=60.0):
    opened = Index.open(index.path)
    opened.store.remote = Holders("here", opened.store, seconds, machines)
    return opened


def same(one, other, **options):
    a, b = (index.search([one_of(index, name) for name in ("r5", "r77")], **options) for index in (one, other))
    assert [hits.ids for hits in a] == [hits.ids for hits in b]
    assert [hits.scores.tobytes() for hits in a] == [hits.scores.tobytes() for hits in b]


def one_of(index, name):
    from retr import Query

    return Query.id(name)


def test_shards_are_spread_over_the_machines_and_answer_as_the_whole(index):
    machines = Machines()
    opened = far(index, machines)
    assert [(node, threads) for node, threads, _ in machines.held] == [("node0", 1), ("node1", 3), ("node0", 1)]
    for options in ({}, {"one_per": "patient"}, {"exclude_same": "patient"}, {"where": "patient < 'p2'", "k": 50}):
        same(opened, index, **options)
    opened.close()
    assert (machines.stopped, machines.closed) == ([0, 1, 2], 1)
    opened.close()
    assert machines.closed == 1


def test_an_index_without_shards_is_held_by_one(index):
    index.shard(1)
    machines = Machines()
    same(far(index, machines), index)
    assert len(machines.held) == 1


def test_a_shard_that_is_late_is_named(index):
    go_on = threading.Event()
    opened = far(index, Machines(do=lambda number: number == 1 and go_on.wait()), seconds=0.2)
    try:
        with pytest.raises(RetrError, match=r"shard 1 of 'i' did not answer within 0.2 s"):
            opened.search(id="r5")
        # the others may be as late where this machine has no time
        try:
            hits = opened.search(id="r5", k=90, partial=True, include_self=True)
        except RetrError as error:
            assert "did not answer within" in str(error)
        else:
            assert hits.searched < 1
            assert "partial: " in hits.note
    finally:
        go_on.set()


def test_a_shard_whose_process_is_given_up_is_held_anew(index):
    lost = []

    def do(number):
        if number == 2 and not lost:
            lost.append(number)
            raise GoneError

    machines = Machines(do=do)
    opened = far(index, machines)
    with pytest.raises(RetrError, match=r"shard 2 of 'i' did not answer: its process ended"):
        opened.search(id="r5")
    same(opened, index)
    assert [node for node, _, _ in machines.held] == ["node0", "node1", "node0", "node0"]


def test_a_part_of_the_rows_is_what_answered(index):
    def do(number):
        if number == 1:
            raise GoneError

    opened = far(index, Machines(do=do))
    hits = opened.search(id="r5", k=90, partial=True, include_self=True)
    there = [span for span in spans(opened.store.manifest) if span.number != 1]
    assert hits.searched == sum(span.live for span in there) / 90
    assert sorted(hits.rows.tolist()) == [row for span in there for row in range(span.start, span.stop)]
    assert hits.to_json()["searched"] == hits.searched


def test_what_a_shard_says_is_one_line(index):
    def fail(number):
        raise ZeroDivisionError("of its own")

    with pytest.raises(RetrError, match=r"shard 0 of 'i' failed: ZeroDivisionError") as caught:
        far(index, Machines(do=fail)).search(id="r5")
    assert "of its own" not in str(caught.value)
    with pytest.raises(UsageError, match="no column 'size'"):
        far(index, Machines()).search(id="r5", where="size > 3")


def test_new_versions_are_opened_before_they_are_asked_for(index, monkeypatch):
    monkeypatch.setattr(holder, "_GRACE", 0.0)
    machines = Machines()
    opened = far(index, machines)
    before = opened.snapshot()
    index.delete(ids=["r6"])
    assert opened.refresh()
    same(opened, index, k=30)
    # a question that began before is answered by the version before
    assert "r6" in before.search(id="r5", k=90).ids
    # other shards, more or fewer
    index.shard(5)
    opened.refresh()
    same(opened, index, k=30)
    assert len(machines.held) == 5
    index.shard(2)
    opened.refresh()
    same(opened, index, k=30)


def test_files_of_a_version_before_are_let_go(index, monkeypatch):
    gone = threading.Event()

    class Told(Holder):
        def _let_go(self, manifests):
            super()._let_go(manifests)
            gone.set()

    monkeypatch.setattr(holder, "_GRACE", 0.0)
    one, version = Told(str(index.path), 1), index.version
    one.prepare(manifests_of(index.store)[0])
    assert not gone.is_set()
    index.delete(where="patient < 'p2'")
    assert index.version > version
    one.prepare(manifests_of(index.store)[0])
    assert gone.wait(60)
    assert list(one._open) == [manifests_of(index.store)[0]]


def test_a_version_that_is_gone_is_said(index):
    before = Index.open(index.path)
    where = next(
        span.number
        for span in spans(before.store.manifest)
        if span.start <= before.store.rows_of(["r88"])[0] < span.stop
    )
    index.delete(where="patient = 'p29'", purge=True)
    one = Holder(str(index.path), 1)
    with pytest.raises(IndexNotFoundError, match=r"version \d+ of the index 'i' is gone: the newest is \d+"):
        one.prepare(manifests_of(before.store)[where])
    # and what is there now is opened by the same process
    one.prepare(manifests_of(index.store)[where])
    same(far(index, Machines()), index, k=90)


def test_a_machine_that_does_not_see_the_index_says_so(index, tmp_path):
    one = Holder(str(tmp_path / "elsewhere"), 1)
    with pytest.raises(UsageError, match=r"the machine '.*' does not see the index 'elsewhere'"):
        one.prepare(manifests_of(index.store)[0])


def test_what_cannot_be_meant_is_refused(index, monkeypatch):
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="must be above 0"):
            Holders("here", index.store, seconds, Machines())
    with pytest.raises(UsageError, match="HOST:PORT or auto"):
        Index.open(index.path, ray="ray://somewhere:10001")
    opened = far(index, Machines())
    remote = opened.store.remote
    remote.close()
    with pytest.raises(UsageError, match="the index 'i' is closed"):
        opened.search(id="r5")
    with pytest.raises(RetrError, match="no machine of the cluster has a processor"):
        far(index, Machines(count=0))


def test_a_process_has_one_connection(monkeypatch):
    calls = []
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **_: calls.append("init"), shutdown=lambda: calls.append("shutdown")
    )
    monkeypatch.setattr(connection, "ray_library", lambda: ray)
    monkeypatch.setattr(connection, "_require_listening", lambda address: None)
    one, two = Connection("host:1"), Connection("host:1")
    with pytest.raises(UsageError, match="one cluster at a time"):
        Connection("host:2")
    one.close()
    one.close()
    assert calls == ["init"]
    two.close()
    assert calls == ["init", "shutdown"]
    Connection("host:2").close()


def test_an_address_at_which_nobody_listens_is_said_at_once(monkeypatch):
    monkeypatch.setattr(connection, "ray_library", lambda: SimpleNamespace(is_initialized=lambda: False))
    for wrong in ("somewhere", ":6379", "host:port", "host:0", "host:70000"):
        with pytest.raises(UsageError, match="HOST:PORT or auto"):
            Connection(wrong)
    # of this port nobody else can be given, and nobody listens
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RetrError, match=r"there is no Ray cluster at '127.0.0.1:\d+'"):
            Connection(f"127.0.0.1:{taken.getsockname()[1]}")
