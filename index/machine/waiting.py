"""A step that takes a while says so: to the logger ``retr``, which the command line shows."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger("retr")
# A wait shorter than this, in seconds, needs no explanation.
PATIENCE = 2.0


@contextmanager
def waiting(what: str, patience: float | None = None) -> Iterator[None]:
    """Log what is being done, at level INFO, if it is not done after ``patience`` seconds, `PATIENCE` by default."""
    late = threading.Timer(PATIENCE if patience is None else patience, LOGGER.info, ["%s ...", what])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
