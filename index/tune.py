"""Choosing an index type by measurement: the cheapest one that reaches a given recall.

Kinds are tried from the smallest to the largest. Each is built over all rows; then settings of growing cost are
measured against exact search on queries the index does not hold: real rows, each without itself, questions that are no
rows (`retr.index.measuring.unseen_questions`), and text queries where the caller has some (they lie elsewhere in the
space, and every sort of query must reach the target). One half of
the queries chooses the setting; the other half, never looked at before, measures the recall that is promised.

Where the kind can search best first (`retr.index.accelerators.probing`), how far it must look is chosen too: for the
same queries, where that is cheaper, and for any other question on the filters of `retr.index.adverse`.

Cost is CPU time, the least of several runs by turns, so that what else the machine does hardly counts; and a setting
that looks at more than another which reaches the target is never chosen, whatever was timed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index import reach
from retr.index.accelerators import config as configs
from retr.index.accelerators.config import DEPTH, HNSW, IVF, Cagra, Flat, effort_of
from retr.index.accelerators.faiss_index import MIN_ROWS, train
from retr.index.disk.manifest import TUNING
from retr.index.errors import UsageError
from retr.index.item_tuning import tune_items
from retr.index.measuring import (
    BATCH,
    Questions,
    alone,
    answered,
    by_turns,
    clock,
    least_seconds,
    row_questions,
    unseen_questions,
)
from retr.index.plan import tuned
from retr.index.rows.carrying import unknown_numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.rows.writer import Writer
    from retr.index.store import Store

K = DEPTH
KINDS: tuple[IVF | HNSW, ...] = (IVF(), IVF(codec="sq8"), IVF(codec="fp16"))
# What has a form on GPUs.
GPU_KINDS: tuple[IVF | HNSW | Cagra, ...] = (Cagra(), IVF(codec="sq8"), IVF(codec="fp16"))
_PROBES = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 256)
_REFINE = (2, 4, 6, 10, 30)
# What a dearer setting must find more to be worth trying.
_GAIN = 0.002
_EFFORTS = (16, 32, 64, 128, 256, 512)
_DEFAULT_BUDGET = 2 << 30
# Exact search is kept as long as it answers within this.
EXACT_SECONDS = 0.010


@dataclass(frozen=True)
class Point:
    """One measured setting: its recall on each sort of query, and seconds a query in a batch."""

    config: Config
    recalls: Mapping[str, float]
    seconds: float

    @property
    def recall(self) -> float:
        """The recall on the sort of query that fares worst."""
        return min(self.recalls.values())


@dataclass(frozen=True)
class Tuning:
    """What was chosen, and what it reached on queries that had no part in the choice.

    ``seconds`` is for one query alone; ``bytes`` counts the accelerators; ``curve`` holds every setting measured.
    ``reason`` says why search stays exact, where it does. ``few`` is set where a search to a bound serves the same
    questions at less cost, and ``filtered`` where one serves any other; ``items`` says how cases are searched, where
    the index says what a case is (`retr.index.item_tuning`).
    """

    config: Config
    target: float
    recalls: Mapping[str, float]
    seconds: float
    bytes: int
    curve: Sequence[Point] = ()
    reason: str | None = None
    few: reach.Reached | None = None
    filtered: reach.Reached | None = None
    items: Mapping[str, Any] | None = None

    @property
    def recall(self) -> float:
        """The recall on the sort of query that fares worst."""
        return min(self.recalls.values())

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps and `retr index info` shows."""
        bounds = {"few": self.few, "filtered": self.filtered}
        return {
            **{name: reached.to_json() for name, reached in bounds.items() if reached},
            **({"items": dict(self.items)} if self.items else {}),
            "bytes": self.bytes,
            "curve": [
                {
                    "index": configs.to_json(point.config),
                    "milliseconds": round(point.seconds * 1e3, 4),
                    "recall": {sort: round(value, 4) for sort, value in point.recalls.items()},
                }
                for point in self.curve
            ],
            "index": configs.to_json(self.config),
            "k": K,
            "milliseconds": round(self.seconds * 1e3, 4),
            "reason": self.reason,
            "recall": round(self.recall, 4),
            "recalls": {sort: round(value, 4) for sort, value in self.recalls.items()},
            "target": self.target,
        }


def tune(
    writer: Writer[Store],
    *,
    recall: float = 0.95,
    memory: int | None = None,
    latency: float | None = None,
    queries: Mapping[str, NDArray[np.float32]] | None = None,
    kinds: Sequence[IVF | HNSW | Cagra] | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Build accelerators, choose how they are searched, and commit both with the measured curve.

    Parameters
    ----------
    recall
        The share of the 10 best rows that must be found, between 0 and 1; 1 means exact search.
    memory
        Bytes the accelerators may take, and that building may use beside them; ``None`` sets no limit.
    latency
        Seconds one query alone may take; ``None`` sets no limit.
    queries
        Further sorts of queries, float32 ``(n, d)``, such as ``{"text": ...}``.
    kinds
        What to try, in this order; by default `KINDS` on a CPU, and on GPUs those of `GPU_KINDS` that faiss has there.
    device
        Where to measure, as `Store.place` takes it; ``"auto"`` is the CPU.
    say
        Told what is being done, a line at a time.

    Raises
    ------
    UsageError
        ``recall`` is not a share, or a GPU is asked for that faiss does not see.
    MissingExtraError
        faiss is not installed.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must lie above 0 and be at most 1, got {recall!r}")
    store = _merged(writer)
    store.place("cpu" if device == "auto" else device)
    kinds = kinds or (KINDS if store.placement.device == "cpu" else gpu_kinds())
    if recall == 1 or max((len(segment) for segment in store.segments), default=0) < MIN_ROWS:
        reason = "only exact search finds all" if recall == 1 else f"under {MIN_ROWS} rows exact search is fast"
        return _keep_exact(writer, recall, reason)
    asked = {sort: answered(store, vectors) for sort, vectors in (queries or {}).items() if len(vectors) > 1}
    asked["image"] = row_questions(store)
    asked["unseen"] = unseen_questions(store, asked["image"])
    bounded = store.placement.device == "cpu" and any(
        isinstance(kind, IVF) and kind.codec == "rabitq" for kind in kinds
    )
    hard = reach.hard_questions(store) if bounded else []
    curve: list[Point] = []
    for kind in kinds:
        size = _build(writer, kind, budget=memory or _DEFAULT_BUDGET, say=say)
        if memory is not None and size > memory:
            say(f"{size / 1e6:.0f} MB are more than the {memory / 1e6:.0f} MB allowed")
            continue
        trial = writer.preview()
        points = _measure(trial, kind, asked, recall)
        curve += points
        for config in _cheapest_first(trial, asked["image"], [point for point in points if point.recall >= recall]):
            trial.plan.config = config
            # One by one, as people ask.
            promised = {sort: questions.half(1).recall(trial, 1) for sort, questions in asked.items()}
            seconds = alone(trial, asked["image"].vectors)
            say(f"{config}: recall {min(promised.values()):.4f}, {seconds * 1e3:.2f} ms a query")
            if min(promised.values()) >= recall and (latency is None or seconds <= latency):
                tuning = Tuning(config, recall, promised, seconds, size, curve)
                few, filtered = reach.few(trial, asked, recall), reach.filtered(trial, hard, recall, say)
                reach.bound(trial, few, filtered)
                tuning = replace(tuning, few=few, filtered=filtered, items=tune_items(trial, recall, say))
                writer.note(TUNING, tuning.to_json())
                writer.commit()
                return tuning
    return _keep_exact(writer, recall, "no setting reached the target", curve)


def _merged(writer: Writer[Store]) -> Store:
    """Merge segments, as far as they may be: each would have an accelerator of its own, or none where it is small."""
    if unknown_numbered(writer.commit().manifest) is None and len(writer.store.segments) > 1:
        writer.compact()
    return writer.store


def gpu_kinds() -> Sequence[IVF | HNSW | Cagra]:
    """Return those of `GPU_KINDS` that the faiss installed has.

    Raises
    ------
    UsageError
        faiss sees no GPU: exact search there is torch's, but accelerators are faiss's.
    """
    from retr.index.gpu import devices
    from retr.index.gpu.accelerators import has_cagra

    if not devices.faiss_gpus():
        raise UsageError(
            "faiss sees no GPU",
            hint='accelerators on a GPU are faiss-gpu\'s: `pip install "retr[gpu]"`; or tune with --device cpu',
        )
    return GPU_KINDS if has_cagra() else GPU_KINDS[1:]


def needed(store: Store) -> bool:
    """Return whether a search takes so long here that (new) accelerators are worth it.

    That is so for a large index that was never tuned, and for one that has grown since.
    """
    if max((len(segment) for segment in store.segments if segment.info.accelerator is None), default=0) < MIN_ROWS:
        return False
    if isinstance(tuned(store.manifest)[0], Flat) and TUNING in store.manifest.extra:
        return False
    query = np.ones((1, store.manifest.encoder.dim), np.float32)
    store.search(query, K)
    return least_seconds(lambda: store.search(query, K)) > EXACT_SECONDS


def _keep_exact(writer: Writer[Store], recall: float, reason: str, curve: Sequence[Point] = ()) -> Tuning:
    for position in range(len(writer.store.segments)):
        writer.accelerate(position, None)
    query = np.ones((1, writer.store.manifest.encoder.dim), np.float32)
    seconds = least_seconds(lambda: writer.store.search(query, K, exact=True))
    tuning = Tuning(Flat(), recall, {"image": 1.0}, seconds, 0, curve, reason)
    writer.note(TUNING, tuning.to_json())
    writer.commit()
    return tuning


def _build(writer: Writer[Store], kind: IVF | HNSW | Cagra, *, budget: int, say: Callable[[str], None]) -> int:
    """Return every large segment an accelerator in the writer's draft; return their bytes."""
    size = 0
    for position, segment in enumerate(writer.store.segments):
        if len(segment) < MIN_ROWS or isinstance(kind, Cagra):
            writer.accelerate(position, None)
            continue
        say(f"building {kind.factory(*segment.vectors.shape)} over {len(segment)} rows")
        writer.accelerate(position, partial(train, segment.vectors, kind, budget=budget))
    for info in writer.preview().manifest.segments:
        size += info.accelerator.bytes if info.accelerator else 0
    return size


def _sweeps(kind: IVF | HNSW | Cagra) -> Sequence[Sequence[IVF | HNSW | Cagra]]:
    """Return runs of settings; within a run each costs more and finds more than the one before."""
    if isinstance(kind, Cagra):
        return [[replace(kind, search_effort=effort) for effort in _EFFORTS[1:]]]
    if isinstance(kind, HNSW):
        return [[replace(kind, search_effort=effort) for effort in _EFFORTS]]
    return [[replace(kind, probes=probes, refine=refine) for probes in _PROBES] for refine in _REFINE]


def _measure(store: Store, kind: IVF | HNSW | Cagra, asked: Mapping[str, Questions], target: float) -> list[Point]:
    points: list[Point] = []
    halves = {sort: questions.half(0) for sort, questions in asked.items()}
    count = sum(len(questions.kth) for questions in halves.values())
    best = -1.0
    for sweep in _sweeps(kind):
        before = -1.0
        for config in sweep:
            store.plan.config = config
            if not points:
                # Loading the accelerators is no part of a search.
                store.search(halves["image"].vectors[:1], K)
            start = clock(store)()
            recalls = {sort: questions.recall(store, BATCH) for sort, questions in halves.items()}
            points.append(Point(config, recalls, (clock(store)() - start) / count))
            reached, gained = points[-1].recall, points[-1].recall - before
            # Enough, or no longer a matter of how many lists are searched: the next run refines more.
            if reached >= min(1.0, target + 0.01) or gained < _GAIN:
                break
            before = reached
        found = max(point.recall for point in points)
        if found < min(target, best + _GAIN):
            # Refining more finds no more: what is missing lies in lists that are not searched.
            break
        best = found
    return points


def _cheapest_first(store: Store, questions: Questions, points: Sequence[Point]) -> Iterator[Config]:
    """Yield all settings: those that no other dominates, the cheapest first; then those that only these dominate, ...

    A setting that dominates others may miss the target on queries that had no part in the choice; a dearer setting of
    the same kind then comes before a kind that costs several times as much.
    """
    left = [point.config for point in points]
    while left:
        best = [config for config in left if not any(_less(other, config) for other in left)]
        left = [config for config in left if config not in best]
        yield from _by_cost(store, questions, best)


def _by_cost(store: Store, questions: Questions, settings: Sequence[Config]) -> list[Config]:
    """Return settings, the cheapest first, timed by turns."""

    def search(config: Config) -> Callable[[], object]:
        def once() -> None:
            store.plan.config = config
            for start in range(0, 2 * BATCH, BATCH):
                store.search(questions.vectors[start : start + BATCH], K)

        return once

    costs = by_turns(store, [search(config) for config in settings])
    return [config for _, config in sorted(zip(costs, settings, strict=True), key=lambda pair: pair[0])]


def _less(one: Config, other: Config) -> bool:
    """Return whether a setting looks at less than another in every way."""
    first, second = ((getattr(each, "refine", 0), effort_of(each) or 0) for each in (one, other))
    return first != second and all(mine <= yours for mine, yours in zip(first, second, strict=True))
