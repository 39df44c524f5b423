"""The audit: every line sealed with the one before, and no change, loss or exchange goes unnoticed."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from retr import UsageError
from retr.serve.audit import Audit, verify


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "audit"
    audit = Audit(path)
    for number in range(12):
        audit.write({"who": "anna", "asked": f'words with "seal":"{number}" in them', "ids": audit.ids([f"p{number}"])})
    audit.close()
    return path


def test_an_audit_that_nobody_touched_holds(written):
    assert (verify(written).lines, verify(written).problem) == (12, None)
    first = json.loads(written.read_text().splitlines()[0])
    assert (first["number"], first["who"], len(first["ids"][0])) == (1, "anna", 32)
    assert "p0" not in written.read_text().replace('"seal":"0', "")
    assert (written.parent / "audit.key").stat().st_mode & 0o777 == 0o600


def test_it_goes_on_where_it_ended(written):
    audit = Audit(written)
    audit.write({"who": "ben"})
    audit.close()
    assert verify(written).lines == 13
    assert verify(written).problem is None


def changes():
    random_ = random.Random(0)

    def byte(lines):
        number = random_.randrange(len(lines))
        place = random_.randrange(len(lines[number]) - 1)
        other = bytes([lines[number][place] ^ (1 << random_.randrange(7))])
        lines[number] = lines[number][:place] + other + lines[number][place + 1 :]

    yield from [byte] * 40
    yield lambda lines: lines.pop(5)
    yield lambda lines: lines.pop()
    yield lambda lines: lines.pop(0)
    yield lambda lines: lines.insert(3, lines[4])
    yield lambda lines: lines.append(lines[-1])
    yield lambda lines: lines.reverse()
    yield lambda lines: lines.__setitem__(slice(4, 6), [lines[5], lines[4]])
    yield lambda lines: lines.__setitem__(2, lines[2].replace(b"anna", b"otto"))
    yield lambda lines: lines.clear()


@pytest.mark.parametrize("change", list(changes()))
def test_every_change_is_found(written, change):
    lines = written.read_bytes().splitlines(keepends=True)
    before = list(lines)
    change(lines)
    assert lines != before
    written.write_bytes(b"".join(lines))
    assert verify(written).problem is not None
    with pytest.raises(UsageError, match="was changed"):
        Audit(written)


def test_a_line_whose_writing_was_interrupted_is_no_change(written):
    with written.open("ab") as file:
        file.write(b'{"number":13,"who":"an')
    Audit(written).close()
    assert (verify(written).lines, verify(written).problem) == (12, None)


def test_one_server_at_a_time(written):
    audit = Audit(written)
    with pytest.raises(UsageError, match="another server"):
        Audit(written)
    audit.close()
    Audit(written).close()


def test_ids_and_words_can_be_told_or_hashed(tmp_path):
    plain, hashed = Audit(tmp_path / "a", hash_ids=False), Audit(tmp_path / "b", hash_text=True)
    assert (plain.ids(["p1"]), plain.words("drusen")) == (["p1"], "drusen")
    assert hashed.ids(["p1"]) == hashed.ids(["p1"]) != ["p1"]
    assert hashed.words("drusen") != "drusen"
    assert plain.hashed("p1") != hashed.hashed("p1"), "two audits have two keys"
    plain.close()
    hashed.close()


def test_what_was_synced_survives_a_kill(tmp_path):
    path = tmp_path / "audit"
    code = """
import os, signal, sys
from pathlib import Path
from retr.serve.audit import Audit
audit = Audit(Path(sys.argv[1]))
for number in range(50):
    audit.write({"who": "x", "n": number})
audit.sync()
audit.write({"who": "x"})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert verify(path).problem is None
    assert verify(path).lines in {50, 51}
    Audit(path).close()
