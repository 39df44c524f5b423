"""Add notices to hits: truncated texts, the bridge that was used, a query unlike the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.retrieval.encoders.runtime.truncation import unread_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.hits import Hits
    from retr.retrieval.index_like import BridgeLike
    from retr.retrieval.novelty import Novelty
    from retr.retrieval.query import Query
    from retr.retrieval.query_vectors import TextEncoder

# notes of the manifest that say how unlike a picture may be: today's, and where earlier versions wrote it
MEASURED = {"novelty", "calibration"}


def add_remarks(
    store: Store,
    queries: Sequence[Query],
    hits: Sequence[Hits],
    *,
    own: Sequence[NDArray[Any] | None],
    exclude: Sequence[NDArray[np.int64]],
    side: TextEncoder,
    bridge: BridgeLike | None,
    all_rows: bool,
    said: Sequence[Sequence[str]],
) -> list[Hits]:
    """Return the hits with remarks added to their notes.

    Parameters
    ----------
    own, exclude
        Of each query the encoder's own vector, where it has one, and the rows that it was not shown.
    side
        What embedded the words of the queries: says which it did not read to the end.
    bridge
        What the words of the queries went through, if anything.
    all_rows
        Whether the best hit is the nearest row of the whole index; only then its score says what a query is like.
    said
        Of each query, what is known already.
    """
    fence, stale = _novelty(store) if all_rows and any(map(_is_picture, queries)) else (None, None)
    out = []
    for at, (query, found, known) in enumerate(zip(queries, hits, said, strict=True)):
        notes = [found.note, *known]
        texts = [part.value for part in query.parts if part.kind == "text"]
        notes += unread_ends(side, texts)
        if bridge is not None and texts:
            notes.append(bridge.note(texts))
        if _is_picture(query) and len(found):
            notes.append(stale)
            # what did not answer may hold what it is like
            if fence is not None and found.searched == 1:
                from retr.retrieval.novelty import UNTOLD, unlike

                asked = own[at]
                notes.append(UNTOLD if asked is None else unlike(store, fence, asked, found.rows, exclude[at]))
        out.append(found.with_note("; ".join(note for note in notes if note) or None))
    return out


def _novelty(store: Store) -> tuple[Novelty | None, str | None]:
    """Return what `retr.retrieval.novelty.find_novelty` does, without importing it where nothing was measured."""
    if not MEASURED & store.manifest.extra.keys():
        return None, None
    from retr.retrieval.novelty import find_novelty

    return find_novelty(store)


def _is_picture(query: Query) -> bool:
    """Return whether a query is one picture as it is: what a mix is near to says nothing of its parts."""
    one = len(query.parts) == 1 and not query.marked
    return one and query.parts[0].kind != "text" and query.parts[0].weight == 1
