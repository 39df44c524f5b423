"""Remember where an encoder's files lie on this machine, so that a query need not repeat the build's options.

When an encoder was loaded from paths the user gave, they are noted in this machine's state
(`retr.retrieval.machine_state`) under the encoder's identity (name, options, weights, preprocessing); an index opened
later without paths finds them again. A path that is gone is not offered, and what is loaded from one is still compared
with the index's record.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.machine.home import home
from retr.retrieval.machine_state import read_locations, write_locations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.index.encoder import EncoderInfo

_NOT_LOCATIONS = {"device", "precision"}


def remember_files(info: EncoderInfo, options: Mapping[str, Any]) -> None:
    """Note the paths among the options an encoder was loaded with."""
    locations = {
        name: str(home(value).absolute())
        for name, value in options.items()
        if name not in info.options and name not in _NOT_LOCATIONS and isinstance(value, str | os.PathLike)
    }
    locations = {name: place for name, place in locations.items() if Path(place).exists()}
    if locations and recall_files(info) != locations:
        write_locations("encoders", _key(info), locations)


def recall_files(info: EncoderInfo) -> dict[str, str]:
    """Return the options that name this encoder's files here; empty when nothing is known or it is gone."""
    known = read_locations("encoders", _key(info))
    return {name: place for name, place in known.items() if Path(place).exists()}


def _key(info: EncoderInfo) -> str:
    return hashlib.sha256(json.dumps(info.identity).encode()).hexdigest()[:16]
