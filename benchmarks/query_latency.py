"""What a query costs beside the plain faiss call: ``python -m retr.benchmarks.query_latency``.

100,000 random unit vectors; the same queries go to ``faiss.IndexFlatIP`` on the same vectors, to the store's search
and to ``Index.search`` (query algebra and metadata of the hits included, encoding not), one at a time and sixteen at
once, without a filter and with one that passes a tenth of the rows. The calls take turns, so that a disturbance of
the machine strikes all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.exact import synthetic
from retr.benchmarks.record import record
from retr.retrieval.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable

K = 10
FILTER = "tenth = 3"


def take_turns(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median milliseconds of each call."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(spent), 3) for name, spent in times.items()}


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--turns", type=int, default=31)
    options = parser.parse_args()
    import faiss

    figures: dict[str, Any] = {"rows": options.rows, "dim": options.dim, "k": K, "milliseconds": {}}
    with tempfile.TemporaryDirectory() as temporary:
        store = synthetic(Path(temporary) / "x.retr", options.rows, options.dim, "float32")
        index = Index(store)
        plain = faiss.IndexFlatIP(options.dim)
        plain.add(np.ascontiguousarray(store.vectors(), dtype=np.float32))
        rng = np.random.default_rng(1)
        for batch in (1, 16):
            queries = rng.normal(size=(batch, options.dim)).astype(np.float32)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            asked: Any = queries if batch > 1 else queries[0]
            spent = take_turns(
                {
                    "faiss": partial(plain.search, queries, K),
                    "store": partial(store.search, queries, K),
                    "store_filtered": partial(store.search, queries, K, where=FILTER),
                    "index": partial(index.search, vector=asked, k=K),
                    "index_filtered": partial(index.search, vector=asked, k=K, where=FILTER),
                },
                options.turns,
            )
            figures["milliseconds"][f"batch_{batch}"] = spent
            figures[f"search_over_faiss_batch_{batch}"] = round(spent["store"] / spent["faiss"], 3)
            figures[f"index_over_faiss_batch_{batch}"] = round(spent["index"] / spent["faiss"], 3)
            figures[f"filtered_over_unfiltered_batch_{batch}"] = round(spent["store_filtered"] / spent["store"], 3)
    record("query_latency", figures)


if __name__ == "__main__":
    main()
