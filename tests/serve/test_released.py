"""What a server held of a version goes with it: counted in snapshots, mappings and open files, not in megabytes."""

from __future__ import annotations

import base64
import gc
from contextlib import suppress
from pathlib import Path

import pytest
from patience import until

from retr import Index
from retr.index.store import Store
from retr.serve import app as assembled
from retr.serve import served as serving
from retr.serve.maps import ServedMap

SEARCH = "/v1/indexes/small/search"


@pytest.fixture
def uncollected():
    """No collector of cycles: what is let go of must go by itself, at once."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def eager(monkeypatch):
    """A server that looks for a newer version at every question, and often where nobody asks."""
    monkeypatch.setattr(serving, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(assembled, "_SYNC_EVERY", 0.05)


def snapshots(path: Path) -> list[int]:
    return sorted(one.version for one in gc.get_objects() if type(one) is Store and one.path == path)


def mapped(path: Path) -> list[str]:
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [line.split(maxsplit=5)[5] for line in lines if str(path) in line]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def settled(measure, wanted):
    """Return what is measured as soon as it is what is wanted, or once it has long been something else."""
    with suppress(AssertionError):
        until(lambda: measure() == wanted)
    return measure()


def ask_everything(client, indexed, png, number):
    """Ask a little of everything; a map, which takes long to make, is put where one that was asked would be."""
    served = client.app.state.retr.indexes["small"]
    served.maps._kept = ServedMap(served.index.snapshot(), b"", [], [], ())
    ids = list(indexed)
    picture = {"data": base64.b64encode(png(number)).decode()}
    for part, options in (
        ({"id": ids[0]}, {"where": "age >= 0", "exclude_same": {"patient": None}, "one_per": "patient"}),
        (picture, {}),
    ):
        answer = client.post(SEARCH, json={"questions": [{"parts": [part]}], "k": 3, **options})
        assert answer.status_code == 200, answer.text
    assert client.post(SEARCH, json={"questions": [{"parts": [{"id": "nobody"}]}], "k": 3}).status_code == 404
    for path in ("", "/facets?where=age > 0", "/rows", f"/picture?size=32&id={ids[0]}", "/sets"):
        assert client.get(f"/v1/indexes/small{path}").status_code == 200, path


def test_versions_go_when_a_newer_one_is_asked(serve, indexed, png, eager, uncollected):
    client = serve()
    before = 0, 0
    for number in range(20):
        with indexed.store.writer() as writer:
            writer.add_file("note", str(number).encode())
            writer.commit()
        del writer
        indexed.refresh()
        ask_everything(client, indexed, png, number)
        if number == 4:
            # the processes that decode pictures have begun
            before = len(mapped(indexed.path)), open_files()
    # the server's and the test's own
    assert settled(lambda: snapshots(indexed.path), [indexed.version] * 2) == [indexed.version] * 2
    assert not [name for name in mapped(indexed.path) if name.endswith("(deleted)")]
    assert len(mapped(indexed.path)) <= before[0] and open_files() <= before[1]


def test_a_purge_elsewhere_leaves_nothing_mapped_where_nobody_asks(serve, indexed, png, eager, uncollected):
    client = serve()
    ask_everything(client, indexed, png, 0)
    indexed.close()
    with Index.open(indexed.path) as other:
        other.delete(ids=[next(iter(other))], purge=True)
        newest = other.version
    del other
    assert settled(lambda: snapshots(indexed.path), [newest]) == [newest]
    assert not [name for name in mapped(indexed.path) if name.endswith("(deleted)")]


def test_a_snapshot_goes_with_its_last_user(indexed, uncollected):
    first, hits = indexed.version, indexed.search(id=next(iter(indexed)), k=2, where="age >= 0")
    indexed.set_group(None)
    assert snapshots(indexed.path) == [first, indexed.version]
    assert len(hits.table) == 2
    del hits
    assert snapshots(indexed.path) == [indexed.version]
