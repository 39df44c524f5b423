"""What is kept in the cache is read back whole and this user's, or not at all."""

from __future__ import annotations

import os

import pytest

from retr.index.machine.kept import keep, read_kept


def test_what_was_kept_is_read(tmp_path):
    keep(tmp_path / "new/one", b"bytes")
    assert read_kept(tmp_path / "new/one") == b"bytes"
    keep(tmp_path / "empty", b"")
    assert read_kept(tmp_path / "empty") == b""


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda _: b"", lambda d: d * 2]
)
def test_another_content_is_refused(change, tmp_path):
    keep(tmp_path / "one", b"bytes")
    (tmp_path / "one").write_bytes(change((tmp_path / "one").read_bytes()))
    with pytest.raises(ValueError, match="cut short or changed"):
        read_kept(tmp_path / "one")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners")
def test_another_users_file_is_refused(tmp_path, monkeypatch):
    keep(tmp_path / "one", b"bytes")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if (tmp_path / "one").stat().st_uid == 0:
        os.chown(tmp_path / "one", 1, -1)
    with pytest.raises(ValueError, match="another user"):
        read_kept(tmp_path / "one")


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    keep(tmp_path / "file/one", b"bytes")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
