"""Where the vectors of a snapshot are searched: on the CPU, or on GPUs once a search has put them there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr.index.errors import MissingExtraError, RetrError

if TYPE_CHECKING:
    from retr.index.gpu import GpuScan
    from retr.index.store import Store


@dataclass(frozen=True)
class Placed:
    """What lies on the GPUs; nothing, where the CPU searches.

    Attributes
    ----------
    scan
        All vectors, for exact search.
    note
        What a person should know about where a search ran.
    """

    scan: GpuScan | None = None
    note: str | None = None


class Placement:
    """A choice of device, and what it led to.

    Parameters
    ----------
    device
        As `Store.place` takes it.

    Raises
    ------
    UsageError
        There is no such device name.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._asked = 0
        self._placed: Placed | None = None
        if device == "cpu":
            self._placed = Placed()
        elif device != "auto":
            from retr.index import devices

            devices.parse(device)

    def take(self, store: Store, n_queries: int) -> Placed:
        """Give what a call with this many queries searches, putting it on the GPUs first where that is due.

        Raises
        ------
        RetrError
            GPUs were asked for by name, and are not there or too small. (``"auto"`` says so in a note.)
        """
        if self._placed is not None:
            return self._placed
        from retr.index import devices

        self._asked += n_queries
        if self.device == "auto" and not devices.worthwhile(self._asked, store.n_total, store.manifest.encoder.dim):
            return Placed()
        with self._lock:
            if self._placed is None:
                self._placed = self._put(store)
            return self._placed

    def _put(self, store: Store) -> Placed:
        from retr.index import devices
        from retr.index.gpu import GpuScan

        wanted = devices.parse(self.device)
        if wanted == "auto":
            try:
                if devices.count() == 0:
                    return Placed()
            except MissingExtraError:
                return Placed()
        max_norm = max((info.max_norm for info in store.manifest.segments), default=0.0)
        try:
            return Placed(GpuScan(store.blocks(), store.manifest.encoder.dim, max_norm, devices.numbers(wanted)))
        except RetrError as error:
            if wanted != "auto":
                raise
            return Placed(note=f"searched on the CPU: {error.message}")
