"""Answers by words: BM25 alone, or fused with vectors by reciprocal rank (Cormack, Clarke and Buettcher 2009).

Words score every row, so that conditions, exclusion, groups and pages are exact. Fusion looks at the first `DEPTH`
allowed rows of either order, whatever ``k`` is, and a row's score is the sum of weight / (60 + rank) over both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, Neighbours
from retr.retrieval.words.analysis import DENIED, terms
from retr.retrieval.words.kind import bm25_of, named, require_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.query import Query
    from retr.retrieval.search_options import SearchOptions

#: How many rows of either order are fused, and what is added to a rank.
DEPTH, RANK = 1000, 60
_HALF = 0.5


@dataclass(frozen=True)
class Asked:
    """The words of a question, and what of it is left for vectors.

    Attributes
    ----------
    terms
        What is looked for, with its weight.
    vectors
        The share of vectors in the answer, 0 for words alone.
    rest
        What is compared as vectors.
    written
        The words as they were written, by term.
    """

    terms: tuple[tuple[str, float], ...]
    vectors: float
    rest: Query
    written: Mapping[str, str]

    @property
    def weights(self) -> dict[str, float] | None:
        """The shares of words and vectors; ``None`` for words alone."""
        return {"words": 1 - self.vectors, "vectors": self.vectors} if self.vectors else None


def read_question(query: Query, fuse: float | None) -> Asked:
    """Return what of a question is words; `UsageError` where there are none, or where weights cannot be meant."""
    texts = [part for part in query.parts if part.kind == "text"]
    read = [(part, term) for part in texts for term in terms(part.value)]
    found = tuple((term.text, part.weight) for part, term in read)
    written = {term.text: part.value[term.start : term.stop] for part, term in read}
    if not any(weight > 0 for _, weight in found):
        hint = "give text= (--text); words such as 'the' and 'no' alone find nothing"
        raise UsageError("there are no words to look for", hint=hint)
    others = tuple(part for part in query.parts if part.kind != "text")
    mixed = bool(others) or bool(query.marked)
    share = (_HALF if mixed else 0.0) if fuse is None else float(fuse)
    if not 0 <= share <= 1:
        raise UsageError(f"the share of vectors lies between 0 and 1, got {fuse!r}")
    return Asked(found, share, replace(query, parts=others) if mixed else query, written)


@dataclass(frozen=True)
class Questions:
    """What several questions look for, and the columns in which."""

    columns: tuple[str, ...]
    questions: tuple[Asked, ...]


def read_questions(store: Store, queries: Sequence[Query], options: SearchOptions) -> Questions:
    """Return what is looked for as words.

    Raises
    ------
    UsageError
        A column is unknown or holds no texts, a question has no words, or an option has no meaning with words.
    """
    columns = tuple(dict.fromkeys(named(options.in_, "in_")))
    if not columns:
        raise UsageError("in_ names no column", hint="name a column of text")
    for name in columns:
        require_text(store, name)
    if options.diverse:
        raise UsageError("diverse is told by vectors, and words are looked for", hint="leave diverse or in_ out")
    questions = tuple(read_question(query, options.fuse) for query in queries)
    if options.effort is not None and not any(one.vectors for one in questions):
        raise UsageError(f"words are compared with every row, which has no effort, got {options.effort!r}")
    return Questions(columns, questions)


def by_words(
    store: Store,
    asked: Questions,
    vectors: NDArray[np.float32],
    options: SearchOptions,
    exclude: Sequence[NDArray[np.int64]],
) -> list[Neighbours]:
    """Return the answer to each question.

    Parameters
    ----------
    vectors
        float32 ``(m, dim)``: of those questions that are compared as vectors, too, in order.
    options
        Of which ``k`` counts the rows that an offset leaves out, too.
    exclude
        The rows that each question is not shown.
    """
    allowed = store.alive() if options.where is None else store.where(options.where)
    groups = None if options.one_per is None else store.identity.groups(options.one_per)
    ask = Ask(min(int(options.k), max(len(store), 1)), None, [], groups, options.min_score)
    wide = replace(options, k=DEPTH, one_per=None, min_score=None)
    deep = Ask(DEPTH, None, [], None, None)
    fused = [hidden for one, hidden in zip(asked.questions, exclude, strict=True) if one.vectors]
    near = store.search(vectors, wide, exclude=fused) if fused else None
    places, answers = iter(range(len(fused))), []
    for one, hidden in zip(asked.questions, exclude, strict=True):
        rows, scores = _scored(store, one, asked.columns, allowed, hidden)
        exact, searched, note = True, 1.0, f"words in {', '.join(asked.columns)}, by BM25"
        note = "; ".join([note, *_opposite(store, one, asked.columns, allowed, np.union1d(rows, hidden))])
        if one.vectors:
            assert near is not None
            best, _ = ranked(rows[None], scores[None], deep, store.ids)
            rows, scores = _fused(best[0], near.rows[next(places)], one.vectors)
            shares = ", ".join(f"{name} {share:g}" for name, share in (one.weights or {}).items())
            note = f"{note}, fused with vectors by reciprocal rank ({shares})"
            exact, searched = near.exact, near.searched
            note = f"{note}; {near.note}" if near.note else note
        best, top = ranked(rows[None], scores[None], ask, store.ids)
        answers.append(Neighbours(best, top, exact=exact, note=note, searched=searched))
    return answers


def _scored(
    store: Store, asked: Asked, columns: Sequence[str], allowed: NDArray[np.bool_], forbidden: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the allowed rows that hold one of the words that are wanted, and their scores."""
    wanted, total = np.zeros(store.n_total, bool), np.zeros(store.n_total)
    for column in columns:
        bm25 = bm25_of(store, column)
        for term, weight in asked.terms:
            scores = bm25.scores([term])
            wanted |= (scores > 0) & (weight > 0)
            total += weight * scores
    wanted &= allowed
    wanted[forbidden] = False
    rows = np.flatnonzero(wanted)
    return rows, total[rows].astype(np.float32)


def _opposite(
    store: Store, asked: Asked, columns: Sequence[str], allowed: NDArray[np.bool_], others: NDArray[np.int64]
) -> list[str]:
    """Return how many allowed rows are not found because they deny what is asked for, or find what is to be denied.

    Rows among ``others``, which are found or left out, do not count.
    """
    said = []
    for term in dict.fromkeys(term for term, weight in asked.terms if weight > 0):
        other = term.removeprefix(DENIED) if term.startswith(DENIED) else f"{DENIED}{term}"
        holds = np.zeros(store.n_total, bool)
        for column in columns:
            holds |= bm25_of(store, column).scores([other]) > 0
        holds &= allowed
        holds[others] = False
        if n := int(np.count_nonzero(holds)):
            what = f"say that there is {asked.written[term]!r}" if term.startswith(DENIED) else ""
            said.append(f"{n} rows {what or f'deny {asked.written[term]!r}'} and are not found by it")
    return said


def _fused(
    words: NDArray[np.int64], vectors: NDArray[np.int64], share: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    scores: dict[int, float] = {}
    for rows, weight in ((words, 1 - share), (vectors, share)):
        for rank, row in enumerate(rows[rows >= 0].tolist(), start=1):
            scores[row] = scores.get(row, 0.0) + weight / (RANK + rank)
    kept = {row: score for row, score in scores.items() if score > 0}
    return np.fromiter(kept, np.int64, len(kept)), np.fromiter(kept.values(), np.float32, len(kept))


def highlights(
    store: Store, rows: NDArray[np.int64], columns: Sequence[str], asked: Asked
) -> list[dict[str, list[list[int]]]]:
    """Return, for each row, where the words stand in its columns: ``[start, stop]`` in characters."""
    wanted = {term for term, weight in asked.terms if weight > 0}
    texts: Mapping[str, list[Any]] = store.table(columns, rows).to_pydict()
    return [
        {
            column: spans
            for column in columns
            if (spans := [[one.start, one.stop] for one in terms(texts[column][at] or "") if one.text in wanted])
        }
        for at in range(len(rows))
    ]
