"""The column that tells patients apart is text, and older indexes move over in one commit."""

import datetime as dt
import os
import signal
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import FilterError, UsageError
from retr.index.store import Store

INFO = EncoderInfo(
    name="drawn", dim=4, similarity="cosine", modality="none", text=False, weights_sha256="0", preprocessing="none"
)


def rows(n, start=0, **columns):
    table = pa.table({"id": [f"r{start + i}" for i in range(n)], **columns})
    return table, np.random.default_rng(start).normal(size=(n, 4))


def make(path, *parts, group=None, legacy=None):
    """An index of some parts; ``legacy`` names the group as an older version did, without looking at its type."""
    import dataclasses

    store = Store.create(path, encoder=INFO, group=group)
    with store.writer() as writer:
        for part in parts:
            writer.append(*part)
        if legacy is not None:
            writer.draft = dataclasses.replace(writer.draft, group=legacy)
        return writer.commit()


def patients(store):
    return store.table(["patient"])["patient"].to_pylist()


LONG = [12345678901234567890, 12345678901234567891]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, 1, None], pa.int64()), ["1", "1", None]),
        (pa.array([17.0, 17.5, float("nan")]), ["17", "17.5", None]),
        (pa.array([*LONG, None], pa.uint64()), [*map(str, LONG), None]),
        (pa.array([Decimal("1.10"), Decimal("345.10"), None], pa.decimal128(20, 2)), ["1.10", "345.10", None]),
        (pa.array([dt.date(2024, 5, 31)] * 2 + [None]), ["2024-05-31"] * 2 + [None]),
        (pa.array(["00123", "1E3", "1.10"]), ["00123", "1E3", "1.10"]),
        (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_what_comes_in_becomes_text(tmp_path, values, texts):
    store = make(tmp_path / "x.retr", rows(3, patient=values), group="patient")
    assert store.schema.field("patient").type == pa.string()
    assert patients(store) == texts


def test_one_identifier_as_number_and_as_text_is_one(tmp_path):
    store = make(
        tmp_path / "x.retr",
        rows(2, patient=[17, 18]),
        rows(2, 2, patient=["17", "017"]),
        rows(2, 4, patient=[17.0, None]),
        group="patient",
    )
    assert patients(store) == ["17", "18", "17", "017", "17", None]
    assert store.identity.rows("patient", [17, "17", 17.0, "017", None, float("nan")])[0].tolist() == [0, 2, 4]
    assert [len(found) for found in store.identity.rows("patient", [17, "017", None])] == [3, 1, 0]
    one_each = store.search(np.ones((1, 4), np.float32), 6, one_per="patient")
    assert (one_each.rows >= 0).sum() == 4, "rows without a patient stand alone"


@pytest.mark.parametrize(
    "numbers",
    [pa.array([7, 8, 7]), pa.array([7.0, 8.0, 7.0]), pa.array([7.0, 0.0, -0.0])],
    ids=["int", "float", "zero"],
)
def test_a_numeric_group_of_an_older_index_moves_over(tmp_path, numbers):
    store = make(tmp_path / "x.retr", rows(3, patient=numbers), legacy="patient")
    assert store.schema.field("patient").type != pa.string()
    before = store.identity.of("patient", store.live_rows())
    assert all(found[0] == 0 for found in store.identity.rows("patient", ["7", 7]))
    groups = store.identity.groups("patient")[store.live_rows()]
    with store.writer() as writer:
        writer.set_group("patient")
        assert Store.open(store.path).schema.field("patient").type != pa.string(), "nothing is seen before the commit"
        moved = writer.commit()
    assert patients(moved) == before
    np.testing.assert_array_equal(moved.identity.groups("patient")[moved.live_rows()], groups)
    assert moved.check() == []


def test_adding_to_an_older_index_moves_it_over(tmp_path):
    store = make(tmp_path / "x.retr", rows(3, patient=[7, 8, None]), legacy="patient")
    with store.writer() as writer:
        writer.append(*rows(2, 3, patient=["7", "x"]))
        store = writer.commit()
    assert patients(store) == ["7", "8", None, "7", "x"]


def test_identifiers_that_floats_have_merged_are_refused(tmp_path):
    merged = pa.array([9007199254740993.0, 9007199254740992.0, 1.0])
    store = make(tmp_path / "x.retr", rows(3, patient=merged), legacy="patient")
    message = r"'patient' holds numbers beyond 2\^53.*--metadata FILE --type patient=text"
    for asked in (
        lambda: store.search(np.ones((1, 4), np.float32), 2, one_per="patient"),
        lambda: store.search(np.ones((1, 4), np.float32), 2, exclude_same={"patient": ["1"]}),
        lambda: store.identity.of("patient", store.live_rows()),
    ):
        with pytest.raises(UsageError, match=message):
            asked()
    version = store.version
    with store.writer() as writer, pytest.raises(UsageError, match=message):
        writer.set_group("patient")
    assert Store.open(store.path).version == version
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "y.retr", rows(3, patient=merged), group="patient")
    ids = store.table(["id"])["id"]
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "patient": ["9007199254740993", "9007199254740992", "1"]}))
        store = writer.commit()
    assert len(set(store.identity.of("patient", store.live_rows()))) == 3


def test_lists_tell_nobody_apart(tmp_path):
    store = make(tmp_path / "x.retr", rows(2, tags=[["a"], ["b"]]))
    with pytest.raises(UsageError, match="cannot tell rows apart"):
        store.search(np.ones((1, 4), np.float32), 2, one_per="tags")
    with store.writer() as writer, pytest.raises(UsageError, match="cannot tell patients or groups apart"):
        writer.set_group("tags")


def test_other_columns_stay_what_they_are_and_group_by_value(tmp_path):
    ages = pa.array([0.0, -0.0, 41.5, float("nan"), float("nan")])
    store = make(tmp_path / "x.retr", rows(5, age=ages, patient=list("abcde")), group="patient")
    assert store.schema.field("age").type == pa.float64()
    assert store.identity.of("age", store.live_rows()) == ["0", "0", "41.5", None, None]
    assert [found.tolist() for found in store.identity.rows("age", ["0", "-0", 41.5, float("nan")])] == [
        [0, 1],
        [0, 1],
        [2],
        [],
    ]
    one_each = store.search(np.ones((1, 4), np.float32), 5, one_per="age")
    assert (one_each.rows >= 0).sum() == 4


def test_a_number_compared_with_the_group_says_how_to_write_it(tmp_path):
    store = make(tmp_path / "x.retr", rows(2, patient=[17, 18], age=[60, 70]), group="patient")
    for where in ("patient = 17", "patient in (17, 18)", "17 = patient", "patient between 17 and 18"):
        with pytest.raises(FilterError, match=r"'patient' holds identifiers, which are text.*in single quotes: '17'"):
            store.where(where)
    assert store.where("patient = '17' and age < 65").tolist() == [True, False]


def test_blanks_are_nobody(tmp_path):
    store = make(tmp_path / "x.retr", rows(4, patient=["", "  ", "P1", "P1"]), group="patient")
    assert store.identity.of("patient", store.live_rows()) == [None, None, "P1", "P1"]
    one_each = store.search(np.ones((1, 4), np.float32), 4, one_per="patient")
    assert (one_each.rows >= 0).sum() == 3


def test_a_move_that_is_killed_leaves_the_old_index(tmp_path):
    store = make(tmp_path / "x.retr", rows(3, patient=[7, 8, 7]), legacy="patient")
    code = f"""
import os, signal
from retr.index.rows import grouping
from retr.index.rows import writer
from retr.index.store import Store
publish = writer.publish
writer.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with Store.open({str(store.path)!r}).writer() as w:
    w.set_group("patient")
    w.commit()
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    again = Store.open(store.path)
    assert again.version == store.version
    assert patients(again) == [7, 8, 7]
    with again.writer() as writer:
        writer.set_group("patient")
        assert patients(writer.commit()) == ["7", "8", "7"]
    assert Store.open(store.path).check() == []
