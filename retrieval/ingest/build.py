"""Build an index from an archive, or update it.

What is asked is checked here before the encoder is loaded and anything is written: the archive holds a picture, the
options can be meant. The work itself is `retr.retrieval.ingest.pipeline`. A first build that fails leaves no index
behind.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from retr.index.errors import RetrError, UsageError
from retr.index.machine.hash_key import agreed_key
from retr.index.machine.home import home, index_folder
from retr.index.options import documents, taken
from retr.index.rows.items import named_columns
from retr.index.store import Store
from retr.retrieval.archive import locations, table_like
from retr.retrieval.archive.column_types import read_types, require_group
from retr.retrieval.archive.dicomweb import DicomWebSource
from retr.retrieval.archive.lists import ListSource, PathsSource
from retr.retrieval.archive.matching import clean
from retr.retrieval.archive.metadata import join_tables, read_metadata, require_match
from retr.retrieval.archive.opening import PACS, ArchiveLike, is_place, open_source
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.sources import Entry, Item, Other, Skipped, Source, may_be_dicom
from retr.retrieval.archive.table_like import is_file
from retr.retrieval.encoders.index_encoder import require_same
from retr.retrieval.images.dicom_header import HEADER_COLUMNS
from retr.retrieval.ingest.options import BuildOptions, Order
from retr.retrieval.ingest.reading import BuildJob, run_builds
from retr.retrieval.ingest.report import BuildReport
from retr.retrieval.ingest.rows import RESERVED, TAKEN, score_column
from retr.retrieval.regions.declaring import declare, require_compared, require_here, require_regions
from retr.retrieval.transforms.fitting import Transforms, Wanted, is_transformed, require_transformable
from retr.retrieval.transforms.transform import NOTE, without_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from retr.index.disk.manifest import Dtype
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.options import BuildKeywords
    from retr.retrieval.ingest.reading import Reader
    from retr.retrieval.progress import Progress

__all__ = ["BuildReport", "add", "build", "build_each"]


@documents(BuildOptions)
def build(
    archive: ArchiveLike | Source,
    index_path: Path | str,
    encoder: BaseEncoder | Callable[[], BaseEncoder],
    *,
    progress: bool | Progress = False,
    **options: Unpack[BuildKeywords],
) -> BuildReport:
    """Embed an archive into an index, or bring an existing index up to date with it.

    Parameters
    ----------
    archive
        Folder of images, one image, or whatever `retr.retrieval.archive.opening.open_source` opens: a list of paths,
        too; or a source.
    index_path
        The index to make or to update.
    encoder
        From ``load_encoder``, or what loads it; must be the one an existing index was built with.
    progress
        Show progress on standard error; or an object that shows it.
    options
        Fields of `BuildOptions`.

    Raises
    ------
    UsageError
        The archive does not exist or holds no picture, or an option contradicts the index.
    EncoderMismatchError
        The index was built with another encoder, or with other weights under the same name.
    IndexLockedError
        Another process is writing to the index.
    """
    return build_each(archive, {Path(index_path): encoder}, progress=progress, **options)[0]


@documents(BuildOptions)
def build_each(
    archive: ArchiveLike | Source,
    encoders: Mapping[Path, BaseEncoder | Callable[[], BaseEncoder]],
    *,
    progress: bool | Progress = False,
    reader: Reader | None = None,
    beside: Sequence[Path] = (),
    **options: Unpack[BuildKeywords],
) -> list[BuildReport]:
    """Embed an archive into several indexes in one reading, each by an encoder of its own; see `build`.

    What is asked is checked for all of them before anything is written into one.

    Parameters
    ----------
    archive, progress
        As in `build`.
    encoders
        For each index its encoder, from ``load_encoder``, or what loads it.
    reader
        Who reads the files; by default threads of this process.
    beside
        Folders that are no part of the archive, as the indexes are none.
    options
        Fields of `BuildOptions`, for all.

    Raises
    ------
    UsageError
        Also where two are the same index, or one lies in another.
    """
    ready = prepared(archive, [index_folder(path) for path in encoders], taken(BuildOptions, options, "build"), beside)
    paths, befores, asked = ready.paths, ready.befores, ready.asked
    loaded = [without_transform(one() if callable(one) else one) for one in encoders.values()]
    wanted = [agreed_transform(before, one, asked) for before, one in zip(befores, loaded, strict=True)]
    for one in loaded:
        require_compared(one, asked.regions)
    require_here(asked.regions, befores, reader)
    fresh: dict[Path, int] = {}
    try:
        jobs = []
        for path, order, before, encoder, transform in zip(paths, ready.orders, befores, loaded, wanted, strict=True):
            store = _created(path, encoder, asked, transform) if before is None else Store.open(path)
            if before is None:
                fresh[path] = store.version
            jobs.append(BuildJob(order, encoder, store))
        built = run_builds(jobs, progress, reader)
    except BaseException:
        # whatever it was: an index without rows is none
        for path, version in fresh.items():
            if Store.open(path).version == version:
                shutil.rmtree(path)
        raise
    empty = [number for number, path in enumerate(paths) if path in fresh and not built[number][0].rows]
    for number in empty:
        # nothing could be read: an index without rows would hide that
        shutil.rmtree(paths[number])
    if empty:
        report, reasons = built[empty[0]]
        raise _no_picture(_called(archive, ready.source), reasons, report.other_files)
    return [report for report, _ in built]


@dataclass(frozen=True)
class Prepared:
    """What is to be built, after it was checked: nothing is embedded or written yet.

    Attributes
    ----------
    paths, befores
        The indexes, and each as it is, None where it is to be made.
    asked
        How, with what the indexes noted of the archive.
    source, orders
        The archive, and what is to be done for each index.
    """

    paths: list[Path]
    befores: list[Store | None]
    asked: BuildOptions
    source: Source
    orders: list[Order]


def prepared(
    archive: ArchiveLike | Source, paths: list[Path], asked: BuildOptions, beside: Sequence[Path] = ()
) -> Prepared:
    """Look at an archive and at the indexes that are to be built from it, and refuse what cannot be meant.

    Parameters
    ----------
    beside
        Folders that are no part of the archive, as the indexes are none.
    """
    _require_apart(paths)
    befores = [Store.open(path) if Store.exists(path) else None for path in paths]
    notes = [BuildNotes() if before is None else BuildNotes.of(before) for before in befores]
    for before in befores:
        if before is not None:
            _require_dtype(before, asked.dtype)
            _require_shards(before, asked.shards)
            require_regions(before, asked.regions)
    column = asked.image_column or _agreed([note.image_columns.get("") for note in notes], "column of pictures")
    asked = replace(asked, image_column=column)
    known = [locations.recall_sources(before.uuid).get("") for before in befores if before is not None]
    source = _opened(archive, paths, asked, _agreed(known, "archive"), beside)
    listed = _with_first_item(source, _called(archive, source))
    orders = [_order(source, listed, archive, before, asked) for before in befores]
    for order, before in zip(orders, befores, strict=True):
        _require_columns(order, before, asked.types or ())
    return Prepared(paths, befores, asked, source, orders)


@documents(BuildOptions)
def add(
    source: ArchiveLike,
    index_path: Path | str,
    encoder: BaseEncoder | Callable[[], BaseEncoder],
    *,
    name: str | None = None,
    progress: bool | Progress = False,
    **options: Unpack[BuildKeywords],
) -> BuildReport:
    """Embed a further folder, or one image, into an existing index; its ids begin with ``name/``.

    Parameters
    ----------
    name
        By default the folder's name. The same name again brings that part of the index up to date.
    source, index_path, encoder, progress
        As in `build`.
    options
        Fields of `BuildOptions`.

    Raises
    ------
    UsageError
        The name cannot be part of an id, or ids of the index begin with it already.
    """
    asked, store = taken(BuildOptions, options, "add"), Store.open(index_path)
    _require_dtype(store, asked.dtype)
    _require_shards(store, asked.shards)
    require_regions(store, asked.regions)
    chosen = BuildNotes.of(store).image_columns.get(name or Path(source).name) if is_place(source) else None
    asked = replace(asked, image_column=asked.image_column or chosen)
    if name is not None:
        _require_name(name)
    root = None if name is None else locations.recall_sources(store.uuid).get(name)
    opened = _opened(source, [store.path], asked, root)
    name = Path(opened.location).name if name is None else name
    _require_name(name)
    order = _order(opened, _with_first_item(opened, _called(source, opened)), source, store, asked, name)
    _require_columns(order, store, asked.types or ())
    loaded = without_transform(encoder() if callable(encoder) else encoder)
    agreed_transform(store, loaded, asked)
    return run_builds([BuildJob(order, loaded, store)], progress)[0][0]


def _require_name(name: object) -> None:
    plain = isinstance(name, str) and name.isprintable() and not name.startswith(".")
    if not (plain and name and "/" not in str(name) and "::" not in str(name)):
        raise UsageError(f"a source's name must be one plain word, got: {name!r}", hint="give another with --name")


def _require_apart(paths: Sequence[Path]) -> None:
    """Refuse two indexes in one place, or one in another."""
    places = [path.absolute().resolve() for path in paths]
    for number, place in enumerate(places):
        for other, path in zip(places[:number], paths, strict=False):
            if place.is_relative_to(other) or other.is_relative_to(place):
                where = "are one folder" if place == other else "lie one in the other"
                said = f"the indexes {str(path)!r} and {str(paths[number])!r} {where}"
                raise UsageError(said, hint="give each a folder of its own")


def _agreed(found: Iterable[str | None], what: str) -> str | None:
    """Return what indexes that are built together noted, which must be one; None where none has."""
    several = list(dict.fromkeys(one for one in found if one is not None))
    if len(several) > 1:
        raise UsageError(f"the indexes were not built from one {what}", hint="build them one at a time")
    return several[0] if several else None


def _opened(
    archive: ArchiveLike | Source,
    indexes: Sequence[Path],
    asked: BuildOptions,
    root: str | None,
    beside: Sequence[Path] = (),
) -> Source:
    # a table beside the archive is what the column of paths is of
    path_column = asked.path_column if asked.metadata is None else None
    return open_source(
        archive,
        leave_out=(*indexes, *beside),
        path_column=path_column,
        image_column=asked.image_column,
        root=root,
        key=partial(_key, indexes),
    )


def _key(indexes: Sequence[Path]) -> bytes:
    """Return the key of hashed identifiers; one is made only where no index has hashes."""
    identities = [Store.open(path).identity for path in indexes if Store.exists(path)]
    recorded = next((one.fingerprint for one in identities if one.fingerprint is not None), None)
    return agreed_key(recorded, make=not any(one.hashed_columns for one in identities))


def _created(path: Path, encoder: BaseEncoder, asked: BuildOptions, wanted: Wanted | None) -> Store:
    """Make an index, with the files that its encoder needs and the note of the transform that it is to have."""
    store = Store.create(path, encoder=encoder.info, dtype=asked.dtype or "float32", shards=asked.shards or 1)
    if not encoder.files and wanted is None and asked.regions is None:
        return store
    with store.writer() as writer:
        for name, data in encoder.files.items():
            writer.add_file(name, data)
        if wanted is not None:
            writer.note(NOTE, wanted.to_json(), kind=Transforms())
        if asked.regions is not None:
            declare(writer, asked.regions, wanted)
        return writer.commit()


def agreed_transform(before: Store | None, encoder: BaseEncoder, asked: BuildOptions) -> Wanted | None:
    """Return the transform that a new index of an encoder is to have.

    Raises
    ------
    EncoderMismatchError
        An index that is there was built with another encoder.
    UsageError
        It keeps to another transform, or the encoder takes none.
    """
    if before is not None:
        require_same(before.manifest.encoder.own, encoder.info)
        kept = "none" if Wanted.of(before) is None else "whitening"
        if asked.transform not in {"auto", kept}:
            raise UsageError(
                f"the index is built with the transform {kept!r}, got: {asked.transform!r}",
                hint="`retr index refit` fits one" if kept == "none" else "build a new index with --index PATH",
            )
        return None
    if asked.transform == "auto":
        return Wanted() if is_transformed(encoder) else None
    if asked.transform == "none":
        return None
    require_transformable(encoder.info)
    return Wanted()


def _require_dtype(store: Store, dtype: Dtype | None) -> None:
    """Refuse another type of vectors than an index has."""
    kept = store.manifest.dtype
    if dtype not in {None, kept}:
        raise UsageError(
            f"the index stores its vectors as {kept!r}, got: {dtype!r}",
            hint="leave the dtype out to keep what is recorded, or build a new index with --index PATH",
        )


def _require_shards(store: Store, shards: int | None) -> None:
    """Refuse another number of shards than an index has."""
    kept = store.manifest.shards or 1
    if shards not in {None, kept}:
        raise UsageError(
            f"the index has {kept} shard{'s' if kept > 1 else ''}, got: {shards!r}",
            hint=f"`retr index shard --into {shards}` spreads its rows over that many",
        )


def _require_columns(order: Order, before: Store | None, types: Iterable[str]) -> None:
    """Refuse a column, of patients, cases or types, that neither index nor table has and the archive cannot bring."""
    source, present = order.source, () if before is None else before.schema.names
    group = order.asked.group or (None if before is None else before.manifest.group)
    columns = [*RESERVED, *present, *order.first.columns, *map(score_column, order.asked.scores or ())]
    columns += [] if order.table is None else order.table.table.column_names
    columns += [] if order.table is None else list(order.table.renamed)
    if order.asked.item is not None and source.count() is not None:
        brought = HEADER_COLUMNS if any(may_be_dicom(entry.path) for entry in source.entries()) else ()
        named_columns(list(dict.fromkeys([*columns, *brought])), group, order.asked.item)
    for column in [*([] if order.asked.group is None else [order.asked.group]), *types]:
        # the members of a container may have columns of any name: only reading them tells
        if column in columns or source.count() is None:
            continue
        if column in HEADER_COLUMNS and any(may_be_dicom(entry.path) for entry in source.entries()):
            continue
        raise UsageError(f"there is no column {column!r}", hint=f"the columns are {', '.join(dict.fromkeys(columns))}")


def _order(
    source: Source,
    listing: tuple[Item, Iterator[Entry]],
    archive: ArchiveLike | Source,
    before: Store | None,
    asked: BuildOptions,
    name: str = "",
) -> Order:
    """Look at the archive and its tables, and check what is asked; indexes built together share the listing."""
    if asked.prune and not getattr(source, "whole", True):
        raise UsageError(
            "the address names some of the studies, and pruning would drop all others",
            hint="leave out --prune, or what is behind the ?",
        )
    first, entries = listing
    types = {} if before is None else BuildNotes.of(before).types
    types |= read_types(asked.types or {})
    group = asked.group or (None if before is None else before.manifest.group)
    require_group(group, types)
    reading: dict[str, Any] = {"reserved": TAKEN, "types": types, "group": group}
    table = None
    if asked.metadata is not None:
        roots = [source.location, *([str(home(os.fspath(archive)).absolute())] if is_place(archive) else [])]
        spelled = (
            source.relative if isinstance(source, PathsSource | DicomWebSource) else lambda path: clean(path, roots)
        )
        reading |= {"relative": spelled, "path_column": asked.path_column}
        given = asked.metadata
        table = read_metadata(home(os.fspath(given)) if is_file(given) else given, **reading)
    if isinstance(source, ListSource):
        reading |= {"relative": source.relative, "path_column": asked.path_column if asked.metadata is None else None}
        listed = read_metadata(source.file, **reading)
        table = listed if table is None else join_tables(listed, table)
    elif table is not None:
        pictures = (entry.path for entry in source.entries() if isinstance(entry, Item))
        require_match(table, itertools.chain([first.path], pictures), table_like.called(asked.metadata))
    return Order(source, entries, first, replace(asked, types=types), name, table)


def _called(archive: object, source: Source) -> str:
    """Return what errors call an archive."""
    return os.fspath(archive) if is_place(archive) else f"a list of {source.count()} paths"


def _with_first_item(source: Source, called: str) -> tuple[Item, Iterator[Entry]]:
    """Return the first item and all entries, or the error that there is no picture among them."""
    entries = source.entries()
    head: list[Entry] = []
    for entry in entries:
        head.append(entry)
        if isinstance(entry, Item):
            return entry, itertools.chain(head, entries)
    reasons = Counter(entry.reason for entry in head if isinstance(entry, Skipped))
    raise _no_picture(called, reasons, sum(isinstance(entry, Other) for entry in head))


def _no_picture(called: str, reasons: Counter[str], others: int) -> RetrError:
    parts = [f"{count} {reason}" for reason, count in sorted(reasons.items())]
    parts += [f"{others} other files"] if others else []
    found = f" ({', '.join(parts)})" if parts else ""
    return UsageError(
        f"archive {called!r} holds no picture that can be read{found}",
        hint="look at its address, and at what is behind the ?"
        if called.lower().startswith(PACS)
        else "give a folder with JPEG, PNG, TIFF, BMP, WebP or GIF files",
    )
