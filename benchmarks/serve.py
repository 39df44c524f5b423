"""What questions over HTTP cost beside the same work in process: ``python -m retr.benchmarks.serve ARCHIVE``.

An index of the archive's pictures is served by a process of its own; clients of another ask it for the nearest of JPEG
files, each of which it has not seen before. The baseline calls `Index.search` with batches of 32 of such files. Both
are measured by turns, several times, by the clock and by the processors' time: beside other work the clock says little.
Then single questions, one after another, and questions at half of the throughput, as they are due and not as answers
come, with the latencies from that moment.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import retr
from retr.benchmarks.record import record
from retr.benchmarks.served import Connection, Pictures, processor_seconds, serving

BATCH = 32
CLIENTS = 32
NOTE = "Both cores were also busy with other work: the ratio of the processors' time says more than that of the clock"


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    pictures = Pictures(options.archive)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "x.retr"
        index = retr.Index.build(options.archive, path)
        figures: dict[str, Any] = {"rows": len(index), "encoder": index.info()["encoder"]}
        with serving(path) as (port, pid):
            figures |= measured(index, pictures, port, pid, options.seconds, options.rounds)
    command = f"python -m retr.benchmarks.serve examples/hrf45 --seconds {options.seconds:g} --rounds {options.rounds}"
    record("serve", figures, command=command, note=NOTE)


def measured(index: retr.Index, pictures: Pictures, port: int, pid: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Return the figures of one server."""
    here, there = [], []
    for number in range(rounds + 1):
        both = in_process(index, pictures, seconds), served(pictures, port, pid, seconds)
        # the first is for warmth
        if number:
            here.append(both[0])
            there.append(both[1])
    mine, theirs = ([statistics.median(column) for column in zip(*runs, strict=True)] for runs in (here, there))
    rate = theirs[0]
    single = statistics.median(asyncio.run(one_by_one(pictures, port)))
    latencies = asyncio.run(paced(pictures, port, rate / 2, max(seconds, 10.0)))
    p99 = statistics.quantiles(latencies, n=100)[98]
    return {
        "in_process_per_second": round(mine[0], 2),
        "served_per_second": round(rate, 2),
        "throughput_over_in_process": round(
            statistics.median(b[0] / a[0] for a, b in zip(here, there, strict=True)), 3
        ),
        "in_process_cpu_ms": round(mine[1], 2),
        "served_cpu_ms": round(theirs[1], 2),
        "in_process_over_served_cpu": round(mine[1] / theirs[1], 3),
        "clients_cpu_ms": round(theirs[2], 2),
        "single_ms": round(1000 * single, 1),
        "half_load_p50_ms": round(1000 * statistics.median(latencies), 1),
        "half_load_p99_ms": round(1000 * p99, 1),
        "p99_over_single": round(p99 / single, 2),
    }


def in_process(index: retr.Index, pictures: Pictures, seconds: float) -> tuple[float, float]:
    """Return questions a second, and milliseconds of processors a question, of one process that asks in batches."""
    began, spent, asked = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        index.search([retr.Query.image(pictures.next()) for _ in range(BATCH)], k=5)
        asked += BATCH
    return asked / (time.perf_counter() - began), 1000 * (time.process_time() - spent) / asked


def served(pictures: Pictures, port: int, pid: int, seconds: float) -> tuple[float, float, float]:
    """Return the same of a server, whose clients ask without a pause, and what those cost."""

    async def run() -> int:
        until, done = time.perf_counter() + seconds, 0

        async def client() -> None:
            nonlocal done
            connection = Connection(port)
            while time.perf_counter() < until:
                await answered(connection, pictures)
                done += 1
            connection.close()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return done

    began, spent, own = time.perf_counter(), processor_seconds(pid), time.process_time()
    asked = asyncio.run(run())
    wall = time.perf_counter() - began
    own, spent = time.process_time() - own, processor_seconds(pid) - spent
    return asked / wall, 1000 * spent / asked, 1000 * own / asked


async def answered(connection: Connection, pictures: Pictures) -> None:
    """Ask one question; anything but an answer ends the benchmark."""
    status, body = await connection.ask(pictures.question())
    if status != 200:
        raise RuntimeError(f"the server answered {status}: {body[:200]!r}")


async def one_by_one(pictures: Pictures, port: int) -> list[float]:
    """Return the latencies of questions one after another."""
    connection, latencies = Connection(port), []
    for _ in range(30):
        began = time.perf_counter()
        await answered(connection, pictures)
        latencies.append(time.perf_counter() - began)
    connection.close()
    return latencies


async def paced(pictures: Pictures, port: int, rate: float, seconds: float) -> list[float]:
    """Ask at a rate, whether answers have come or not; return the latencies."""
    began, idle = time.perf_counter(), [Connection(port) for _ in range(CLIENTS)]

    async def one(number: int) -> float:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = idle.pop() if idle else Connection(port)
        await answered(connection, pictures)
        idle.append(connection)
        return time.perf_counter() - due

    latencies = await asyncio.gather(*(one(number) for number in range(max(100, int(rate * seconds)))))
    for connection in idle:
        connection.close()
    return latencies


if __name__ == "__main__":
    main()
