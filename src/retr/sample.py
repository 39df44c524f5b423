"""A small index of made-up pictures to try things on; the examples in docstrings ask it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retr.retrieval.encoders.callables import from_callable
from retr.retrieval.index import Index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

_LABELS, _PATIENTS, _EYES = ("glaucoma", "healthy"), 12, ("left", "right")


def sample_index() -> Index:
    """Return a new index of 24 pictures: two of each of twelve patients, half of them with glaucoma.

    Its columns are ``label``, ``patient``, ``age`` and ``caption``; its pictures lie beside it, in
    ``index.path.parent``, and are its own. All of it is removed when the program ends.

    >>> index = sample_index()
    >>> len(index), index["healthy/P01-left.png"]["patient"], index.encoder.info.name
    (24, 'P01', 'colours')
    """
    drawn, table, vectors = _made()
    # times of files are kept, so that a build finds them unchanged
    path = shutil.copytree(drawn, _folder() / "pictures") / "sample.retr"
    return Index.from_vectors(vectors, table, path, encoder=sample_encoder(), group="patient")


def sample_encoder() -> BaseEncoder:
    """Return the encoder of the sample: the colours of a 4 x 4 grid.

    >>> sample_encoder().encode_images([np.zeros((8, 8))]).shape
    (1, 48)
    """
    return from_callable(_colours, dim=48, name="colours", fingerprint="4x4")


def _colours(pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    small = [np.asarray(picture.resize((4, 4)), np.float32).ravel() for picture in pictures]
    return np.stack(small) + 1


@cache
def _made() -> tuple[Path, dict[str, list[str] | list[int]], NDArray[np.float32]]:
    """Draw the pictures; return where they lie, their table and their vectors."""
    folder = _folder()
    rng = np.random.default_rng(0)
    table: dict[str, list[str] | list[int]] = {}
    for patient in range(_PATIENTS):
        label = _LABELS[patient % 2]
        for eye in _EYES:
            name = f"{label}/P{patient:02d}-{eye}.png"
            colours = np.array([200, 80, 40] if label == "glaucoma" else [150, 130, 40])
            small = np.clip(rng.normal(colours, 45, (4, 4, 3)), 0, 255).astype(np.uint8)
            (folder / label).mkdir(exist_ok=True)
            Image.fromarray(small).resize((32, 32), Image.Resampling.NEAREST).save(folder / name)
            data = (folder / name).read_bytes()
            row = {
                "id": name,
                "size": len(data),
                "mtime": (folder / name).stat().st_mtime,
                "sha256": hashlib.sha256(data).hexdigest(),
                "folder": label,
                "width": 32,
                "height": 32,
                "mode": "RGB",
                "label": label,
                "patient": f"P{patient:02d}",
                "age": 40 + patient,
                "caption": f"{eye} eye, {label}",
            }
            for key, value in row.items():
                table.setdefault(key, []).append(value)  # type: ignore[arg-type]
    names = [folder / str(name) for name in table["id"]]
    return folder, table, sample_encoder().encode_images(names)


def _folder() -> Path:
    """Return a new folder that is removed when the program ends."""
    kept = tempfile.TemporaryDirectory(prefix="retr-sample-")
    _kept.append(kept)
    return Path(kept.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []
