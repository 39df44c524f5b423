"""What the server costs beside the same work in process, and under load: ``python -m retr.benchmarks.serve``.

An index of the demo's pictures is served by a process of its own; clients of another ask it with uploaded JPEG files.
The baseline calls `Index.search` with batches of 32 of the same pictures, decoded before as uploads are. Then: single
questions one after another, questions at half of the throughput (open loop, latencies from the moment at which each was
due), and last 200 connections at once with clients that stop in the middle of a body and of a head, and deletions
committed beside them. Memory is that of the server's processes, read from ``/proc``.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

import retr
from retr.benchmarks.record import record

BATCH = 32
NOTE = "A short run; memory is that of seconds, not of a million requests"


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "x.retr"
        index = retr.Index.build(options.archive, path)
        pictures = [file.read_bytes() for file in sorted(options.archive.rglob("*.jpg"))]
        figures: dict[str, Any] = {"rows": len(index), "encoder": index.info()["encoder"], "seconds": options.seconds}
        figures["in_process_per_second"] = round(in_process(index, pictures, options.seconds), 2)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "retr", "serve", "--index", f"x={path}", "--port", str(port)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            figures |= asyncio.run(measured(f"http://127.0.0.1:{port}", index, pictures, server.pid, options.seconds))
        finally:
            server.terminate()
            server.wait(30)
    figures["throughput_over_in_process"] = round(figures["served_per_second"] / figures["in_process_per_second"], 3)
    figures["p99_over_single"] = round(figures["half_load_p99_ms"] / figures["single_ms"], 2)
    record("serve", figures, command="python -m retr.benchmarks.serve examples/hrf45 --seconds 4", note=NOTE)


def in_process(index: retr.Index, pictures: list[bytes], seconds: float) -> float:
    """Return the questions a second of one process that asks in batches."""
    read = [retr.read_picture(picture) for picture in pictures[:BATCH]]
    batch = [retr.Query.image(read[number % len(read)]) for number in range(BATCH)]
    index.search(batch, k=5)
    began, asked = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        index.search(batch, k=5)
        asked += BATCH
    return asked / spent


async def measured(base: str, index: retr.Index, pictures: list[bytes], pid: int, seconds: float) -> dict[str, Any]:
    """Return what clients of the server see."""
    limits = httpx.Limits(max_connections=250, max_keepalive_connections=250)
    async with httpx.AsyncClient(base_url=base, timeout=120, limits=limits) as client:
        await ready(client)
        held = [await uploaded(client, picture) for picture in pictures]

        async def ask(number: int) -> int:
            part = {"upload": held[number % len(held)]}
            body = {"questions": [{"parts": [part]}], "k": 5}
            while (status := (await client.post("/v1/indexes/x/search", json=body)).status_code) == 429:
                await asyncio.sleep(0.1)
            return status

        single = [await timed(ask(number)) for number in range(20)]
        figures: dict[str, Any] = {"single_ms": round(1000 * statistics.median(single), 1)}
        memory = [resident(pid)]
        statuses: dict[str, int] = {}
        rate = await saturate(ask, 64, seconds, statuses)
        figures["served_per_second"] = round(rate, 2)
        latencies = await paced(ask, rate / 2, seconds)
        figures["half_load_p50_ms"] = round(1000 * statistics.median(latencies), 1)
        figures["half_load_p99_ms"] = round(1000 * statistics.quantiles(latencies, n=100)[98], 1)
        memory.append(resident(pid))
        hindering = [asyncio.create_task(hinder(base, way)) for way in ("head", "body") for _ in range(20)]
        writing = asyncio.create_task(delete_rows(index))
        figures["beside_200_per_second"] = round(await saturate(ask, 200, seconds, statuses), 2)
        for task in hindering:
            task.cancel()
        figures["commits_beside"] = await writing
        memory.append(resident(pid))
        await saturate(ask, 200, seconds, statuses)
        memory.append(resident(pid))
    return figures | {"answers": statuses, "resident_mb": memory}


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until the server says that it is."""
    for _ in range(600):
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError("the server is not ready")


async def uploaded(client: httpx.AsyncClient, picture: bytes) -> str:
    """Return the name of an upload."""
    name: str = (await client.post("/v1/uploads", content=picture)).json()["upload"]
    return name


async def timed(asking: Any) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    await asking
    return time.perf_counter() - began


async def saturate(ask: Any, clients: int, seconds: float, statuses: dict[str, int]) -> float:
    """Let so many clients ask without a pause; count the answers and return them by the second."""
    began, until, done = time.perf_counter(), time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            try:
                status = str(await ask(number))
            except httpx.HTTPError as error:
                status = type(error).__name__
            statuses[status] = statuses.get(status, 0) + 1
            done += 1
            number += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - began)


async def paced(ask: Any, rate: float, seconds: float) -> list[float]:
    """Ask at a rate, whether answers have come or not; return the latencies."""
    began = time.perf_counter()

    async def one(number: int) -> float:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await ask(number)
        return time.perf_counter() - due

    return await asyncio.gather(*(one(number) for number in range(max(20, int(rate * seconds)))))


async def hinder(base: str, way: str) -> None:
    """Begin requests and leave them, again and again."""
    host, _, port = base.removeprefix("http://").partition(":")
    head = b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    while True:
        _, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(head if way == "head" else head + b"\r\n" + b"x" * 50_000)
            await writer.drain()
            await asyncio.sleep(0.5)
        finally:
            writer.transport.abort()


async def delete_rows(index: retr.Index) -> int:
    """Commit five deletions, one a second; return how many."""
    for row in list(index)[:5]:
        await asyncio.to_thread(index.delete, ids=[row])
        await asyncio.sleep(1)
    return 5


def resident(pid: int) -> int:
    """Return the resident megabytes of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())]
    pages = sum(int(Path(f"/proc/{one}/statm").read_text(encoding="ascii").split()[1]) for one in pids)
    return pages * 4096 >> 20


if __name__ == "__main__":
    main()
