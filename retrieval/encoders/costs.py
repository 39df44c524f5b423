"""What an encoder costs: its size, and how fast it was on this machine when it was last used.

An index build and `retr encoders compare` note it in the state folder, one small JSON file by the encoder's name,
without any path; so `retr encoders info` tells it without loading anything.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retr.index.errors import EncoderNotFoundError
from retr.index.machine.state import state_folder
from retr.index.machine.whole_file import write_if_possible
from retr.retrieval.encoders.registry import find_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import PIL.Image

    from retr.retrieval.encoders.base import BaseEncoder

# Fewer pictures say nothing of how fast an encoder is: the first batch warms it up.
FEWEST = 8


@dataclass(frozen=True)
class Cost:
    """What an encoder costs.

    Attributes
    ----------
    dim
        Length of a vector.
    parameters, weight_bytes
        Of the image side as it was loaded; None where it does not say.
    images_per_second, what
        How fast pictures went through, and through what: ``"read, prepared and embedded by a build"``.
    cpu_seconds
        Of preparing and embedding a picture, on all cores together; None where it was not measured.
    options, device, precision, date
        How the encoder was set, where it ran, how precisely, when.
    """

    dim: int
    parameters: int | None
    weight_bytes: int | None
    images_per_second: float
    what: str
    cpu_seconds: float | None
    options: dict[str, Any]
    device: str
    precision: str
    date: str


def note_build(encoder: BaseEncoder, embedded: int, seconds: float) -> None:
    """Note how fast a build was, if it embedded enough pictures to tell."""
    if embedded >= FEWEST and seconds > 0:
        _note(_cost(encoder, embedded / seconds, "read, prepared and embedded by a build", None), encoder.info.name)


def measure(encoder: BaseEncoder, pictures: Sequence[PIL.Image.Image]) -> Cost:
    """Measure preparing and embedding RGB pictures, after one to warm up, and note it."""
    encoder.encode_prepared(encoder.compact(pictures[0])[None])
    wall, cpu = time.perf_counter(), time.process_time()
    for picture in pictures:
        encoder.encode_prepared(encoder.compact(picture)[None])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    what = "prepared and embedded, one at a time"
    cost = _cost(encoder, len(pictures) / max(wall, 1e-9), what, cpu / len(pictures))
    _note(cost, encoder.info.name)
    return cost


def recall(name: str) -> Cost | None:
    """Return what was noted of an encoder on this machine, by its name; None where it was never used."""
    try:
        known = json.loads(_file(name).read_text(encoding="utf-8"))
        return Cost(**known)
    except (OSError, ValueError, TypeError):
        return None


def _cost(encoder: BaseEncoder, speed: float, what: str, cpu: float | None) -> Cost:
    info, (parameters, weight_bytes) = encoder.info, encoder.size()
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    options = dict(info.options)
    return Cost(info.dim, parameters, weight_bytes, speed, what, cpu, options, info.device, info.precision, today)


def _note(cost: Cost, name: str) -> None:
    try:
        options = find_spec(name)[0].options
    except EncoderNotFoundError:
        return
    # one that was fitted further, or runs beside others, is not what the name stands for
    if cost.options.keys() <= set(options):
        write_if_possible(_file(name), json.dumps(asdict(cost), indent=1).encode())


def _file(name: str) -> Path:
    return state_folder() / "costs" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
