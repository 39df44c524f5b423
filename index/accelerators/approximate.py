"""Approximate search through accelerators, with exact search where they cannot answer.

Each segment gives candidates: one with an accelerator proposes them, one without (rows added since the last ``tune``)
is scanned. All come with the scores that the exact search gives, are re-checked against the mask and the exclusions,
and ranked together. A query that is left with fewer than k rows is answered by the exact search instead.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from retr.index.accelerators.config import IVF
from retr.index.scan import exact
from retr.index.scan.ranking import ranked
from retr.index.types import Ask, Block, Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.index.accelerators.config import Config
    from retr.index.types import Accelerator

# Below this share of allowed rows a list or a graph holds too few of them: scanning the allowed rows is cheaper.
MIN_SHARE = 0.02
# Beyond these the candidates would be a large part of all rows.
_MAX_EXCLUDED = 256
_MAX_K = 2048
_NOTHING = np.empty(0, np.int64)


def suits(ask: Ask, n_rows: int) -> bool:
    """Return whether accelerators can serve what is asked."""
    if ask.k > min(_MAX_K, n_rows // 20) or max(map(len, ask.exclude), default=0) > _MAX_EXCLUDED:
        return False
    return ask.allowed is None or int(np.count_nonzero(ask.allowed)) >= MIN_SHARE * n_rows


def search(
    blocks: Sequence[Block],
    accelerators: Sequence[Accelerator | None],
    config: Config,
    queries: NDArray[np.float32],
    ask: Ask,
    *,
    max_norm: float,
    cosine: bool,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Neighbours:
    """Find about the ``ask.k`` best rows for each query; see `exact.search` for the arguments.

    Parameters
    ----------
    accelerators
        One for each block, or ``None`` where there is none.
    config
        How they are searched.
    """
    k, want = ask.k, ask.proposals
    found = []
    for block, accelerator in zip(blocks, accelerators, strict=True):
        if accelerator is None:
            found.append(_scanned(block, queries, ask, want, max_norm=max_norm, ids_of=ids_of))
        else:
            found.append(_proposed(block, accelerator, config, queries, ask, want))
    rows, scores = found[0]
    if len(found) > 1:
        rows, scores = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        best = np.argpartition(-scores, min(want, rows.shape[1]) - 1, axis=1)[:, :want]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    # Only now: what a forbidden row kept out is missing, and the query is short.
    if ask.allowed is not None:
        forbidden = ~ask.allowed[rows]
        rows[forbidden], scores[forbidden] = -1, -np.inf
    for number, excluded in enumerate(ask.exclude):
        if len(excluded):
            forbidden = np.isin(rows[number], excluded)
            rows[number, forbidden], scores[number, forbidden] = -1, -np.inf
    if cosine:
        np.minimum(scores, 1, out=scores)
        below = scores < -1
        if below.any():
            scores[below & (rows >= 0)] = -1
    result = Neighbours(*ranked(rows, scores, ask, ids_of), exact=False)
    n_allowed = sum(len(block.vectors) for block in blocks)
    if ask.allowed is not None:
        n_allowed = int(np.count_nonzero(ask.allowed))
    short = result.rows[:, min(k, n_allowed) - 1] < 0
    if ask.min_score is not None:
        short &= ~((rows >= 0) & (scores < ask.min_score)).any(axis=1)
    if short.any():
        again = np.flatnonzero(short)
        rest = dataclasses.replace(ask, exclude=[ask.exclude[number] for number in again.tolist()])
        whole = exact.search(blocks, queries[again], rest, max_norm=max_norm, cosine=cosine, ids_of=ids_of)
        result.rows[again], result.scores[again] = whole.rows, whole.scores
    return result


def _proposed(
    block: Block, accelerator: Accelerator, config: Config, queries: NDArray[np.float32], ask: Ask, want: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of one block that its accelerator proposes, int64 ``(n, c)``, -1 padded, and their scores."""
    allowed = None if ask.allowed is None else ask.allowed[block.start : block.start + len(block.vectors)]
    proposed = accelerator.search(queries, want, _widened(config, allowed), allowed=allowed)
    rows, scores = proposed.rows, proposed.scores
    if block.start:
        rows = np.where(rows >= 0, rows + block.start, -1)
    return rows, scores


def _scanned(
    block: Block,
    queries: NDArray[np.float32],
    ask: Ask,
    want: int,
    *,
    max_norm: float,
    ids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``want`` best allowed rows of one block and their scores, as `_proposed` does."""
    start, stop = block.start, block.start + len(block.vectors)
    here = Ask(
        k=min(want, len(block.vectors)),
        allowed=None if ask.allowed is None else ask.allowed[start:stop],
        exclude=[_NOTHING] * len(queries),
        one_per=None,
        min_score=None,
    )
    found = exact.search(
        [Block(block.vectors, 0)],
        queries,
        here,
        max_norm=max_norm,
        cosine=False,
        ids_of=lambda rows: ids_of(rows + start),
    )
    return np.where(found.rows >= 0, found.rows + start, -1), found.scores


def _widened(config: Config, allowed: NDArray[np.bool_] | None) -> Config:
    """Search more lists where a filter leaves few rows in each."""
    if allowed is None or not isinstance(config, IVF):
        return config
    share = max(float(allowed.mean()), MIN_SHARE)
    return dataclasses.replace(config, probes=int(config.probes * min(1 / share, 8.0)))
