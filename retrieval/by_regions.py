"""Answers by regions: rows whose pictures have a part that is like the question, with the part.

The question is one vector, as always: a picture, a region of one, words, a row. It is compared with the regions that an
index was built with (`retr.retrieval.regions`) and with no whole picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError
from retr.index.region_search import search_regions
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.exclude import each_of, same_rows
from retr.retrieval.hits import Hits
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_vectors import resolve
from retr.retrieval.regions.kind import searched_array
from retr.retrieval.regions.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.query import Query
    from retr.retrieval.search_options import SearchOptions


def find_regions(
    index: IndexLike,
    queries: Sequence[Query],
    options: SearchOptions,
    columns: Sequence[str] | None,
    hidden: NDArray[np.int64],
) -> list[Hits]:
    """Return the rows that answer each question, each with the region that is most like it.

    Parameters
    ----------
    columns
        Of the metadata that are shown, ``None`` for all.
    hidden
        Rows that are in no answer, sorted int64.

    Raises
    ------
    UsageError
        The index has no regions, or an option means nothing with them.
    ImageReadError
        A picture cannot be read.
    """
    store = index.store
    layout = _layout(store, options)
    own = own_rows(queries, store)
    named = None if options.exclude_same is None else each_of(options.exclude_same, len(queries))
    same, said = same_rows(store, named, queries, own, strict=options.strict_exclude, hidden=hidden)
    encoder = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    bridge = index.bridge if any(query.uses_text for query in queries) else None
    vectors = resolve(queries, encoder, store, text_encoder=bridge).vectors
    exclude = same if options.include_self else list(map(_both, own, same))
    first = int(options.offset or 0)
    asked = replace(options, k=int(options.k) + first)
    found = search_regions(store, searched_array(store), vectors, asked, exclude=exclude)
    described = [query.describe() for query in queries]
    answers = Hits.all_of(store, found.found, described, offset=first, columns=columns)
    general = [*store.identity.absent(options.where), *store.identity.warnings()]
    noted = []
    for hits, regions, notes in zip(answers, found.regions, said, strict=True):
        one = hits.with_note("; ".join(dict.fromkeys(filter(None, [hits.note, *notes, *general]))) or None)
        boxes = _boxes(store, layout, hits.rows, regions[first : first + len(hits)])
        vars(one)["regions"] = boxes
        noted.append(one)
    return noted


def _layout(store: Store, options: SearchOptions) -> Layout:
    layout = Layout.of(store)
    if layout is None:
        raise UsageError("the index has no regions", hint="`retr index regions grid` gives it some")
    for name in ("diverse", "in_", "fuse", "effort"):
        if getattr(options, name) is not None:
            shown = f"--{name.strip('_')}"
            said = f"{name} is not asked of regions, got: {getattr(options, name)!r}"
            raise UsageError(said, hint=f"leave {shown} out")
    return layout


def _both(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    return np.union1d(one, other)


def _boxes(
    store: Store, layout: Layout, rows: NDArray[np.int64], regions: NDArray[np.int64]
) -> list[tuple[int, int, int, int]]:
    sizes: list[Any] = store.table(["width", "height"], rows).to_pylist()
    return [
        layout.pixels(int(number), (size["width"], size["height"]))
        for number, size in zip(regions.tolist(), sizes, strict=True)
    ]
