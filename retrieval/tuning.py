"""Tune an index, with its own rows and texts as queries.

Text queries lie elsewhere in the space than pictures do, and an index that finds pictures well may find little for
words. The archive's own words are the best guess at what will be asked: every short text of its metadata.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retr.index.errors import RetrError
from retr.index.store import Store
from retr.retrieval.ingest.rows import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.index.tune import Tuning
    from retr.retrieval.index_like import IndexLike

_MOST = 1024
_LONGEST = 300


def tune(
    index: IndexLike,
    *,
    recall: float = 0.95,
    memory: int | None = None,
    latency: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Choose how an index is searched: the cheapest setting that finds this share of the 10 best rows.

    An index that was opened on ``cuda`` is tuned for GPUs.

    Parameters
    ----------
    recall
        Above 0, at most 1; 1 is exact search.
    memory
        Bytes the accelerators may take; ``None`` sets no limit.
    latency
        Seconds one query alone may take; ``None`` sets no limit.
    say
        Told what is being done, a line at a time.

    Raises
    ------
    UsageError
        ``recall`` is not a share.
    MissingExtraError
        faiss is not installed.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.tune().reason
    'under 10000 rows exact search is fast'
    """
    from retr.index import tune as tuner

    queries = text_queries(index, say)
    with index.store.writer() as writer:
        tuning = tuner.tune(
            writer,
            recall=recall,
            memory=memory,
            latency=latency,
            queries=queries,
            device=index.store.placement.device,
            say=say,
        )
    index.refresh()
    return tuning


def tune_if_large(index: IndexLike) -> list[str]:
    """Tune an index that has grown too large for exact search; say what came of it."""
    from retr.index.tune import needed

    # a store of its own: what is asked is whether the CPU is too slow
    if find_spec("faiss") is None or not needed(Store.open(index.path)):
        return []
    said: list[str] = []
    tuning = tune(index, say=said.append)
    return [f"the index is large: tuned for approximate search, recall {tuning.recall:.3f}", *said]


def text_queries(index: IndexLike, say: Callable[[str], None]) -> dict[str, NDArray[np.float32]]:
    """Return ``{"text": float32 (n, d)}``, or nothing where there is no text side or there are no words.

    Parameters
    ----------
    say
        Told why text queries were left out, where they were.
    """
    if not index.store.manifest.encoder.text:
        return {}
    words = _words(index)
    if len(words) < 2:
        say("the metadata holds no words: recall was not measured on text queries")
        return {}
    try:
        return {"text": np.asarray(index.encoder.encode_texts(words), np.float32)}
    except RetrError as error:
        say(f"recall was not measured on text queries: {error}")
        return {}


def _words(index: IndexLike) -> list[str]:
    found: set[str] = set()
    for field in index.store.schema:
        texts = pa.types.is_string(field.type)
        if field.name in RESERVED or not (texts or field.type == pa.list_(pa.string())):
            continue
        column = index.store.table([field.name]).column(field.name).drop_null()
        values = column.unique() if texts else column.combine_chunks().flatten().unique()
        found.update(value for value in values.to_pylist() if value and len(value) <= _LONGEST and not value.isdigit())
    chosen = sorted(found)
    np.random.default_rng(0).shuffle(chosen)
    return chosen[:_MOST]
