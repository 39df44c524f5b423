"""What this machine remembers beside an index: where archives and encoders' files lie, one small JSON file each.

An index travels and holds no path of this machine. So paths are kept outside it, in the user's state folder
(``RETR_STATE_DIR`` where set)::

    <state folder>/archives/<index uuid>.json        {"": "/data/archive", "site2": "/mnt/site2"}
    <state folder>/encoders/<encoder identity>.json  {"weights": "/data/flair_resnet.pth"}
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from retr.index.home import home

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_places(kind: str, key: str) -> dict[str, str]:
    """Give the places noted under a key, by name; empty when nothing is known."""
    try:
        known = json.loads(_file(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(place) for name, place in known.items()} if isinstance(known, dict) else {}


def write_places(kind: str, key: str, places: Mapping[str, str]) -> None:
    """Note places under a key; a state folder that cannot be written is no error."""
    write_atomically(_file(kind, key), json.dumps(places, indent=1).encode())


def write_atomically(path: Path, data: bytes) -> bool:
    """Write a file so that a reader sees all of it or none; False where it cannot be written."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        return False
    return True


def _file(kind: str, key: str) -> Path:
    from platformdirs import user_state_path

    chosen = os.environ.get("RETR_STATE_DIR")
    return (home(chosen) if chosen else user_state_path("retr")) / kind / f"{key}.json"
