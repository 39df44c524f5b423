"""Side data: whatever hangs on an index, by kind.

A head, a bridge, a calibration, what was noted of a build: each is some files and notes that the manifest names,
written in the same commit as the rows. They belong to kinds. A kind is one class (`Kind`) that says of all that is of
it when it is stale, which rows it names, what a purge leaves of it, whether it is whole, and what becomes of it where
rows get other numbers or are copied. Purge, check, compact and copy go through the kinds that an index holds and know
none.

The manifest says what is of which kind. Format version 1 knew no kinds: what its writers hung on an index is told by
names, which `BUILT_IN` lists. A kind's module is imported where an index holds something of it, by name, as an encoder
is; so a program that reads nothing but vectors knows them all and imports none. Other packages give theirs under the
entry-point group ``retr.side_data``, each an instance of `Kind`, or call `register`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from retr.index.errors import RetrError
from retr.index.json_fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.disk.manifest import Manifest
    from retr.index.encoder import EncoderInfo
    from retr.index.rows.snapshot import Snapshot

GROUP = "retr.side_data"
#: How a kind is called.
NAME = re.compile("[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class SideData:
    """What an index holds of one kind.

    Attributes
    ----------
    files, notes
        The names of its side files, and the keys of its notes.
    numbered
        Whether numbers of rows stand in them: only who knows the kind may give rows other numbers.
    version
        The commit that wrote them last; 0 where that is not known, of version 1.
    """

    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    numbered: bool = False
    version: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "files": sorted(self.files),
            "notes": sorted(self.notes),
            "numbered": self.numbered,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, data: object) -> SideData:
        """Read what `to_json` wrote; ``ValueError`` for anything else."""
        fields = Fields(data)
        return cls(fields.texts("files"), fields.texts("notes"), fields.flag("numbered"), fields.whole("version"))


@dataclass(frozen=True)
class Change:
    """What becomes of the data of a kind.

    Attributes
    ----------
    files, notes
        New contents by name; ``None`` drops one. What is not named stays as it is.
    arrays
        Row arrays to drop. Those that stay follow their rows by themselves.
    vectors
        Other vectors for all rows of the index, where the change means them.
    said
        What a person must know: what was dropped, a phrase each, with the command that makes it again.
    lines
        Row arrays to write anew, for all rows.
    """

    files: Mapping[str, bytes | None] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[str, ...] = ()
    vectors: NewVectors | None = None
    said: tuple[str, ...] = ()
    lines: Mapping[str, Lines] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether something goes, and is not only written anew."""
        return bool(self.arrays and not self.lines) or None in [*self.files.values(), *self.notes.values()]


@dataclass(frozen=True)
class Lines:
    """A row array that is written anew.

    Attributes
    ----------
    dtype, dim
        The type and number of each row's values.
    fill
        Returns the lines ``(n, dim)`` of some rows by their numbers.
    """

    dtype: str
    dim: int
    fill: Callable[[NDArray[np.int64]], Any]


@dataclass(frozen=True)
class NewVectors:
    """Other vectors for the rows of an index.

    Attributes
    ----------
    encoder
        Whose they are.
    fill
        Returns the vectors ``(n, dim)`` of some rows by their numbers, as they are stored.
    place
        Puts further vectors of the encoder's own ``(n, d)`` where the rows lie, ``(n, dim)``; ``None`` where those of
        before mean nothing any more, as those of another encoder do.
    """

    encoder: EncoderInfo
    fill: Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]]
    place: Callable[[NDArray[Any]], NDArray[np.floating[Any]]] | None = None


@dataclass(frozen=True)
class Move:
    """Where rows go that are merged, or copied into another index.

    Attributes
    ----------
    numbers
        int64 ``(n_total,)``: the new number of each row, -1 where it is left behind.
    same_vectors
        Whether they keep their vectors.
    """

    numbers: NDArray[np.int64]
    same_vectors: bool = True


class Kind(ABC):
    """One kind of side data: answers for the files, notes and row arrays of it that an index holds.

    Attributes
    ----------
    name
        What the manifest calls it.
    numbered
        Whether numbers of rows stand in its files or notes: then `carry` writes them anew.
    of_vectors
        Whether it means nothing to an index of the same rows with other vectors.
    """

    name: ClassVar[str]
    numbered: ClassVar[bool] = False
    of_vectors: ClassVar[bool] = True

    @abstractmethod
    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return, by file or note, what raises `IndexCorruptError` where it could not be used with this snapshot."""

    @abstractmethod
    def stale(self, snapshot: Snapshot) -> Iterable[str]:
        """Return why what is here was made for another snapshot than this and counts no longer, a phrase each."""

    @abstractmethod
    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Leave nothing of some rows, nor of any that was deleted before.

        Parameters
        ----------
        snapshot
            Still has the rows.
        gone
            int64: their numbers.

        Raises
        ------
        RetrError
            They cannot be taken out; nothing is purged then.
        """

    def rows(self, snapshot: Snapshot) -> NDArray[np.bool_] | None:  # noqa: ARG002
        """Return the rows that it names or was fitted on: bool ``(n_total,)``; ``None`` where that may be any."""
        return None

    def carry(self, snapshot: Snapshot, move: Move) -> Change:
        """Return what becomes of it where rows get other numbers, or are copied into another index.

        The default keeps it as it is, or drops what another index's vectors give no meaning to.
        """
        return Change() if move.same_vectors or not self.of_vectors else dropped(snapshot.manifest, self.name)

    def revectored(self, snapshot: Snapshot) -> Change:
        """Return what becomes of it where the rows of its index get other vectors.

        The default drops what other vectors give no meaning to. A kind that would find itself stale may stay, and say
        so.
        """
        return dropped(snapshot.manifest, self.name) if self.of_vectors else Change()

    def placed_anew(self, snapshot: Snapshot, new: NewVectors) -> Change:  # noqa: ARG002
        """Return what becomes of it where the new vectors are known; by default as `revectored` says."""
        return self.revectored(snapshot)


@dataclass(frozen=True)
class BuiltIn:
    """Where a kind of ours is, and by which names its files (up to a ``*``) and notes were told in version 1."""

    where: str
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


#: The kinds of this package. A new one has no names here: the manifest says what is of it.
BUILT_IN: dict[str, BuiltIn] = {
    "transform": BuiltIn("retr.retrieval.transforms.fitting:Transforms"),
    "head": BuiltIn("retr.retrieval.heads.adapted:FittedHead", ("head.npz", "views.npz"), ("adapted",)),
    "bridge": BuiltIn("retr.retrieval.text.align:Bridges", ("bridge.npz",), ("bridge",)),
    "calibration": BuiltIn("retr.retrieval.classify.calibration:Calibrations", notes=("calibration",)),
    "probe": BuiltIn("retr.retrieval.classify.probe:Probes", ("probe-*",)),
    "novelty": BuiltIn("retr.retrieval.novelty:Fences", notes=("novelty",)),
    "build": BuiltIn("retr.retrieval.archive.provenance:Builds", notes=("build",)),
    "identifiers": BuiltIn("retr.index.rows.identity:Identifiers", notes=("identifiers",)),
    "journal": BuiltIn("retr.retrieval.sets.kind:Journal"),
    "map": BuiltIn("retr.retrieval.curation.map:MapKind"),
    "regions": BuiltIn("retr.retrieval.regions.kind:Regions"),
    "tuning": BuiltIn("retr.index.plan:Tunings", notes=("tuning",)),
    "words": BuiltIn("retr.retrieval.words.kind:Words"),
}
_registered: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make a kind known in this process."""
    if NAME.fullmatch(kind.name) is None:
        raise ValueError(f"a kind of side data has a name such as 'raw-features', got {kind.name!r}")
    _registered[kind.name] = kind


def find_kind(name: str) -> Kind | None:
    """Return a kind by its name; ``None`` where this retr, and what is installed beside it, know none."""
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].where.partition(":")
        kind: Kind = getattr(import_module(module), attribute)()
    else:
        from importlib.metadata import entry_points

        try:
            kind = next(iter(entry_points(group=GROUP, name=name))).load()
        except (StopIteration, ImportError, AttributeError):
            return None
    _registered[name] = kind
    return kind


def known_kind(name: str, otherwise: str) -> Kind:
    """Return a kind by its name, or raise `RetrError`: without it ``otherwise`` is so."""
    kind = find_kind(name)
    if kind is None:
        raise RetrError(
            f"the index holds side data of the kind {name!r}, which this retr does not know: {otherwise}",
            hint="use the retr, or install the package, that wrote it",
        )
    return kind


def held(manifest: Manifest) -> dict[str, SideData]:
    """Return what an index holds of each kind: what the manifest says, and what the names of version 1 say."""
    said = dict(manifest.side_data)
    for array in manifest.row_arrays.values():
        said.setdefault(array.kind, SideData())
    found = {}
    for name, kind in BUILT_IN.items():
        files = tuple(file for file in manifest.files if any(_matches(file, form) for form in kind.files))
        notes = tuple(note for note in kind.notes if note in manifest.extra)
        if files or notes:
            found[name] = SideData(files, notes)
    for name, data in said.items():
        old = found.get(name, SideData())
        found[name] = replace(data, files=(*old.files, *data.files), notes=(*old.notes, *data.notes))
    return found


def of_no_kind(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the files and notes that are of no kind, as version 1 allowed; sorted."""
    kinds = held(manifest).values()
    files = set(manifest.files).difference(*(kind.files for kind in kinds))
    notes = set(manifest.extra).difference(*(kind.notes for kind in kinds))
    return sorted(files), sorted(notes)


def told_by_name(name: str) -> str | None:
    """Return the kind that a file or note of this name is of in either version; ``None`` where the manifest says."""
    for kind, one in BUILT_IN.items():
        if name in one.notes or any(_matches(name, form) for form in one.files):
            return kind
    return None


def dropped(manifest: Manifest, name: str, *said: str) -> Change:
    """Return the change that leaves nothing of a kind."""
    data = held(manifest).get(name, SideData())
    arrays = tuple(array for array, one in manifest.row_arrays.items() if one.kind == name)
    return Change(dict.fromkeys(data.files), dict.fromkeys(data.notes), arrays, said=said)


def _matches(file: str, form: str) -> bool:
    return file.startswith(form[:-1]) if form.endswith("*") else file == form
