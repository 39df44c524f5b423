"""Verify an encoder: compare the embedding of the sample picture with a recorded fingerprint.

A fingerprint is the embedding's length and 16 signed sums of its unit vector. Those of encoders whose weights are
public and fixed ship in ``fingerprints.json``; for others the first verification on a machine records one in the
user's cache, so that a later change of library, driver or hardware is noticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retr.index.machine.home import cache_folder
from retr.index.machine.whole_file import write_if_possible
from retr.retrieval.encoders.sample_picture import picture

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.base import BaseEncoder

# How far a sum (and, relative to it, the length) may move: rounding differs between processors and libraries.
_TOLERANCE = {"fp32": 2e-3, "bf16": 0.1, "fp16": 0.05}
_SUMS = 16


@dataclass(frozen=True)
class Fingerprint:
    """Length of an embedding and signed sums of its unit vector."""

    length: float
    sums: tuple[float, ...]

    def distance(self, other: Fingerprint) -> float:
        """Return the largest difference of a sum, or of the lengths relative to the larger."""
        longer = max(self.length, other.length, 1e-12)
        pairs = zip(self.sums, other.sums, strict=True)
        return max(abs(self.length - other.length) / longer, *(abs(a - b) for a, b in pairs))


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    outcome
        ``"matches"`` the record, ``"differs"`` from it, or ``"recorded"``: there was none, now there is.
    difference, tolerance
        See `Fingerprint.distance`; None where there was nothing to compare with.
    record
        ``"shipped"`` with retr, or made on ``"this machine"``.
    """

    encoder: str
    outcome: Literal["matches", "differs", "recorded"]
    record: Literal["shipped", "this machine"]
    difference: float | None
    tolerance: float | None
    precision: str
    weights_sha256: str
    fingerprint: Fingerprint


def fingerprint(vector: NDArray[np.float32]) -> Fingerprint:
    """Summarise one embedding, shape ``(dim,)``.

    >>> fingerprint(np.array([3.0, 4.0], dtype=np.float32)).length
    5.0
    """
    exact = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(exact))
    place = np.arange(len(exact), dtype=np.uint64)
    which = np.arange(_SUMS, dtype=np.uint64)[:, None]
    mixed = (place + np.uint64(1)) * np.uint64(2654435761) * (np.uint64(2) * which + np.uint64(1))
    signs = ((mixed >> np.uint64(16)) & np.uint64(1)).astype(np.float64) * 2 - 1
    sums = signs @ (exact / max(length, 1e-12))
    return Fingerprint(round(length, 6), tuple(round(float(value), 6) for value in sums))


def verify(encoder: BaseEncoder) -> Verification:
    """Embed the built-in picture and compare with the record, or make one where there is none."""
    info = encoder.info
    found = fingerprint(encoder.encode_images([picture()])[0])
    key = _key(info)
    shipped = _shipped().get(key)
    local = cache_folder() / "fingerprints" / f"{key}.json"
    recorded = shipped or _read(local)
    if recorded is None:
        write_if_possible(local, json.dumps(asdict(found)).encode())
        outcome, difference, tolerance = "recorded", None, None
    else:
        difference, tolerance = recorded.distance(found), _TOLERANCE[info.precision]
        outcome = "matches" if difference <= tolerance else "differs"
    return Verification(
        encoder=info.name,
        outcome=outcome,  # type: ignore[arg-type]
        record="shipped" if shipped else "this machine",
        difference=difference,
        tolerance=tolerance,
        precision=info.precision,
        weights_sha256=info.weights_sha256,
        fingerprint=found,
    )


def _key(info: EncoderInfo) -> str:
    """Name of an encoder's record: everything that decides its vectors."""
    return hashlib.sha256(json.dumps(info.identity).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Fingerprint]:
    text = (package_files("retr.retrieval.encoders") / "fingerprints.json").read_text(encoding="utf-8")
    return {key: _fingerprint(entry) for key, entry in json.loads(text).items()}


def _read(path: Path) -> Fingerprint | None:
    try:
        return _fingerprint(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fingerprint(entry: dict[str, Any]) -> Fingerprint:
    return Fingerprint(float(entry["length"]), tuple(float(value) for value in entry["sums"]))
