"""Waiting for what must happen, however slow the machine is: a test fails by what it sees, never by the clock."""

from __future__ import annotations

import random
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds after which something hangs; what works takes a fraction of a second, on a busy machine some seconds.
LONG = 120.0


def until(true: Callable[[], object], every: float = 0.01) -> None:
    """Return as soon as something is true; fail where it hangs."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(every)


@contextmanager
def cheap(seconds: float = 30.0) -> Iterator[None]:
    """Fail where a block takes so much of this process's CPU time as only work that explodes with its input takes.

    What other processes do meanwhile does not count.
    """
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


def free_port() -> int:
    """Return a port on which nobody listens, and which the system gives to no connection that is made meanwhile."""
    # below what Linux (32768) and others (49152) give out, and above the ports of Ray's workers
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
