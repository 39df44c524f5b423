"""Several public sets as one pool of pictures, under one protocol's class names.

The pool is what every set's classes are by a `ClassMap`; pictures of unmapped classes are no part of it, and are
counted and named. Patients of different sets are different patients. A picture's set is the first part of its path.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.archive.sources import Item, Skipped
from retr.retrieval.evaluation.protocols.folder import ChosenPictures, ClassFolder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.retrieval.archive.sources import Bytes, Entry, Source
    from retr.retrieval.evaluation.protocols.class_map import ClassMap


class UnitedPictures:
    """The chosen pictures of several folders as one source; a path begins with the name of its set."""

    def __init__(self, parts: Mapping[str, ChosenPictures]) -> None:
        self.location = os.path.commonpath([part.location for part in parts.values()])
        self._parts = dict(sorted(parts.items()))

    def entries(self) -> Iterator[Entry]:
        """List the pictures, set by set."""
        from dataclasses import replace

        for name, part in self._parts.items():
            for entry in part.entries():
                if isinstance(entry, Item | Skipped):
                    yield replace(entry, path=f"{name}/{entry.path}")

    def count(self) -> int:
        """Return how many were chosen."""
        return sum(part.count() for part in self._parts.values())

    def read(self, path: str) -> Bytes:
        """Read one picture."""
        name, _, inside = path.partition("/")
        if name not in self._parts:
            raise FileNotFoundError(path)
        return self._parts[name].read(inside)


@dataclass(frozen=True)
class UnitedSets(ClassFolder):
    """The pictures of several sets under one label set's names.

    Attributes
    ----------
    folders
        Each set's folder.
    by_map
        The table's name, and what has to be said of it.
    described
        JSON-ready, for each set: what it is, and its mapped and unmapped classes.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    by_map: tuple[str, tuple[str, ...]] = ("", ())
    described: Mapping[str, Any] = field(default_factory=dict)

    def sets(self) -> NDArray[np.int64]:
        """Return the set of each picture: int64 ``(n,)``, in the order of `folders`."""
        place = {name: at for at, name in enumerate(self.folders)}
        return np.array([place[path.partition("/")[0]] for path in self.paths], np.int64)

    def source(self) -> Source:
        """Return the pictures as a source that a build can read."""
        own: dict[str, list[str]] = {name: [] for name in self.folders}
        for path in self.paths:
            name, _, inside = path.partition("/")
            own[name].append(inside)
        return UnitedPictures({name: ChosenPictures(self.folders[name], paths) for name, paths in own.items()})

    def place(self) -> str:
        """Return what tells these pictures' places from others'."""
        return "|".join(f"{name}={folder.resolve()}" for name, folder in self.folders.items())

    def describe(self) -> dict[str, Any]:
        """Return what a result must say of its data, set by set."""
        name, notes = self.by_map
        return {
            **super().describe(),
            "folder": " + ".join(self.folders),
            "map": {"name": name, "notes": list(notes)},
            "sets": dict(self.described),
        }


def unite(
    parts: Mapping[str, ClassFolder],
    by: ClassMap,
    *,
    most: int | None = None,
    least: int = 1,
    without: Collection[str] = (),
) -> UnitedSets:
    """Make one pool of several sets.

    Parameters
    ----------
    parts
        Each set under the name by which the table knows it.
    by
        The table.
    most
        At most so many pictures of a class and set, in the order of their names.
    least
        Classes with fewer pictures in the pool are left out.
    without
        Names to leave out, a set's own or the table's.

    Raises
    ------
    UsageError
        The table does not know a set or a name; a name to leave out is none; fewer than two classes are left.
    """
    picked: list[tuple[str, str, int, bool]] = []  # class, path, patient, whether the patient is not known
    described: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    known = {*by.labels.names}
    start = 0
    for name, part in parts.items():
        counts = part.counts()
        known |= {*counts}
        mapped, left = by.translate(name, {one: count for one, count in counts.items() if one not in without})
        mapped = {one: target for one, target in mapped.items() if target not in without}
        taken: dict[str, int] = {}
        for row, path in enumerate(part.paths):
            target = mapped.get(part.classes[part.labels[row]])
            if target is None or (most is not None and taken.get(target, 0) >= most):
                continue
            taken[target] = taken.get(target, 0) + 1
            alone = part.group is None or bool(part.alone[row])
            picked.append((target, f"{name}/{path}", start + int(part.groups[row]), alone))
        start += int(part.groups.max()) + 1
        left_out |= {f"{name}/{path}": reason for path, reason in part.left_out}
        names = by.names_of(name)
        described[name] = {
            "folder": part.root.name,
            "title": names.title,
            "source": names.source,
            "images": sum(taken.values()),
            "group": part.group,
            "pool": dict(sorted(taken.items())),
            "classes": {one: {"images": counts[one], "is": target} for one, target in mapped.items()},
            "unmapped": left,
            "notes": list(names.notes),
        }
    for name in without:
        if name not in known:
            raise UsageError(f"there is no class {name!r} to leave out", hint=f"there are {', '.join(sorted(known))}")
    sizes = {target: len([*rows]) for target, rows in itertools.groupby(sorted(one[0] for one in picked))}
    rows = sorted(one for one in picked if sizes[one[0]] >= least)
    classes = sorted({one[0] for one in rows})
    if len(classes) < 2:
        unmapped = [str(one["name"]) for entry in described.values() for one in entry["unmapped"]]
        raise UsageError(
            f"the sets hold {len(classes)} classes of the map {by.name!r}, at least two are needed",
            hint=f"not mapped are {', '.join(unmapped) or 'none'}; add a set",
        )
    groups = [part.group for part in parts.values() if part.group is not None]
    some = next(iter(parts.values()))
    return UnitedSets(
        root=some.root,
        paths=tuple(one[1] for one in rows),
        classes=tuple(classes),
        labels=np.array([classes.index(one[0]) for one in rows], np.int64),
        group=groups[0] if groups else None,
        groups=np.unique([one[2] for one in rows], return_inverse=True)[1].astype(np.int64),
        alone=np.array([one[3] and bool(groups) for one in rows], dtype=bool),
        left_out=tuple(sorted(left_out.items())),
        folders={name: part.root for name, part in parts.items()},
        by_map=(by.name, by.notes),
        described=described,
    )
