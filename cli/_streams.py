"""Make the three standard streams safe to use when they are closed, full, or in another encoding.

Everything that is said goes to standard error and must never end the work: a build goes on when its terminal is gone.
What is printed goes to standard output, where a fault is an error of one line.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO


class Sayings(io.TextIOWrapper):
    """Standard error that never fails: what cannot be written is dropped.

    On a terminal its last line may say what is waited for; it goes before anything else is written.
    """

    waits_shown = True

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._last = time.monotonic()
        self._wait = ""
        self._writing = threading.RLock()

    def write(self, text: str) -> int:
        """Write, if possible."""
        with self._writing:
            self.end_wait()
            return self._put(text)

    def show_wait(self, text: str, patience: float) -> None:
        """Show what is waited for, in place of what was said before, where nothing was written for a while."""
        with self._writing:
            if not self.waits_shown or (not self._wait and time.monotonic() - self._last < patience):
                return
            wide = shutil.get_terminal_size().columns - 1
            self._wait = text if len(text) <= wide else f"...{text[len(text) - wide + 3 :]}"
            self._put(f"\r\x1b[K{self._wait}")
            self.flush()

    def end_wait(self) -> None:
        """Take away what says so."""
        with self._writing:
            self._last = time.monotonic()
            if self._wait:
                self._wait = ""
                self._put("\r\x1b[K")
                self.flush()

    def _put(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if possible."""
        with suppress(OSError, ValueError):
            super().flush()


def prepare() -> None:
    """Make all three streams usable; characters that an encoding lacks are written as escapes."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Were a closed descriptor left free, the next file opened, one of an index perhaps, would take its number.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", newline="\n", closefd=False)  # noqa: SIM115
    escape_unencodable(sys.stdout)
    raw = open(2, "wb", buffering=0, closefd=False)  # noqa: SIM115
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = Sayings(raw, encoding, "backslashreplace", line_buffering=True)


def escape_unencodable(stream: TextIO) -> None:
    """Keep a stream's encoding, and write what it lacks as escapes: for people."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def exact(stream: TextIO) -> None:
    """Write UTF-8 whatever the locale, and a name that is not Unicode as the bytes that it is: for programs."""
    if isinstance(stream, io.TextIOWrapper):
        # Windows would end lines otherwise, also those inside a cell, and others would read that as part of a name
        stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")


def discard() -> None:
    """Send what is still buffered nowhere, without a second complaint at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
