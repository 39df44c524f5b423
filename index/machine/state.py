"""The user's state folder: what this machine remembers of indexes, outside of them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
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


def write_atomically(path: Path, data: bytes) -> bool:
    """Write a file so that a reader sees all of it or none; False where it cannot be written."""
    # several threads may write the same file
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        return False
    return True
