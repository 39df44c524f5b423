"""What was freed goes back to the system, and a server sees to it by itself."""

from __future__ import annotations

import ctypes
import resource
import time
from pathlib import Path

import pytest

from retr.serve import app as assembled
from retr.serve.freed import give_back


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def test_freed_memory_is_given_back():
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("another malloc than glibc's")
    library.malloc.restype = ctypes.c_void_p
    give_back()
    # blocks below the size that malloc maps alone, freed but for the last, which keeps the rest from the heap's end
    blocks = [library.malloc(64 << 10) for _ in range(1024)]
    for block in blocks:
        ctypes.memset(block, 1, 64 << 10)
    for block in blocks[:-1]:
        library.free(ctypes.c_void_p(block))
    before = resident()
    assert give_back()
    assert before - resident() > 32 << 20
    library.free(ctypes.c_void_p(blocks[-1]))


def test_a_server_gives_back_again_and_again(serve, monkeypatch):
    calls = []
    monkeypatch.setattr(assembled, "give_back", lambda: calls.append(1))
    monkeypatch.setattr(assembled, "_SYNC_EVERY", 0.01)
    monkeypatch.setattr(assembled, "_TRIM_EVERY", 0.02)
    serve()
    until = time.monotonic() + 5
    while len(calls) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(calls) >= 3
