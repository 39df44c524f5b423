"""Search of cases: what a case of fifty parts costs beside a picture, and how many of the best are found when tuned.

Without ``--data``: cases around centres of their own, of classes that overlap; the parts of a case lie along a line, as
slices do. Questions are cases that the index does not hold. Times are CPU seconds of one question alone, the median of
several, by turns; recall is the share of the ten best cases.

With ``--data DIR`` (a folder with ``labels.csv``): retrieval of patients against retrieval of single pictures on real
pictures, each patient out of his own gallery.

Run: ``python -m retr.benchmarks.items [--cases 100000] [--parts 50] [--dim 128]``, or ``--data DIR --patient COLUMN``
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.item_search import search_items
from retr.index.rows.items import items_of
from retr.index.scan.items import ItemQuestion
from retr.index.store import Store
from retr.index.tune import tune

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

K, QUESTIONS, AT_ONCE = 10, 24, 1000
_NOTHING = np.empty(0, np.int64)


class Cases:
    """Cases that anyone can draw again, number by number."""

    def __init__(self, parts: int, dim: int) -> None:
        self.parts, self.dim = parts, dim
        self._classes = np.random.default_rng(0).standard_normal((400, dim)).astype(np.float32)

    def vectors(self, numbers: range) -> NDArray[np.float32]:
        """Return the parts of some cases, float32 ``(n * parts, dim)``."""
        found = []
        for number in numbers:
            rng = np.random.default_rng((1, number))
            centre = self._classes[number % len(self._classes)] + rng.standard_normal(self.dim, np.float32)
            along = (
                rng.standard_normal(self.dim, np.float32) * np.linspace(-1, 1, self.parts, dtype=np.float32)[:, None]
            )
            found.append(centre + along + 0.5 * rng.standard_normal((self.parts, self.dim), np.float32))
        return np.concatenate(found)


def built(path: Path, cases: Cases, n: int) -> tuple[Store, float]:
    """Build an index of n cases, and return the CPU seconds it took."""
    info = EncoderInfo("synthetic", cases.dim, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info, dtype="float16")
    start = time.process_time()
    with store.writer() as writer:
        for first in range(0, n, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, n))
            studies = [f"s{number:07d}" for number in numbers for _ in range(cases.parts)]
            ids = [f"{study}/{at % cases.parts:03d}" for at, study in enumerate(studies)]
            writer.append(pa.table({"id": ids, "study": studies}), cases.vectors(numbers))
        writer.set_item("study")
        store = writer.commit()
    return store, time.process_time() - start


def milliseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Return the median CPU time of calls, after one to warm up."""
    calls[0]()
    times = []
    for call in calls:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return round(statistics.median(times) * 1e3, 2)


def measured(store: Store, cases: Cases, n: int, *, tuned: bool) -> dict[str, Any]:
    """Return times, and the recall of what is approximate, for cases that the index does not hold."""
    new = [cases.vectors(range(at, at + 1)) for at in range(n, n + QUESTIONS)]
    whole = [ItemQuestion(vectors, np.ones(cases.parts), _NOTHING) for vectors in new]
    middle = [ItemQuestion(one.vectors[cases.parts // 2 :][:1], np.ones(1), _NOTHING) for one in whole]
    found: dict[str, Any] = {}
    for name, questions in (("case", whole), ("one part", middle)):
        for score in ("maxsim", "best") if tuned else ("maxsim", "mean", "best"):
            asked = [partial(search_items, store, [one], "study", K, score=score) for one in questions]
            found[f"{name}, {score}: ms"] = milliseconds(asked)
            if tuned:
                true = [call(exactly=True)[0] for call in asked]
                near = [call()[0] for call in asked]
                shares = [np.mean(one.scores >= other.scores[-1]) for one, other in zip(near, true, strict=True)]
                found[f"{name}, {score}: recall@10"] = round(float(np.mean(shares)), 4)
                found[f"{name}, {score}: exact"] = all(one.exact for one in near)
    plain = [partial(store.search, vectors[cases.parts // 2][None], K) for vectors in new]
    found["rows, one picture: ms"] = milliseconds(plain)
    return found


def synthetic(n: int, parts: int, dim: int, *, tuned: bool) -> dict[str, Any]:
    """Return what a synthetic archive shows."""
    cases = Cases(parts, dim)
    with tempfile.TemporaryDirectory() as folder:
        store, seconds = built(Path(folder) / "i", cases, n)
        start = time.process_time()
        grouped = len(items_of(store, "study"))
        grouping = time.process_time() - start
        found = {
            "cases": grouped,
            "parts of each": parts,
            "dimensions": dim,
            "bytes of vectors": 2 * n * parts * dim,
            "build: CPU s": round(seconds, 1),
            "grouping rows into cases, once a snapshot: CPU s": round(grouping, 2),
            "exact": measured(store, cases, n, tuned=False),
        }
        if tuned:
            found |= _tuned(store, cases, n)
        return found | {"largest resident set: MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


def _tuned(store: Store, cases: Cases, n: int) -> dict[str, Any]:
    said, start = list[str](), time.process_time()
    with store.writer() as writer:
        tuning = tune(writer, say=said.append)
        store = writer.store
    return {
        "tune: CPU s": round(time.process_time() - start, 1),
        "accelerator: bytes": tuning.bytes,
        "tuned": said[-4:],
        "stated": dict(tuning.items or {}),
        "through accelerators": measured(store, cases, n, tuned=True),
    }


def real(data: Path, patient: str, label: str, work: Path) -> dict[str, Any]:
    """Return retrieval of patients against retrieval of pictures, on real ones."""
    from retr import Index

    path = work / f"{data.name}.retr"
    index = Index.build(data, path, metadata=data / "labels.csv", group=patient, item="patient")
    found: dict[str, Any] = {"data": data.name, "pictures": len(index), "encoder": index.info()["encoder"]}
    one = index.evaluate("retrieval", label, k=[1, 5])
    by = {"pictures": one} | {
        f"patients, {score}": index.evaluate("retrieval", label, k=[1, 5], item=True, item_score=score)
        for score in ("maxsim", "mean", "best")
    }
    for name, evaluation in by.items():
        found[f"{name}: who ask"] = evaluation.facts["queries"]
        for measure in ("precision@1", "any_hit@5"):
            estimate = evaluation.metrics[measure]
            found[f"{name}: {measure}"] = f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
    found["notes"] = list(by["patients, maxsim"].notes)
    return found


def main() -> None:
    """Run it, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=50)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--exact-only", action="store_true", help="Without accelerators, which take long to make.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--patient", default="patient")
    parser.add_argument("--label", default="label")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--note", default="CPU seconds.")
    asked = parser.parse_args()
    if asked.data is not None:
        figures = real(asked.data, asked.patient, asked.label, asked.work or Path(tempfile.mkdtemp()))
        command = f"python -m retr.benchmarks.items --data {asked.data.name} --patient {asked.patient}"
        record(f"items_{asked.data.name}", figures, command=command, note=asked.note)
        return
    size = f"{asked.cases}x{asked.parts}x{asked.dim}"
    command = f"python -m retr.benchmarks.items --cases {asked.cases} --parts {asked.parts} --dim {asked.dim}"
    command += " --exact-only" if asked.exact_only else ""
    figures = synthetic(asked.cases, asked.parts, asked.dim, tuned=not asked.exact_only)
    record(f"items_{size}", figures, command=command, note=asked.note)


if __name__ == "__main__":
    main()
