"""Hand an archive's files out to the machines of a cluster, and take their vectors in: a `Reader` of a build.

The archive is listed here, once, and only here is anything committed, by the one pipeline of all builds. Files go out
in units. What a machine that is lost had open goes to others; a unit that takes far longer than most is given to a
second machine, and what comes first counts. So nothing is committed twice, and nothing of a process that was given up:
what it made has nobody to go to. A coordinator that is killed loses what was not committed; its processes end with it.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from retr.index.errors import EncoderMismatchError, ImageReadError, RetrError, UsageError
from retr.index.machine.hash_key import fingerprint
from retr.retrieval.archive.opening import is_place
from retr.retrieval.cluster.connection import Connection
from retr.retrieval.cluster.worker import Task, Worker
from retr.retrieval.ingest.away import How
from retr.retrieval.ingest.merging import settled
from retr.retrieval.ingest.staged import Unit, digest, settings_of, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.archive.opening import ArchiveLike
    from retr.retrieval.archive.sources import Entry, Item
    from retr.retrieval.cluster.connection import Place
    from retr.retrieval.cluster.worker import Ready
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.pipeline import Run
    from retr.retrieval.ingest.reading import Result

# A unit has so many batches, or so many bytes.
_BATCHES, _BYTES = 4, 1 << 26
# Units that a process has at once: one that the network has, one that is read.
_OPEN = 2
# Seconds between two looks at which machines there are, and after which one that was lost is tried again.
_LOOK, _AGAIN = 2.0, 10.0
# Seconds between two lines that say how far the units are.
_TELL = 30.0
# A unit is given to a second process when it takes so many times as long as most, and no less than so many seconds.
_LONGER, _SECONDS = 3.0, 20.0
# As often a unit may end the process that has it.
_TRIES = 3


@dataclass(eq=False)
class _Parcel:
    """A unit on its way: its files, what the index has of each, and who waits for what comes of it."""

    asked: list[tuple[Item, int, str | None]] = field(default_factory=list)
    waiting: list[Future[list[Result]]] = field(default_factory=list)
    bytes: int = 0
    tries: int = 0
    since: float = 0.0
    done: bool = False


@dataclass(eq=False)
class _Process:
    """A process of the cluster, and what it has open, by Ray's reference."""

    place: Place
    actor: Any
    ready: bool = False
    open: dict[Any, _Parcel | None] = field(default_factory=dict)


class Cluster:
    """A `Reader` whose files are read on the machines of a Ray cluster.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the head, or ``auto``.
    archive
        As it was given: every machine opens it by itself.
    load
        Returns what loads, on another machine, the encoder that is loaded here.
    connect
        Returns the connection to an address.

    Raises
    ------
    UsageError
        The archive has no place.
    RetrError
        There is no cluster, or Ray is not installed.
    """

    one_commit = False

    def __init__(
        self,
        address: str,
        archive: ArchiveLike,
        load: Callable[[EncoderInfo], Callable[[], BaseEncoder]],
        connect: Callable[[str], Connection] = Connection,
    ) -> None:
        if not is_place(archive):
            hint = "write the paths into a file"
            raise UsageError("machines of a cluster read an archive that has a place, got a list", hint=hint)
        from retr.retrieval.ingest.parts import place_of

        self._archive, self._load = place_of(archive), load
        self._connection = connect(address)
        self._queue: deque[_Parcel] = deque()
        self._filling = _Parcel()
        self._waited_for: set[_Parcel] = set()
        self._processes: list[_Process] = []
        self._lost: dict[tuple[str, int], float] = {}
        self._seconds: deque[float] = deque(maxlen=50)
        self._looked, self._said, self._units, self._told = 0.0, "", 0, time.monotonic()
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="cluster", daemon=True)

    def begin(self, runs: Sequence[Run]) -> int:
        """Begin to start processes."""
        (run,) = runs
        self._run, order = run, run.order
        if run.identifiers.on:
            hint = "say --forget-identifiers"
            raise UsageError("identifiers are kept by a build in one process, not on a cluster", hint=hint)
        how = How(run.build_notes.reading, run.build_notes.scores)
        self._settings = settings_of(run.encoder, how, order.asked.image_column, None)
        self._digest, self._files = digest(self._settings), _BATCHES * run.encoder.batch_size
        sha256 = None
        with suppress(OSError, ImageReadError):
            sha256 = hashlib.sha256(run.decoder.fetch(order.first)[0]).hexdigest()
        self._task = Task(
            archive=self._archive,
            image_column=order.asked.image_column,
            path_column=order.asked.path_column if order.asked.metadata is None else None,
            load=self._load(run.encoder.info),
            how=how,
            key=fingerprint(run.key()),
            first=order.first.path,
            sha256=sha256,
        )
        # what waits behind the slowest is kept here
        return self._files * _OPEN * 2 * max(len(self._connection.places()), 1)

    def watch(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Return them as they are."""
        return entries

    def submit(self, asking: Sequence[tuple[Run, Item, int]]) -> Future[list[Result]]:
        """Put a file into the unit that is being filled."""
        ((run, item, rows),) = asking
        future: Future[list[Result]] = Future()
        held = run.known.content(run.row_path(item.path)) if rows else None
        parcel = self._filling
        parcel.asked.append((item, rows, held))
        parcel.waiting.append(future)
        parcel.bytes += max(item.size, len(item.data or b""))
        if len(parcel.asked) >= self._files or parcel.bytes >= _BYTES:
            self.flush()
        return future

    def flush(self) -> None:
        """Hand out the unit that is being filled."""
        with self._lock:
            if self._filling.asked:
                self._queue.append(self._filling)
                self._waited_for.add(self._filling)
                self._filling = _Parcel()
            if self._error is not None:
                self._fail(self._error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for process in self._processes:
            with suppress(Exception):
                self._connection.stop(process.actor)
        self._connection.close()

    # in the thread

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._staff()
                self._hand_out()
                calls = {ref: process for process in self._processes for ref in process.open}
                if not calls:
                    self._stopped.wait(0.05)
                    continue
                done, _ = self._connection.ray.wait(list(calls), num_returns=1, timeout=0.1)
                for ref in done:
                    self._receive(calls[ref], ref)
        except BaseException as error:  # noqa: BLE001 - whoever waits for a file is told
            with self._lock:
                self._error = error
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Tell whoever waits."""
        for parcel in (*self._waited_for, self._filling):
            for future in parcel.waiting:
                if not future.done():
                    future.set_exception(error)
        self._queue.clear()

    def _staff(self) -> None:
        """Start a process wherever there is none, and say how many machines there are."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        taken = {(process.place.node, process.place.number) for process in self._processes}
        for place in self._connection.places():
            key = (place.node, place.number)
            if key not in taken and now - self._lost.get(key, -_AGAIN) >= _AGAIN:
                actor = self._connection.start(Worker, place, self._task, max(int(place.cpus), 1))
                self._processes.append(_Process(place, actor, open={actor.ready.remote(): None}))
        ready = [process.place for process in self._processes if process.ready]
        machines, gpus = len({place.node for place in ready}), sum(place.gpus for place in ready)
        verb = "embeds" if machines == 1 else "embed"
        said = f"{machines} machine{'s' * (machines != 1)} of the cluster {verb}" + (f" on {gpus} GPUs" if gpus else "")
        if said != self._said:
            self._said = said
            self._run.shown.say(said if ready else "waiting for a machine of the cluster")
        if now - self._told >= _TELL:
            self._told = now
            running = sum(len(process.open) for process in self._processes if process.ready)
            self._run.shown.say(f"{said}: {self._units} units done, {running} running, {len(self._queue)} waiting")

    def _hand_out(self) -> None:
        """Hand units to processes that have room; the one with the fewest first."""
        for process in sorted(self._processes, key=lambda one: len(one.open)):
            while process.ready and len(process.open) < _OPEN:
                parcel = self._next(process)
                if parcel is None:
                    break
                parcel.since = time.monotonic()
                ref = process.actor.embed.remote([(item, held) for item, _, held in parcel.asked])
                process.open[ref] = parcel

    def _next(self, process: _Process) -> _Parcel | None:
        """Return the next unit, or one that another process has had for too long."""
        with self._lock:
            while self._queue:
                parcel = self._queue.popleft()
                if not parcel.done:
                    return parcel
        if process.open:
            return None
        most = max(_SECONDS, _LONGER * statistics.median(self._seconds) if self._seconds else 0.0)
        running = [parcel for one in self._processes for parcel in one.open.values() if parcel is not None]
        late = [one for one in running if running.count(one) == 1 and time.monotonic() - one.since > most]
        return min(late, key=lambda one: one.since, default=None)

    def _receive(self, process: _Process, ref: Any) -> None:
        errors = self._connection.ray.exceptions
        parcel = process.open.pop(ref)
        try:
            result = self._connection.ray.get(ref)
        except errors.RayTaskError as error:
            self._refused(process, parcel, error.cause)
            return
        except errors.RayError:
            # the process or its machine is gone
            process.open[ref] = parcel
            self._lose(process)
            return
        if parcel is None:
            self._agree(result)
            process.ready, self._looked = True, 0.0
        elif not parcel.done:
            self._seconds.append(time.monotonic() - parcel.since)
            self._take(parcel, result)

    def _refused(self, process: _Process, parcel: _Parcel | None, cause: BaseException) -> None:
        """Raise what a process said itself; what happened to it may not happen to another."""
        if isinstance(cause, RetrError):
            raise cause
        if parcel is None:
            said = f"the machine {process.place.host!r} cannot embed: {type(cause).__name__}"
            raise RetrError(said, hint="install the same version of retr and its packages there")
        self._again(parcel, type(cause).__name__)

    def _lose(self, process: _Process) -> None:
        self._processes.remove(process)
        self._lost[process.place.node, process.place.number] = time.monotonic()
        with suppress(Exception):
            self._connection.stop(process.actor)
        self._looked = 0.0
        units = [parcel for parcel in process.open.values() if parcel is not None]
        self._run.shown.say(f"a process on {process.place.host} is lost: what it had goes to others")
        for parcel in units:
            self._again(parcel, "its process ended")

    def _again(self, parcel: _Parcel, why: str) -> None:
        """Put a unit before all others, unless another process has it too."""
        parcel.tries += 1
        if parcel.tries >= _TRIES:
            raise RetrError(
                f"a unit of {len(parcel.asked)} files failed on {parcel.tries} processes: {why}",
                hint="is their memory large enough? `retr index build` in one process tells which file it is",
            )
        if not any(parcel in process.open.values() for process in self._processes):
            with self._lock:
                self._queue.appendleft(parcel)

    def _agree(self, ready: Ready) -> None:
        """Refuse a process whose rows would be others."""
        differ = [name for name in self._settings if ready.settings.get(name) != self._settings[name]]
        if not differ:
            return
        if "encoder" in differ:
            here, there = self._settings["encoder"], ready.settings["encoder"]
            what = ", ".join(sorted(name for name in here if here[name] != there.get(name)))
            raise EncoderMismatchError(
                f"the machine {ready.host!r} has another encoder {here['name']!r}: its {what} differs",
                hint="give all machines the same weights, and say --precision where devices differ",
            )
        name = differ[0]
        said = f"{name} {ready.settings.get(name)!r} instead of {self._settings[name]!r}"
        raise UsageError(f"the machine {ready.host!r} would build with {said}", hint="install the same there")

    def _take(self, parcel: _Parcel, data: bytes) -> None:
        """Pass what came of a unit to those who wait for it."""
        unit, dim = Unit.of(data), self._run.encoder.info.dim
        listed = [state_of(item) for item, _, _ in parcel.asked]
        if unit.settings != self._digest or [unit.listed(at) for at in range(len(unit))] != listed:
            raise RetrError("a machine of the cluster returned what it was not asked for")
        for at, ((item, rows, _), future) in enumerate(zip(parcel.asked, parcel.waiting, strict=True)):
            result = settled(self._run, rows, unit.found(at, item, dim))
            if not future.done():
                future.set_result([result])
        parcel.done = True
        self._units += 1
        with self._lock:
            self._waited_for.discard(parcel)
