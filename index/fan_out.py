"""A search over shards that are opened one by one, on whatever machines: each answers alone, and answers are merged.

An index in shards that is opened whole (`Store.open`) needs none of this: it answers in one scan. Where its shards lie
in several processes or machines, each opens one (`open_shard`) and returns its best rows (`answer`); whoever asked
merges them (`merge`) to what the whole would have answered, ids and scores to the bit.

>>> import tempfile
>>> import numpy as np
>>> from retr import Index
>>> from retr.index.search_options import RankOptions
>>> rows = {"id": list("abcdef"), "patient": list("uuvvww")}
>>> vectors = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
>>> with tempfile.TemporaryDirectory() as folder:
...     index = Index.from_vectors(vectors, rows, f"{folder}/i", encoder="mine", fingerprint="1", group="patient")
...     _ = index.shard(2)
...     asked = RankOptions(k=2, one_per="patient")
...     parts = [answer(open_shard(index.path, number), vectors[:1], asked) for number in range(2)]
...     merge(parts, asked.k).ids == [index.search(vector=vectors[0], k=2, one_per="patient").ids]
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retr.index.disk.current import read_current
from retr.index.disk.manifest import shard_folder
from retr.index.disk.shards import of_shard
from retr.index.disk.verified import verify_new
from retr.index.errors import IndexCorruptError, RetrError, UsageError
from retr.index.machine.home import index_folder
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.search_options import RankOptions


@dataclass(frozen=True)
class Answer:
    """What one shard, or several, found for ``n`` queries, best first.

    Attributes
    ----------
    ids
        For each query, at most k.
    scores
        For each query float32, as many.
    groups
        For each query the value of the ``one_per`` column, equal where two rows count as one, ``None`` for nobody's;
        ``None`` where there was no such column.
    version
        The commit of the whole index that answered.
    exact
        Whether these are provably the best.
    note
        What a person should know of how they were found, or ``None``.
    """

    ids: list[list[str]]
    scores: list[NDArray[np.float32]]
    groups: list[list[str | None]] | None
    version: int
    exact: bool = True
    note: str | None = None


def open_shard(path: Path | str, number: int, *, version: int | None = None) -> Store:
    """Open one shard of an index, reading and verifying the files of no other.

    Parameters
    ----------
    path
        The folder of the whole index.
    number
        Which shard, counted from 0; of an index without shards, 0 is all of it.
    version
        Of the whole; by default the newest.

    Raises
    ------
    UsageError
        There is no such shard.
    RetrError
        The whole is of another version by now.
    """
    root = index_folder(path).absolute()
    while True:
        whole = read_current(root)
        if version not in {None, whole.version}:
            raise RetrError(
                f"the index {root.name!r} is of version {whole.version}, asked for was {version}",
                hint="let all shards answer for one version",
            )
        if not 0 <= number < max(whole.shards, 1):
            raise UsageError(f"the index {root.name!r} has {max(whole.shards, 1)} shards, got: {number}")
        try:
            if not whole.shards:
                return Store.open(root)
            store = Store(root / shard_folder(number), of_shard(whole, number))
            verify_new(store.path, store.manifest, store.segments)
        except FileNotFoundError as error:
            # a writer has committed, and removed what it replaced
            if read_current(root).version == whole.version:
                raise IndexCorruptError("a file is missing from the index", hint="run `retr index check`") from error
        else:
            return store


def answer(
    shard: Store,
    queries: NDArray[np.float32],
    options: RankOptions,
    *,
    exclude: Sequence[Sequence[str]] | None = None,
    exclude_same: Mapping[str, Sequence[object]] | None = None,
) -> Answer:
    """Search one shard; raises as `Store.search`.

    Parameters
    ----------
    queries, options, exclude_same
        As `Store.search` takes them.
    exclude
        For each query ids that are never returned for it, of whatever shard.
    """
    left_out = None
    if exclude is not None:
        left_out = [found[found >= 0] for found in (shard.rows_of(ids) for ids in exclude)]
    got = shard.search(queries, options, exclude=left_out, exclude_same=exclude_same)
    there = got.rows >= 0
    ends = np.cumsum(there.sum(axis=1)).tolist()
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    # of all queries at once
    rows, scores = got.rows[there], got.scores[there]
    names = shard.ids(rows)
    named = None if options.one_per is None else shard.identity.of(options.one_per, rows)
    return Answer(
        ids=[names[span] for span in spans],
        scores=[scores[span] for span in spans],
        groups=None if named is None else [named[span] for span in spans],
        version=shard.version,
        exact=got.exact,
        note=got.note,
    )


def merge(answers: Sequence[Answer], k: int) -> Answer:
    """Merge what all shards answered to the k best of each query: by score, equal scores by id, one of a group.

    Raises
    ------
    RetrError
        They answered for different versions of the index: a row may be in none of them, or in two.
    """
    versions = sorted({one.version for one in answers})
    if len(versions) != 1:
        raise RetrError(f"shards answered for the versions {versions} of an index", hint="ask again")
    grouped = answers[0].groups is not None
    ids, scores, groups = [], [], []
    for number in range(len(answers[0].ids)):
        score = np.concatenate([one.scores[number] for one in answers])
        name = [name for one in answers for name in one.ids[number]]
        group = (
            [value for one in answers if one.groups for value in one.groups[number]] if grouped else [None] * len(name)
        )
        kept = _best(score, name, group, k)
        ids.append([name[at] for at in kept])
        scores.append(score[kept])
        groups.append([group[at] for at in kept])
    notes = dict.fromkeys(one.note for one in answers if one.note)
    return Answer(
        ids=ids,
        scores=scores,
        groups=groups if grouped else None,
        version=versions[0],
        exact=all(one.exact for one in answers),
        note="; ".join(notes) or None,
    )


def _best(scores: NDArray[np.float32], names: list[str], groups: Sequence[str | None], k: int) -> list[int]:
    """Return the places of the k best, in order: by score, equal scores by name, the first of each group."""
    places = np.arange(len(scores))
    if len(scores) > k and not any(group is not None for group in groups):
        places = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    found: dict[object, int] = {}
    for at in sorted(places.tolist(), key=lambda at: (-scores[at], names[at])):
        found.setdefault(at if groups[at] is None else groups[at], at)
        if len(found) == k:
            break
    return list(found.values())
