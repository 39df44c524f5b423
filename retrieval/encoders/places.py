"""Where an encoder's files lie on this machine, so that a query need not repeat what the build was told.

An index travels and holds no path. When an encoder was loaded from paths the user gave, they are noted in the user's
state folder under the encoder's identity (name, options, weights, preprocessing); an index opened later without
paths finds them again. A path that is gone is not offered, and what is loaded from one is still compared with the
index's record.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.retrieval.archives import state_dir
from retr.retrieval.encoders.weights import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.index.encoder import EncoderInfo

_NOT_PLACES = {"device", "precision"}


def remember(info: EncoderInfo, options: Mapping[str, Any]) -> None:
    """Note the paths among the options an encoder was loaded with."""
    places = {
        name: str(Path(value).expanduser().absolute())
        for name, value in options.items()
        if name not in info.options and name not in _NOT_PLACES and isinstance(value, str | os.PathLike)
    }
    places = {name: place for name, place in places.items() if Path(place).exists()}
    if places and recall(info) != places:
        write_atomically(_file(info), json.dumps(places, indent=1).encode())


def recall(info: EncoderInfo) -> dict[str, str]:
    """Give the options that name this encoder's files here; empty when nothing is known or it is gone."""
    try:
        known = json.loads(_file(info).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(place) for name, place in known.items() if Path(str(place)).exists()}


def _file(info: EncoderInfo) -> Path:
    identity = hashlib.sha256(json.dumps(info.identity).encode()).hexdigest()[:16]
    return state_dir() / "encoders" / f"{identity}.json"
