"""Warnings of libraries that say nothing new, left out while they run, whatever other threads do meanwhile.

Python's ``warnings.catch_warnings`` swaps the filters of the process: of two threads within it the second to leave
restores what the first had set. Here one filter is put in by the first to enter, and taken out by the last to leave.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = threading.Lock()
_within: Counter[type[Warning]] = Counter()
# Matches every message, and is no other program's filter: Python's own of the category may lie behind ``-W error``.
_OURS = "(?#retr)"


@contextmanager
def ignoring(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings of a category, in all threads, until the last that asked for it is done."""
    ours = ("ignore", re.compile(_OURS, re.IGNORECASE), category, None, 0)
    with _LOCK:
        if not _within[category]:
            warnings.filterwarnings("ignore", _OURS, category)
        _within[category] += 1
    try:
        yield
    finally:
        with _LOCK:
            _within[category] -= 1
            if not _within[category]:
                with suppress(ValueError):
                    warnings.filters.remove(ours)  # type: ignore[attr-defined] # typed as a sequence, and a list
