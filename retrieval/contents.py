"""The index as a Python collection: rows by id, context manager, notebook display, pickling.

A pickle of an index, and a copy, is its place, its version and its options: another process (a worker of joblib or of
Ray, a ``DataLoader`` that spawns) opens the same version again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from retr.index.disk.schema import records
from retr.index.errors import EncoderNotFoundError, IndexNotFoundError, UsageError
from retr.index.listed import listed
from retr.index.once import Once
from retr.index.rows import row_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from retr.index.rows.check import Finding
    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.images import Picture
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.ingest.report import BuildReport


def encoder_key(store: Store) -> tuple[Any, ...]:
    """Return what `IndexContents` keeps the loaded encoder of an index under: who it is, without a transform."""
    return store.manifest.encoder.own.identity


class IndexContents:
    """The rows of an index by id and as a table, and its life from opening to `close`.

    >>> import pickle, tempfile
    >>> from retr import Index
    >>> rows, own = {"id": ["a", "b"], "label": ["healthy", "glaucoma"]}, {"encoder": "mine", "fingerprint": "1"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Index.from_vectors([[1.0, 0.0], [0.0, 1.0]], rows, f"{folder}/i", **own) as index:
    ...         "b" in index, list(index), index["b"]["label"], len(pickle.loads(pickle.dumps(index)))
    (True, ['a', 'b'], 'glaucoma', 2)
    """

    def __init__(self, store: Store, options: Mapping[str, Any] | None) -> None:
        self._store: Store | None = store
        self._path = store.path
        self._options, self._options_of = dict(options or {}), encoder_key(store)
        # the encoder and what follows it, shared with what `snapshot` returns
        self._loaded, self._followed = Once(most=2), Once(most=2)
        self._bridges = Once(most=2)
        self._moving = threading.Lock()
        self.report: BuildReport | None = None

    # opened and closed

    @property
    def store(self) -> Store:
        """The snapshot that is asked: vectors and metadata at rest.

        Raises
        ------
        UsageError
            The index is closed.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.store.n_total
        24
        """
        if self._store is None:
            raise UsageError(f"the index {self._path.name!r} is closed", hint="open it again with `Index.open`")
        return self._store

    @store.setter
    def store(self, store: Store) -> None:
        self._store = store

    @property
    def path(self) -> Path:
        """The index folder.

        >>> from retr.sample import sample_index
        >>> sample_index().path.name
        'sample.retr'
        """
        return self._path

    @property
    def version(self) -> int:
        """The committed version that is searched; each commit has the next number.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> before = index.version
        >>> index.set_group(None)
        >>> index.version - before
        1
        """
        return self.store.version

    def close(self) -> None:
        """Let go of the mapped files and the encoder; asked anything afterwards, the index raises `UsageError`.

        Hits that were given keep the snapshot they were found in, and a search that another thread has begun ends as it
        would have. Processes that hold shards on other machines end.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.close()
        >>> len(index)
        Traceback (most recent call last):
        ...
        retr.index.errors.UsageError: ...
        """
        if self._store is not None and self._store.remote is not None:
            self._store.remote.close()
        self._store, self._loaded, self._followed, self._bridges = None, Once(), Once(), Once(most=2)

    def snapshot(self) -> Self:
        """Return an index that stays on this version, whatever `refresh` does to this one; the encoder is shared.

        Several questions that belong together, such as those of one request to a server, then see the same rows.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> same = index.snapshot()
        >>> index.delete(where="label = 'healthy'"), len(index), len(same)
        (12, 12, 24)
        """
        same = object.__new__(type(self))
        same.__dict__.update(self.__dict__)
        _ = same.store  # an error here, where this one is closed
        return same

    def __enter__(self) -> Self:
        _ = self.store  # an error here, where it is closed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name, store = type(self).__name__, self._store
        if store is None:
            return f"{name}({self._path.name!r}, closed)"
        info = store.manifest.encoder
        return f"{name}({self._path.name!r}, {len(store)} rows, {info.name} {info.dim}-d {info.similarity})"

    def _repr_html_(self) -> str:
        """Return what the index holds as a table, for a notebook."""
        from retr.retrieval.cards import escape, facts

        if self._store is None:
            return f"<code>{escape(repr(self))}</code>"
        held = self.info()
        shown = {key: held[key] for key in ("rows", "encoder", "dim", "similarity", "group", "version")}
        shown |= {"columns": ", ".join(held["columns"]), "search": held["search"]["kind"]}
        rows = {key: value for key, value in shown.items() if value is not None}
        return f"<div><b>{escape(held['path'])}</b>{facts(rows)}</div>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to open the index again.

        Raises
        ------
        UsageError
            Its encoder was given as an object, and has no name under which another process could load it.
        """
        encoder: BaseEncoder | None = self._loaded.get(encoder_key(self.store))
        if encoder is not None:
            from retr.retrieval.encoders.registry import find_spec

            name = encoder.info.name
            try:
                find_spec(name)
            except EncoderNotFoundError:
                raise UsageError(
                    f"an index with the encoder {name!r} cannot be sent: another process cannot load that by its name",
                    hint="send its path, and give the encoder there: `Index.open(path, encoder=...)`",
                ) from None
        return _opened_again, (type(self), self.store, self._loading, self.report)

    @property
    def _loading(self) -> dict[str, Any]:
        """How to load the encoder of the version that is searched; of another encoder's options the device counts."""
        same = encoder_key(self.store) == self._options_of
        return {name: value for name, value in self._options.items() if same or name == "device"}

    def refresh(self) -> bool:
        """Move on to the newest committed version; an index stays on the version it was opened at until told.

        Where nothing was committed that costs the reading of two small files; what has not changed since is not opened
        anew. Threads may search meanwhile: each search is answered by one version, the one it began with.

        Returns
        -------
        bool
            Whether there was a newer version.

        Raises
        ------
        IndexNotFoundError
            There is no index at the path any more, or another one.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> from retr import Index
        >>> other = Index.open(index.path)
        >>> index.delete(ids=["healthy/P01-left.png"])
        1
        >>> len(other), other.refresh(), len(other)
        (24, True, 23)
        """
        with self._moving:
            before = self.store
            store = before.newest()
            if store is before:
                return False
            if store.uuid != before.uuid:
                raise IndexNotFoundError(
                    f"another index lies at {self._path.name!r} than the one that was opened", hint="open it anew"
                )
            if store.remote is not None:
                # whoever asks meanwhile is answered by the version before
                store.remote.prepare(store)
            self._store = store
            return True

    # rows by id

    def __len__(self) -> int:
        return len(self.store)

    def __iter__(self) -> Iterator[str]:
        """Return the ids in row order, without holding all of them at once."""
        return row_ids.live_ids(self.store)

    def __contains__(self, row_id: object) -> bool:
        return isinstance(row_id, str) and bool(self.store.rows_of([row_id])[0] >= 0)

    def __getitem__(self, row_id: str) -> dict[str, Any]:
        """Return everything the index holds of one row, its id included; `UnknownIdError`, a `KeyError`, for no row."""
        if not isinstance(row_id, str):
            raise UsageError(f"rows are known by their ids, which are text, got: {row_id!r}")
        store = self.store
        rows = store.rows_of([row_id])
        if rows[0] < 0:
            raise row_ids.unknown_id(store, row_id)
        record: dict[str, Any] = records(store.table(rows=rows))[0]
        return record

    def row(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return everything the index holds of one row, as ``index[id]`` does.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.row("healthy/P01-left.png")["age"]
        41
        """
        return self[id]

    def picture(
        self,
        id: str,  # noqa: A002
        *,
        window: tuple[float, float] | None = None,
        frame: int | None = None,
    ) -> Picture:
        """Read the picture a row was made from, in full, out of its archive.

        Parameters
        ----------
        id
            The row's.
        window
            Of a DICOM or NIfTI file: centre and width of the grey values to show, in place of what the file says.
        frame
            Another frame or slice of the row's file, counted from 1.

        Raises
        ------
        UnknownIdError, ImageReadError
            There is no such row, or its file cannot be read.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.picture("healthy/P01-left.png").image.size
        (32, 32)
        """
        from retr.retrieval.archive.row_pictures import picture_of

        return picture_of(self.store, id, window=window, frame=frame)

    # all of it

    def table(self, columns: Sequence[str] | None = None, *, where: str | None = None) -> pa.Table:
        """Return the metadata of all rows, or of those for which ``where`` is true.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.table(["label", "age"], where="age > 50").to_pylist()[0]
        {'label': 'healthy', 'age': 51}
        """
        store = self.store
        columns = None if columns is None else listed(columns, "columns")
        return store.table(columns=columns, rows=None if where is None else np.flatnonzero(store.where(where)))

    def skipped(self) -> pa.Table:
        """Return the files that could not be read, with the reason of each.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.skipped().num_rows
        0
        """
        return self.store.skipped()

    def info(self) -> dict[str, Any]:
        """Return what the index holds, as one JSON-ready object.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.info()["rows"], index.info()["group"]
        (24, 'patient')
        """
        from retr.retrieval.summary import summary

        return summary(self.store)

    def check(self) -> list[Finding]:
        """Check every file of the index; an empty list means that all is as it was written.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.check()
        []
        """
        return self.store.check()

    # what changes without a picture

    def count(self, *, ids: Sequence[str] | None = None, where: str | None = None) -> int:
        """Count the rows that `delete` would delete.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.count(where="label = 'healthy' and age > 45")
        6
        """
        from retr.retrieval.deletion import ChosenRows

        return len(ChosenRows.of(self.store, ids, where).rows)

    def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        purge: bool = False,
    ) -> int:
        """Delete rows by id, by condition, or by both; give how many.

        Parameters
        ----------
        ids
            Ids of rows; one that is not there is an error, and nothing is deleted.
        where
            A condition over the metadata.
        purge
            Leave nothing of the rows in any file; `retr.retrieval.deletion.delete` says what was dropped with them.

        Raises
        ------
        UsageError
            Neither ``ids`` nor ``where`` is given, or an id is unknown.
        RetrError
            A purge is refused; nothing is deleted then.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.delete(ids=["healthy/P01-left.png"]), len(index)
        (1, 23)
        """
        from retr.retrieval.deletion import delete

        return delete(cast("IndexLike", self), ids=ids, where=where, purge=purge).rows

    def compact(self) -> None:
        """Merge segments and drop deleted rows from disk; readers that are open keep what they see.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> _ = index.delete(where="label = 'healthy'")
        >>> index.compact()
        >>> index.store.n_total
        12
        """
        with self.store.writer() as writer:
            writer.compact()
        self.refresh()


def _opened_again(kind: Any, store: Store, options: Mapping[str, Any], report: BuildReport | None) -> IndexContents:
    index: IndexContents = kind(store, options=options)
    index.report = report
    return index
