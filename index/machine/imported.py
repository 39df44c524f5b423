"""Libraries that are used where a program has imported them already."""

from __future__ import annotations

import sys
from typing import Any


def imported(name: str) -> Any:
    """Return a module that was imported; ``None`` where it was not, or another thread has only begun to."""
    module = sys.modules.get(name)
    # the mark by which the import statement knows that it must wait
    begun = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if begun else module
