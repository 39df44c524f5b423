"""Labels that two processes give during a build: all that were confirmed are there, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from retr import Index
from retr.retrieval.sets.sets import entries_of
from retr.sample import sample_index

# of each process; the same test was run with 500
MANY = 60
LABELLING = """
import sys
from retr import Index
index = Index.open(sys.argv[1])
ids = list(index)
for number in range(int(sys.argv[3])):
    index.sets.label([ids[number % len(ids)]], f"{sys.argv[2]} {number}", set=sys.argv[2], author=sys.argv[2])
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
# a writer that adds rows, again and again, and commits each time
BUILDING = """
import sys
import numpy as np, pyarrow as pa
from retr import Index
store = Index.open(sys.argv[1]).store
sys.stdout.write("begun\\n"); sys.stdout.flush()
with store.writer() as writer:
    for number in range(10_000):
        ids = [f"new {number}-{n}" for n in range(50)]
        writer.append(pa.table({"id": ids}), np.random.default_rng(number).normal(size=(50, 48)).astype(np.float32))
        writer.commit()
        if not number:
            sys.stdout.write("committed\\n"); sys.stdout.flush()
"""


def begin(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_none_of_the_labels_of_two_processes_is_lost_where_all_are_killed_during_a_build():
    index = sample_index()
    building = begin(BUILDING, index.path)
    assert building.stdout.readline() == "begun\n"
    labelling = [begin(LABELLING, index.path, name, MANY + 20) for name in ("anna", "ben")]
    # each confirms at least so many; then, wherever they are, all end
    for process in labelling:
        for _ in range(MANY):
            assert process.stdout.readline()
    assert building.stdout.readline() == "committed\n"
    for process in (*labelling, building):
        os.kill(process.pid, signal.SIGKILL)
    confirmed = {}
    for name, process in zip(("anna", "ben"), labelling, strict=True):
        confirmed[name] = MANY + len(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
    building.wait()
    building.stdout.close()
    opened = Index.open(index.path)
    assert opened.version > index.version, "the build committed meanwhile"
    for name, many in confirmed.items():
        given = {label.label for label in opened.sets[name].given}
        assert {f"{name} {number}" for number in range(many)} <= given
        # one may have been written and not confirmed
        assert len(given) <= many + 1
    numbers = [entry.number for entry in entries_of(index.path)]
    assert numbers == list(range(1, len(numbers) + 1))
    opened.set_group(None)
    assert opened.check() == []
    assert (opened.path / "journal.jsonl").read_bytes() == b""
    assert len(opened.sets["anna"].given) + len(opened.sets["ben"].given) == len(numbers)
