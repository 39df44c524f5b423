"""What a head gains and loses among held-out rows: each compared with itself, with and without the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.vectors import unit
from retr.retrieval.stats.intervals import mean_interval
from retr.retrieval.stats.metrics import any_hit_at, precision_at
from retr.retrieval.stats.paired import paired_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.labels.cases import Cases
    from retr.retrieval.stats.intervals import Estimate

_CHUNK = 4096
_QUERIES = 5000  # measured on at most so many: enough for an interval of two points
_DEPTH = 5
_STRICT = " among held-out rows"


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of the rows that were asked.

    Attributes
    ----------
    values
        By the name of a measure, float64 ``(n,)``: precision@1, precision@5 and any-hit@5. The gallery is the held-out
        rows of other patients (``"... among held-out rows"``) or all labelled rows of other patients.
    patients
        int64 ``(n,)``: whose each row is.
    """

    values: dict[str, NDArray[np.float64]]
    patients: NDArray[np.int64]

    def estimates(self) -> dict[str, Estimate]:
        """Return the mean of each measure."""
        return {name: mean_interval(one, self.patients) for name, one in self.values.items()}

    def less(self, before: Measured) -> dict[str, Estimate]:
        """Return the mean difference of each measure to that of the same rows before, paired."""
        return {name: paired_difference(before.values[name], one, self.patients) for name, one in self.values.items()}

    def keeps_any_hit(self, before: Measured) -> bool:
        """Return whether any-hit@5 is nowhere lower than before."""
        names = [name for name in self.values if name.startswith("any_hit")]
        return all(self.values[name].mean() >= before.values[name].mean() - 1e-9 for name in names)


def measure_head(vectors: NDArray[Any], cases: Cases, held_out: NDArray[np.bool_], *, seed: int = 0) -> Measured:
    """Measure the retrieval of held-out rows by cosine, among themselves and among all labelled rows.

    Parameters
    ----------
    vectors
        float ``(n, d)`` of ``cases.rows``.
    cases
        The labelled rows; rows of the query's group never answer.
    held_out
        bool ``(n,)``: which rows ask.
    seed
        Of the sample of queries, where there are very many.
    """
    vectors = unit(vectors)
    asks = np.flatnonzero(held_out)
    if len(asks) > _QUERIES:
        asks = np.sort(np.random.default_rng(seed).permutation(asks)[:_QUERIES])
    hits: dict[str, list[NDArray[np.bool_]]] = {_STRICT: [], "": []}
    for start in range(0, len(asks), _CHUNK):
        block = asks[start : start + _CHUNK]
        scores = vectors[block] @ vectors.T
        scores[cases.groups[block, None] == cases.groups] = -np.inf
        for name, parts in hits.items():
            allowed = np.where(held_out, scores, -np.inf) if name else scores
            best = np.argsort(-allowed, axis=1, kind="stable")[:, :_DEPTH]
            shared = (cases.member[best] & cases.member[block, None]).any(axis=2)
            parts.append(shared & np.isfinite(np.take_along_axis(allowed, best, axis=1)))
    values = {}
    for name, parts in hits.items():
        found = np.concatenate(parts)
        values[f"precision@1{name}"] = precision_at(found, 1)
        values[f"precision@{_DEPTH}{name}"] = precision_at(found, _DEPTH)
        values[f"any_hit@{_DEPTH}{name}"] = any_hit_at(found, _DEPTH)
    return Measured(values, cases.groups[asks])


def said_of(before: Measured, after: Measured, share: float, keeps: float | None, who: str) -> list[str]:
    """Return what a head gains and loses among rows that it was not fitted on, a line each.

    Parameters
    ----------
    share
        Of the space that was there, in what is written.
    keeps
        The least larger share that lowers any-hit@5 nowhere among these rows; ``None`` for none.
    who
        Whom the index tells apart: ``"patients"``, or ``"pictures"``.
    """
    if share == 1:
        return [
            "what is written is the space that was there: no head was right more often; --mix 0 gives the head alone"
        ]
    difference = after.less(before)
    strict = [f"precision@1{_STRICT}", f"any_hit@{_DEPTH}{_STRICT}"]
    listed = ", ".join(
        f"{name.split()[0]} {before.values[name].mean():.3f} to {after.values[name].mean():.3f} ({_signed(one)})"
        for name, one in ((name, difference[name]) for name in strict)
    )
    said = [f"of {who} never seen, among each other: {listed}; {share:.0%} of the space that was there"]
    if difference[strict[0]].value < 0:
        said.append("the head measured worse than none: rather keep the index it was made from")
    elif keeps is not None and keeps > share:
        what = "is the space that was there, the only one that lowers" if keeps == 1 else "lowers"
        said.append(f"--mix {keeps:g} {what} any_hit@{_DEPTH} nowhere among these {who}")
    return said


def _signed(one: Estimate) -> str:
    return f"{one.value:+.3f}" if np.isnan(one.low) else f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
