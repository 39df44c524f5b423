"""Two Ray nodes on this machine: a build that loses one, and one that loses its coordinator, end as if undisturbed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import LONG, until

from retr.index.store import Store
from retr.retrieval.ingest.build import build

TESTS = Path(__file__).parents[2]
# the extra is not installed everywhere; where it is, nothing below may be skipped
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")


def contents(path):
    store = Store.open(path)
    assert store.check() == []
    rows, vectors = store.table().to_pylist(), store.vectors(store.live_rows())
    by_id = {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}
    manifest = store.manifest
    return (
        by_id,
        list(by_id),
        store.skipped().to_pylist(),
        store.schema,
        manifest.extra,
        manifest.group,
        manifest.encoder,
    )


class Run:
    """A build in a process of its own."""

    def __init__(self, cluster, archive, index, **asked):
        asked = {"archive": str(archive), "index": str(index), "ray": cluster.address, **asked}
        command = [sys.executable, str(TESTS / "cluster_driver.py"), json.dumps(asked)]
        self.said = []
        self.process = cluster.driver = subprocess.Popen(
            command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until(self, text):
        """Wait until a line of standard error holds a text."""
        for line in self.process.stderr:
            self.said.append(line)
            if text in line:
                return
        pytest.fail("".join(self.said))

    def end(self):
        out, err = self.process.communicate(timeout=LONG)
        self.said.append(err)
        return self.process.returncode, out


def rows_of(index):
    return len(Store.open(index)) if Store.exists(index) else 0


def started(cluster, archive, index, **asked):
    """Begin a build once the head listens."""
    cluster.until_it_listens()
    return Run(cluster, archive, index, **asked)


def test_a_build_on_two_nodes_survives_the_loss_of_one_and_of_its_coordinator(
    cluster, make_archive, tmp_path, fake_encoder, environment, monkeypatch
):
    monkeypatch.setenv("RETR_KEY_FILE", environment["RETR_KEY_FILE"])
    archive, index = make_archive(240), tmp_path / "index"
    (archive / "text.png").write_text("no picture")
    asked = {"metadata": str(archive / "labels.csv"), "group": "patient", "transform": "whitening", "commit_rows": 16}
    # the coordinator is killed once something is committed; each process does two units of four batches and no more
    closed = tmp_path / "closed"
    closed.mkdir()
    first = started(cluster, archive, index, gate=str(closed), batches=8, **asked)
    cluster.start_second()
    until(lambda: rows_of(index) > 0 or first.process.poll() is not None)
    os.kill(first.process.pid, signal.SIGKILL)
    first.end()
    there = rows_of(index)
    assert 0 < there <= 64
    # and goes on; a node is killed while both embed
    gate = tmp_path / "gate"
    gate.mkdir()
    second = Run(cluster, archive, index, gate=str(gate), batches=4, **asked)
    second.until("2 machines of the cluster embed")
    until(lambda: len(list(gate.iterdir())) == 2 or second.process.poll() is not None)
    cluster.kill(cluster.second)
    (gate / "open").touch()
    code, out = second.end()
    assert (code, "is lost: what it had goes to others" in "".join(second.said)) == (0, True), second.said
    assert json.loads(out)["rows"] == 240
    assert json.loads(out)["unchanged"] >= there
    build(archive, tmp_path / "alone", fake_encoder, **asked)
    assert contents(index) == contents(tmp_path / "alone")


def test_what_a_cluster_cannot_do_is_one_line(cluster, archive, tmp_path):
    other = started(cluster, archive, tmp_path / "other", other=True)
    code, _ = other.end()
    assert code == 1
    last = "".join(other.said).splitlines()[-1]
    assert "has another encoder 'fake': its weights_sha256 differs" in last
    assert not (tmp_path / "other").exists()
