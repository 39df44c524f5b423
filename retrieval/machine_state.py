"""State of this machine outside the index: where archives and encoders' files lie, one small JSON file each.

An index travels and holds no path of this machine. So paths are kept outside it, in the user's state folder
(``RETR_STATE_DIR`` where set)::

    <state folder>/archives/<index uuid>.json        {"": "/data/archive", "site2": "/mnt/site2"}
    <state folder>/encoders/<encoder identity>.json  {"weights": "/data/flair_resnet.pth"}

What it remembers of an index's own files stands in ``<state folder>/verified`` (`retr.index.disk.verified`), of an
archive's files in ``<state folder>/files`` (`retr.retrieval.ingest.file_states`), and where the user asks for it whose
they are in ``<state folder>/identifiers`` (`retr.retrieval.archive.kept_identifiers`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from retr.index.machine.state import state_folder
from retr.index.machine.whole_file import write_if_possible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_locations(kind: str, key: str) -> dict[str, str]:
    """Return the locations noted under a key, by name; empty when nothing is known."""
    try:
        known = json.loads(_file(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(place) for name, place in known.items()} if isinstance(known, dict) else {}


def write_locations(kind: str, key: str, locations: Mapping[str, str]) -> None:
    """Note locations under a key; a state folder that cannot be written is no error."""
    write_if_possible(_file(kind, key), json.dumps(locations, indent=1).encode())


def _file(kind: str, key: str) -> Path:
    return state_folder() / kind / f"{key}.json"
