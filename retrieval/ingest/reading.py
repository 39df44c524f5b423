"""One reading of an archive, for one index or for several.

The archive is listed once, and a file that any index needs is read once. What each index makes of it is its own
(`retr.retrieval.ingest.pipeline.Run`): which files it knows already, its labels, its batches and commits. So each ends
as if it had been built alone, and a reading that was stopped goes on for each where that one was.

Files are read by threads here (`Threads`), or by whatever else is a `Reader`: by other machines, or earlier.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from retr import system
from retr.index.errors import UsageError
from retr.retrieval.encoders.costs import note_build
from retr.retrieval.encoders.index_encoder import require_same
from retr.retrieval.ingest.decode import read_for
from retr.retrieval.ingest.network import network_thread
from retr.retrieval.ingest.pipeline import Run
from retr.retrieval.progress import Silent, make_progress

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from retr.index.store import Store
    from retr.retrieval.archive.sources import Entry, Item, Skipped
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.decode import Read, Unchanged
    from retr.retrieval.ingest.options import Order
    from retr.retrieval.ingest.report import BuildReport
    from retr.retrieval.progress import Progress

    # what comes of a file that is read for an index
    Result = Read | Unchanged | Skipped

# What was listed with its bytes waits for its turn in memory: so many at most.
AHEAD_BYTES = 1 << 28


@dataclass(frozen=True)
class BuildJob:
    """What is to be built into one index; those of one reading have one source, and the first lists it."""

    order: Order
    encoder: BaseEncoder
    store: Store


class Reader(Protocol):
    """Reads files for the indexes that ask for them; a context, at whose end nothing is read any more.

    Attributes
    ----------
    one_commit
        Whether everything read is committed as one.
    """

    one_commit: bool

    def begin(self, runs: Sequence[Run]) -> int:
        """Get ready; return how many files may wait to be read, or be read, before the first is taken."""

    def watch(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Look on as the archive is listed."""

    def submit(self, asking: Sequence[tuple[Run, Item, int]]) -> Future[list[Result]]:
        """Begin to read a file for each index that asks, told how many rows that has of it where it looks unchanged."""

    def flush(self) -> None:
        """Read also what waits for more; called when nothing follows."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Stop reading."""


class Threads:
    """Reads and decodes in threads of this process; the networks of the indexes embed."""

    one_commit = False
    _pool: ThreadPoolExecutor

    def begin(self, runs: Sequence[Run]) -> int:
        """Start the threads; enough pictures are decoded for the batch after those that the network has, no more."""
        order = runs[0].order
        workers = order.asked.workers or max(getattr(order.source, "parallel", 1), system.processors())
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        return max(run.encoder.batch_size for run in runs) + 2 * workers

    def watch(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Return them as they are."""
        return entries

    def submit(self, asking: Sequence[tuple[Run, Item, int]]) -> Future[list[Result]]:
        """Read a file in a thread."""
        return self._pool.submit(read_for, [(run.decoder, item, rows) for run, item, rows in asking])

    def flush(self) -> None:
        """Do nothing: every file is read at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Told(Silent):
    """What a further index of one reading says; the steps are the first one's."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def say(self, text: str) -> None:
        """Show one line."""
        self._shown.say(text)


def run_builds(
    jobs: Sequence[BuildJob], progress: bool | Progress, reader: Reader | None = None
) -> list[tuple[BuildReport, Counter[str]]]:
    """Build under the writers' locks; return for each its report, and the reasons of what could not be read."""
    away = reader is not None
    reader = reader or Threads()
    start = time.monotonic()
    if not isinstance(progress, bool) and not hasattr(progress, "step"):
        raise UsageError(f"progress must be true or false, or an object that shows it, got: {progress!r}")
    shown = make_progress(show=progress) if isinstance(progress, bool) else progress
    for job in jobs:
        require_same(job.store.manifest.encoder.own, job.encoder.info)
        if not away:
            require_scoring(job.encoder, job.order.asked.scores)
    with ExitStack() as stack:
        writers = [stack.enter_context(job.store.writer()) for job in jobs]
        if reader.one_commit:
            for writer in writers:
                stack.enter_context(writer.as_one())
        stack.enter_context(shown)
        thread = stack.enter_context(network_thread())
        runs = [
            Run(job.order, job.encoder, writer, _Told(shown) if number else shown, thread)
            for number, (job, writer) in enumerate(zip(jobs, writers, strict=True))
        ]
        for run in runs:
            if away:
                # it does not embed
                del run.notes[0]
            run.begin()
        shown.total(jobs[0].order.source.count())
        _read(runs, reader)
        for run in runs:
            run.close()
        rows = [len(writer.store) for writer in writers]
    reports = [run.report(count, time.monotonic() - start) for run, count in zip(runs, rows, strict=True)]
    if len(jobs) == 1 and not away:  # several share the time that reading takes
        note_build(jobs[0].encoder, reports[0].embedded, reports[0].seconds)
    return [(report, run.reasons) for report, run in zip(reports, runs, strict=True)]


def require_scoring(encoder: BaseEncoder, scores: Sequence[str] | None) -> None:
    """Raise `UsageError` where findings are to be scored by an encoder that scores none."""
    if scores and not hasattr(encoder, "encode_and_score"):
        raise UsageError(
            f"encoder {encoder.info.name!r} does not score findings, got: {scores[0]!r}",
            hint="build with the encoder 'kad'",
        )


def _read(runs: Sequence[Run], reader: Reader) -> None:
    """Read what any of the indexes needs, and hand it to those that do, in the order of the listing."""
    window: deque[tuple[list[Run], Future[list[Result]]]] = deque()
    sizes: deque[int] = deque()

    def take() -> None:
        sizes.popleft()
        asking, future = window.popleft()
        for run, result in zip(asking, future.result(), strict=True):
            run.take(result)

    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.network)
        ahead = reader.begin(runs)
        stack.enter_context(reader)
        try:
            entries: Iterable[Entry] = reader.watch(runs[0].order.entries)
            for entry in entries:
                looked = [(run, *found) for run in runs if (found := run.look(entry)) is not None]
                if not looked:
                    continue
                sizes.append(len(looked[0][1].data or b""))
                window.append(([run for run, _, _ in looked], reader.submit(looked)))
                while window and (len(window) >= ahead or sum(sizes) > AHEAD_BYTES):
                    take()
            reader.flush()
            while window:
                take()
            for run in runs:
                run.finish()
        finally:
            for _, future in window:
                future.cancel()
