"""A server of this checkout in a process of its own, and the least that can ask it, for benchmarks of `retr serve`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(path: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Serve an index as ``x``; give the port and the process's number once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "retr", "serve", "--index", f"x={path}", "--port", str(port), "--rate", "1000000"]
    server = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(60)


class Pictures:
    """JPEG files, each a little other than all before: a server remembers what it was asked."""

    def __init__(self, archive: Path) -> None:
        self._files = [file.read_bytes() for file in sorted(archive.rglob("*.jpg"))]
        self._made = 0

    def next(self) -> bytes:
        """Return a file of the archive with a comment that no other has."""
        self._made += 1
        data, words = self._files[self._made % len(self._files)], f"{os.getpid()} {self._made}".encode()
        return data[:2] + b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words + data[2:]

    def question(self) -> bytes:
        """Return a request that asks for the 5 nearest of one more picture."""
        part = {"data": base64.b64encode(self.next()).decode("ascii")}
        return request("POST", "/v1/indexes/x/search", json.dumps({"questions": [{"parts": [part]}], "k": 5}).encode())


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """Return a request's bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection:
    """One connection that is kept; what it costs is next to nothing beside what it asks for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        reader, writer = self._streams
        writer.write(sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        """Close it; the next question opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def family(pid: int) -> list[int]:
    """Return a process and those that it began."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, children.read_text(encoding="ascii").split())
    return found


def processor_seconds(pid: int) -> float:
    """Return what a process and those that it began have cost."""
    fields = [Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split() for one in family(pid)]
    return sum(int(some[11]) + int(some[12]) for some in fields) / _TICK


def resident(pid: int) -> int:
    """Return the resident megabytes of a process and those that it began."""
    pages = [int(Path(f"/proc/{one}/statm").read_text(encoding="ascii").split()[1]) for one in family(pid)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") >> 20


def kinds(pid: int) -> dict[str, Any]:
    """Return the open files and the threads of a process."""
    return {
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
    }
