"""Search against graded relevance that others judged, in TREC's form (qrels), by nDCG with intervals over patients.

A line is ``QUESTION 0 ROW GRADE``. A question is a row of the index, by its id, or one of a file of texts. A gain is
the grade itself, as trec_eval's; what nobody judged counts 0, as does a grade below it. A question that is a row is not
answered by itself or by its byte-identical copies: judgements of these do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows
from retr.retrieval.regular_files import NotRegularError, open_regular
from retr.retrieval.stats.intervals import Estimate, group_codes, mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike


@dataclass(frozen=True)
class GradedEvaluation:
    """What nDCG@k came to.

    Attributes
    ----------
    questions, judged
        How many questions were asked, and how many judgements of rows of this index counted.
    ndcg
        By ``k``.
    notes
        What to know of it.
    """

    questions: int
    judged: int
    ndcg: dict[int, Estimate]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as one object, ready for JSON.

        >>> GradedEvaluation(2, 5, {10: Estimate(0.5, 0.1, 0.9, 2, 2)}).to_json()["ndcg"]
        [{'k': 10, 'value': 0.5, 'low': 0.1, 'high': 0.9}]
        """
        ndcg = [{"k": k, "value": one.value, "low": one.low, "high": one.high} for k, one in self.ndcg.items()]
        return {**asdict(self), "ndcg": ndcg, "notes": list(self.notes)}


def evaluate_graded(
    index: IndexLike,
    qrels: str | Path | Mapping[str, Mapping[str, float]],
    *,
    questions: str | Path | Mapping[str, str] | None = None,
    k: Sequence[int] = (5, 10),
    group: str | None = None,
    **options: Any,
) -> GradedEvaluation:
    r"""Measure search against judgements by nDCG.

    Parameters
    ----------
    qrels
        A file of lines ``QUESTION 0 ROW GRADE``, separated by tabs, or by blanks where no id holds one; or the grades
        of rows by question, ``{"q1": {"a.png": 2}}``.
    questions
        A file of lines ``QUESTION<tab>TEXT``, or the texts by question; without it questions are ids of rows, whose own
        patient is left out.
    k
        The depths.
    group
        The column of patients; by default the index's own.
    options
        Fields of `SearchOptions`, such as ``where``, ``in_`` and ``fuse``.

    Raises
    ------
    UsageError
        A file cannot be read as such, a question is unknown, or none has a row that is judged above 0.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> file = index.path.parent / "judged.qrels"
    >>> _ = file.write_text("healthy/P01-left.png 0 healthy/P11-right.png 2\n")
    >>> index.evaluate_graded(file, k=[5]).ndcg[5].value
    1.0
    """
    store = index.store
    depths = sorted({int(one) for one in k})
    if not depths or depths[0] < 1:
        raise UsageError(f"a depth is a whole number of at least 1, got: {list(k)!r}")
    judged = _judged(qrels) if isinstance(qrels, Mapping) else _read_qrels(qrels)
    texts = questions if questions is None or isinstance(questions, Mapping) else _read_questions(questions)
    group = store.manifest.group if group is None else group
    names = list(judged)
    if texts is None:
        own = _known(store, names)
        patients: list[str | None] = [None] * len(names) if group is None else store.identity.of(group, own)
        asked = [Query.id(name) for name in names]
    else:
        missing = next((name for name in names if name not in texts), None)
        if missing is not None:
            raise UsageError(f"the question {missing!r} is judged, and has no text", hint="add it to the questions")
        patients = [None] * len(names)
        asked = [Query.text(texts[name]) for name in names]
    apart = {} if texts is not None or group is None else {"exclude_same": group}
    # the public search, whose module stands above this one
    found = cast("Any", index).search(asked, k=depths[-1], columns=[], **{**apart, **options})
    answers = [hits.ids for hits in found]
    # what no answer can hold must not be missed in one
    hidden = [set[int]()] * len(names)
    if texts is None and not options.get("include_self"):
        hidden = [set(rows.tolist()) for rows in own_rows(asked, store)]
    values, kept, count, lost = [], [], 0, 0
    allowed = store.alive() if options.get("where") is None else store.where(options["where"])
    for at, (name, ids) in enumerate(zip(names, answers, strict=True)):
        grades = judged[name]
        rows = store.rows_of(list(grades))
        theirs = store.identity.of(group, rows[rows >= 0]) if group is not None and patients[at] is not None else []
        whose = iter(theirs)
        countable = {}
        for row, (one, grade) in zip(rows.tolist(), grades.items(), strict=True):
            mine = row >= 0 and bool(theirs) and next(whose) == patients[at]
            if row >= 0 and allowed[row] and not mine and row not in hidden[at]:
                countable[one] = max(grade, 0.0)
        lost += len(grades) - len(countable)
        count += len(countable)
        if any(countable.values()):
            values.append([ndcg([countable.get(one, 0.0) for one in ids], list(countable.values()), d) for d in depths])
            kept.append(at)
    if not kept:
        raise UsageError("no question has a row that is judged above 0 and may answer", hint="check the ids")
    codes = group_codes([patients[at] for at in kept], len(kept))
    table = np.array(values, np.float64)
    notes = (
        [f"{lost} judgements do not count: of the question's own patient, of its copies, or of no row that may answer"]
        if lost
        else []
    )
    if len(kept) < len(names):
        notes.append(f"{len(names) - len(kept)} questions have no row judged above 0, and are left out")
    ndcg_by = {depth: mean_interval(table[:, at], codes) for at, depth in enumerate(depths)}
    return GradedEvaluation(len(kept), count, ndcg_by, tuple(notes))


def ndcg(gains: Sequence[float], judged: Sequence[float], k: int) -> float:
    """Return nDCG@k of an answer from its gains in order, and those of all that was judged.

    >>> ndcg([0, 2], [2, 1], 2).__round__(4)
    0.4796
    """
    ideal = sorted(judged, reverse=True)

    def total(some: Sequence[float]) -> float:
        return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(some[:k], start=1)))

    return total(gains) / total(ideal)


def _known(store: Store, names: list[str]) -> NDArray[np.int64]:
    rows = store.rows_of(names)
    for name, row in zip(names, rows.tolist(), strict=True):
        if row < 0:
            raise UsageError(f"the question {name!r} is no row of the index", hint="give texts with questions")
    return rows


def _lines(file: str | Path) -> list[str]:
    try:
        with open_regular(home(file)) as stream:
            return stream.read().decode("utf-8-sig").splitlines()
    except (OSError, NotRegularError, UnicodeDecodeError):
        raise UsageError(f"cannot be read as a text in UTF-8: {str(file)!r}", hint="check the path") from None


def _judged(grades: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    for question, rows in grades.items():
        if wrong := next((row for row, grade in rows.items() if not np.isfinite(grade)), None):
            raise UsageError(f"the grade of {wrong!r} for the question {question!r} is no finite number")
    if not any(grades.values()):
        raise UsageError("nothing is judged", hint="give the grades of rows by question")
    return grades


def _read_qrels(file: str | Path) -> Mapping[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        parts = line.split("\t") if line.count("\t") == 3 else line.split()
        try:
            question, _, row, grade = parts
            value = float(grade)
        except ValueError:
            question, row, value = "", "", np.nan
        if not np.isfinite(value):
            what = f"line {number} of the judgements is no QUESTION 0 ROW GRADE"
            raise UsageError(what, hint="separate by tabs where ids hold blanks")
        if found.setdefault(question, {}).setdefault(row, value) != value:
            raise UsageError(f"line {number} of the judgements grades a row again, otherwise", hint="keep one of them")
    if not found:
        raise UsageError("the file of judgements is empty", hint="a line is QUESTION 0 ROW GRADE")
    return found


def _read_questions(file: str | Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            name, tab, text = line.partition("\t")
            if not tab or not text.strip() or name in found:
                raise UsageError(f"line {number} of the questions is no new QUESTION<tab>TEXT")
            found[name] = text
    return found
