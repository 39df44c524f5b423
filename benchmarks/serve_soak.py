"""Two hundred clients, some of them rude, beside commits: ``python -m retr.benchmarks.serve_soak ARCHIVE``.

Most ask for the nearest of a row, with a condition or without, or of a picture that was not seen before; some take a
row's picture; some send a head and stop, some half of a body and leave, some read nothing of what they asked for. A
writer commits beside them. What counts: every answer that a polite client gets is a success, and the memory of the
server's processes, told in the middle of each tenth of the run, stays as it is in the second half. The slope of that
half is extrapolated to a million requests: megabytes are whole, so that a short run says little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import retr
from retr.benchmarks.record import record
from retr.benchmarks.served import Connection, Pictures, kinds, request, resident, serving

POLITE = 160
RUDE = {"head": 14, "body": 13, "deaf": 13}
PARTS = 10


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "x.retr"
        shutil.copytree(options.archive, Path(temporary) / "archive")
        index = retr.Index.build(Path(temporary) / "archive", path)
        with serving(path) as (port, pid):
            figures = asyncio.run(soaked(index, Pictures(options.archive), port, pid, options.seconds))
    command = f"python -m retr.benchmarks.serve_soak examples/hrf45 --seconds {options.seconds:g}"
    record("serve_soak", figures, command=command)


async def soaked(index: retr.Index, pictures: Pictures, port: int, pid: int, seconds: float) -> dict[str, Any]:
    """Return what happened."""
    until, ids, counts = time.monotonic() + seconds, list(index), Counter[str]()
    tasks = [asyncio.create_task(polite(number, pictures, port, ids, until, counts)) for number in range(POLITE)]
    rude_ones = [asyncio.create_task(rude(way, port, ids)) for way, many in RUDE.items() for _ in range(many)]
    writing = asyncio.create_task(writer(index, until))
    told: list[tuple[int, int]] = []
    opened = kinds(pid)
    for number in range(PARTS):
        await asyncio.sleep(max(0.0, until - seconds * (PARTS - number - 0.5) / PARTS - time.monotonic()))
        told.append((counts.total(), resident(pid)))
        if number == 1:
            opened = kinds(pid)
    closed = kinds(pid)
    await asyncio.gather(*tasks)
    for task in rude_ones:
        task.cancel()
    requests, memory = (np.array(column, float) for column in zip(*told[PARTS // 2 :], strict=True))
    slope = float(np.polyfit(requests, memory, 1)[0])
    return {
        "seconds": seconds,
        "connections": POLITE + sum(RUDE.values()),
        "requests": counts.total(),
        "statuses": dict(sorted(counts.items())),
        "commits": await writing,
        "resident_mb": [megabytes for _, megabytes in told],
        "mb_more_a_million_requests": round(slope * 1e6),
        "files_and_threads": [opened, closed],
    }


async def polite(
    number: int, pictures: Pictures, port: int, ids: list[str], until: float, counts: Counter[str]
) -> None:
    """Ask one question after another, of several kinds."""
    draw, connection = random.Random(number), Connection(port)  # noqa: S311 - no secret
    while time.monotonic() < until:
        row = draw.choice(ids[5:])
        kind = draw.random()
        if kind < 0.1:
            sent = pictures.question()
        elif kind < 0.2:
            sent = request("GET", f"/v1/indexes/x/picture?size=256&id={row}")
        else:
            where = {"where": "path like '%a%'"} if kind < 0.5 else {}
            body = {"questions": [{"parts": [{"id": row}]}], "k": 5, **where}
            sent = request("POST", "/v1/indexes/x/search", json.dumps(body).encode())
        try:
            status, _ = await connection.ask(sent)
            counts[str(status)] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            counts[type(error).__name__] += 1
            connection.close()
    connection.close()


async def rude(way: str, port: int, ids: list[str]) -> None:
    """Begin requests and leave them, or take no answer, again and again."""
    head = b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    sent = {
        "head": head,
        "body": head + b"\r\n" + b"x" * 50_000,
        "deaf": request("GET", f"/v1/indexes/x/picture?size=2048&id={ids[-1]}") * 20,
    }[way]
    while True:
        _, writer_ = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer_.write(sent)
            await writer_.drain()
            await asyncio.sleep(1 if way != "deaf" else 5)
        finally:
            writer_.transport.abort()


async def writer(index: retr.Index, until: float) -> int:
    """Label a row every two seconds, and the first times delete another; return how many commits."""
    commits, row = 0, list(index)[-1]
    while time.monotonic() < until - 2:
        await asyncio.to_thread(index.sets.save, "seen", [row], author="soak")
        if commits < 5:
            await asyncio.to_thread(index.delete, ids=[next(iter(index))])
        commits += 1
        await asyncio.sleep(2)
    return commits


if __name__ == "__main__":
    main()
