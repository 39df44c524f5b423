"""What was freed goes back to the system, and a server sees to it by itself."""

from __future__ import annotations

import ctypes
import resource

import pytest
from patience import until

from retr.serve import app as assembled
from retr.serve.freed import give_back


def resident(library: ctypes.CDLL, blocks: list[int], size: int) -> int:
    """Return how many pages of blocks are in memory, those of other threads' blocks left out."""
    page = resource.getpagesize()
    told = (ctypes.c_ubyte * (size // page))()
    found = 0
    for block in blocks:
        # the whole pages within it; one that is mapped no longer is in memory no longer
        first = -(-block // page) * page
        if library.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size - page), told) == 0:
            found += sum(one & 1 for one in told[: size // page - 1])
    return found


def test_freed_memory_is_given_back():
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("another malloc than glibc's")
    library.malloc.restype = ctypes.c_void_p
    give_back()
    # blocks below the size that malloc maps alone, freed but for the last, which keeps the rest from the heap's end
    size = 64 << 10
    blocks = [library.malloc(size) for _ in range(1024)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:
        library.free(ctypes.c_void_p(block))
    before = resident(library, blocks[:-1], size)
    assert give_back()
    assert resident(library, blocks[:-1], size) < before / 2
    library.free(ctypes.c_void_p(blocks[-1]))


def test_a_server_gives_back_again_and_again(serve, monkeypatch):
    calls = []
    monkeypatch.setattr(assembled, "give_back", lambda: calls.append(1))
    monkeypatch.setattr(assembled, "_SYNC_EVERY", 0.01)
    monkeypatch.setattr(assembled, "_TRIM_EVERY", 0.02)
    serve()
    until(lambda: len(calls) >= 3)
