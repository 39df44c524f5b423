"""How well pictures find their own texts, and texts their own pictures: Recall@k, with intervals over patients.

Each row's picture asks among the texts of all rows, and each text among the pictures of all. Rows with the very same
text are equally right, as two normal reports are. A wrong answer that scores as high as the right one counts as before
it. Rows whose patients a head or a bridge was fitted on take no part.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.waiting import waiting
from retr.index.vectors import unit
from retr.retrieval.labels.trained_rows import seen_by_bridge, seen_by_head
from retr.retrieval.stats.intervals import Estimate, group_codes, mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

# Scores that are nearer than float32 tells apart are one.
_BLOCK, _TIE = 512, 1e-6


@dataclass(frozen=True)
class TextEvaluation:
    """How well pictures and texts find each other.

    Attributes
    ----------
    rows, texts, patients
        How many pictures there were, how many different texts, and how many patients (rows, where none are known).
    image_to_text, text_to_image
        Recall@k by ``k``: how often a right answer is among the first k.
    notes
        What to know of them.
    """

    rows: int
    texts: int
    patients: int
    image_to_text: dict[int, Estimate]
    text_to_image: dict[int, Estimate]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as one object, ready for JSON.

        >>> TextEvaluation(2, 2, 2, {1: Estimate(0.5, 0.1, 0.9, 2, 2)}, {}).to_json()["image_to_text"]
        [{'k': 1, 'recall': 0.5, 'low': 0.1, 'high': 0.9}]
        """

        def listed_(by_depth: dict[int, Estimate]) -> list[dict[str, Any]]:
            return [{"k": k, "recall": one.value, "low": one.low, "high": one.high} for k, one in by_depth.items()]

        ways = {"image_to_text": listed_(self.image_to_text), "text_to_image": listed_(self.text_to_image)}
        return {**asdict(self), **ways, "notes": list(self.notes)}


def evaluate_text(
    index: IndexLike,
    column: str,
    *,
    separator: str | None = None,
    where: str | None = None,
    k: Sequence[int] = (1, 5, 10),
    group: str | None = None,
) -> TextEvaluation:
    """Measure how well pictures find their own texts by vectors, and texts their own pictures.

    Parameters
    ----------
    column
        Of texts; rows without one take no part.
    separator
        What joins several texts of one row, e.g. ``"||"``.
    where
        Only rows for which this is true.
    k
        The depths.
    group
        The column of patients, over whom intervals are; by default the index's own.

    Raises
    ------
    UsageError
        A column is unknown or holds no texts, a depth is below 1, or no two different texts are left.
    NoTextSideError
        Nothing embeds words.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> _ = index.align("caption", where="patient < 'P06'")
    >>> sorted(index.evaluate_text("caption").text_to_image)
    [1, 5, 10]
    """
    store = index.store
    depths = sorted({int(one) for one in k})
    if not depths or depths[0] < 1:
        raise UsageError(f"a depth is a whole number of at least 1, got: {list(k)!r}")
    if not pa.types.is_string(store.columns.require(column)):
        raise UsageError(f"texts are looked for in {column!r}, which holds {store.columns.require(column)}")
    side = index.text_side
    rows, own, notes = _asking(store, column, separator, where)
    texts = list(dict.fromkeys(text for mine in own for text in mine))
    if len(texts) < 2:
        why = f"fewer than two different texts are left in {column!r}{'; ' if notes else ''}{'; '.join(notes)}"
        raise UsageError(why, hint="measure more rows, or fit a bridge on fewer (`retr align --where`)")
    group = store.manifest.group if group is None else group
    codes = group_codes(None if group is None else store.identity.of(group, rows), len(rows))
    place = {text: at for at, text in enumerate(texts)}
    right = np.zeros((len(rows), len(texts)), bool)
    for row, mine in enumerate(own):
        right[row, [place[text] for text in mine]] = True
    with waiting(f"embedding {len(texts)} texts"):
        words = np.concatenate([side.encode_texts([text]) for text in texts])
    images = np.asarray(store.vectors(rows), np.float32)
    if store.manifest.encoder.similarity == "cosine":
        words, images = unit(words), unit(images)
    of_images = _ranks(images, words, right)
    of_texts = _ranks(words, images, right.T)
    asked = np.array([(row, place[text]) for row, mine in enumerate(own) for text in mine])
    return TextEvaluation(
        len(rows),
        len(texts),
        len(np.unique(codes)),
        {depth: mean_interval((of_images <= depth).astype(np.float64), codes) for depth in depths},
        {
            depth: mean_interval((of_texts[asked[:, 1]] <= depth).astype(np.float64), codes[asked[:, 0]])
            for depth in depths
        },
        notes,
    )


def _asking(
    store: Store, column: str, separator: str | None, where: str | None
) -> tuple[NDArray[np.int64], list[list[str]], tuple[str, ...]]:
    """Return the rows that take part, the texts of each, and what to know of who does not."""
    live = store.in_id_order(None if where is None else np.flatnonzero(store.where(where)))
    seen = seen_by_bridge(store)
    head = seen_by_head(store)
    if head is not None:
        seen = seen | head
    rows, own = [], []
    for row, cell in zip(live.tolist(), store.table([column], live).column(0).to_pylist(), strict=True):
        parts = [] if cell is None else [cell] if separator is None else cell.split(separator)
        mine = list(dict.fromkeys(filter(None, (" ".join(part.split()) for part in parts))))
        if mine and not seen[row]:
            rows.append(row)
            own.append(mine)
    lost = int(seen[live].sum())
    notes = (f"{lost} rows take no part: a bridge or head was fitted on their patients",) if lost else ()
    return np.array(rows, np.int64), own, notes


def _ranks(asking: NDArray[np.float32], answers: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rank of the best right answer to each: int64 ``(n,)``; wrong ones that tie with it come before it."""
    ranks = []
    for start in range(0, len(asking), _BLOCK):
        scores, mine = asking[start : start + _BLOCK] @ answers.T, right[start : start + _BLOCK]
        best = np.where(mine, scores, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + ((scores >= best - _TIE) & ~mine).sum(axis=1))
    return np.concatenate(ranks)
