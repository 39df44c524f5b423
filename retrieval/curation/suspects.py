"""Suspects: rows whose label looks wrong.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels"):
every row is asked with its patient held out (`retr.retrieval.curation.discriminant`). A class is sure of a row whose
probability reaches what rows that carry the class have on average; a row is ``confident``, counted as wrong, where the
most probable of the sure classes is another than its own and more probable. Rows are ranked by how many times as
probable the likely label is as the given one, which needs no threshold. A column of several classes a row is a column
of yes and no for each class; a row is as suspect as the class it fits least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.retrieval.curation.discriminant import VOTERS, held_out
from retr.retrieval.curation.findings import Findings
from retr.retrieval.curation.neighbours import nearest_others
from retr.retrieval.curation.outliers import require_count
from retr.retrieval.labels.cases import Cases, find_cases
from retr.retrieval.labels.labelled import unit_of
from retr.retrieval.labels.trained_rows import noted_head
from retr.retrieval.raw_vectors import raw_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

#: So many rows are shown that carry the likely label.
EVIDENCE = 3
_LEAST, _NAMED = 1e-6, 5
# Where more are counted as wrong than this, the count means little.
_TOO_MANY = 0.3


def suspects(
    index: IndexLike,
    label: str,
    n: int = 50,
    *,
    separator: str | None = None,
    group: str | None = None,
    where: str | None = None,
) -> Findings:
    """Find the rows whose label is most likely wrong.

    Parameters
    ----------
    label
        The column of class names. Rows without a value are left out.
    n
        How many.
    separator
        What joins several classes in one value.
    group
        The column that tells patients apart; by default the index's own.
    where
        Only rows for which this is true are judged, and judge.

    Returns
    -------
    Findings
        Of each row the ``given`` and the ``likely`` label, ``p_given`` and ``p_likely`` (of the class in question where
        a row carries several), whether confident learning counts it (``confident``), and as evidence the nearest rows
        of other patients that carry the likely label. ``facts["confident"]`` says how many of all rows it counts.

    Raises
    ------
    UsageError
        A column is unknown; there are fewer than two classes of several patients; or the index's vectors were fitted on
        labels.
    FilterError
        The expression cannot be read.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> found = index.suspects("label", 1)
    >>> found[0]["given"], found[0]["likely"], found.facts["rows"]
    ('glaucoma', 'healthy', 24)
    """
    store = index.snapshot().store
    require_count(n)
    refuse_fitted(store)
    cases, notes = judged_cases(store, label, separator=separator, group=group, where=where)
    vectors = raw_vectors(store, cases.rows)
    near = nearest_others(store, cases.rows, cases.groups, min(VOTERS, len(cases.rows) - 1))
    probabilities = held_out(vectors, cases.member, cases.groups, near, several=cases.several)
    found = judge(probabilities, cases.member, several=cases.several)
    shown = found.order[:n].tolist()
    records: list[dict[str, Any]] = []
    for rank, (at, name) in enumerate(zip(shown, store.ids(cases.rows[shown]), strict=True), start=1):
        flipped = cases.member[at].copy()
        if cases.several:
            flipped[found.likely[at]] ^= True
        else:
            flipped = np.arange(len(cases.classes)) == found.likely[at]
        records.append(
            {
                "rank": rank,
                "id": name,
                "given": _named(cases, cases.member[at], separator),
                "likely": _named(cases, flipped, separator),
                "p_given": round(float(found.p_given[at]), 4),
                "p_likely": round(float(found.p_likely[at]), 4),
                "confident": bool(found.confident[at]),
                "evidence": store.ids(cases.rows[_evidence(vectors, cases, at, flipped)]),
            }
        )
    if found.confident.mean() > _TOO_MANY:
        notes.append(
            f"confident learning counts {int(found.confident.sum())} of {len(cases.rows)} rows: vectors that tell "
            "these classes so badly do not say how many labels are wrong; the order is still the best there is"
        )
    facts = {
        "rows": len(cases.rows),
        "groups": len(np.unique(cases.groups)),
        "classes": len(cases.classes),
        "confident": int(found.confident.sum()),
    }
    return Findings(f"Suspect labels of {label!r}", tuple(records), facts, tuple(notes))


@dataclass(frozen=True)
class Judged:
    """What held-out probabilities say of the labels as given, of ``n`` rows.

    Attributes
    ----------
    order
        int64 ``(n,)``: the places of the rows, the most suspect first.
    likely
        int64 ``(n,)``: the likely class; of rows with several, the class that is likely missing, or there wrongly.
    p_given, p_likely
        float64 ``(n,)``: the probability of the given label and of the likely one.
    confident
        bool ``(n,)``: confident learning counts it as wrong.
    """

    order: NDArray[np.int64]
    likely: NDArray[np.int64]
    p_given: NDArray[np.float64]
    p_likely: NDArray[np.float64]
    confident: NDArray[np.bool_]


def judge(probabilities: NDArray[np.float64], member: NDArray[np.bool_], *, several: bool) -> Judged:
    """Compare held-out probabilities ``(n, c)`` with the labels as given, bool ``(n, c)``."""
    rows = np.arange(len(member))
    counts = np.maximum(member.sum(axis=0), 1)
    usual = np.where(member, probabilities, 0).sum(axis=0) / counts
    if several:
        usual_without = np.where(member, 0, 1 - probabilities).sum(axis=0) / np.maximum((~member).sum(axis=0), 1)
        states = np.where(member, probabilities, 1 - probabilities)
        likely = states.argmin(axis=1)
        p_given = states[rows, likely]
        p_likely = 1 - p_given
        confident = p_likely >= np.where(member[rows, likely], usual_without[likely], usual[likely])
        confident &= p_likely > p_given
    else:
        given = member.argmax(axis=1)
        rest = np.where(member, -1.0, probabilities)
        likely = rest.argmax(axis=1)
        p_given, p_likely = probabilities[rows, given], rest[rows, likely]
        sure = np.where(probabilities >= usual, probabilities, -1.0)
        confident = (sure.max(axis=1) > p_given) & (sure.argmax(axis=1) != given)
    ratio = np.log(np.maximum(p_likely, _LEAST)) - np.log(np.maximum(p_given, _LEAST))
    order = np.argsort(-ratio, kind="stable")
    return Judged(order.astype(np.int64), likely.astype(np.int64), p_given, p_likely, confident)


def refuse_fitted(store: Store) -> None:
    """Raise `UsageError` where the vectors were fitted on labels, which would then vouch for themselves."""
    if noted_head(store) is not None:
        raise UsageError(
            "the vectors of an adapted index were fitted on its labels, which cannot tell whether these are right",
            hint="ask the index that it was adapted from",
        )


def judged_cases(
    store: Store, label: str, *, separator: str | None, group: str | None, where: str | None
) -> tuple[Cases, list[str]]:
    """Find the labelled rows without the classes of one patient alone, which nobody else can vouch for.

    Raises
    ------
    UsageError, FilterError
        As `find_cases`; or fewer than two classes are left.
    """
    same = group is None and store.manifest.group is None
    cases = find_cases(store, label, separator=separator, group=group, where=where)
    notes = list(cases.notes)
    if same:
        notes = ["the index has no group key: pictures of one person are not kept apart"]
        notes += [note for note in cases.notes if "group key" not in note]
    patients = [len(np.unique(cases.groups[carried])) for carried in cases.member.T]
    keep = np.array(patients) > 1
    if keep.all():
        return cases, notes
    lone = [name for name, stays in zip(cases.classes, keep, strict=True) if not stays]
    unit = unit_of(group or store.manifest.group)
    if keep.sum() < 2:
        raise UsageError(
            f"{int(keep.sum())} classes of {label!r} are of more than one {unit}, at least two are needed",
            hint="label more rows, or name another column with --label",
        )
    more = f" and {len(lone) - _NAMED} more" if len(lone) > _NAMED else ""
    notes.append(f"not judged, being of one {unit} each: {', '.join(map(repr, lone[:_NAMED]))}{more}")
    member = cases.member[:, keep]
    # a row that carries nothing else has nothing left to be judged by
    rows = member.any(axis=1)
    return (
        Cases(
            label=label,
            group=cases.group,
            rows=cases.rows[rows],
            asks=cases.asks[rows],
            classes=tuple(name for name, stays in zip(cases.classes, keep, strict=True) if stays),
            member=member[rows],
            groups=cases.groups[rows],
            notes=cases.notes,
        ),
        notes,
    )


def _evidence(vectors: NDArray[np.float32], cases: Cases, at: int, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the places of the nearest rows of other patients that carry just the classes ``wanted``."""
    fits = np.flatnonzero((cases.member == wanted).all(axis=1) & (cases.groups != cases.groups[at]))
    best = np.argsort(-(vectors[fits] @ vectors[at]), kind="stable")[:EVIDENCE]
    return fits[best]


def _named(cases: Cases, carried: NDArray[np.bool_], separator: str | None) -> str:
    return (separator or ", ").join(name for name, one in zip(cases.classes, carried, strict=True) if one)
