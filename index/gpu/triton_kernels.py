"""The two loops of an exact search on a GPU, compiled by Triton.

A scan that wrote every score would write and read more than the vectors themselves as soon as a batch has a hundred
queries. The first loop therefore multiplies and keeps only the best score of every group of rows, in registers; the
second scores the rows of the few groups that are worth it, pair by pair in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def group_maxima(
    vectors,
    queries,
    allowed,
    maxima,
    n_rows,
    n_queries,
    dim: tl.constexpr,
    masked: tl.constexpr,
    group: tl.constexpr,
    block_rows: tl.constexpr,
    block_queries: tl.constexpr,
    block_dim: tl.constexpr,
):
    """Write the best score of every group of rows for every query: float32 ``(n_groups, n_queries)``.

    Parameters
    ----------
    vectors
        float16 ``(rows, dim)``; rows a multiple of ``block_rows``, dim of ``block_dim``.
    queries
        float16 ``(queries, dim)``; queries a multiple of ``block_queries``.
    allowed
        uint8 ``(n_rows,)``, read where ``masked``: rows of 0 count for nothing.
    maxima
        Where the result goes.
    """
    # the blocks of queries that share some rows run one after another: the rows are then in the L2 cache
    query_blocks = tl.cdiv(n_queries, block_queries)
    row_block = (tl.program_id(0) // query_blocks).to(tl.int64)
    query_block = tl.program_id(0) % query_blocks
    rows = row_block * block_rows + tl.arange(0, block_rows)
    asked = query_block * block_queries + tl.arange(0, block_queries)
    at = tl.arange(0, block_dim)
    left = vectors + rows[:, None] * dim + at[None, :]
    right = queries + asked[None, :] * dim + at[:, None]
    scores = tl.zeros((block_rows, block_queries), tl.float32)
    for _ in range(0, dim, block_dim):
        scores = tl.dot(tl.load(left), tl.load(right), scores)
        left += block_dim
        right += block_dim
    counts = rows < n_rows
    if masked:
        counts = counts & (tl.load(allowed + rows, mask=counts, other=0) != 0)
    scores = tl.where(counts[:, None], scores, float("-inf"))
    best = tl.max(tl.reshape(scores, (block_rows // group, group, block_queries)), axis=1)
    groups = row_block * (block_rows // group) + tl.arange(0, block_rows // group)
    places = maxima + groups[:, None] * n_queries + asked[None, :]
    tl.store(places, best, mask=asked[None, :] < n_queries)


@triton.jit
def group_scores(
    vectors,
    queries,
    groups,
    allowed,
    scores,
    n_rows,
    n_chosen,
    dim: tl.constexpr,
    masked: tl.constexpr,
    group: tl.constexpr,
    block_dim: tl.constexpr,
):
    """Write the scores of the rows of chosen groups: float64 ``(n_queries, n_chosen * group)``.

    Each is summed in an order that depends on nothing but the two vectors; ``-inf`` where a row counts for nothing.

    Parameters
    ----------
    queries
        float32 ``(n_queries, dim)``.
    groups
        int64 ``(n_queries, n_chosen)``.
    """
    query = tl.program_id(1).to(tl.int64)
    place = query * n_chosen + tl.program_id(0)
    rows = tl.load(groups + place) * group + tl.arange(0, group)
    at = tl.arange(0, block_dim)
    left = vectors + rows[:, None] * dim + at[None, :]
    right = queries + query * dim + at
    sums = tl.zeros((group,), tl.float64)
    for _ in range(0, dim, block_dim):
        sums += tl.sum(tl.load(left).to(tl.float64) * tl.load(right).to(tl.float64)[None, :], axis=1)
        left += block_dim
        right += block_dim
    counts = rows < n_rows
    if masked:
        counts = counts & (tl.load(allowed + rows, mask=counts, other=0) != 0)
    tl.store(scores + place * group + tl.arange(0, group), tl.where(counts, sums, float("-inf")))
