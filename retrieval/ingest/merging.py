"""Make one index of the parts of a build.

The archive is listed once more, and each file's rows are taken from its part: what is new, changed, gone, labelled and
deleted is settled by the one pipeline of all builds, so the index is what an undisturbed build would have made. It is
one commit, whenever a process is killed: a new index gets its name when it is whole.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retr.index.disk.files import disk_errors
from retr.index.errors import EncoderMismatchError, RetrError, UsageError
from retr.index.machine.hash_key import agreed_key
from retr.index.machine.home import index_folder
from retr.index.rows.placing import shard_of
from retr.index.store import Store
from retr.retrieval.archive.sources import Item, Skipped
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.ingest.build import build_each
from retr.retrieval.ingest.part_folder import Listing, Part, PartRecord, found_parts, parts_folder, read_unit
from retr.retrieval.ingest.staged import mark_of, state_of
from retr.system import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.retrieval.archive.sources import Entry
    from retr.retrieval.ingest.decode import Read, Unchanged
    from retr.retrieval.ingest.pipeline import Run
    from retr.retrieval.ingest.report import BuildReport
    from retr.retrieval.ingest.staged import Unit

# So many units are mapped at once.
_MAPPED = 128
_MERGED = "merged"


class _Embedded(BaseEncoder):
    """Stands for the encoder that embedded the parts: nothing is left to embed."""

    def __init__(self, record: PartRecord) -> None:
        self.info, self.batch_size, self.notes = record.encoder, record.batch, []

    def prepare(self, image: Any) -> NDArray[Any]:  # noqa: ARG002
        """Raise `RetrError`."""
        raise RetrError("a file of the parts has no vector", hint="build the parts again")

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Raise `RetrError`."""
        return self.prepare(batch)


class Staged:
    """A `Reader` of what the parts hold.

    Parameters
    ----------
    index
        Beside which they lie.
    records
        Of all parts, in order.
    """

    one_commit = True

    def __init__(self, index: Path, records: Sequence[PartRecord]) -> None:
        self._records = records
        self._folders = [record.part.folder(index) for record in records]
        self._listings = [Listing() for _ in records]
        self._units = [(number, name) for number, record in enumerate(records) for name in sorted(record.units)]
        self._mapped: OrderedDict[int, Unit] = OrderedDict()
        self._verified = np.zeros(len(self._units), bool)
        self._dim = 0

    def begin(self, runs: Sequence[Run]) -> int:
        """Find what the parts hold; `UsageError` where their identifiers are hashed with a key that is not here."""
        self._dim = runs[0].encoder.info.dim
        key = next((record.key for record in self._records if record.key), None)
        if key is not None:
            agreed_key(key)
            runs[0].key()
        marks, places = [np.empty(0, np.uint64)], [np.empty((0, 2), np.uint32)]
        for number in range(len(self._units)):
            unit = self._unit(number, verify=False)
            marks.append(np.array([mark_of(unit.listed(at)) for at in range(len(unit))], np.uint64))
            places.append(
                np.column_stack([np.full(len(unit), number, np.uint32), np.arange(len(unit), dtype=np.uint32)])
            )
        found = np.concatenate(marks)
        # stable: of a file that was read again what came last counts
        order = np.argsort(found, kind="stable")
        self._marks, self._places = found[order], np.concatenate(places)[order]
        return 1

    def _unit(self, number: int, *, verify: bool = True) -> Unit:
        """Map a unit, once it was found to be as it was written."""
        part, name = self._units[number]
        wanted = None if self._verified[number] or not verify else self._records[part].units[name]
        if number not in self._mapped or wanted is not None:
            self._mapped[number] = read_unit(self._folders[part], name, wanted)
            self._verified[number] |= verify
            if len(self._mapped) > _MAPPED:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(number)
        return self._mapped[number]

    def watch(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Look on as the archive is listed; `UsageError` where it is not what the parts were built from."""
        of = len(self._records)
        for entry in entries:
            if isinstance(entry, Item):
                self._listings[shard_of(entry.path, of)].add(entry)
            yield entry
        changed = [
            record.part for record, now in zip(self._records, self._listings, strict=True) if record.listing != now
        ]
        if changed:
            raise _changed(changed)

    def submit(self, asking: Sequence[tuple[Run, Item, int]]) -> Future[list[Read | Unchanged | Skipped]]:
        """Return what a part has of a file."""
        done: Future[list[Read | Unchanged | Skipped]] = Future()
        ((run, item, rows),) = asking
        done.set_result([settled(run, rows, self._found(item))])
        return done

    def _found(self, item: Item) -> Read | Skipped:
        state = state_of(item)
        mark = np.uint64(mark_of(state))
        for at in reversed(range(self._marks.searchsorted(mark), self._marks.searchsorted(mark, "right"))):
            number, row = self._places[at].tolist()
            unit = self._unit(number)
            if unit.listed(row) == state:
                return unit.found(row, item, self._dim)
        raise _changed([self._records[shard_of(item.path, len(self._records))].part])

    def flush(self) -> None:
        """Do nothing: everything is there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._mapped.clear()


def settled(run: Run, rows: int, found: Read | Skipped) -> Read | Unchanged | Skipped:
    """Return what an index makes of a file that was read away from it: of bytes that it has its own rows.

    Raises
    ------
    UsageError
        Who read it believed that the index has its bytes, and it has not.
    """
    if isinstance(found, Skipped):
        return found
    known = run.decoder.known(found, None, rows)
    if known is None and not found.frames:
        raise UsageError("the index changed since a part was built", hint="build the parts again")
    return known or found


def _changed(parts: Sequence[Part]) -> UsageError:
    named = ", ".join(map(str, parts))
    return UsageError(
        f"the archive is not what part {named} was built from: it changed",
        hint=f"build that again with --part {parts[0]}: only what is new or changed is embedded",
    )


def merge_parts(index: Path | str, *, progress: bool = False) -> BuildReport:
    """Make one index of the parts that lie beside it, or bring it up to date with them; see `Index.merge`."""
    path = index_folder(index)
    records = _records(path)
    first, beside = records[0], parts_folder(path)
    before = Store.open(path) if Store.exists(path) else None
    state = None if before is None else [before.uuid, before.version]
    if first.settings["index"] != state:
        then = (
            "for a new index" if first.settings["index"] is None else "when the index was another, or in another state"
        )
        raise UsageError(
            f"the parts were built {then}",
            hint=f"build them again; if they are merged already, remove the folder {beside.name!r}",
        )
    where = beside / _MERGED if before is None else path
    if before is None:
        with disk_errors("removing what a merge that was stopped left"):
            shutil.rmtree(where, ignore_errors=True)
    job = {where: _Embedded(first)}
    reader = Staged(path, records)
    report = build_each(first.archive, job, progress=progress, reader=reader, beside=[path, beside], **first.asked)[0]
    if before is None:
        try:
            where.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            raise RetrError(
                f"the merged index cannot get its name: {error.strerror}",
                hint="look at what lies there, and merge again",
            ) from None
    shutil.rmtree(beside, ignore_errors=True)
    devices = sorted({record.encoder.device.partition(":")[0] for record in records})
    if len(devices) > 1:
        mixed = f"the parts were embedded on {' and '.join(devices)}: the last bits of their vectors depend on that"
        report = replace(report, notes=(*report.notes, mixed))
    return report


def _records(index: Path) -> list[PartRecord]:
    """Return the records of all parts, in order; `UsageError` unless all are there and fit each other."""
    found = list(found_parts(index))
    if not found:
        raise UsageError(
            f"there are no parts beside {index.name!r}", hint="make them with `retr index build --part 1/8`"
        )
    counts = sorted({part.of for part in found})
    if len(counts) > 1:
        raise UsageError(
            f"there are parts of {' and of '.join(map(str, counts))}",
            hint="remove the folders of those that are not meant",
        )
    every = [Part(number, counts[0]) for number in range(1, counts[0] + 1)]
    read = [PartRecord.read(part.folder(index), part) if part in found else None for part in every]
    missing = [str(part) for part, record in zip(every, read, strict=True) if record is None]
    if missing:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise UsageError(
            f"{len(missing)} of {counts[0]} parts are missing or not finished: {shown}",
            hint=f"build them with the same options and --part {missing[0]}",
        )
    records = [record for record in read if record is not None]
    for record in records[1:]:
        _require_alike(records[0], record)
    return records


def _require_alike(first: PartRecord, other: PartRecord) -> None:
    """Refuse a part that was built otherwise than the first."""
    again = f"build one of them again, with --part {first.part} or --part {other.part}"
    if not first.encoder.own.agrees_with(other.encoder.own) or first.settings["encoder"] != other.settings["encoder"]:
        what = (first.encoder.name, other.encoder.name)
        how = (
            f"{what[1]!r} instead of {what[0]!r}" if what[0] != what[1] else f"another {what[0]!r}: weights or options"
        )
        raise EncoderMismatchError(f"part {other.part} was built with {how}, unlike part {first.part}", hint=again)
    pairs: dict[str, tuple[Any, Any]] = {
        "the archive's place": (first.archive, other.archive),
        "the key of hashed identifiers": (first.key, other.key),
    }
    pairs |= {name: (first.asked.get(name), other.asked.get(name)) for name in sorted({*first.asked, *other.asked})}
    pairs |= {name: (first.settings[name], other.settings.get(name)) for name in first.settings}
    for name, (one, two) in pairs.items():
        # a part without identifiers has no key
        if one != two and not (name.startswith("the key") and "" in {one, two}):
            said = f"{name} {two!r}, and part {first.part} with {one!r}"
            raise UsageError(f"part {other.part} was built with {said}", hint=again)
