"""One reading of an archive, for one index or for several.

The archive is listed once, and a file that any index needs is read once. What each index makes of it is its own
(`retr.retrieval.ingest.pipeline.Run`): which files it knows already, its labels, its batches and commits. So each ends
as if it had been built alone, and a reading that was stopped goes on for each where that one was.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    from collections.abc import Sequence
    from concurrent.futures import Future

    from retr.index.store import Store
    from retr.retrieval.archive.sources import Skipped
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.decode import Read, Unchanged
    from retr.retrieval.ingest.options import Order
    from retr.retrieval.ingest.report import BuildReport
    from retr.retrieval.progress import Progress

# What was listed with its bytes waits for its turn in memory: so many at most.
AHEAD_BYTES = 1 << 28


@dataclass(frozen=True)
class BuildJob:
    """What is to be built into one index; those of one reading have one source, and the first lists it."""

    order: Order
    encoder: BaseEncoder
    store: Store


class _Told(Silent):
    """What a further index of one reading says; the steps are the first one's."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def say(self, text: str) -> None:
        """Show one line."""
        self._shown.say(text)


def run_builds(jobs: Sequence[BuildJob], progress: bool | Progress) -> list[tuple[BuildReport, Counter[str]]]:
    """Build under the writers' locks; return for each its report, and the reasons of what could not be read."""
    start = time.monotonic()
    if not isinstance(progress, bool) and not hasattr(progress, "step"):
        raise UsageError(f"progress must be true or false, or an object that shows it, got: {progress!r}")
    shown = make_progress(show=progress) if isinstance(progress, bool) else progress
    for job in jobs:
        require_same(job.store.manifest.encoder.own, job.encoder.info)
        if job.order.asked.scores and not hasattr(job.encoder, "encode_and_score"):
            raise UsageError(
                f"encoder {job.encoder.info.name!r} does not score findings, got: {job.order.asked.scores[0]!r}",
                hint="build with the encoder 'kad'",
            )
    with ExitStack() as stack:
        writers = [stack.enter_context(job.store.writer()) for job in jobs]
        stack.enter_context(shown)
        thread = stack.enter_context(network_thread())
        runs = [
            Run(job.order, job.encoder, writer, _Told(shown) if number else shown, thread)
            for number, (job, writer) in enumerate(zip(jobs, writers, strict=True))
        ]
        for run in runs:
            run.begin()
        shown.total(jobs[0].order.source.count())
        _read(runs)
        for run in runs:
            run.close()
        rows = [len(writer.store) for writer in writers]
    reports = [run.report(count, time.monotonic() - start) for run, count in zip(runs, rows, strict=True)]
    if len(jobs) == 1:  # several share the time that reading takes
        note_build(jobs[0].encoder, reports[0].embedded, reports[0].seconds)
    return [(report, run.reasons) for report, run in zip(reports, runs, strict=True)]


def _read(runs: Sequence[Run]) -> None:
    """Read what any of the indexes needs, and hand it to those that do, in the order of the listing."""
    order = runs[0].order
    workers = order.asked.workers or max(getattr(order.source, "parallel", 1), system.processors())
    # enough decoded pictures for the batch after those that the network has, and no more
    ahead = max(run.encoder.batch_size for run in runs) + 2 * workers
    window: deque[tuple[list[Run], Future[list[Read | Unchanged | Skipped]]]] = deque()
    sizes: deque[int] = deque()

    def take() -> None:
        sizes.popleft()
        asking, future = window.popleft()
        for run, result in zip(asking, future.result(), strict=True):
            run.take(result)

    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.network)
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="decode"))
        try:
            for entry in order.entries:
                looked = [(run, found) for run in runs if (found := run.look(entry)) is not None]
                if not looked:
                    continue
                sizes.append(len(looked[0][1][0].data or b""))
                asking = [(run.decoder, item, rows) for run, (item, rows) in looked]
                window.append(([run for run, _ in looked], pool.submit(read_for, asking)))
                while window and (len(window) >= ahead or sum(sizes) > AHEAD_BYTES):
                    take()
            while window:
                take()
            for run in runs:
                run.finish()
        finally:
            for _, future in window:
                future.cancel()
