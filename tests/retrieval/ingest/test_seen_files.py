"""What an index holds already: the same answers as a plain dictionary gives, whatever the hashes."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from retr.index.store import Store
from retr.retrieval.archive import hashed_lookup
from retr.retrieval.archive.locations import source_of
from retr.retrieval.archive.sources import Item
from retr.retrieval.ingest import seen_files as module
from retr.retrieval.ingest.file_states import content_key
from retr.retrieval.ingest.seen_files import SeenFiles

NAMES = ["", "site2"]


def files_of(rng, numbers):
    """Files of two sources, some with several pictures, some with the bytes of another."""
    for number in numbers:
        path = f"site2/{number:03d}.png" if rng.random() < 0.3 else f"a/{number:03d}.png"
        sha256 = hashlib.sha256(str(number - number % 7 // 6).encode()).hexdigest()
        yield path, number, number + 0.5, sha256, f"mark {number}", int(rng.choice([1, 1, 1, 3]))


@pytest.fixture(params=["hashes", "hashes that collide"])
def index(request, tmp_path, fake_encoder, monkeypatch):
    """A store of several segments with deleted rows."""
    if request.param == "hashes that collide":
        for place in (module, hashed_lookup):
            monkeypatch.setattr(place, "hash", lambda text: hash(text) % 29, raising=False)
    monkeypatch.setattr(module, "PIECE", 17)
    rng = np.random.default_rng(0)
    store = Store.create(tmp_path / "index", encoder=fake_encoder.info)
    with store.writer() as writer:
        for start in (0, 80):
            rows = [
                {"id": f"{path}#{n}", "path": path, "size": size, "mtime": mtime, "sha256": sha256, "etag": mark}
                for path, size, mtime, sha256, mark, frames in files_of(rng, range(start, start + 80))
                for n in range(frames)
            ]
            writer.append(pa.Table.from_pylist(rows), rng.standard_normal((len(rows), fake_encoder.info.dim)))
            writer.commit()
        writer.delete(rng.choice(writer.store.n_total, 40, replace=False))
        writer.commit()
        return writer.store


@pytest.fixture
def reference(index):
    """Path to (size, mtime, mark, rows); and the rows of each file by its path, state and sha256."""
    table = index.table(["path", "size", "mtime", "sha256", "etag"]).to_pylist()
    groups = {}
    for row, number in zip(table, index.live_rows().tolist(), strict=True):
        groups.setdefault((row["path"], row["size"], row["mtime"], row["etag"], row["sha256"]), []).append(number)
    return {key[0]: (*key[1:4], rows) for key, rows in groups.items()}, groups


@pytest.mark.parametrize("name", NAMES)
def test_files_are_found_by_their_paths(index, reference, name):
    known = SeenFiles(index, name, NAMES)
    mine = {path: state for path, state in reference[0].items() if source_of(path, NAMES)[0] == name}
    assert len(known) == len(mine) > 10
    asked = [*reference[0], "a/none.png", "site2/none.png"]
    found = dict(zip(asked, known.rows(asked), strict=True))
    assert {path: rows.tolist() for path, rows in found.items() if len(rows)} == {
        path: rows for path, (_, _, _, rows) in mine.items()
    }
    assert all(known.may_hold(path) for path in mine)
    assert known.ids([found[path] for path in mine]) == [
        id_ for path in mine for id_ in index.table(["id"], found[path])["id"].to_pylist()
    ]


def test_a_file_is_unchanged_in_the_same_state_only(index, reference):
    known = SeenFiles(index, "", NAMES)
    for path, (size, mtime, mark, rows) in reference[0].items():
        mine = path.startswith("a/")
        assert known.unchanged(path, Item(path, size, mtime))[0] == (len(rows) if mine else 0)
        assert known.unchanged(path, Item(path, size, mtime + 0.25))[0] == 0
        assert known.unchanged(path, Item(path, size + 1000, mtime))[0] == 0
        # where there is a mark, it tells, not the mtime
        assert known.unchanged(path, Item(path, size, 0.0, mark=mark))[0] == (len(rows) if mine else 0)
    assert known.unchanged("a/none.png", Item("a/none.png", -5, 0.0))[0] == 0


def test_bytes_are_found_under_any_path(index, reference):
    known = SeenFiles(index, "", NAMES)
    by_content = {}
    for (*_, sha256), rows in reference[1].items():
        by_content.setdefault(sha256, []).append(tuple(rows))
    assert max(map(len, by_content.values())) > 1
    for sha256, groups in by_content.items():
        assert known.same_bytes(sha256) in groups
    assert known.same_bytes("0" * 64) == ()


def test_a_file_holds_the_bytes_that_its_rows_were_made_from(index, reference):
    known = SeenFiles(index, "", NAMES)
    for path, _, _, _, sha256 in reference[1]:
        assert known.holds(path, sha256) == path.startswith("a/")
        assert not known.holds(path, "0" * 64)
        size, mtime = reference[0][path][:2]
        if path.startswith("a/"):
            assert known.unchanged(path, Item(path, size, mtime))[1] == content_key(sha256)


def test_what_was_not_seen_has_vanished(tmp_path, fake_encoder):
    store = Store.create(tmp_path / "index", encoder=fake_encoder.info)
    paths = ["a/1.png", "a/2.png", "b/c/3.png", "bc/4.png", "d.zip::x/5.png", "e.png", "site2/6.png"]
    table = pa.table({"id": paths, "path": paths, "size": [1] * 7, "mtime": [1.0] * 7, "sha256": list("abcdefg")})
    with store.writer() as writer:
        writer.append(table, np.eye(7, fake_encoder.info.dim, dtype=np.float32))
        store = writer.commit()
    known = SeenFiles(store, "", NAMES)
    known.unchanged("a/1.png", Item("a/1.png", 1, 1.0))
    known.unchanged("e.png", Item("e.png", 2, 2.0))  # changed, but there

    def gone(*unreadable):
        return [id_ for files in known.vanished(set(unreadable)) for id_ in known.ids(files)]

    assert gone() == ["a/2.png", "b/c/3.png", "bc/4.png", "d.zip::x/5.png"]
    assert gone("b", "a/2.png") == ["bc/4.png", "d.zip::x/5.png"]
    assert gone("d.zip", "b/c") == ["a/2.png", "bc/4.png"]


def test_an_empty_index_knows_nothing(tmp_path, fake_encoder):
    known = SeenFiles(Store.create(tmp_path / "index", encoder=fake_encoder.info), "", [""])
    assert len(known) == 0
    assert known.unchanged("a.png", Item("a.png", 1, 1.0))[0] == 0
    assert [rows.tolist() for rows in known.rows(["a.png"])] == [[]]
    assert known.same_bytes("0" * 64) == ()
    assert list(known.vanished(set())) == []
