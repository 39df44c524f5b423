"""Segments: files that are not what the manifest says are refused in one line; hashes find ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index.disk.segments import HashSet, id_hashes
from retr.index.errors import IndexCorruptError
from retr.index.store import Store


def test_a_file_of_another_size_is_refused(make):
    store = make(5)
    ref = store.manifest.segments[0].vectors
    with (store.path / ref.file).open("ab") as file:
        file.write(b"more")
    message = rf"^'{ref.file}' has {ref.bytes + 4} bytes instead of {ref.bytes}; run `retr index check`$"
    with pytest.raises(IndexCorruptError, match=message):
        Store.open(store.path)


@pytest.mark.parametrize(
    ("wrong", "name"), [(np.zeros((8, 5), "<f4"), "vectors"), (np.zeros((5, 8), "<i4"), "vectors"), (None, "ids")]
)
def test_an_array_of_another_shape_or_type_is_refused(make, wrong, name):
    store = make(5)
    info = store.manifest.segments[0]
    ref = getattr(info, name)
    np.save(store.path / ref.file, np.load(store.path / ref.file).T if wrong is None else wrong)
    held = "5 x 8 float32" if name == "vectors" else "2 x 5 uint64"
    with pytest.raises(
        IndexCorruptError, match=rf"^'{ref.file}' does not hold {held} numbers; run `retr index check`$"
    ):
        Store.open(store.path)


def test_an_array_without_its_header_is_refused(make):
    store = make(5)
    ref = store.manifest.segments[0].vectors
    (store.path / ref.file).write_bytes(bytes(ref.bytes))
    with pytest.raises(IndexCorruptError, match="does not hold 5 x 8 float32 numbers"):
        Store.open(store.path)


def test_columns_come_in_the_order_asked_for_and_nothing_is_read_for_none(make):
    store = make(5)
    segment = store.segments[0]
    assert segment.table(["sex", "id"], store.schema).column_names == ["sex", "id"]
    assert segment.table([], store.schema).column_names == []
    assert segment.table(["age"], store.schema, np.empty(0, np.int64)).schema.field("age").type == pa.int64()
    assert segment.ids(np.array([4, 0, 4])) == ["r4", "r0", "r4"]


def test_rows_of_an_id_are_found_by_its_hash(make):
    segment = make(5).segments[0]
    asked = ["r3", "nobody", "r0", "r3"]

    def names(at):
        assert 1 not in at
        return [asked[place] for place in at]

    at, rows = segment.look_up(id_hashes(asked), names)
    assert sorted(zip(at.tolist(), rows.tolist(), strict=True)) == [(0, 3), (2, 0), (3, 3)]
    at, rows = segment.look_up(id_hashes(asked), names, np.arange(5) < 3)
    assert (at.tolist(), rows.tolist()) == ([2], [0])
    assert segment.hashed_ids(np.arange(5)) == sorted(
        (f"r{i}" for i in range(5)), key=lambda name: id_hashes([name])[0]
    )


def test_hashes_that_were_seen_are_known_from_a_few_runs():
    hashes = np.random.default_rng(0).permutation(np.arange(0, 4000, 2, dtype=np.uint64))
    seen = HashSet()
    assert not seen.meets(hashes)
    for number, part in enumerate(np.split(hashes, 100)):
        assert not seen.meets(part)
        seen.add(part)
        assert all(len(longer) >= 2 * len(shorter) for longer, shorter in zip(seen._runs, seen._runs[1:], strict=False))
        assert sum(map(len, seen._runs)) == 20 * (number + 1)
    for some in hashes[:50]:
        assert seen.meets(np.array([1, some, 4001], np.uint64))
    assert not seen.meets(hashes + np.uint64(1))
    assert not seen.meets(np.empty(0, np.uint64))
