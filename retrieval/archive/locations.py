"""Remember where an index's archives lie on this machine.

An index travels; the absolute path of its archive is kept in this machine's state (`retr.retrieval.machine_state`),
under the index's uuid and the source's name, which is also the first part of the ids of rows that were added with a
name.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from retr.index.errors import ImageReadError, RetrError, UsageError
from retr.index.machine.hash_key import agreed_key
from retr.index.rows.row_ids import unknown_id
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.machine_state import read_locations, write_locations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retr.index.store import Store
    from retr.retrieval.archive.sources import Source

# stores that have an address for each file
_STORES = ("s3://", "gs://", "az://", "http://", "https://")


def remember_source(uuid: str, name: str, location: str) -> None:
    """Note that the source ``name`` of index ``uuid`` lies at ``location`` (an absolute path or a URL)."""
    locations = recall_sources(uuid)
    if locations.get(name) != location:
        write_locations("archives", uuid, {**locations, name: location})


def recall_sources(uuid: str) -> dict[str, str]:
    """Return what is known of the index's sources: name to location; empty when nothing is."""
    return read_locations("archives", uuid)


def forget_source(uuid: str, name: str) -> None:
    """Forget where a source lay, and its name."""
    locations = recall_sources(uuid)
    if locations.pop(name, None) is not None:
        write_locations("archives", uuid, locations)


def source_of(path: str, names: list[str]) -> tuple[str, str]:
    """Split a row's path into its source's name and the path inside that source.

    >>> source_of("site2/a/b.png", ["", "site2"]), source_of("a/b.png", ["", "site2"])
    (('site2', 'a/b.png'), ('', 'a/b.png'))
    """
    first, slash, rest = path.partition("/")
    return (first, rest) if slash and first in names and first else ("", path)


def locate(store: Store, path: str, locations: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return where a row's source lies on this machine, and the row's path inside it.

    Parameters
    ----------
    locations
        What `recall_sources` returned, where many rows are asked for.

    Raises
    ------
    RetrError
        Nothing is known of the source on this machine.
    """
    locations = recall_sources(store.uuid) if locations is None else locations
    name, inside = source_of(path, BuildNotes.of(store).sources)
    if name in locations:
        return locations[name], inside
    # an index that was copied together with its archive, as `.retr` inside it or as a neighbour of the files
    beside = Path(store.path).resolve().parent
    if not name and (beside / inside.partition("::")[0]).exists():
        return str(beside), inside
    raise RetrError(
        f"this machine does not know where the archive of {str(store.path)!r} lies",
        hint="run `retr index build ARCHIVE` once with the archive's place; nothing is embedded again",
    )


def file_places(store: Store, paths: Iterable[str]) -> list[str]:
    """Return where the files of rows lie on this machine: absolute paths, or addresses in a store, each file once.

    Parameters
    ----------
    paths
        As rows have them: relative to their source, behind its name.

    Raises
    ------
    RetrError
        Nothing is known of a source on this machine, or a picture is not a file of its own: it lies in a container, in
        a table, or at a PACS.
    """
    locations, folders = recall_sources(store.uuid), dict[str, bool]()
    found: dict[str, None] = {}
    for path in paths:
        location, inside = locate(store, path, locations)
        if location not in folders:
            folders[location] = location.startswith(_STORES) if "://" in location else Path(location).is_dir()
        place = f"{location.rstrip('/')}/{inside}"
        if not folders[location] or ("::" in inside and not Path(place).exists()):
            raise RetrError(
                f"the picture {path!r} is not a file of its own",
                hint="`retr show ID --out FILE` and `retr sets export SET FOLDER` write copies; --ids prints ids",
            )
        found[place] = None
    return list(found)


def open_item(store: Store, item: str) -> bytes:
    """Return the bytes of the file a row was made from.

    Parameters
    ----------
    store
        The index.
    item
        A row's id: ``"a/b.png"``, ``"scan.dcm#3"`` or ``"shards/0001.tar::a/b.png"``.

    Raises
    ------
    UsageError
        No row has the id.
    RetrError
        The archive's place is unknown here, or the file is gone.
    """
    rows = store.rows_of([item])
    if rows[0] < 0:
        raise unknown_id(store, item)
    return Archive(store).read(str(store.table(["path"], rows)["path"][0].as_py()))


class Archive:
    """The files behind an index's rows, wherever they lie on this machine; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()

    def _key(self) -> bytes:
        return agreed_key(self._store.identity.fingerprint)

    def in_reach(self, path: str) -> bool:
        """Return whether this machine knows the place of a row's source, and something is there."""
        try:
            location, _ = locate(self._store, path)
        except RetrError:
            return False
        return "://" in location or Path(location).exists()

    def read(self, path: str) -> bytes:
        """Return the bytes of a row's file, by the row's path.

        Raises
        ------
        RetrError
            The archive's place is unknown here, or the file is gone.
        """
        from retr.retrieval.archive.opening import open_source
        from retr.retrieval.archive.sources import reason_of

        location, inside = locate(self._store, path)
        try:
            with self._lock:
                if location not in self._sources:
                    notes = BuildNotes.of(self._store)
                    column = notes.image_columns.get(source_of(path, notes.sources)[0])
                    self._sources[location] = open_source(location, image_column=column, key=self._key)
            return self._sources[location].read(inside)[0]
        except (OSError, ImageReadError, UsageError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else "missing"
            raise RetrError(
                f"cannot read {path!r} from its archive: {reason}",
                hint="bring the archive back, or run `retr index build ARCHIVE` with its new place",
            ) from None
