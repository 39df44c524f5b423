"""Where the words of a question stand in the texts of hits, for a person to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.rows.snapshot import Snapshot
    from retr.retrieval.hits import Hits

# How many characters of a text are shown on either side of the first and the last word, and in all.
_AROUND, _MOST = 40, 240


def excerpts(store: Snapshot, hits: Hits) -> list[tuple[int, str]]:
    """Return, for each column of each hit in which words were found, its rank and ``column: ... [word] ...``.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> excerpts(index.store, index.search(text="glaucoma", in_="label", k=1))
    [(1, 'label: [glaucoma]')]
    """
    if hits.highlights is None:
        return []
    columns = list(dict.fromkeys(column for found in hits.highlights for column in found))
    texts = store.table(columns, hits.rows).to_pydict()
    return [
        (rank, f"{column}: {excerpt(texts[column][at], spans)}")
        for at, (rank, found) in enumerate(zip(hits.ranks.tolist(), hits.highlights, strict=True))
        for column, spans in found.items()
    ]


def excerpt(text: str, spans: Sequence[Sequence[int]]) -> str:
    r"""Return the part of a text that holds the spans, each in brackets, on one line.

    >>> excerpt("No effusion.\nLarge mass.", [[19, 23]])
    'No effusion. Large [mass].'
    """
    begin = max(spans[0][0] - _AROUND, 0)
    end = min(spans[-1][1] + _AROUND, begin + _MOST, len(text))
    end = max(end, spans[0][1])
    parts, at = [], begin
    for start, stop in spans:
        if stop <= end:
            parts += [text[at:start], "[", text[start:stop], "]"]
            at = stop
    shown = " ".join("".join([*parts, text[at:end]]).split())
    return f"{'... ' if begin else ''}{shown}{' ...' if end < len(text) else ''}"
