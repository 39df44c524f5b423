"""Warnings of libraries that say nothing new, left out while they run, whatever other threads do meanwhile.

Python's ``warnings.catch_warnings`` swaps the filters of the process: of two threads within it the second to leave
restores what the first had set. Here one filter is put in by the first to enter, and taken out by the last to leave.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK = threading.Lock()
_within: Counter[type[Warning]] = Counter()
# Categories of which the filter is ours; one that was there before stays.
_put: set[type[Warning]] = set()


@contextmanager
def ignoring(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings of a category, in all threads, until the last that asked for it is done."""
    ours = ("ignore", None, category, None, 0)
    with _LOCK:
        if not _within[category] and ours not in warnings.filters:
            warnings.simplefilter("ignore", category)
            _put.add(category)
        _within[category] += 1
    try:
        yield
    finally:
        with _LOCK:
            _within[category] -= 1
            if not _within[category] and category in _put:
                _put.discard(category)
                with suppress(ValueError):
                    warnings.filters.remove(ours)  # type: ignore[attr-defined] # typed as a sequence, and a list
