"""Memory that was freed, given back to the system.

glibc's malloc keeps what threads free between blocks that are still in use: a server that has answered for long holds
tens of megabytes more than it uses, and a little more all the time. It knows them, and gives them back when it is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_back() -> bool:
    """Hand what malloc holds free to the system; return whether there was any, False where malloc is another."""
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        # the C library that this process runs on; musl has no such function, and no such need
        return bool(ctypes.CDLL(None).malloc_trim(0))
    return False
