"""Lists behind a faiss index: mapped as written, of no other vectors, refused where they lead elsewhere."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from dataclasses import fields, replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.accelerators import faiss_index, rabitq
from retr.index.accelerators.config import IVF
from retr.index.disk import lists_file
from retr.index.disk.faiss_file import require_whole
from retr.index.errors import IndexCorruptError
from retr.index.store import Store
from retr.index.tune import tune
from retr.index.vectors import unit

ROWS, DIM = 700, 40


@pytest.fixture(scope="module")
def vectors():
    return unit(np.random.default_rng(0).standard_normal((ROWS, DIM), np.float32))


@pytest.fixture(scope="module")
def written(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("lists") / "lists.faiss"
    faiss_index.train(vectors, IVF(lists=8), path, budget=1 << 28)
    return path


@pytest.fixture
def data(written):
    return bytearray(written.read_bytes())


def test_lists_are_those_that_faiss_reads(written, data):
    read = faiss.read_index(str(written))
    assert read.ntotal == ROWS
    _, lists = lists_file.split(memoryview(data), ROWS, DIM)
    anew = rabitq.new_lists(faiss.downcast_index(read.index))
    for one in fields(lists):
        np.testing.assert_array_equal(getattr(lists, one.name), getattr(anew, one.name))
    require_whole(memoryview(data), ROWS, DIM)


def test_a_file_of_before_there_were_lists_answers_alike(data, vectors):
    index, _ = lists_file.split(memoryview(data), ROWS, DIM)
    old = faiss.serialize_index(faiss.deserialize_index(np.frombuffer(index, np.uint8))).tobytes()
    found = [faiss_index.load(memoryview(some), vectors).search(vectors[:20], 5, IVF(probes=3)) for some in (old, data)]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


def test_lists_of_other_vectors_and_of_another_length_are_refused(data, vectors):
    with pytest.raises(IndexCorruptError, match="retr index tune"):
        faiss_index.load(memoryview(data), vectors[1:])
    with pytest.raises(IndexCorruptError, match="retr index tune"):
        faiss_index.load(memoryview(data[64:]), vectors)


def test_lists_of_a_later_version_are_left_to_faiss(data, vectors):
    data[-56:-52] = struct.pack("<I", 2)
    index, lists = lists_file.split(memoryview(data), ROWS, DIM)
    assert lists is None
    assert faiss.deserialize_index(np.frombuffer(index, np.uint8)).ntotal == ROWS


def spoilt(data, name, change):
    """Return a file in which an array was changed where it lies."""
    lists = lists_file.split(memoryview(data), ROWS, DIM)[1]
    change(getattr(lists, name))
    return data


SPOILT = {
    "a row beyond": ("rows", lambda rows: rows.__setitem__(3, ROWS)),
    "a row below": ("rows", lambda rows: rows.__setitem__(3, -1)),
    "a row twice": ("rows", lambda rows: rows.__setitem__(1, rows[0])),
    "a list elsewhere": ("starts", lambda starts: starts.__setitem__(1, starts[1] + 1)),
    "a list too long": ("sizes", lambda sizes: sizes.__setitem__(0, 1 << 40)),
    "a list of less than nothing": ("sizes", lambda sizes: sizes.__setitem__(0, -1)),
    "no number": ("shift", lambda shift: shift.__setitem__(5, np.nan)),
    "too large a number": ("radii", lambda radii: radii.__setitem__(0, 1e30)),
}


@pytest.mark.parametrize("what", SPOILT)
def test_lists_that_lead_elsewhere_are_refused(data, what):
    with pytest.raises(ValueError, match=r"list|row|number"):
        require_whole(memoryview(spoilt(data, *SPOILT[what])), ROWS, DIM)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(1, 64), value=st.integers(0, 255))
def test_any_end_is_read_or_refused(written, at, value):
    data = bytearray(written.read_bytes())
    data[-at] = value
    try:
        lists = lists_file.split(memoryview(data), ROWS, DIM)[1]
        if lists is not None:
            lists_file.require_lists(lists, ROWS)
    except ValueError:
        pass


@pytest.fixture
def tuned(make, monkeypatch):
    monkeypatch.setattr("retr.index.accelerators.faiss_index.MIN_ROWS", 100)
    monkeypatch.setattr("retr.index.tune.MIN_ROWS", 100)
    store = make(600)
    with store.writer() as writer:
        tune(writer, recall=0.5, kinds=[IVF(lists=8)])
    return Store.open(store.path)


def test_a_received_index_with_spoilt_lists_is_searched_exactly(tuned, tmp_path, monkeypatch):
    """Its hashes are right: whoever made it wrote them."""
    info = tuned.manifest.segments[0]
    file = tuned.path / info.accelerator.file
    data = bytearray(file.read_bytes())
    lists = lists_file.split(memoryview(data), len(tuned), tuned.manifest.encoder.dim)[1]
    lists.rows[0] = 1 << 30
    file.write_bytes(data)
    spoilt = replace(info.accelerator, sha256=hashlib.sha256(data).hexdigest())
    manifest = replace(tuned.manifest, segments=(replace(info, accelerator=spoilt),))
    monkeypatch.setattr("retr.index.rows.snapshot.read_current", lambda _: manifest)
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "another machine"))
    for _ in range(2):
        found = Store.open(tuned.path).search(np.ones((1, tuned.manifest.encoder.dim), np.float32), 3)
        assert found.exact
        assert "searched exactly" in found.note


def test_a_first_question_loads_neither_faiss_nor_a_compiler(tuned):
    code = (
        "import sys, numpy as np;"
        "from retr.index.store import Store;"
        "store = Store.open(sys.argv[1]);"
        "found = store.search(np.ones((1, store.manifest.encoder.dim), np.float32), 3);"
        "assert not found.exact;"
        "assert not {'faiss', 'numba', 'scipy', 'pyarrow.compute', 'pyarrow.parquet'} & sys.modules.keys()"
    )
    tuned.search(np.ones((1, tuned.manifest.encoder.dim), np.float32), 3)
    subprocess.run([sys.executable, "-c", code, str(tuned.path)], check=True)
