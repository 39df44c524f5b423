"""Whatever hangs on an index goes through every commit, deletion, purge, compaction and copy, by its kind."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from sets_kind import ARRAY, FILE, NOTE, Sets, digits, equip, members, save

from retr.index.disk import compaction, side_data
from retr.index.disk.side_data import Kind, Move, held
from retr.index.errors import IndexCorruptError, RetrError, UsageError
from retr.index.rows.carrying import copy
from retr.index.rows.check import stale
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PURGED_NAME = "the index holds side data of the kind 'sets', which this retr does not know: "


@pytest.fixture
def kind(monkeypatch) -> Iterator[Sets]:
    monkeypatch.setattr(side_data, "_registered", dict(side_data._registered))
    made = Sets()
    side_data.register(made)
    return made


@pytest.fixture
def forget(monkeypatch, kind) -> Callable[[], None]:
    """Stand in for a retr that has never heard of the kind."""
    return lambda: side_data._registered.pop("sets")


def new(start: int, stop: int) -> dict:
    ids = [f"r{number:03d}" for number in range(start, stop)]
    vectors = np.stack([np.random.default_rng(number).standard_normal(8) for number in range(start, stop)])
    return {"table": pa.table({"id": ids}), "vectors": vectors}


def rows(start: int, stop: int) -> dict:
    made = new(start, stop)
    return made | {"arrays": {ARRAY: digits(made["table"]["id"].to_pylist())}}


@pytest.fixture
def store(make, kind) -> Store:
    """Three segments of ten rows; the sets name five rows of theirs."""
    store = make()
    with store.writer() as writer, pytest.MonkeyPatch.context() as patch:
        patch.setattr("retr.index.rows.writer.last_run", lambda *_, **__: [])
        for start in (0, 10, 20):
            writer.append(**new(start, start + 10))
            writer.commit()
        equip(writer, {"a": [3, 17, 29], "b": [4, 17], "c": []})
        return writer.commit()


def in_step(store: Store) -> bool:
    """Return whether every row still stands beside its own vector and its own line."""
    ids = store.table(["id"], np.arange(store.n_total))["id"].to_pylist()
    vectors = [np.random.default_rng(int(name[1:])).standard_normal(8) for name in ids]
    return (
        np.array_equal(store.array(ARRAY), digits(ids))
        and np.allclose(store.vectors(), [one / np.linalg.norm(one) for one in vectors], atol=1e-6)
        and np.array_equal(store.array(ARRAY, np.array([2, 0])), digits([ids[2], ids[0]]))
    )


def test_what_a_kind_says_goes_through_everything(store, kind):
    assert (store.manifest.format_version, store.check(), stale(store)) == (2, [], [])
    assert held(store.manifest)["sets"].version == store.version
    with store.writer() as writer:
        writer.append(**rows(30, 40))
        writer.replace_columns(pa.table({"id": ["r003"], "age": [71]}))
        grown = writer.commit()
        assert in_step(grown)
        assert stale(grown) == ["the sets are of other rows"]
        assert held(grown.manifest)["sets"].version == store.version
        writer.delete(np.array([0, *range(10, 17), 18, 19]))
        save(writer, {"a": [3, 17, 29], "b": [4, 17], "d": [35]})
        before = writer.commit()
        # the numbers of rows change with it
        done = writer.compact()
        assert (done.rows, writer.store.n_total) == (10, 30)
        assert members(writer.store) == {"a": ["r003", "r017", "r029"], "b": ["r004", "r017"], "d": ["r035"]}
        writer.delete(writer.store.rows_of(["r017", "r035"]))
        purged = writer.purge()
        assert "3 rows of sets" not in purged.dropped  # two rows, of three sets
        assert "2 rows of sets" in purged.dropped
    after = Store.open(store.path)
    assert members(after) == {"a": ["r003", "r029"], "b": ["r004"], "d": []}
    assert (after.check(), in_step(after), after.n_total) == ([], True, 28)
    # a snapshot of before sees what it saw
    assert members(before)["b"] == ["r004", "r017"]
    assert in_step(before)


def test_small_segments_that_a_commit_merges_take_it_along(store):
    with store.writer() as writer:
        writer.delete(np.array([0, 1, 2]))
        writer.append(**rows(30, 40))
        save(writer, {"a": [3, 35]})
        after = writer.commit()
    assert len(after.segments) == 1
    assert members(after) == {"a": ["r003", "r035"]}
    assert (after.check(), in_step(after), after.n_total) == ([], True, 37)


def test_a_segment_that_goes_with_its_last_row_takes_its_numbers_along(store):
    with store.writer() as writer:
        # a deleted row keeps its number where its segment stays
        writer.delete(np.array([1, *range(10, 20)]))
        after = writer.commit()
    assert members(after) == {"a": ["r003", "r029"], "b": ["r004"], "c": []}
    assert (after.n_total, len(after), after.check(), in_step(after)) == (20, 19, [], True)
    with store.writer() as writer:
        writer.delete(np.arange(10))
        after = writer.commit()
    assert members(after) == {"a": ["r029"], "b": [], "c": []}
    assert (after.n_total, after.check(), in_step(after)) == (10, [], True)


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_changes_keeps_rows_and_what_names_them_together(store, monkeypatch, seed):
    monkeypatch.setattr(compaction, "FEW_ROWS", 1)
    rng = np.random.default_rng(seed)
    at, named = 30, members(store)
    with store.writer() as writer:
        for _ in range(9):
            live = writer.store.live_rows()
            gone = rng.choice(live, int(rng.integers(0, len(live) // 3)), replace=False)
            lost = set(writer.store.table(["id"], gone)["id"].to_pylist())
            writer.delete(gone)
            n = int(rng.integers(1, 15))
            writer.append(**rows(at, at + n))
            at += n
            {0: writer.compact, 1: writer.purge}.get(int(rng.integers(0, 4)), writer.commit)()
            named = {name: [one for one in ids if one not in lost] for name, ids in named.items()}
            found = {name: [one for one in ids if one not in lost] for name, ids in members(writer.store).items()}
            assert found == named
            assert in_step(writer.store)
            writer.purge()
        assert writer.store.check() == []
        assert members(writer.store) == named


def test_it_is_copied_with_the_rows(store, make, tmp_path):
    shutil.copytree(store.path, tmp_path / "copied")
    copied = Store.open(tmp_path / "copied")
    assert (copied.check(), members(copied)) == ([], members(store))
    chosen = np.array([29, 17, 4])
    numbers = np.full(store.n_total, -1, np.int64)
    numbers[chosen] = np.arange(3)
    part = make(name="part")
    with part.writer() as writer:
        about = store.manifest.row_arrays[ARRAY]
        writer.add_array(ARRAY, Sets(), dtype=about.dtype, dim=about.dim)
        arrays = {ARRAY: store.array(ARRAY, chosen)}
        writer.append(store.table(["id"], chosen), store.vectors(chosen), as_stored=True, arrays=arrays)
        copy(store, writer, Move(numbers))
        part = writer.commit()
    assert (part.check(), in_step(part), stale(part)) == ([], True, ["the sets are of other rows"])
    assert members(part) == {"a": ["r017", "r029"], "b": ["r004", "r017"], "c": []}


def test_what_other_vectors_give_no_meaning_to_is_not_copied(make, monkeypatch, caplog):
    class Fitted(Sets):
        of_vectors = False
        carry = Kind.carry

    monkeypatch.setattr(side_data, "_registered", {"sets": Fitted()})
    store, other = make(3), make(name="other")
    numbers = np.arange(3)
    with store.writer() as writer, other.writer() as there:
        writer.add_file(FILE, b"{}", kind=Fitted())
        writer.note("calibration", {})
        store = writer.commit()
        copy(store, there, Move(numbers, same_vectors=False))
        assert (set(there.draft.files), set(there.draft.extra)) == ({FILE}, set())
        copy(store, there, Move(numbers))
        assert set(there.draft.extra) == {"calibration"}
        side_data._registered.pop("sets")
        copy(store, there, Move(numbers))
    assert "side data of the kind 'sets' are not copied" in caplog.text


def test_a_writer_that_does_not_know_it_keeps_it_and_every_number(store, forget, kind):
    forget()
    unread = Store.open(store.path)
    assert unread.check() == []
    with unread.writer() as writer:
        writer.note("mine", 1)
        # a segment without a live row keeps its place, too
        writer.delete(np.arange(10))
        writer.commit()
        assert len(writer.store) == 20
        with pytest.raises(UsageError, match=r"^every row of this index has a line of 'digits' .* kind 'sets'\); give"):
            writer.append(**new(30, 31))
        writer.append(**rows(30, 40))
        kept = writer.commit()
        assert (kept.n_total, len(kept.segments), kept.check()) == (40, 4, [])
        for act, otherwise in (
            (writer.purge, "what it holds of rows cannot be purged"),
            (writer.compact, "rows cannot"),
        ):
            with pytest.raises(RetrError) as refused:
                act()
            assert str(refused.value).startswith(PURGED_NAME + otherwise)
            assert "\n" not in str(refused.value)
    assert Store.open(store.path).version == kept.version
    assert kept.manifest.side_data == store.manifest.side_data
    side_data.register(kind)
    assert members(kept)["b"] == ["r004", "r017"]
    with kept.writer() as writer:
        writer.purge()
        assert members(writer.store) == {"a": ["r017", "r029"], "b": ["r017"], "c": []}
        assert (writer.store.check(), in_step(writer.store)) == ([], True)


def test_format_2_begins_with_the_first_kind_and_ends_with_the_last(store, kind):
    with store.writer() as writer:
        writer.remove_file(FILE)
        assert writer.commit().manifest.format_version == 2
        writer.note(NOTE, None)
        assert writer.commit().manifest.format_version == 2
        writer.apply(side_data.dropped(writer.draft, "sets"))
        last = writer.commit()
    assert (last.manifest.format_version, last.check()) == (1, [])
    assert {"side_data", "row_arrays"}.isdisjoint(json.loads((last.path / last.manifest.file).read_bytes()))
    assert not list((last.path / "segments").glob("*.rows-*"))


def test_a_name_is_of_one_kind(store, kind, monkeypatch):
    class Other(Sets):
        name = "other"

    with store.writer() as writer:
        with pytest.raises(UsageError, match="'other' would be known to no purge; make the kind known"):
            writer.add_file("x", b"", kind=Other())
        side_data.register(Other())
        for act in (
            lambda: writer.add_file(FILE, b"", kind=Other()),
            lambda: writer.note(NOTE, 1, kind=Other()),
            lambda: writer.add_file("head.npz", b"", kind=Other()),
            lambda: writer.add_file("probe-label-1.npz", b"", kind=Other()),
            lambda: writer.note("calibration", 1, kind=Other()),
        ):
            with pytest.raises(UsageError, match=r"is the name of side data of the kind '[a-z]+', not 'other'"):
                act()
        with pytest.raises(UsageError, match="cannot be called 'digits'"):
            writer.add_array(ARRAY, Other(), dtype="int8", dim=1, fill=len)
        calibrations = side_data.find_kind("calibration")
        writer.note("calibration", {}, kind=calibrations)
        assert "calibration" not in writer.draft.side_data
        # whoever writes it again without a word leaves it what it was
        writer.add_file(FILE, b"{}")
        assert writer.commit().manifest.side_data["sets"].files == (FILE,)
    with pytest.raises(ValueError, match="'Raw Features'"):
        side_data.register(type("Bad", (Sets,), {"name": "Raw Features"})())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros((1, 2)), r"takes the shape \(1, 3\) here, got \(1, 2\)"),
        (np.zeros(3), r"got \(3,\)"),
        ([[0, 0, 40_000]], "holds int16, which cannot hold every value given"),
        ([[0.5, 0, 0]], "holds int16, which cannot"),
        ([[np.nan, 0, 0]], "holds int16, which cannot"),
    ],
)
def test_a_line_is_of_the_shape_and_type_of_its_array(store, values, why):
    with store.writer() as writer:
        with pytest.raises(UsageError, match=why):
            writer.append(**new(30, 31), arrays={ARRAY: values})
        with pytest.raises(UsageError, match="there is no row array 'other'"):
            writer.append(**new(30, 31), arrays={ARRAY: [[0, 3, 0]], "other": [[1]]})
        writer.append(**new(30, 31), arrays={ARRAY: [[0, 3, 0]]})
        assert in_step(writer.commit())
        for options in ({"dtype": "object", "dim": 1}, {"dtype": "int8", "dim": 0}):
            with pytest.raises(UsageError, match="a row array holds one or more uint8 or"):
                writer.add_array("x", Sets(), **options)
        with pytest.raises(UsageError, match=r"cannot be called 'a\.b'"):
            writer.add_array("a.b", Sets(), dtype="int8", dim=1)
        with pytest.raises(UsageError, match="'x' needs the lines of the rows that are there"):
            writer.add_array("x", Sets(), dtype="int8", dim=1)
        with pytest.raises(UsageError, match="holds float16, which cannot"):
            writer.add_array("x", Sets(), dtype="float16", dim=1, fill=lambda rows: np.full((len(rows), 1), 1e9))
    assert Store.open(store.path).check() == []


def test_check_says_what_is_wrong_with_it(store, kind, monkeypatch):
    line = store.path / store.segments[1].info.arrays[ARRAY].file
    data = line.read_bytes()
    line.write_bytes(data[:-1])
    with pytest.raises(IndexCorruptError, match="bytes instead of"):
        Store.open(store.path)
    assert [finding.kind for finding in store.check()] == ["truncated"]
    line.write_bytes(data[:-2] + b"\1\1")
    assert [finding.kind for finding in store.check()] == ["altered"]
    line.write_bytes(data)
    with store.writer() as writer:
        save(writer, {"a": [5]})
        writer.delete(np.array([5]))
        writer.add_array(ARRAY, Sets(), dtype="int16", dim=3, fill=lambda rows: np.ones((len(rows), 3)))
        found = writer.commit().check()
    assert [(one.kind, one.file.split("/")[0]) for one in found] == [
        ("unreadable", "files"),
        ("unreadable", "manifests"),
    ]
    assert [one.message for one in found] == ["a set names a row that is deleted", "the digits are not of these rows"]
    with Store.open(store.path).writer() as writer:
        writer.add_file(FILE, b"no JSON")
        found = writer.commit().check()
    assert found[0].message == "'sets.json', side data of the kind 'sets', cannot be read"


def rewrite(root: Path, data: dict) -> None:
    """Put a manifest in the place of the live one, as whoever hands over an index can."""
    text = json.dumps(data).encode()
    name = (root / "CURRENT").read_text().split()[0]
    (root / name).write_bytes(text)
    (root / "CURRENT").write_text(f"{name} {hashlib.sha256(text).hexdigest()}\n")


def test_a_float_that_is_none_is_refused_in_a_received_array(make, kind):
    store = make(3)
    with store.writer() as writer:
        writer.add_array("raw", kind, dtype="float32", dim=2, fill=lambda rows: np.ones((len(rows), 2)))
        store = writer.commit()
    data = json.loads((store.path / store.manifest.file).read_bytes())
    ref = data["segments"][0]["arrays"]["raw"]
    file = store.path / ref["file"]
    values = np.load(file)
    values[1, 1] = np.nan
    np.save(file, values)
    ref["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    rewrite(store.path, data)
    with pytest.raises(IndexCorruptError, match="holds a value that no writer stores"):
        Store.open(store.path)


SETS = {"files": [FILE], "notes": [NOTE], "numbered": True, "version": 5}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("side_data", None),
        ("side_data", {"Sets": SETS}),
        ("side_data", {"sets": SETS, "other": SETS}),
        ("side_data", {"sets": {**SETS, "files": ["gone.json"]}}),
        ("side_data", {"sets": {**SETS, "notes": ["gone"]}}),
        ("side_data", {"sets": {**SETS, "numbered": 1}}),
        ("side_data", {"sets": {**SETS, "version": -1}}),
        ("side_data", {"sets": {**SETS, "notes": [NOTE, "build"]}}),
        ("row_arrays", {}),
        ("row_arrays", {ARRAY: {"kind": "sets", "dtype": "int16", "dim": 0}}),
        ("row_arrays", {ARRAY: {"kind": "sets", "dtype": "object", "dim": 3}}),
        ("row_arrays", {ARRAY: {"kind": "../sets", "dtype": "int16", "dim": 3}}),
        ("row_arrays", {"../x": {"kind": "sets", "dtype": "int16", "dim": 3}}),
        ("format_version", 3),
    ],
)
def test_a_manifest_that_makes_no_sense_of_kinds_is_one_line(store, part, value):
    with store.writer() as writer:
        writer.note("build", {})
        store = writer.commit()
    data = json.loads((store.path / store.manifest.file).read_bytes())
    rewrite(store.path, data | {part: value})
    with pytest.raises(RetrError, match=r"^(the manifest cannot be read|this index has the format version 3)") as error:
        Store.open(store.path)
    assert "\n" not in str(error.value)
    rewrite(store.path, data)
    assert Store.open(store.path).check() == []


def test_kinds_of_other_packages_are_found_by_their_entry_point(make, kind, monkeypatch):
    entry = EntryPoint("sets", "sets_kind:KIND", side_data.GROUP)
    broken = EntryPoint("gone", "no_such_module:KIND", side_data.GROUP)
    found = {"sets": entry, "gone": broken}
    side_data._registered.pop("sets")
    assert (side_data.find_kind("sets"), side_data.find_kind("gone")) == (None, None)
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda *, group, name: [found[name]] if name in found else []
    )
    assert isinstance(side_data.find_kind("sets"), Sets)
    assert side_data.find_kind("gone") is None


LIGHT = """
import sys
from retr.index.disk.side_data import BUILT_IN, find_kind
import retr.index.rows.writer, retr.index.rows.check
assert not any(name.startswith("retr.retrieval") for name in sys.modules)
for name in BUILT_IN:
    assert find_kind(name).name == name
heavy = {"torch", "sklearn", "scipy", "faiss", "transformers", "pydicom", "PIL"}
print(sorted(heavy & set(sys.modules)))
"""


def test_every_kind_of_ours_is_known_without_loading_what_it_is_made_with():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Appends rows with their lines, puts rows into a set, deletes, merges, compacts and purges until it is killed.
WRITER = """
import os, sys
sys.path.insert(0, sys.argv[2])
import numpy as np, pyarrow as pa
from retr.index.disk import compaction, side_data
from retr.index.store import Store
from sets_kind import ARRAY, Sets, digits, save
import json

side_data.register(Sets())
compaction.FEW_ROWS = 8
rng = np.random.default_rng(int(sys.argv[3]))
with Store.open(sys.argv[1]).writer() as writer:
    while True:
        store = writer.store
        known = {int(name[1:]) for name in store.table(["id"])["id"].to_pylist()}
        ids = [f"r{number:03d}" for number in range(1000) if number not in known][: int(rng.integers(1, 9))]
        vectors = np.stack([np.random.default_rng(int(name[1:])).standard_normal(8) for name in ids])
        live = store.live_rows()
        writer.delete(rng.choice(live, len(live) // 4, replace=False))
        writer.append(pa.table({"id": ids}), vectors, arrays={ARRAY: digits(ids)})
        stays = [int(row) for row in live if not writer._gone[row]]
        # every row whose number is even, and no other, is in the set
        names = store.table(["id"], np.array(stays, int))["id"].to_pylist()
        even = [row for row, name in zip(stays, names) if int(name[1:]) % 2 == 0]
        even += [store.n_total + at for at, name in enumerate(ids) if int(name[1:]) % 2 == 0]
        save(writer, {"even": even})
        {0: writer.compact, 1: writer.purge}.get(int(rng.integers(0, 3)), writer.commit)()
        os.write(1, b"committed\\n")
"""


def test_a_writer_killed_at_any_instant_leaves_rows_and_what_names_them_together(store):
    with store.writer() as writer:
        save(writer, {"even": list(range(0, 30, 2))})
        writer.commit()
    for seed in range(2):
        command = [sys.executable, "-c", WRITER, str(store.path), str(Path(__file__).parents[2]), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"committed\n"
            time.sleep(0.05 + 0.1 * seed)
            process.send_signal(signal.SIGKILL)
        after = Store.open(store.path)
        assert {finding.kind for finding in after.check()} <= {"unpurged"}
        assert in_step(after)
        ids = after.table(["id"])["id"].to_pylist()
        assert sorted(members(after)["even"]) == sorted(name for name in ids if int(name[1:]) % 2 == 0)
    with after.writer() as writer:
        assert writer.store.check() == []
