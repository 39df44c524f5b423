"""The manifest's record of an index's builds, which later builds keep to.

The manifest holds it under ``"build"``::

    {"exact_decode": false, "frames": 1, "axis": "axial", "scores": [], "sources": [""],
     "metadata": {"": {"sha256": "...", "columns": ["label"]}}, "types": {"dose": "number"},
     "beside": ["cls"], "image_columns": {"": "image"}}

``metadata`` is what the table of each source brought, ``beside`` the columns that came with the pictures themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from retr.index.disk.side_data import Change, Kind
from retr.index.errors import UsageError
from retr.index.json_fields import Fields, stored
from retr.index.machine.arrow import pc
from retr.index.options import declared, part
from retr.retrieval.read_options import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot

BUILDS_NOTE = "build"


@dataclass
class BuildNotes:
    """What the manifest notes about the builds of an index."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    scores: tuple[str, ...] = ()
    sources: list[str] = field(default_factory=list)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    image_columns: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Snapshot) -> BuildNotes:
        """Read what earlier builds noted; empty for a new index."""
        with stored("the notes of builds"):
            noted = Fields(store.manifest.extra.get(BUILDS_NOTE, {}))
            tables = noted.inner("metadata", {})
            for name in tables:
                tables.inner(name).texts("columns", ())
            types, images = noted.inner("types", {}), noted.inner("image_columns", {})
            return cls(
                reading=ReadOptions(**{name: _noted(noted, name, hint) for name, hint in _kept()}),
                scores=noted.texts("scores", ()),
                sources=list(noted.texts("sources", ())),
                metadata={name: dict(tables.inner(name).data()) for name in tables},
                types={name: types.text(name) for name in types},
                beside=list(noted.texts("beside", ())),
                image_columns={name: images.text(name) for name in images},
            )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            **{name: getattr(self.reading, name) for name, _ in _kept()},
            "scores": list(self.scores),
            "sources": self.sources,
            "metadata": self.metadata,
            **({"types": self.types} if self.types else {}),
            **({"beside": self.beside} if self.beside else {}),
            **({"image_columns": self.image_columns} if self.image_columns else {}),
        }

    def agree(self, store: Snapshot, name: str, asked: ReadOptions, scores: Sequence[str] | None) -> None:
        """Settle what this build does; an index without rows takes what is asked, one with rows keeps what it has.

        Raises
        ------
        UsageError
            What is asked contradicts what the rows were built with.
        """
        reading = part(ReadOptions, asked)
        kept = [name for name, _ in _kept()]
        if not len(store):
            self.reading, self.scores = reading, tuple(scores or ())
        for what, wanted, has in (
            *((one, getattr(asked, one), getattr(self.reading, one)) for one in kept if one in asked.given),
            ("scores", None if scores is None else list(scores), list(self.scores)),
        ):
            if wanted is not None and wanted != has:
                raise UsageError(
                    f"the index was built with {what} {has!r}, got: {wanted!r}",
                    hint="leave it out to keep what is recorded, or build a new index",
                )
        self.reading = replace(reading, **{one: getattr(self.reading, one) for one in kept})
        if name not in self.sources:
            if name and len(store) and pc.any(pc.starts_with(store.table(["path"])["path"], f"{name}/")).as_py():
                raise UsageError(f"ids of the index begin with {name!r} already", hint="give another name with --name")
            self.sources.append(name)

    def metadata_columns(self, name: str | None = None) -> list[str]:
        """Return the columns that the metadata table of one source, or of any, brought."""
        chosen = self.metadata.values() if name is None else [self.metadata.get(name, {})]
        return list(dict.fromkeys(column for noted in chosen for column in noted.get("columns", ())))


def _kept() -> list[tuple[str, Any]]:
    """Return the reading options that an index keeps, with their types."""
    return [(name, hint) for name, (hint, option) in declared(ReadOptions).items() if option.kept]


def _noted(noted: Fields, name: str, hint: Any) -> Any:
    """Return a reading option as it was noted, or the default where an older version noted none."""
    default = getattr(ReadOptions(), name)
    if get_args(hint):
        return noted.choice(name, get_args(hint), default)
    if hint is int:
        return noted.whole(name, default)
    return noted.flag(name, default=default) if hint is bool else noted.text(name, default)


class Builds(Kind):
    """The notes about builds, as a kind of side data."""

    name = "build"
    of_vectors = False

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads them."""
        return {BUILDS_NOTE: lambda: BuildNotes.of(snapshot)}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: every build writes them anew."""
        return ()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Forget the sources of which every row goes: a source may be named after a patient."""
        notes = BuildNotes.of(snapshot)
        if not len(gone) or not any(notes.sources):
            return Change()
        stays = np.ones(snapshot.n_total, bool)
        stays[gone] = False
        left = snapshot.table(["path"], np.flatnonzero(stays))["path"]
        empty = [name for name in notes.sources if name and not pc.any(pc.starts_with(left, f"{name}/")).as_py()]
        for name in empty:
            notes.sources.remove(name)
            notes.metadata.pop(name, None)
            notes.image_columns.pop(name, None)
        said = tuple(f"the source {name!r}, of which no row is left" for name in empty)
        return Change(notes={BUILDS_NOTE: notes.to_json()} if empty else {}, said=said)
