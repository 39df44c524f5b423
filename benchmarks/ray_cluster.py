"""What a cluster costs: an archive embedded, and an index searched, by two Ray nodes of one processor each.

Against one process with two threads, in the same run, by turns. Two nodes are started on this machine and end with the
benchmark. Rates of a build are of the further pictures of a second, larger archive: starting processes and loading the
encoder counts in neither, and is stated. Wall times are those of a machine that may do other things; CPU times are of
all processes that work (the nodes' and the caller's), without what Ray's own ones do while nobody asks.

Run: ``python -m retr.benchmarks.ray_cluster [--pictures 2000] [--rows 200000] [--dim 256]``
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from retr import Index
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.cluster.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH, K = 256, 10
SHARDS, TOO_MANY = 4, 8


class Nodes:
    """Two nodes of one processor each, on this machine."""

    def __init__(self, folder: Path) -> None:
        port = random.SystemRandom().randrange(20_000, 32_000)
        self.address = f"127.0.0.1:{port}"
        self._folder, self._nodes = folder, list[subprocess.Popen[bytes]]()
        self._start("--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", str(folder))
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        self._start("--address", self.address)

    def _start(self, *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
        common = ["--node-ip-address", "127.0.0.1", "--object-store-memory", "400000000", "--disable-usage-stats"]
        # as the caller's processes: neither stands back behind the other
        environment = {**os.environ, "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
        with (self._folder / "nodes.log").open("ab") as log:
            node = subprocess.Popen([*command, *common, *options], env=environment, start_new_session=True, stdout=log)
        self._nodes.append(node)

    def seconds(self) -> float:
        """Return the CPU seconds that the nodes' processes have taken."""
        ticks = 0
        for node in self._nodes:
            for pid in _processes(node.pid):
                with suppress(OSError):
                    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
                    ticks += sum(map(int, fields.rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End every process of both nodes, each by its own number."""
        for node in reversed(self._nodes):
            for pid in _processes(node.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()


def _processes(session: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Start two nodes that know of each other, and end them."""
    # the paths of sockets are short
    with tempfile.TemporaryDirectory(prefix="rb", dir="/tmp", ignore_cleanup_errors=True) as folder:
        found = Nodes(Path(folder))
        try:
            connection = Connection(found.address)
            try:
                while len({place.node for place in connection.places()}) < 2:
                    time.sleep(0.1)
                yield found
            finally:
                connection.close()
        finally:
            found.close()


def pictures(folder: Path, count: int) -> None:
    """Draw so many pictures of 640 x 480, as smooth and as rough as photographs are."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((640, 480), 3)
        noise = rng.integers(-12, 13, (480, 640, 3))
        Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8)).save(
            folder / f"{number:05}.jpg", quality=90
        )


def build(archive: Path, index: Path, ray: str | None) -> float:
    """Build an index in a process of its own with two threads, and return its CPU seconds."""
    command = [sys.executable, "-m", "retr", "index", "build", str(archive), "--index", str(index), "-q"]
    before = os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([*command, *([] if ray is None else ["--ray", ray])], check=True, env=environment, stdout=-3)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def builds(folder: Path, count: int, cluster: Nodes) -> dict[str, Any]:
    """Measure builds of two archives, by one process and by two nodes."""
    few, all_of_them = folder / "few", folder / "all"
    first = max(count // 10, 4)
    pictures(few, first)
    pictures(all_of_them, first + count)
    taken: dict[str, list[tuple[float, float]]] = {"one process": [], "two nodes": []}
    for archive in (few, all_of_them):
        for name, address in (("one process", None), ("two nodes", cluster.address)):
            began, used = time.monotonic(), cluster.seconds()
            own = build(archive, folder / "built", address)
            wall = time.monotonic() - began
            taken[name].append((wall, own + (cluster.seconds() - used if address else 0.0)))
            shutil.rmtree(folder / "built")
    figures: dict[str, Any] = {}
    for name, ((wall, cpu), (more_wall, more_cpu)) in taken.items():
        figures[f"{name}: pictures a second"] = round(count / (more_wall - wall), 2)
        figures[f"{name}: pictures a CPU second"] = round(count / (more_cpu - cpu), 2)
        figures[f"{name}: seconds for the first {first}, with starting"] = round(wall, 1)
        figures[f"{name}: CPU seconds for these"] = round(cpu, 1)
    for what in ("pictures a second", "pictures a CPU second"):
        figures[f"{what}, two nodes / one process"] = round(
            figures[f"two nodes: {what}"] / figures[f"one process: {what}"], 3
        )
    return figures


def made(path: Path, rows: int, dim: int) -> Store:
    """Make an index of random vectors."""
    info = EncoderInfo("synthetic", dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info)
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        for start in range(0, rows, 50_000):
            some = min(50_000, rows - start)
            names = [f"r{at:08}" for at in range(start, start + some)]
            writer.append(pa.table({"id": names}), rng.standard_normal((some, dim), np.float32))
        return writer.commit()


def times(calls: dict[str, Callable[[], object]], cluster: Nodes, repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median wall seconds and the mean CPU seconds of each call, by turns."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu = dict.fromkeys(calls, 0.0)
    for _ in range(repeats):
        for name, call in calls.items():
            used = cluster.seconds()
            began, own = time.monotonic(), time.process_time()
            call()
            wall[name].append(time.monotonic() - began)
            cpu[name] += time.process_time() - own
            # one index is searched here alone
            cpu[name] += cluster.seconds() - used if "shards" in name else 0.0
    return {name: (statistics.median(wall[name]), cpu[name] / repeats) for name in calls}


def searches(folder: Path, rows: int, dim: int, cluster: Nodes) -> dict[str, Any]:
    """Measure searches of one index in this process, and of its shards held by two nodes."""
    whole = made(folder / "whole", rows, dim)
    opened = {"one index": Index.open(whole.path, device="cpu")}
    for shards in (SHARDS, TOO_MANY):
        path = shutil.copytree(whole.path, folder / f"in{shards}")
        Index.open(path).shard(shards)
        opened[f"{shards} shards"] = Index.open(path, ray=cluster.address, shard_seconds=600)
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((BATCH, dim)).astype(np.float32)
    truth = whole.search(queries, K, exact=True)
    figures: dict[str, Any] = {}
    for index in opened.values():
        store = index.store
        found = store.search(queries, K, exact=True)
        if found.scores.tobytes() != truth.scores.tobytes() or store.ids(found.rows.ravel()) != whole.ids(
            truth.rows.ravel()
        ):
            raise SystemExit("the answers differ")
    figures["answers of all three, to the bit"] = "equal"
    for batch, repeats in ((BATCH, 9), (1, 41)):
        got = times(
            {
                name: lambda index=index, batch=batch: index.store.search(queries[:batch], K, exact=True)  # type: ignore[misc]
                for name, index in opened.items()
            },
            cluster,
            repeats,
        )
        base = got["one index"]
        for name, (wall, cpu) in got.items():
            figures[f"batch {batch}, {name}: ms"] = round(1000 * wall, 2)
            figures[f"batch {batch}, {name}: CPU ms"] = round(1000 * cpu, 1)
            if name != "one index" and batch > 1:
                figures[f"batch {batch}, questions a second, {name} / one index"] = round(base[0] / wall, 3)
                figures[f"batch {batch}, questions a CPU second, {name} / one index"] = round(base[1] / cpu, 3)
            elif name != "one index":
                figures[f"batch {batch}, {name}: ms added"] = round(1000 * (wall - base[0]), 2)
    for index in opened.values():
        index.close()
    return figures


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    asked = parser.parse_args()
    # a token of its own: one that lies in the user's folder would be asked for by one node alone
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, nodes() as cluster:
        folder = Path(name)
        figures = searches(folder, asked.rows, asked.dim, cluster) if asked.rows else {}
        figures |= builds(folder, asked.pictures, cluster) if asked.pictures else {}
    shown = {"pictures": asked.pictures, "rows": asked.rows, "dim": asked.dim, "load when it began": round(load, 1)}
    record(
        "ray_cluster",
        {**shown, **figures},
        command="python -m retr.benchmarks.ray_cluster "
        f"--pictures {asked.pictures} --rows {asked.rows} --dim {asked.dim}",
        note="Both nodes are on this machine, so that nothing is said of a network between them.",
    )


if __name__ == "__main__":
    main()
