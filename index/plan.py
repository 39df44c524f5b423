"""Planning a search: from the options of a caller to what exact and approximate search take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.accelerators import approximate
from retr.index.accelerators.config import DEPTH, HNSW, IVF, Cagra, Flat, effort_of, from_json, shown, with_effort
from retr.index.disk.manifest import TUNING
from retr.index.disk.side_data import Change, Kind
from retr.index.errors import IndexCorruptError, MissingExtraError, UsageError
from retr.index.gpu.placement import Placed
from retr.index.json_fields import Fields, stored
from retr.index.scan import exact
from retr.index.types import Ask, Neighbours, is_best_first
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.disk.manifest import Manifest
    from retr.index.gpu.placement import Placement
    from retr.index.rows.allowed import Allowed
    from retr.index.rows.snapshot import Snapshot
    from retr.index.search_options import RankOptions
    from retr.index.types import Accelerator

_NOTED = ("the note of how the index is searched", "run `retr index tune` again")
_NOTHING = np.empty(0, np.int64)


def search(
    snapshot: Snapshot,
    plan: Plan,
    placement: Placement,
    queries: NDArray[np.float32],
    options: RankOptions,
    *,
    mask: NDArray[np.bool_] | None,
    exclude: Sequence[NDArray[np.int64]] | None,
    exclude_same: Mapping[str, Sequence[object]],
) -> Neighbours:
    """Answer `Store.search`, whose docstring says what the arguments mean."""
    queries = prepared(queries, snapshot.manifest.encoder.dim, cosine=plan.cosine)
    require_k(options.k)
    effort = options.effort
    if options.exact and effort is not None:
        raise UsageError(f"an exact search has no effort, got {effort!r}", hint="leave one of the two out")
    config = plan.config if effort is None else with_effort(plan.config, effort)
    aside = placement.aside(snapshot, plan.config, len(queries))
    chosen = None if options.where is None else snapshot.allowed(options.where)
    if aside and mask is None and not exclude_same and (exclude is None or not any(map(len, exclude))):
        if exclude is not None:
            _need_one_each("exclude", exclude, len(queries))
        if (found := _shortly(snapshot, plan, queries, options, chosen)) is not None:
            return found
    ask = _asked(snapshot, options, excluded(snapshot, len(queries), exclude, exclude_same), chosen, mask)
    placed = Placed() if aside else placement.take(snapshot, plan.config, len(queries), few=approximate.measured(ask))
    how = plan.how(snapshot)
    accelerators: Sequence[Accelerator | None] = ()
    said: str | None = None
    flat = options.exact or placed.scan is not None or isinstance(plan.config, Flat)
    if not flat and approximate.suits(ask, snapshot.n_total, queries.shape[1]):
        if placed.accelerators is not None:
            accelerators, said = placed.accelerators.accelerators, plan.promises.few
        else:
            accelerators, said = plan.proposing(ask)
        if effort is not None and any(accelerators) and config != plan.config:
            said = _as_asked(config, plan.config)
    if any(accelerators):
        as_tuned = effort is None or config == plan.config
        if options.one_per is not None:
            ask = replace(ask, groups=snapshot.identity.groups(options.one_per).every())
        bound = plan.promises.bound if as_tuned else approximate.Bound(math.inf, effort_of(config))
        found = approximate.search(plan.blocks, accelerators, config, queries, ask, bound, **how)
    else:
        found = exact.search(plan.blocks, queries, ask, **how, first_scan=placed.scan)
    note = "; ".join(part for part in (said, placed.note) if part)
    return Neighbours(found.rows, found.scores, exact=found.exact, note=note) if note else found


def propose(
    snapshot: Snapshot, plan: Plan, placement: Placement, queries: NDArray[np.float32], n: int, effort: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Return what `approximate.candidates` does, accelerators looking so far; ``None`` where none serves the snapshot.

    ``queries`` are unit vectors where the similarity is cosine.
    """
    if isinstance(plan.config, Flat):
        return None
    placed = Placed() if placement.device == "cpu" else placement.take(snapshot, plan.config, len(queries))
    found: Sequence[Accelerator | None] = plan.accelerators[0] if placed.scan is None else ()
    if placed.accelerators is not None:
        found = placed.accelerators.accelerators
    if not any(found):
        return None
    config, how = with_effort(plan.config, effort), plan.how(snapshot)
    return approximate.candidates(
        plan.blocks, found, config, queries, n, max_norm=how["max_norm"], ids_of=how["ids_of"]
    )


def ask_of(
    snapshot: Snapshot,
    n: int,
    options: RankOptions,
    *,
    mask: NDArray[np.bool_] | None = None,
    exclude: Sequence[NDArray[np.int64]] | None = None,
) -> Ask:
    """Return what n queries want, as the scans take it; the arguments are those of `Store.search`."""
    require_k(options.k)
    chosen = None if options.where is None else snapshot.allowed(options.where)
    return _asked(snapshot, options, excluded(snapshot, n, exclude, {}), chosen, mask)


def _asked(
    snapshot: Snapshot,
    options: RankOptions,
    exclude: Sequence[NDArray[np.int64]],
    chosen: Allowed | None,
    mask: NDArray[np.bool_] | None,
) -> Ask:
    allowed, few = _allowed(snapshot, chosen, mask)
    return Ask(
        # of a billion there are as many as there are rows
        k=min(int(options.k), max(len(snapshot), 1)),
        allowed=allowed,
        exclude=exclude,
        one_per=None if options.one_per is None else snapshot.identity.groups(options.one_per),
        min_score=None if options.min_score is None else _least(options.min_score),
        few=few,
    )


def _shortly(
    snapshot: Snapshot, plan: Plan, queries: NDArray[np.float32], options: RankOptions, chosen: Allowed | None
) -> Neighbours | None:
    """Answer what is asked most on a CPU at once: few rows of all of one tuned segment, or of few that are allowed.

    ``None`` for everything else.
    """
    if options.one_per is not None or options.min_score is not None or options.effort is not None:
        return None
    n, k = snapshot.n_total, int(options.k)
    if not n:
        return None
    if chosen is not None and (few := chosen.few) is not None:
        flat = options.exact or isinstance(plan.config, Flat)
        if len(queries) > 1 or not (flat or approximate.scanned(len(few), 1, n, queries.shape[1])):
            return None
        return exact.among(plan.blocks, queries, few, min(k, max(len(snapshot), 1)), **plan.how(snapshot))
    tuned = not (isinstance(plan.config, Flat) or plan.promises.bound.few)
    if not tuned or chosen is not None or options.exact or len(snapshot) < n or k > min(DEPTH, n // 20):
        return None
    found = approximate.plain(plan.accelerators[0], plan.config, queries, k, cosine=plan.cosine)
    return replace(found, note=plan.promises.few) if found else None


def _as_asked(config: Config, tuned: Config) -> str:
    return f"approximate: effort {effort_of(config)} instead of the {effort_of(tuned)} whose recall was measured"


def require_k(k: object) -> None:
    """Raise `UsageError` where ``k`` is not a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | float | np.integer) or k % 1 != 0:
        raise UsageError(f"k must be a whole number, got: {k!r}")
    if k < 1:
        raise UsageError(f"k must be at least 1, got: {k!r}")


class Plan:
    """How a snapshot is searched, worked out once.

    Attributes
    ----------
    blocks
        The vectors of all rows.
    max_norm
        The largest norm among them.
    cosine
        Whether the similarity is cosine.
    config
        The index type that `tune` chose; exact search where it never ran.
    promises
        What a person should know of answers by the accelerators, and how far these look.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        manifest = snapshot.manifest
        self.blocks = snapshot.blocks()
        self.max_norm = max((info.max_norm for info in manifest.segments), default=0.0)
        self.cosine = manifest.encoder.similarity == "cosine"
        self.config, self.promises = tuned(manifest)
        self._segments = snapshot.segments

    def how(self, snapshot: Snapshot) -> approximate.How:
        """Return what all kinds of search are told of the vectors; the plan itself does not hold its snapshot."""
        return approximate.How(max_norm=self.max_norm, cosine=self.cosine, ids_of=snapshot.ids)

    @cached_property
    def accelerators(self) -> tuple[Sequence[Accelerator | None], str | None]:
        """One for each block, or ``None`` where there is none; and what a person should know of that."""
        if isinstance(self.config, Cagra):
            return (), "searched exactly: CAGRA runs on a GPU, for a few hundred rows"
        try:
            from retr.index.accelerators.faiss_index import load

            found = [segment.accelerator(load) for segment in self._segments]
        except (IndexCorruptError, MissingExtraError) as error:
            return (), f"searched exactly: {error}"
        return found, None

    def proposing(self, ask: Ask) -> tuple[Sequence[Accelerator | None], str | None]:
        """Return the accelerators that serve a question, and what a person should know of that."""
        found, said = self.accelerators
        if not any(found):
            return (), said
        if approximate.measured(ask):
            return found, self.promises.few
        if any(map(is_best_first, found)):
            return found, self.promises.any
        return (), f"searched exactly: an index of the kind {_kind(self.config)} is only known to find few rows of all"


@dataclass(frozen=True)
class Promises:
    """What `tune` measured, in words.

    Attributes
    ----------
    few
        Of a question for few rows of all.
    any
        Of any other, as under a filter.
    bound
        How far the accelerators look for that.
    """

    few: str
    any: str
    bound: approximate.Bound


def tuned(manifest: Manifest) -> tuple[Config, Promises]:
    """Return the index type that `tune` chose and the recall it measured; exact search where it never ran."""
    if not manifest.extra.get(TUNING):
        return Flat(), Promises("", "", approximate.Bound(math.inf))
    with stored(*_NOTED):
        noted = Fields(manifest.extra[TUNING])
        recall, reach, few = noted.number("recall"), math.inf, None
        if noted.has("few"):
            few, recall = noted.inner("few").number("reach"), noted.inner("few").number("recall")
        said = f"approximate: recall {recall:.3f} when tuned"
        wider = f"{said}; how it fares under filters was not measured: all that is allowed is looked at"
        if noted.has("filtered"):
            filtered = noted.inner("filtered")
            wider = f"approximate: recall {filtered.number('recall'):.3f} when tuned, under adverse filters"
            reach = filtered.number("reach") if filtered.has("reach") else math.inf
        bound = approximate.Bound(reach, few=few)
        return from_json(noted.inner("index").data()), Promises(said, wider, bound)


def _kind(config: Config) -> str:
    return " ".join([type(config).__name__.lower(), *([config.codec] if isinstance(config, IVF | HNSW) else [])])


def describe(manifest: Manifest) -> dict[str, object]:
    """Say, for people and as JSON, how the index is searched and what that reached when it was measured."""
    noted = manifest.extra.get(TUNING)
    if not noted:
        return {"kind": "exact", "recall": 1.0}
    with stored(*_NOTED):
        noted = {**noted, **noted.get("few", {})}
        keys = ("reason", "recall", "recalls", "k", "milliseconds", "bytes", "reach", "filtered", "items")
        reached = {key: noted[key] for key in keys if noted.get(key)}
        # Of all settings measured those that nothing cheaper reaches.
        curve, best = [], -1.0
        for point in sorted(noted["curve"], key=lambda point: point["milliseconds"]):
            if min(point["recall"].values()) > best:
                best = min(point["recall"].values())
                curve.append(_point(point))
        return {**shown(noted["index"]), **reached, "curve": curve}


def _point(point: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in point["index"].items() if name not in {"kind", "lists"})
    recalls = ", ".join(f"{value:.3f} ({sort})" for sort, value in point["recall"].items())
    return f"{point['index']['kind']}, {settings}: recall {recalls}, {point['milliseconds']:.2f} ms"


def prepared(queries: NDArray[np.float32], dim: int, *, cosine: bool) -> NDArray[np.float32]:
    """Return queries ``(n, dim)`` as they are compared, or raise `UsageError`."""
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise UsageError(f"queries must have the shape (n, {dim}), got {queries.shape}")
    if not np.isfinite(queries).all():
        raise UsageError("a query vector holds a value that is not a finite number")
    return unit(queries) if cosine else queries


def _least(score: float) -> float:
    """Return a smallest score among those that float32 can hold, as scores are: no score lies beyond them."""
    # an integer may be too large for `math.isnan`
    if score != score:  # noqa: PLR0124
        raise UsageError("the smallest score must be a number, got nan")
    most = float(np.finfo(np.float32).max)
    return float(min(max(score, -most), most))


def _allowed(
    snapshot: Snapshot, chosen: Allowed | None, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64] | None]:
    """Return the allowed rows as a mask, ``None`` for all, and their numbers where these are few and known."""
    allowed, few = None if len(snapshot) == snapshot.n_total else snapshot.alive(), None
    if chosen is not None:
        allowed, few = chosen.mask, chosen.rows
    if mask is None:
        return allowed, few
    if mask.shape != (snapshot.n_total,) or mask.dtype != np.bool_:
        raise UsageError(f"a mask must be bool ({snapshot.n_total},), got {mask.dtype} {mask.shape}")
    return mask if allowed is None else mask & allowed, None


def excluded(
    snapshot: Snapshot,
    n: int,
    exclude: Sequence[NDArray[np.int64]] | None,
    exclude_same: Mapping[str, Sequence[object]],
) -> list[NDArray[np.int64]]:
    """Return the forbidden rows of each of ``n`` queries, sorted; the arguments are those of `Store.search`."""
    if exclude is None and not exclude_same:
        return [_NOTHING] * n
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(n)]
    if exclude is not None:
        _need_one_each("exclude", exclude, n)
        for part, rows in zip(parts, exclude, strict=True):
            if len(rows):
                part.append(np.asarray(rows, np.int64))
    for column, values in exclude_same.items():
        _need_one_each(f"exclude_same[{column!r}]", values, n)
        snapshot.columns.require(column)
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        same = dict(zip(distinct, snapshot.identity.rows(column, distinct), strict=True))
        for part, value in zip(parts, values, strict=True):
            if value is not None:
                part.append(same[value])
    return [np.unique(np.concatenate(part)) if part else _NOTHING for part in parts]


def _need_one_each(what: str, values: Sequence[object], n: int) -> None:
    if len(values) != n:
        raise UsageError(f"{what} needs one entry for each of the {n} queries, got {len(values)}")


class Tunings(Kind):
    """What `tune` chose and measured. The accelerators themselves are files of segments, and go where those go."""

    name = "tuning"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads it."""
        return {TUNING: lambda: (tuned(snapshot.manifest), describe(snapshot.manifest))}

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: segments that have grown since are searched exactly."""
        return ()

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:  # noqa: ARG002
        """Keep it: it speaks of no row."""
        return Change()
