"""Fingerprint the inputs of a calibration, and name those that have changed.

A record of `retr calibrate` keeps a short hash of each thing that could change the answers it was measured on: rows,
labels, groups and encoder, the head, the bridge and its text encoder, the probe, the fence of novelty. A record of an
older version kept fewer, and counts no longer.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from retr.retrieval.classify.probe import file_name
from retr.retrieval.labels.labelled import data_version
from retr.retrieval.labels.trained_rows import BRIDGE_FILE, HEAD_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.index.rows.snapshot import Snapshot

PROBE, WORDS = "probe", "zero-shot:"
#: Each thing, as a person calls it.
NAMES = {
    "data": "rows, files, labels, groups or the encoder",
    "head": "the head",
    "words": "the bridge or the encoder of words",
    "probe": "the probe",
    "novelty": "the fence of novelty",
}
# The column by which the fence tells cameras apart: the fence alone says only that it is another.
_CAMERAS = "cameras"


def dependencies(
    store: Snapshot, method: str, column: str, novelty: Mapping[str, Any], *, files: Mapping[str, bytes] | None = None
) -> dict[str, str]:
    """Return a short hash of each thing that the answers of a method depend on.

    Parameters
    ----------
    store
        The snapshot.
    method, column
        The method's key, which names its own parameters and prompts, and the column of labels.
    novelty
        The record of the fence, JSON-ready.
    files
        Side files that are about to be committed with the record, by name.
    """
    cameras = novelty.get("column") or ""
    found = {"data": data_version(store, column), "novelty": _short(novelty), _CAMERAS: cameras}
    if HEAD_FILE in store.manifest.files:
        found["head"] = _file(store, HEAD_FILE, files or {})
    if method == PROBE:
        found["probe"] = _file(store, file_name(column), files or {})
    if method.startswith(WORDS):
        encoder = store.manifest.encoder
        own = [encoder.text_sha256, encoder.logit_scale] if encoder.text else _file(store, BRIDGE_FILE, files or {})
        found["words"] = _short(own)
    return found


def changed(recorded: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Return the names of what is no longer what it was, the fence with the cameras it was measured of."""
    then, now = recorded.get(_CAMERAS), present.get(_CAMERAS)
    names = dict(NAMES)
    if then is not None and now is not None and then != now:
        names["novelty"] += f", then of {_of_each(then)} and now of {_of_each(now)},"
    return [name for key, name in names.items() if recorded.get(key) != present.get(key)]


def _of_each(column: str) -> str:
    return f"each {column!r}" if column else "all cameras together"


def _file(store: Snapshot, name: str, files: Mapping[str, bytes]) -> str:
    if name in files:
        return hashlib.sha256(files[name]).hexdigest()[:16]
    return store.manifest.files[name].sha256[:16] if name in store.manifest.files else ""


def _short(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
