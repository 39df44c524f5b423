"""What commands say of side data whose kind they know, or do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sets_kind import KIND, digits

from retr.index.disk import side_data
from retr.index.store import Store


@pytest.fixture
def second(tmp_path, monkeypatch) -> Path:
    """An index that holds side data of a made-up kind."""
    monkeypatch.setattr(side_data, "_registered", dict(side_data._registered))
    return shutil.copytree(Path(__file__).parents[1] / "golden" / "index-v2", tmp_path / "second")


def test_what_is_not_known_is_kept_and_said(retr, second):
    done = retr("index", "check", "--index", second)
    assert done.code == 0
    assert "side data of the kind 'sets' are not looked into: this retr does not know it" in done.err
    assert retr("index", "delete", "r001", "--yes", "--index", second).code == 0
    for command in (("delete", "r003", "--purge", "--yes"), ("compact",)):
        done = retr("index", *command, "--index", second)
        assert done.code != 0
        assert done.err.startswith(
            "error: the index holds side data of the kind 'sets', which this retr does not know: "
        )
        assert done.err.count("\n") == 1
    assert len(Store.open(second)) == 3


def test_what_is_known_is_looked_into(retr, second, monkeypatch):
    # a merge would take the deleted row out, of the sets too
    monkeypatch.setattr("retr.index.rows.writer.last_run", lambda *_, **__: [])
    side_data.register(KIND)
    done = retr("index", "check", "--index", second)
    assert done.code == 0
    assert "out of date: the sets are of other rows" in done.err
    with Store.open(second).writer() as writer:
        lines = {"digits": digits(["r106"])}
        writer.append(pa.table({"id": ["r106"]}), np.ones((1, 3)), arrays=lines)
        writer.delete(np.array([2]))
        writer.commit()
    done = retr("index", "check", "--index", second)
    assert done.code == 1
    assert "a set names a row that is deleted" in done.out
    assert retr("index", "delete", "r104", "r106", "--purge", "--yes", "--index", second).code == 0
    done = retr("index", "check", "--index", second)
    assert (done.code, done.out) == (0, "")
    assert "out of date: the sets are of other rows" in done.err
