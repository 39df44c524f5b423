"""Find patients and pictures that occur in several parts of a split.

Three things leak. A patient has rows in several parts. A picture has: all rows of one cluster of copies
(`retr.retrieval.audit.duplicates`) are one picture, through copies in no part, too. And patients who share a picture
may be one person under two names, so that all their rows are one cluster.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retr.retrieval.audit.clusters import components, count_crossing, list_crossing, several
from retr.retrieval.audit.duplicates import LISTED, Duplicates, Found, Pair

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike

# So many sets of patients whose names are alike are said one by one.
_SAID = 10


@dataclass(frozen=True)
class Leaks:
    """What crosses a split.

    Attributes
    ----------
    groups
        For each patient with rows in several parts, how many rows each part has.
    pairs, n_pairs
        The rows of one picture that are in different parts, with these parts, at most so many as were asked for; and
        how many such pairs there are.
    linked
        Sets of patients who share pictures and whose other rows are in different parts: each like ``groups``.
    parts
        How many rows each part has.
    without_part, without_group
        The rows that could not be looked at: those in no part, and those in one whose patient is not known.
    warnings
        What looks like one part, or one patient in two parts, under two spellings.
    duplicates
        How copies were found, and all of them.
    """

    groups: dict[str, dict[str, int]]
    pairs: tuple[tuple[Pair, str, str], ...]
    n_pairs: int
    linked: tuple[dict[str, dict[str, int]], ...]
    parts: dict[str, int]
    without_part: int
    without_group: int
    warnings: tuple[str, ...]
    duplicates: Duplicates

    def __bool__(self) -> bool:
        return bool(self.groups or self.n_pairs or self.linked)


def leaks(
    index: IndexLike,
    split: str,
    *,
    group: str | None = None,
    threshold: float | None = None,
    exact_only: bool = False,
    geometry: bool = False,
    limit: int = LISTED,
    progress: bool = False,
) -> Leaks:
    """Find patients, and pictures, that are in several parts of a split.

    Parameters
    ----------
    split
        The column that names each row's part; rows without one (an empty cell, NaN, blanks) are in none. Parts are
        compared as they are written.
    group
        The column that tells patients apart; by default the index's own, and without one only pictures are looked at.
    threshold, exact_only, geometry, progress
        As in `duplicates`.
    limit
        So many pairs are listed; all are counted.

    Raises
    ------
    UsageError
        A column is unknown.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.leaks("label").parts
    {'glaucoma': 12, 'healthy': 12}
    """
    index = index.snapshot()
    parts = _parts(index.store, split)
    found = Found(index, group=group, threshold=threshold, exact_only=exact_only, geometry=geometry, progress=progress)
    rows: dict[str, list[int]] = {}
    for at, name in enumerate(found.groups):
        if name is not None:
            rows.setdefault(name, []).append(at)
    counts = {name: _count(parts, own) for name, own in rows.items()}
    counted = Counter(part for part in parts if part is not None)
    unnamed = 0
    if group or index.store.manifest.group:
        unnamed = sum(name is None and part is not None for name, part in zip(found.groups, parts, strict=True))
    return Leaks(
        groups={name: count for name, count in counts.items() if len(count) > 1},
        pairs=tuple(
            (found.pair(a, b), str(parts[a]), str(parts[b])) for a, b in list_crossing(found.clusters, parts, limit)
        ),
        n_pairs=found.count(parts),
        linked=tuple(_linked(found, parts, rows, counts)),
        parts=dict(counted),
        without_part=parts.count(None),
        without_group=unnamed,
        warnings=(*_alike_parts(counted), *_alike_patients(counts)),
        duplicates=found.duplicates(limit),
    )


def _parts(store: Store, split: str) -> list[str | None]:
    """Return each live row's part as it is written; None for no part."""
    values = store.table([split])[split].to_pylist()
    return [None if value is None or value != value or not str(value).strip() else str(value) for value in values]  # noqa: PLR0124


def _count(parts: Sequence[str | None], rows: Sequence[int]) -> dict[str, int]:
    return dict(Counter(part for part in (parts[at] for at in rows) if part is not None))


def _linked(
    found: Found, parts: Sequence[str | None], rows: dict[str, list[int]], counts: dict[str, dict[str, int]]
) -> Iterator[dict[str, dict[str, int]]]:
    """Yield sets of patients connected by pictures, some rows of whom cross and share neither patient nor picture."""
    same_picture = [(cluster[0], at) for cluster in found.clusters for at in cluster[1:]]
    same_patient = [(own[0], at) for own in rows.values() for at in own[1:]]
    for nodes in several(components(len(parts), [*same_picture, *same_patient])):
        names = dict.fromkeys(name for name in (found.groups[at] for at in nodes) if name is not None)
        if len(names) < 2:
            continue
        # rows without a patient belong to nobody but themselves
        whose = [
            (name, -1) if name is not None else ("", at)
            for at, name in zip(nodes, (found.groups[at] for at in nodes), strict=True)
        ]
        what = found.labels[nodes].tolist()
        mine = [parts[at] for at in nodes]
        # pairs that cross, less those of one patient or of one picture, which are said by themselves
        beyond = (
            count_crossing(mine)
            - _inside(mine, whose)
            - _inside(mine, what)
            + _inside(mine, list(zip(whose, what, strict=True)))
        )
        if beyond:
            yield {name: counts[name] for name in names}


def _inside(parts: Sequence[str | None], keys: Sequence[Hashable]) -> int:
    """Count the pairs of one key that cross."""
    by_key: dict[Hashable, list[str | None]] = {}
    for part, key in zip(parts, keys, strict=True):
        by_key.setdefault(key, []).append(part)
    return sum(map(count_crossing, by_key.values()))


def _alike_parts(parts: Iterable[str]) -> Iterator[str]:
    for written in _alike(parts):
        yield f"{', '.join(map(repr, written))} are taken as different parts: they differ in spelling only"


def _alike_patients(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """Yield which patients would cross if those that are spelled alike were one; many are only counted."""
    crossing = [names for names in _alike(counts) if len({part for name in names for part in counts[name]}) > 1]
    for written in crossing[:_SAID]:
        yield f"{', '.join(map(repr, written))} are taken as different patients: they differ in spelling only"
    if len(crossing) > _SAID:
        yield f"so are {len(crossing) - _SAID} more sets of patients who are in different parts"


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Return which names differ in case, spaces or the form of their letters only, two or more each."""
    spellings: dict[str, list[str]] = {}
    for name in sorted(names):
        spellings.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    return [written for written in spellings.values() if len(written) > 1]
