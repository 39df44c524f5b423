"""What a person should know beside the hits: how far words were read, and by what; that nothing is really alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retr.retrieval.classify.calibration import find_novelty
from retr.retrieval.encoders.lengths import unread_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.store import Store
    from retr.retrieval.hits import Hits
    from retr.retrieval.query import Query, TextEncoder
    from retr.retrieval.words.align import Bridge


def add_remarks(
    store: Store,
    queries: Sequence[Query],
    hits: Sequence[Hits],
    *,
    side: TextEncoder,
    bridge: Bridge | None,
    all_rows: bool,
    said: Sequence[Sequence[str]],
) -> list[Hits]:
    """Give the hits with remarks added to their notes.

    Parameters
    ----------
    side
        What embedded the words of the queries: says which it did not read to the end.
    bridge
        What the words of the queries went through, if anything.
    all_rows
        Whether the best hit is the nearest row of the whole index; only then its score says what a query is like.
    said
        Of each query, what is known already.
    """
    novelty = find_novelty(store) if all_rows else None
    out = []
    for query, found, known in zip(queries, hits, said, strict=True):
        notes = [found.note, *known]
        texts = [part.value for part in query.parts if part.kind == "text"]
        notes += unread_ends(side, texts)
        if bridge is not None and texts:
            notes.append(bridge.note(texts))
        pictures = all(part.kind != "text" and part.weight > 0 for part in query.parts)
        if novelty is not None and pictures and len(found) and found.scores[0] < novelty.threshold:
            notes.append(
                f"unlike anything in this archive: the best hit scores {found.scores[0]:.3f}, "
                f"its own kind {novelty.threshold:.3f} or more"
            )
        out.append(replace(found, note="; ".join(note for note in notes if note) or None))
    return out
