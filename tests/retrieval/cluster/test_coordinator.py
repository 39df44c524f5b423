"""Units that go to processes that are late, that end, or that are not what they should be: threads stand for them."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace

import pytest
from patience import LONG

from retr.index.errors import EncoderMismatchError, RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.cluster import coordinator
from retr.retrieval.cluster.connection import Connection, Place
from retr.retrieval.cluster.coordinator import Cluster
from retr.retrieval.ingest.build import build, build_each


class GoneError(Exception):
    pass


class TaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class Machines:
    """Stands for `Connection`: each machine is a worker of this process, and ``do`` is asked before it does a unit."""

    def __init__(self, count, do=lambda machine, paths, number: None):
        self.count, self.do = count, do
        self.calls, self.stopped = [], []
        self._pool = ThreadPoolExecutor(4 * count)
        errors = SimpleNamespace(RayError=GoneError, RayTaskError=TaskError)
        self.ray = SimpleNamespace(exceptions=errors, wait=self._wait, get=self._get)

    def __call__(self, address):
        return self

    def places(self):
        return [Place(f"node{number}", 0, f"host{number}", 1.0, 0) for number in range(self.count)]

    def start(self, kind, place, *arguments):
        worker, machine = kind(*arguments), int(place.node[4:])

        def embed(asked):
            paths = [item.path for item, _ in asked]
            self.calls.append((machine, paths))
            changed = self.do(machine, paths, len(self.calls))
            data = worker.embed(asked)
            return changed(data) if changed else data

        return SimpleNamespace(ready=self._remote(worker.ready), embed=self._remote(embed), machine=machine)

    def _remote(self, function):
        return SimpleNamespace(remote=lambda *arguments: self._pool.submit(function, *arguments))

    def _wait(self, refs, num_returns, timeout):
        done = list(wait(refs, timeout, FIRST_COMPLETED).done)[:num_returns]
        return done, [ref for ref in refs if ref not in done]

    def _get(self, ref):
        try:
            return ref.result()
        except GoneError:
            raise
        except Exception as error:
            raise TaskError(error) from error

    def stop(self, actor):
        self.stopped.append(actor.machine)

    def close(self):
        self._pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    for name in ("_LOOK", "_AGAIN", "_SECONDS"):
        monkeypatch.setattr(coordinator, name, 0.1)


def contents(path):
    store = Store.open(path)
    rows, vectors = store.table().to_pylist(), store.vectors(store.live_rows())
    return [(row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)], store.skipped().to_pylist()


def on(machines, archive, index, encoder, elsewhere=None, **options):
    cluster = Cluster("here", archive, lambda _: lambda: elsewhere or encoder, machines)
    return build_each(archive, {index: encoder}, reader=cluster, **options)[0]


@pytest.fixture
def big(make_archive):
    folder = make_archive(60)
    (folder / "text.png").write_text("no picture")
    (folder / "broken.png").symlink_to("nowhere")
    return folder


def test_what_machines_made_is_what_one_process_makes(big, tmp_path, fake_encoder, make_picture, monkeypatch):
    monkeypatch.setattr(coordinator, "_BATCHES", 1)
    begun, all_of_them = set(), threading.Barrier(3)

    def do(machine, paths, number):
        # the first unit of each waits for that of the others: so that all have one
        if machine not in begun:
            begun.add(machine)
            all_of_them.wait(LONG)

    index, alone, machines = tmp_path / "index", tmp_path / "alone", Machines(3, do)
    options = {"metadata": big / "labels.csv", "group": "patient"}
    on(machines, big, index, fake_encoder, **options)
    build(big, alone, fake_encoder, **options)
    assert contents(index) == contents(alone)
    assert {machine for machine, _ in machines.calls} == {0, 1, 2}
    assert sorted(machines.stopped) == [0, 1, 2]
    # and brought up to date: what the index holds is read and not embedded
    make_picture(500).save(big / "new.png")
    (big / "healthy" / "000.png").rename(big / "moved.png")
    reports = on(Machines(2), big, index, fake_encoder, rehash=True), build(big, alone, fake_encoder, rehash=True)
    assert contents(index) == contents(alone)
    assert replace(reports[0], seconds=0, images_per_second=0) == replace(reports[1], seconds=0, images_per_second=0)


def test_units_of_a_process_that_ends_go_to_others(big, tmp_path, fake_encoder):
    lost = threading.Event()

    def do(machine, paths, number):
        if machine == 1 and not lost.is_set():
            lost.set()
            raise GoneError

    machines = Machines(2, do)
    on(machines, big, tmp_path / "index", fake_encoder)
    build(big, tmp_path / "alone", fake_encoder)
    assert lost.is_set()
    assert contents(tmp_path / "index") == contents(tmp_path / "alone")


def test_a_unit_that_takes_long_is_done_by_another_and_counts_once(big, tmp_path, fake_encoder):
    late, built = threading.Event(), threading.Event()
    came_back = []

    def do(machine, paths, number):
        if machine == 0 and not late.is_set():
            late.set()
            came_back.append(built.wait(LONG))

    machines = Machines(2, do)
    on(machines, big, tmp_path / "index", fake_encoder)
    assert late.is_set()
    assert came_back == []
    built.set()
    build(big, tmp_path / "alone", fake_encoder)
    assert contents(tmp_path / "index") == contents(tmp_path / "alone")
    units = [tuple(paths) for _, paths in machines.calls]
    assert len(units) > len(set(units))


def test_a_unit_that_ends_every_process_ends_the_build(big, tmp_path, fake_encoder):
    def do(machine, paths, number):
        if "healthy/000.png" in paths:
            raise GoneError

    with pytest.raises(RetrError, match=r"a unit of \d+ files failed on 3 processes: its process ended"):
        on(Machines(2, do), big, tmp_path / "index", fake_encoder)
    assert not (tmp_path / "index").exists()


def test_what_a_machine_says_is_one_line(big, tmp_path, fake_encoder):
    def do(machine, paths, number):
        raise UsageError("the key is not here")

    with pytest.raises(UsageError, match="the key is not here"):
        on(Machines(2, do), big, tmp_path / "index", fake_encoder)

    def fall(machine, paths, number):
        raise ZeroDivisionError("of its own")

    with pytest.raises(RetrError, match="failed on 3 processes: ZeroDivisionError"):
        on(Machines(2, fall), big, tmp_path / "index", fake_encoder)


def test_what_was_not_asked_for_is_refused(big, tmp_path, fake_encoder):
    first = []

    def swap(machine, paths, number):
        def other(data):
            first.append(data)
            return first[0] if len(first) > 1 else data

        return other

    with pytest.raises(RetrError, match="what it was not asked for"):
        on(Machines(1, swap), big, tmp_path / "index", fake_encoder)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"weights": "1" * 64}, "has another encoder 'fake': its weights_sha256 differs"),
        ({"precision": "bf16"}, "its precision differs"),
        ({"batch_size": 8}, "would build with batch 8 instead of 4"),
    ],
)
def test_a_machine_with_another_encoder_is_refused(big, tmp_path, make_encoder, other, message):
    kind = UsageError if "batch_size" in other else EncoderMismatchError
    with pytest.raises(kind, match=message):
        on(Machines(2), big, tmp_path / "index", make_encoder(), make_encoder(**other))
    assert not (tmp_path / "index").exists()


def test_a_machine_that_sees_another_archive_is_refused(big, tmp_path, fake_encoder, monkeypatch, make_archive):
    from retr.retrieval.cluster import worker

    opened = worker.open_source
    empty = make_archive(1, "empty")
    monkeypatch.setattr(worker, "open_source", lambda archive, **how: opened(empty, **how))
    with pytest.raises(UsageError, match=r"the machine '.*' does not see the archive"):
        on(Machines(1), big, tmp_path / "index", fake_encoder)
    with pytest.raises(UsageError, match="its archive is another one"):
        (empty / "broken.png").write_bytes(b"x")
        (empty / "glaucoma").mkdir()
        (empty / "glaucoma" / "001.jpg").write_bytes(b"x")
        on(Machines(1), big, tmp_path / "index", fake_encoder)


def test_what_is_of_one_process_alone_is_refused(big, tmp_path, fake_encoder):
    with pytest.raises(UsageError, match="got a list"):
        Cluster("here", [big / "new.png"], lambda _: lambda: fake_encoder, Machines(1))
    with pytest.raises(UsageError, match="identifiers are kept by a build in one process"):
        on(Machines(1), big, tmp_path / "index", fake_encoder, keep_identifiers=True)
    with pytest.raises(UsageError, match="HOST:PORT or auto"):
        Connection("ray://somewhere:10001")
