"""The store: a snapshot of an index that can be searched, checked and written to."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self, Unpack

from retr.index.errors import IndexNotFoundError
from retr.index.gpu.placement import Placement
from retr.index.machine.home import index_folder
from retr.index.options import documents, taken
from retr.index.plan import Plan, search
from retr.index.rows.snapshot import Snapshot
from retr.index.scatter import Remote
from retr.index.scatter import search as search_elsewhere
from retr.index.search_options import RankOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.disk.manifest import Dtype, Manifest
    from retr.index.encoder import EncoderInfo
    from retr.index.rows.check import Finding
    from retr.index.rows.writer import Writer
    from retr.index.search_options import RankKeywords
    from retr.index.types import Neighbours


class Store(Snapshot):
    """A snapshot that can be searched, checked and written to; make one with `create` or `open`.

    Attributes
    ----------
    placement
        Where searches run; see `place`.
    remote
        What holds the shards elsewhere and answers for them, or ``None``.
    """

    def __init__(self, path: Path, manifest: Manifest, *, before: Snapshot | None = None) -> None:
        super().__init__(path, manifest, before=before)
        self.placement = Placement("cpu")
        self.remote: Remote | None = None

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        encoder: EncoderInfo,
        group: str | None = None,
        dtype: Dtype = "float32",
        shards: int = 1,
    ) -> Self:
        """Make an empty index at ``path``, in one folder or spread over shards (`retr.index.disk.shards`).

        Raises
        ------
        RetrError
            There is an index already, or the disk refuses.
        """
        root = index_folder(path)
        from retr.index.disk.creation import create

        return cls(root, create(root, str(path), encoder, group=group, dtype=dtype, shards=shards))

    def __reduce__(self) -> tuple[Any, ...]:
        return opened_again, (str(self.path.absolute()), self.uuid, self.version, self.placement.device)

    def at(self, manifest: Manifest) -> Self:
        """Return another state of the same index, which is searched in the same place."""
        store = super().at(manifest)
        store.placement = self.placement
        return store

    def newest(self) -> Self:
        """Return the newest committed version, on the same device and machines; see `Snapshot.newest`."""
        newer = super().newest()
        if newer is not self:
            newer.place(self.placement.device)
            newer.remote = self.remote
        return newer

    @cached_property
    def plan(self) -> Plan:
        """How this snapshot is searched."""
        return Plan(self)

    def place(self, device: str) -> None:
        """Choose where searches run; nothing is read or moved before the first that runs there.

        Exact answers are the same everywhere.

        Parameters
        ----------
        device
            ``"cpu"``; ``"cuda"`` or ``"cuda:1"``: a GPU; ``"cuda:0,cuda:1"`` or ``"cuda:all"``: several, which share
            the rows; ``"auto"``: the GPUs for a call that is worth the copy, see `retr.index.gpu.devices`.

        Raises
        ------
        UsageError
            There is no such name. (What is not there, or does not fit, is said by the search.)
        """
        self.placement = Placement(device)

    @documents(RankOptions)
    def search(
        self,
        queries: NDArray[np.float32],
        k: int | RankOptions,
        *,
        mask: NDArray[np.bool_] | None = None,
        exclude: Sequence[NDArray[np.int64]] | None = None,
        exclude_same: Mapping[str, Sequence[object]] | None = None,
        **options: Unpack[RankKeywords],
    ) -> Neighbours:
        """Find the k best rows for each query: exactly, or through the accelerators where `tune` made some.

        Parameters
        ----------
        queries
            float32 ``(n, d)``; normalised here where the similarity is cosine.
        k
            How many; that many come back whenever that many allowed rows exist. Or all options in one.
        mask
            bool ``(n_total,)``: only these rows.
        exclude
            For each query, int64 row numbers that are never returned for it.
        exclude_same
            For each column, the value per query whose rows are never returned for it; ``None`` excludes nothing.
        options
            Fields of `RankOptions`.

        Raises
        ------
        UsageError
            ``k`` is not positive, a shape does not fit, or a column is unknown.
        FilterError
            The where-expression cannot be read or applied.
        RetrError
            A shard that is held elsewhere does not answer.
        """
        if type(k) is int and not options:
            asked = _asked(k)
        else:
            asked = k if isinstance(k, RankOptions) else taken(RankOptions, {"k": k, **options}, "search")
        if self.remote is not None:
            return search_elsewhere(self, queries, asked, mask=mask, exclude=exclude, exclude_same=exclude_same or {})
        return search(
            self,
            self.plan,
            self.placement,
            queries,
            asked,
            mask=mask,
            exclude=exclude,
            exclude_same=exclude_same or {},
        )

    def check(self) -> list[Finding]:
        """Compare every file with the manifest; an empty list means that all is well."""
        from retr.index.rows.check import check

        return check(self)

    def writer(self) -> AbstractContextManager[Writer[Self]]:
        """Take the one-writer lock and give a `Writer` on the newest version.

        Raises
        ------
        IndexLockedError
            Another process is writing.
        """
        from retr.index.rows.writer import open_writer

        return open_writer(type(self), self.path)


@lru_cache(maxsize=64)
def _asked(k: int) -> RankOptions:
    """Return what is asked where only ``k`` is."""
    return taken(RankOptions, {"k": k}, "search")


def opened_again(path: str, identity: str, version: int, device: str) -> Store:
    """Open the snapshot that was pickled.

    Raises
    ------
    IndexNotFoundError
        It is not there any more.
    """
    store = Store.open(path)
    name, send = store.path.name, "open it again with `Index.open` and send that"
    if store.uuid != identity:
        raise IndexNotFoundError(f"another index lies at {name!r} than the one that was sent", hint=send)
    if store.version != version:
        what = f"version {version} of the index {name!r} is gone: the newest is {store.version}"
        raise IndexNotFoundError(what, hint=send)
    store.place(device)
    return store
