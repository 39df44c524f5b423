"""The data of a protocol: a folder with one folder for each class, and optionally a table that tells patients apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.archive.folders import is_picture_file
from retr.retrieval.encoders.batches import encode_all
from retr.retrieval.stats.bootstrap import group_codes, intervals
from retr.retrieval.stats.metrics import macro

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from retr.retrieval.encoders.base import BaseEncoder


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

    def outcome(
        self,
        protocol: str,
        encoder: BaseEncoder,
        *,
        measured: dict[str, Any],
        published: Sequence[dict[str, Any]],
        because: str,
    ) -> dict[str, Any]:
        """Give a protocol's JSON-ready result: what was measured here, beside what was published of other data."""
        return {
            "protocol": protocol,
            "data": self.describe(),
            "encoder": {"name": encoder.info.name, "options": dict(encoder.info.options)},
            "measured": measured,
            "published": list(published),
            "data_is_the_papers": False,
            "data_is_the_papers_because": because,
        }

    def areas(
        self,
        scores: NDArray[np.float64],
        member: NDArray[np.bool_],
        *,
        of: Mapping[str, Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.float64]]],
        seed: int,
        resamples: int = 200,
    ) -> dict[str, Any]:
        """Give the mean over classes of some measures of scores ``(n, c)``, with intervals over patients."""

        def means(rows: NDArray[np.int64]) -> dict[str, float]:
            return {name: macro(area(scores[rows], member[rows])) for name, area in of.items()}

        found = intervals(means, self.groups, resamples=resamples, seed=seed)
        return {name: one.to_json() for name, one in found.items()}

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
    label: str | None = None,
    group: str | None = None,
    most: int | None = None,
    least: int = 1,
    without: tuple[str, ...] = (),
) -> ClassFolder:
    """List a folder of class folders, or the pictures a table names.

    Parameters
    ----------
    root
        The folder.
    metadata
        Table with a ``path`` column, relative to ``root``.
    label
        The table's column of class names; by default a picture's class is its folder.
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
        There are fewer than two classes, or a column is not in the table.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}", hint="give a folder with one folder for each class")
    by_class = _by_folder(root) if label is None else _by_column(root, metadata, label)
    kept = {
        name: files[:most]
        for name, files in sorted(by_class.items())
        if len(files) >= max(least, 1) and name not in without
    }
    if len(kept) < 2:
        raise UsageError(
            f"{str(root)!r} holds {len(kept)} classes of images, at least two are needed",
            hint="give a folder with one folder for each class, or name a column with --label",
        )
    paths = [path for files in kept.values() for path in files]
    return ClassFolder(
        root=root,
        paths=tuple(paths),
        classes=tuple(kept),
        labels=np.repeat(np.arange(len(kept)), [len(files) for files in kept.values()]),
        group=group,
        groups=_groups(paths, metadata, group),
    )


def _by_folder(root: Path) -> dict[str, list[str]]:
    found = {}
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            names = sorted(file.name for file in folder.iterdir() if is_picture_file(file))
            found[folder.name] = [f"{folder.name}/{name}" for name in names]
    return found


def _by_column(root: Path, metadata: Path | None, label: str) -> dict[str, list[str]]:
    paths, values = _column(metadata, label, "--label")
    found: dict[str, list[str]] = {}
    for path, value in sorted(zip(paths, values, strict=True)):
        if value is not None and (root / path).is_file():
            found.setdefault(str(value), []).append(path)
    return found


def _column(metadata: Path | None, name: str, option: str) -> tuple[list[str], list[Any]]:
    if metadata is None:
        raise UsageError(f"{option} {name!r} needs the table that holds it", hint="give it with --metadata FILE")
    from retr.retrieval.archive.metadata import read_table

    paths, table = read_table(metadata)
    if name not in table.column_names:
        raise UsageError(f"{metadata.name!r} has no column {name!r}", hint=f"it has {', '.join(table.column_names)}")
    return paths, table[name].to_pylist()


def _groups(paths: list[str], metadata: Path | None, group: str | None) -> NDArray[np.int64]:
    if group is None:
        return group_codes(None, len(paths))
    known = dict(zip(*_column(metadata, group, "--group"), strict=True))
    return group_codes([known.get(path) for path in paths], len(paths))
