"""The user's state folder: what this machine remembers of indexes, outside of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from retr.index.machine.home import home

if TYPE_CHECKING:
    from pathlib import Path


def state_folder() -> Path:
    """Return the folder: ``RETR_STATE_DIR`` where set, else where the system keeps such things."""
    chosen = os.environ.get("RETR_STATE_DIR")
    if chosen:
        return home(chosen)
    from platformdirs import user_state_path

    return user_state_path("retr")
