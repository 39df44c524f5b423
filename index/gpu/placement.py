"""Where the vectors of a snapshot are searched: on the CPU, or on GPUs once a search has put them there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr.index.accelerators.config import Cagra, Flat
from retr.index.errors import IndexCorruptError, RetrError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.accelerators.config import Config
    from retr.index.gpu.accelerators import GpuAccelerators
    from retr.index.rows.snapshot import Snapshot
    from retr.index.types import FirstScan


@dataclass(frozen=True)
class Placed:
    """What lies on the GPUs; nothing, where the CPU searches.

    Attributes
    ----------
    scan
        All vectors, for exact search.
    accelerators
        What `tune` chose, where that has a form on GPUs.
    note
        What a person should know about where a search ran.
    """

    scan: FirstScan | None = None
    accelerators: GpuAccelerators | None = None
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
        self._asked, self._none = 0, False
        self._placed, self._what = Placed(), ""
        self._vectors: Placed | None = None
        if device not in {"cpu", "auto"}:
            from retr.index.gpu import devices

            devices.parse_device(device)

    def aside(self, snapshot: Snapshot, config: Config, n_queries: int) -> bool:
        """Return whether the CPU answers a call with this many queries; if so they are counted, else `take` does."""
        if self.device == "cpu" or self._none:
            return True
        if self.device != "auto" or self._what:
            return False
        from retr.index.gpu import devices

        asked = self._asked + n_queries
        if devices.worthwhile(asked, snapshot.n_total, snapshot.manifest.encoder.dim) and _has_form(config):
            return False
        self._asked = asked
        return True

    def take(self, snapshot: Snapshot, config: Config, n_queries: int, *, few: bool = True) -> Placed:
        """Return what a call with this many queries searches, putting it on the GPUs first where that is due.

        What lies there serves every later call, until another snapshot or kind of index is searched.

        Parameters
        ----------
        config
            What `tune` chose for the snapshot.
        few
            Whether the call is one that accelerators can serve; any other scans all vectors, which are put beside them.

        Raises
        ------
        RetrError
            GPUs were asked for by name, and are not there or too small. (``"auto"`` says so in a note.)
        """
        if self.device == "cpu":
            return Placed()
        what: str = snapshot.once(("placed", config), lambda: _identity(snapshot, config))
        if what != self._what:
            if self.device == "auto":
                from retr.index.gpu import devices

                self._asked += n_queries
                enough = devices.worthwhile(self._asked, snapshot.n_total, snapshot.manifest.encoder.dim)
                if not enough or not _has_form(config):
                    return Placed()
            with self._lock:
                if what != self._what:
                    # what lay there before makes room
                    self._placed, self._what = Placed(), ""
                    self._vectors = None
                    self._placed, self._what = self._put(snapshot, config), what
        if self._placed.accelerators is None or few:
            return self._placed
        with self._lock:
            if self._vectors is None:
                self._vectors = self._put_vectors(snapshot)
            return self._vectors

    def _put_vectors(self, snapshot: Snapshot) -> Placed:
        """Put all vectors on the GPUs that hold accelerators already."""
        from retr.index.gpu import devices

        try:
            return _place_vectors(snapshot, devices.gpu_numbers(devices.parse_device(self.device)), None)
        except RetrError as error:
            return Placed(note=f"searched exactly on the CPU: {error.message}")

    def _put(self, snapshot: Snapshot, config: Config) -> Placed:
        from retr.index.gpu import devices

        wanted = devices.parse_device(self.device)
        if wanted != "auto":
            return _place(snapshot, config, devices.gpu_numbers(wanted))
        try:
            self._none = not devices.count()
            return Placed() if self._none else _place(snapshot, config, devices.gpu_numbers(wanted))
        except RetrError as error:
            return Placed(note=f"searched on the CPU: {error.message}")


def _has_form(config: Config) -> bool:
    from retr.index.gpu import accelerators

    return isinstance(config, Flat) or accelerators.has_form(config)


def _place(snapshot: Snapshot, config: Config, numbers: Sequence[int]) -> Placed:
    """Put accelerators on the GPUs where there are some that have a form there, else all vectors."""
    from retr.index.gpu import accelerators, devices

    note = None
    if accelerators.has_form(config):
        if devices.faiss_gpus() <= max(numbers):
            note = 'searched exactly: faiss sees no GPU (`pip install "retr[gpu]"`)'
        elif isinstance(config, Cagra) and not accelerators.has_cagra():
            note = "searched exactly: CAGRA needs faiss with cuVS (`pip install faiss-gpu-cuvs` in place of faiss-gpu)"
        else:
            try:
                return Placed(accelerators=accelerators.GpuAccelerators(snapshot.segments, config, numbers))
            except IndexCorruptError as error:
                note = f"searched exactly: {error}"
    return _place_vectors(snapshot, numbers, note)


def _place_vectors(snapshot: Snapshot, numbers: Sequence[int], note: str | None) -> Placed:
    from retr.index.gpu import devices

    max_norm = max((info.max_norm for info in snapshot.manifest.segments), default=0.0)
    vectors = snapshot.blocks(), snapshot.manifest.encoder.dim, max_norm, numbers
    if devices.torch_gpus():
        from retr.index.gpu.torch_scan import TorchScan

        return Placed(TorchScan(*vectors), note=note)
    from retr.index.gpu.faiss_scan import FaissScan

    return Placed(FaissScan(*vectors), note=note)


def _identity(snapshot: Snapshot, config: Config) -> str:
    """Name what would lie on GPUs: two names that are equal are the same vectors, placed in the same way."""
    kind = (type(config).__name__, getattr(config, "codec", ""), config.links if isinstance(config, Cagra) else 0)
    files = [(info.name, info.accelerator and info.accelerator.file) for info in snapshot.manifest.segments]
    return repr((snapshot.uuid, kind, files))
