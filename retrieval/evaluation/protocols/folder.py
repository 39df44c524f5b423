"""The data of a protocol: labelled pictures from class folders, a table, or an index.

What has no usable label is left out here, what cannot be read when it is embedded (`retr.retrieval.evaluation.
protocols.vectors`); each is a record with its reason, and every result says how many there were.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.index.machine.waiting import LOGGER
from retr.retrieval.archive.folders import FolderSource
from retr.retrieval.archive.matching import clean
from retr.retrieval.archive.metadata import Metadata, read_metadata, require_match
from retr.retrieval.archive.sources import Entry, Item, Skipped
from retr.retrieval.labels.labelled import grouped
from retr.retrieval.stats.intervals import group_codes, jackknife_intervals
from retr.retrieval.stats.metrics import macro

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.archive.sources import Source

SHOWN = 10


@dataclass(frozen=True)
class ClassFolder:
    """Labelled pictures.

    Attributes
    ----------
    root
        The folder, or the index that names them.
    paths
        Relative to it, by class and then sorted.
    classes
        The classes' names, sorted.
    labels
        int64 ``(n,)``: the class of each picture.
    group
        The column that tells patients apart, ``None`` where none was given.
    groups
        int64 ``(n,)``: the patient of each picture; without a column every picture is its own, and so is one that the
        column does not name a patient of.
    alone
        bool ``(n,)``: whether the column names no patient of the picture.
    left_out
        What belongs to the data and is not among the pictures: path and reason.
    """

    root: Path
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    group: str | None
    groups: NDArray[np.int64]
    alone: NDArray[np.bool_]
    left_out: tuple[tuple[str, str], ...] = ()

    def counts(self) -> dict[str, int]:
        """How many pictures each class has."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def fingerprint(self) -> str:
        """Hash of class names and counts."""
        return hashlib.sha256(json.dumps(self.counts(), sort_keys=True).encode()).hexdigest()[:16]

    def source(self) -> Source:
        """Return the pictures as a source that a build can read."""
        return ChosenPictures(self.root, self.paths)

    def place(self) -> str:
        """Return what tells these pictures' place from others'."""
        return str(self.root.resolve())

    def describe(self) -> dict[str, Any]:
        """Return what a result must say of its data."""
        return {
            "folder": self.root.name,
            "images": len(self.paths),
            "classes": self.counts(),
            "fingerprint": self.fingerprint(),
            "group": self.group,
            "groups": len(np.unique(self.groups)),
            "images_without_group": int(self.alone.sum()),
            "left_out": {
                "count": len(self.left_out),
                "reasons": dict(sorted(Counter(reason for _, reason in self.left_out).items())),
                "images": [{"path": path, "reason": reason} for path, reason in self.left_out],
            },
        }

    def without(self, reasons: Mapping[str, str]) -> ClassFolder:
        """Leave pictures out, each with its reason; a class that has no picture left goes with them.

        Raises
        ------
        UsageError
            Fewer than two classes are left.
        """
        if not reasons:
            return self
        keep = np.array([path not in reasons for path in self.paths], dtype=bool)
        present = np.unique(self.labels[keep])
        if len(present) < 2:
            counts = Counter(reasons.values())
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
            raise UsageError(
                f"of {len(keep)} pictures {int((~keep).sum())} are left out ({why}): fewer than two classes are left",
                hint="look at the reasons; the data has to hold pictures of two classes that can be read",
            )
        return replace(
            self,
            paths=tuple(path for path, inside in zip(self.paths, keep, strict=True) if inside),
            classes=tuple(self.classes[c] for c in present),
            labels=np.searchsorted(present, self.labels[keep]),
            groups=self.groups[keep],
            alone=self.alone[keep],
            left_out=(*self.left_out, *((path, reasons[path]) for path in self.paths if path in reasons)),
        )

    def outcome(
        self,
        protocol: str,
        encoder: EncoderInfo,
        *,
        embedding: str,
        measured: dict[str, Any],
        published: Sequence[dict[str, Any]],
        published_protocol: str,
        because: str,
    ) -> dict[str, Any]:
        """Return a protocol's JSON-ready result: what was measured here, beside what was published of other data."""
        return {
            "protocol": protocol,
            "data": self.describe(),
            "encoder": {"name": encoder.name, "options": dict(encoder.options), "embedding": embedding},
            "measured": measured,
            "published": list(published),
            "published_protocol": published_protocol,
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
    ) -> dict[str, Any]:
        """Return the mean over classes of some areas under curves of scores ``(n, c)``, with intervals by patient.

        ``of`` names them: ``AUPRC`` rests on the positive rows, another area on both sides.
        """

        def means(rows: NDArray[np.int64]) -> dict[str, float]:
            return {name: macro(area(scores[rows], member[rows])) for name, area in of.items()}

        both = np.hstack([member, ~member])
        rests_on = {name: member if name == "AUPRC" else both for name in of}
        found = jackknife_intervals(means, self.groups, member=rests_on, seed=seed)
        return {name: one.to_json() for name, one in found.items()}


class ChosenPictures(FolderSource):
    """Some pictures of a folder, as a source that a build can read.

    Parameters
    ----------
    root
        The folder.
    paths
        Those pictures, relative to it.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        super().__init__(root)
        self._name = str(root)
        self._paths = frozenset(paths)

    def __str__(self) -> str:
        return self._name

    def entries(self) -> Iterator[Entry]:
        """List the chosen pictures that are there, in the order of the whole folder."""
        return (entry for entry in super().entries() if entry.path in self._paths)

    def count(self) -> int:
        """Return how many were chosen."""
        return len(self._paths)


def read_folder(
    root: Path,
    *,
    metadata: Path | None = None,
    path_column: str | None = None,
    label: str | None = None,
    group: str | None = None,
    most: int | None = None,
    least: int = 1,
    without: tuple[str, ...] = (),
    fewest: int = 2,
) -> ClassFolder:
    """List a folder of class folders, or label the pictures of a folder by a table.

    Parameters
    ----------
    root
        The folder. A picture's class is the folder in it that holds the picture, at any depth.
    metadata
        Table with a column of paths relative to ``root``; a row belongs to a picture as in a build.
    path_column
        That column, where its name does not tell.
    label
        The table's column of class names, instead of the folders.
    group
        The table's column that tells patients apart.
    most
        At most so many pictures of a class, in the order of their names.
    least
        Classes with fewer are left out.
    without
        Classes to leave out.
    fewest
        So many classes are needed; one, where the set is joined to others.

    Raises
    ------
    UsageError
        There are fewer classes, or a column is not in the table.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {str(root)!r}", hint="give a folder with one folder for each class")
    pictures, left_out = _listed(root)
    table = None if metadata is None else _matched(metadata, root, pictures, group, path_column)
    if label is None:
        folders = [path.partition("/")[0] if "/" in path else None for path in pictures]
        named = dict(zip(pictures, folders, strict=True))
        reason = "in no class's folder"
    else:
        named = dict(zip(pictures, _values(table, metadata, pictures, label, "--label"), strict=True))
        reason = f"no value in {label!r}"
        assert table is not None
        rows = table.rows_of(pictures)
        left_out |= {path: "no row in the table" for path, row in zip(pictures, rows.tolist(), strict=True) if row < 0}
        left_out |= dict.fromkeys(filter(None, table.unmatched().to_pylist()), "missing")
    left_out |= {path: left_out.get(path, reason) for path, name in named.items() if name is None}
    if label is None:  # of a class that is not asked for nothing is missed
        left_out = {path: why for path, why in left_out.items() if path.partition("/")[0] not in without}
    chosen = _choose(named, most=most, least=least, without=without)
    if len(chosen) < fewest:
        needed = "two are" if fewest > 1 else "one is"
        raise UsageError(
            f"{str(root)!r} holds {len(chosen)} classes of images, at least {needed} needed",
            hint="give a folder with one folder for each class, or name a column with --label",
        )
    paths = [path for files in chosen.values() for path in files]
    patients = None if group is None else _values(table, metadata, paths, group, "--group")
    known = np.array([patient is not None for patient in patients or [""] * len(paths)], dtype=bool)
    return _made(root, chosen, group, group_codes(patients, len(paths)), known, left_out)


def read_index(
    store: Store,
    *,
    label: str | None = None,
    group: str | None = None,
    most: int | None = None,
    least: int = 1,
    without: tuple[str, ...] = (),
) -> ClassFolder:
    """Take the labelled rows of an index; without a patient, the pages of a file and its copies are of one.

    Parameters
    ----------
    label
        The column of class names; by default ``folder``, the one in which the picture lies.
    group
        The column that tells patients apart; by default the one recorded, if any.
    store, most, least, without
        The index; else as in `read_folder`.

    Raises
    ------
    UsageError
        There is no such column, or fewer than two classes.
    """
    label, group = label or "folder", group or store.manifest.group
    table = store.table(list(dict.fromkeys(["id", label, *([group] if group else [])])))
    ids = table["id"].to_pylist()
    named = dict(zip(ids, map(_name, table[label].to_pylist()), strict=True))
    skipped = store.skipped()
    left_out = dict(zip(skipped["path"].to_pylist(), skipped["reason"].to_pylist(), strict=True))
    left_out |= {path: f"no value in {label!r}" for path, name in named.items() if name is None}
    chosen = _choose(named, most=most, least=least, without=without)
    if len(chosen) < 2:
        raise UsageError(
            f"the column {label!r} of the index holds {len(chosen)} classes, at least two are needed",
            hint="name another column with --label",
        )
    row = dict(zip(ids, store.live_rows().tolist(), strict=True))
    rows = np.array([row[path] for files in chosen.values() for path in files], np.int64)
    groups, known = grouped(store, group, rows)
    return _made(store.path, chosen, group, groups, known | (group is None), left_out)


def _made(
    root: Path,
    chosen: Mapping[str, Sequence[str]],
    group: str | None,
    groups: NDArray[np.int64],
    known: NDArray[np.bool_],
    left_out: Mapping[str, str],
) -> ClassFolder:
    paths = tuple(path for files in chosen.values() for path in files)
    return ClassFolder(
        root=root,
        paths=paths,
        classes=tuple(chosen),
        labels=np.repeat(np.arange(len(chosen)), [len(files) for files in chosen.values()]),
        group=group,
        groups=groups,
        left_out=tuple(sorted(left_out.items())),
        alone=~known,
    )


def _listed(root: Path) -> tuple[list[str], dict[str, str]]:
    """List the pictures of a folder, sorted, and what cannot be reached there, with the reason."""
    pictures, left_out = [], {}
    for entry in FolderSource(root).entries():
        if isinstance(entry, Item):
            pictures.append(entry.path)
        elif isinstance(entry, Skipped):
            left_out[entry.path] = entry.reason
    return sorted(pictures), left_out


def _choose(
    named: Mapping[str, str | None], *, most: int | None, least: int, without: tuple[str, ...]
) -> dict[str, list[str]]:
    """Return the pictures of each class that counts, by name.

    Raises
    ------
    UsageError
        A class to leave out is none.
    """
    by_class: dict[str, list[str]] = {}
    for path, name in sorted(named.items()):
        if name is not None:
            by_class.setdefault(name, []).append(path)
    for name in without:
        if name not in by_class:
            near = difflib.get_close_matches(name, by_class, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(sorted(by_class)[:SHOWN])}"
            raise UsageError(f"there is no class {name!r} to leave out", hint=hint)
    chosen = {
        name: files[:most]
        for name, files in sorted(by_class.items())
        if len(files) >= max(least, 1) and name not in without
    }
    for one, other in itertools.pairwise(sorted(chosen, key=_plain)):
        if _plain(one) == _plain(other):
            LOGGER.warning("the classes %r and %r differ in spelling alone, and are taken for two", one, other)
    return chosen


def _plain(name: str) -> str:
    """Return a class's name without its case and the kind of its blanks."""
    return " ".join(name.casefold().replace("_", " ").split())


def _matched(
    metadata: Path, root: Path, pictures: Sequence[str], group: str | None, path_column: str | None
) -> Metadata:
    """Read a table and tell which of its rows belongs to which picture, as a build does."""
    roots = (str(root.resolve()), str(home(root).absolute()))
    relative = functools.partial(clean, roots=roots)
    table = read_metadata(metadata, reserved=(), relative=relative, path_column=path_column, group=group)
    require_match(table, iter(pictures), str(metadata))
    for path in pictures:
        table.matcher.see(path)
    return table


def _values(
    table: Metadata | None, metadata: Path | None, paths: Sequence[str], column: str, option: str
) -> list[str | None]:
    """Return the cells of a column of the table as text, None where there is none."""
    if table is None or metadata is None:
        raise UsageError(f"{option} {column!r} needs the table that holds it", hint="give it with --metadata FILE")
    names = table.table.column_names
    if column not in names:
        raise UsageError(f"{metadata.name!r} has no column {column!r}", hint=f"it has {', '.join(names)}")
    return [_name(value) for value in table.take(table.rows_of(paths))[column].to_pylist()]


def _name(value: object) -> str | None:
    """Return a cell as the name of a class or a patient; None where it names nothing."""
    text = "" if value is None or value != value else str(value).strip()  # noqa: PLR0124 - a NaN
    return text or None
