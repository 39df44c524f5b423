"""A step that takes a while says so: to the logger ``retr``, which the command line shows.

What is being done is known, too, while it is (`at_present`): the command line shows it beside a clock.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger("retr")
# A wait shorter than this, in seconds, needs no explanation.
PATIENCE = 2.0
_steps: list[str] = []


def at_present() -> str | None:
    """Return what is being done, the innermost step of several; ``None`` where no step says it.

    >>> with waiting("fitting a probe"):
    ...     at_present()
    'fitting a probe'
    >>> at_present()
    """
    last = _steps[-1:]
    return last[0] if last else None


@contextmanager
def waiting(what: str, patience: float | None = None) -> Iterator[None]:
    """Log what is being done, at level INFO, if it is not done after ``patience`` seconds, `PATIENCE` by default."""
    late = threading.Timer(PATIENCE if patience is None else patience, LOGGER.info, ["%s ...", what])
    late.daemon = True
    late.start()
    _steps.append(what)
    began = time.monotonic()
    try:
        yield
        LOGGER.debug("%s took %.2f s", what, time.monotonic() - began)
    finally:
        # by value: steps of several threads need not end in the order they began
        _steps.remove(what)
        late.cancel()
