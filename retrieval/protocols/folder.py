"""The data of a protocol: a folder with one folder for each class, and optionally a table that tells patients apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.batches import encode_all
from retr.retrieval.bootstrap import group_codes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from retr.retrieval.encoders.base import BaseEncoder

_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


@dataclass(frozen=True)
class ClassFolder:
    """Labelled pictures.

    Attributes
    ----------
    root
        The folder.
    paths
        Relative to it, sorted.
    classes
        The classes' names, sorted.
    labels
        int64 ``(n,)``: the class of each picture.
    group
        The column that tells patients apart, ``None`` where none was given.
    groups
        int64 ``(n,)``: the patient of each picture; without a column every picture is its own.
    """

    root: Path
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    group: str | None
    groups: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """How many pictures each class has."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def fingerprint(self) -> str:
        """Hash of class names and counts."""
        return hashlib.sha256(json.dumps(self.counts(), sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Give what a result must say of its data."""
        return {
            "folder": self.root.name,
            "images": len(self.paths),
            "classes": self.counts(),
            "fingerprint": self.fingerprint(),
            "group": self.group,
            "groups": len(np.unique(self.groups)),
        }

    def embed(self, encoder: BaseEncoder, *, progress: bool = False) -> NDArray[np.float32]:
        """Embed every picture: float32 ``(n, dim)``, not normalised."""
        return encode_all(
            encoder, self.paths, lambda path: encoder.prepare(self.picture(path, encoder)), progress=progress
        )

    def picture(self, path: str, encoder: BaseEncoder) -> Image:
        """Read one picture as the encoder wants it."""
        from retr.retrieval.images import read_image

        info = encoder.info
        return read_image(self.root / path, draft_size=info.draft_size, grey16=info.grey16).image


def read_folder(
    root: Path,
    *,
    metadata: Path | None = None,
    group: str | None = None,
    most: int | None = None,
    least: int = 1,
    without: tuple[str, ...] = (),
) -> ClassFolder:
    """List a folder of class folders.

    Parameters
    ----------
    root
        The folder.
    metadata
        Table with a ``path`` column, relative to ``root``.
    group
        The table's column that tells patients apart.
    most
        At most so many pictures of a class, in the order of their names.
    least
        Classes with fewer are left out.
    without
        Classes to leave out.

    Raises
    ------
    UsageError
        There are fewer than two classes, or ``group`` is not a column of the table.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}", hint="give a folder with one folder for each class")
    paths: list[str] = []
    labels: list[int] = []
    classes: list[str] = []
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
        if len(files) < max(least, 1) or folder.name in without:
            continue
        files = files[:most]
        paths += [f"{folder.name}/{name}" for name in files]
        labels += [len(classes)] * len(files)
        classes.append(folder.name)
    if len(classes) < 2:
        raise UsageError(
            f"{str(root)!r} holds {len(classes)} folders of images, at least two are needed",
            hint="give a folder with one folder for each class",
        )
    return ClassFolder(
        root=root,
        paths=tuple(paths),
        classes=tuple(classes),
        labels=np.array(labels, dtype=np.int64),
        group=group,
        groups=_groups(paths, metadata, group),
    )


def _groups(paths: list[str], metadata: Path | None, group: str | None) -> NDArray[np.int64]:
    if group is None:
        return group_codes(None, len(paths))
    if metadata is None:
        raise UsageError(f"--group {group!r} needs the table that holds it", hint="give it with --metadata FILE")
    from retr.retrieval.metadata import read_metadata

    table = read_metadata(metadata, reserved=())
    if group not in table.table.column_names:
        raise UsageError(
            f"{metadata.name!r} has no column {group!r}", hint=f"it has {', '.join(table.table.column_names)}"
        )
    values = table.take(table.rows_of(paths)).column(group).to_pylist()
    return group_codes(values, len(paths))
