"""A wait of more than two seconds is shown: a line on a terminal that says what is waited for, and for how long.

What is done is told by `retr.index.machine.waiting`, else by the command. The line stands only while nothing else is
written (`retr.retrieval.progress` draws a bar of its own), and goes before anything is.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retr.cli import _loudness, _streams
from retr.index.machine import waiting
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

# seconds between two looks
_EVERY = 0.5


@contextmanager
def shown(command: str) -> Iterator[None]:
    """Show waits while a command runs, where somebody looks on."""
    stream = sys.stderr
    if not isinstance(stream, _streams.Sayings) or not _loudness.to_a_person():
        yield
        return
    done, began = threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(_EVERY):
            what = waiting.at_present() or command
            stream.show_wait(f"{visible(what)} ... {time.monotonic() - began:.0f} s", waiting.PATIENCE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        stream.end_wait()


@contextmanager
def paused() -> Iterator[None]:
    """Show none while a person is asked, or types."""
    stream = sys.stderr
    if not isinstance(stream, _streams.Sayings):
        yield
        return
    stream.end_wait()
    stream.waits_shown = False
    try:
        yield
    finally:
        stream.waits_shown = True


def end() -> None:
    """Take the line away, before something is written to standard output."""
    if isinstance(sys.stderr, _streams.Sayings):
        sys.stderr.end_wait()
