"""Questions by vector over HTTP, beside another open server.

The other is Chroma's, from PyPI (`benchmarks/servers-requirements.txt`); no further one was tried.
Both serve the same vectors as they come, without a filter, and are asked the same questions for the ten nearest, by
turns: by `CLIENTS` connections at once, then by one. Chroma answers from its HNSW graph, so that the recall stands
beside the pace. Filling is by each one's own way for many rows: `Index.from_vectors`, and Chroma's API in batches.

Run: ``python -m retr.benchmarks.serve_vectors --chroma PROGRAM``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import retr
from retr.benchmarks.ann import mixture
from retr.benchmarks.record import record
from retr.benchmarks.served import Connection, processor_seconds, request, resident, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

K, QUESTIONS, CLIENTS, TURNS = 10, 200, 16, 5
_ADD = 2000
_API = "/api/v2/tenants/default_tenant/databases/default_database/collections"
NOTE = "Other work ran beside it: the processors' time says more than the clock"


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chroma", required=True, help="the program `chroma` of an environment that has it")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    options = parser.parse_args()
    vectors = mixture(options.rows, options.dim, 1)
    asked = mixture(QUESTIONS, options.dim, 2, options.rows)
    nearest = np.argsort(-(asked @ vectors.T), axis=1)[:, :K]
    figures: dict[str, Any] = {"rows": options.rows, "dim": options.dim, "connections": CLIENTS}
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        path = Path(temporary) / "x.retr"
        table = pa.table({"id": [str(number) for number in range(len(vectors))]})
        retr.Index.from_vectors(vectors, table, path, encoder="mixture", fingerprint="1").close()
        filled = time.perf_counter() - began
        with (
            serving(path) as (port, pid),
            chroma(options.chroma, Path(temporary) / "chroma", vectors) as (other, other_pid, collection, other_filled),
        ):
            servers = {
                "retr": Server(port, pid, [_of_retr(one) for one in asked], _ids_of_retr),
                "chroma": Server(other, other_pid, [_of_chroma(one, collection) for one in asked], _ids_of_chroma),
            }
            for name, one in measured(servers, nearest, options.seconds).items():
                figures[name] = {"filled_s": round(filled if name == "retr" else other_filled, 1), **one}
    command = f"python -m retr.benchmarks.serve_vectors --chroma PROGRAM --rows {options.rows}"
    record("serve_vectors", figures, command=command, note=NOTE)


class Server:
    """One that is asked: its port, its process, a request for each question, and how its answers are read."""

    def __init__(self, port: int, pid: int, requests: list[bytes], ids: Callable[[Any], list[str]]) -> None:
        self.port, self.pid, self.requests, self.ids = port, pid, requests, ids

    async def several(self, seconds: float) -> int:
        """Ask by all connections for some time; return how many were answered."""
        until, answered = time.monotonic() + seconds, 0

        async def ask(number: int) -> None:
            nonlocal answered
            connection = Connection(self.port)
            while time.monotonic() < until:
                status, _ = await connection.ask(self.requests[number % len(self.requests)])
                assert status == 200
                answered, number = answered + 1, number + CLIENTS
            connection.close()

        await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
        return answered

    async def one_by_one(self) -> tuple[list[float], list[list[str]]]:
        """Ask each question by one connection; return the seconds and the ids."""
        connection, seconds, found = Connection(self.port), [], []
        for sent in self.requests:
            began = time.perf_counter()
            _, body = await connection.ask(sent)
            seconds.append(time.perf_counter() - began)
            found.append(self.ids(json.loads(body)))
        connection.close()
        return seconds, found


def measured(servers: dict[str, Server], nearest: NDArray[np.int64], seconds: float) -> dict[str, dict[str, Any]]:
    """Ask all by turns, the first of which is for warmth; return each one's figures."""
    paces: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    single: dict[str, list[float]] = {name: [] for name in servers}
    recall: dict[str, float] = {}
    for turn in range(TURNS + 1):
        for name, server in servers.items():
            began, cost = time.perf_counter(), processor_seconds(server.pid)
            answered = asyncio.run(server.several(seconds))
            pace = answered / (time.perf_counter() - began)
            cost = (processor_seconds(server.pid) - cost) / answered
            taken, found = asyncio.run(server.one_by_one())
            pairs = zip(found, nearest.tolist(), strict=True)
            recall[name] = float(np.mean([len({*map(str, right)}.intersection(ids)) / K for ids, right in pairs]))
            if turn:
                paces[name].append((pace, cost))
                single[name] += taken
    return {
        name: {
            "questions_a_second": round(statistics.median(pace for pace, _ in paces[name])),
            "cpu_ms_a_question": round(1000 * statistics.median(cost for _, cost in paces[name]), 2),
            "single_ms": round(1000 * statistics.median(single[name]), 2),
            "single_p99_ms": round(1000 * statistics.quantiles(single[name], n=100)[98], 2),
            "recall": round(recall[name], 4),
            "resident_mb": resident(server.pid),
        }
        for name, server in servers.items()
    }


@contextmanager
def chroma(program: str, folder: Path, vectors: NDArray[np.float32]) -> Iterator[tuple[int, int, str, float]]:
    """Run Chroma's server over the vectors; give its port, process and collection, and the seconds of filling it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        began = time.perf_counter()
        made = _post(port, _API, {"name": "vectors", "configuration": {"hnsw": {"space": "cosine"}}})
        for start in range(0, len(vectors), _ADD):
            part = vectors[start : start + _ADD]
            ids = [str(number) for number in range(start, start + len(part))]
            _post(port, f"{_API}/{made['id']}/add", {"ids": ids, "embeddings": part.tolist()})
        yield port, server.pid, made["id"], time.perf_counter() - began
    finally:
        server.terminate()
        server.wait(60)


def _post(port: int, path: str, body: dict[str, Any]) -> Any:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=300) as answer:  # noqa: S310 - this machine's own
        return json.load(answer)


def _of_retr(vector: NDArray[np.float32]) -> bytes:
    body = {"questions": [{"parts": [{"vector": vector.tolist()}]}], "k": K}
    return request("POST", "/v1/indexes/x/search", json.dumps(body).encode())


def _ids_of_retr(answer: Any) -> list[str]:
    return [hit["id"] for hit in answer["answers"][0]["hits"]]


def _of_chroma(vector: NDArray[np.float32], collection: str) -> bytes:
    body = {"query_embeddings": [vector.tolist()], "n_results": K, "include": ["distances"]}
    return request("POST", f"{_API}/{collection}/query", json.dumps(body).encode())


def _ids_of_chroma(answer: Any) -> list[str]:
    found: list[str] = answer["ids"][0]
    return found


if __name__ == "__main__":
    main()
