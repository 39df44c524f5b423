"""What a new index calls unlike it, as built: ``python -m retr.benchmarks.first_fence --data FOLDER``.

``FOLDER`` holds sets with ``labels.csv``: ``odir5k``, ``hrf45`` and ``codras605`` (fundus photographs), ``cxr_kermany``
and ``cxr_hannover243`` (chest X-rays); their vectors are kept in ``--work`` between runs. Half of a set's patients
(``--share``), drawn anew ``--draws`` times, become an index as a build ends it: rows, patients, transform and fence. It
is asked through the library with the pictures of the other patients, ``own kind``, and with ``--asked`` pictures of
each other set. ``called`` is the share of pictures whose hits say *unlike anything in this archive*, of own kind the
mean over patients, with the Monte Carlo error over draws, the least and the most; ``stated`` is what the fence promises
on average. Of sets of the same kind and another camera it is no error, and no success either.

``measuring`` is what the fence costs: CPU time of measuring it in an index of ``--rows`` drawn rows of the encoder's
length, over that of embedding as many pictures of the first set, seen on ``--timed`` of them (decoding included).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.query_layer import Set, write_index
from retr.benchmarks.record import record
from retr.index.vectors import unit
from retr.retrieval.index import Index
from retr.retrieval.novelty import find_novelty
from retr.retrieval.novelty_renewal import renew
from retr.retrieval.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder

#: Each set, its kind, and its column of patients.
SETS = {
    "odir5k": ("fundus", "patient"),
    "hrf45": ("fundus", None),
    "codras605": ("fundus", None),
    "cxr_kermany": ("chest X-ray", "patient"),
    "cxr_hannover243": ("chest X-ray", "patient_id"),
}


def built(path: Path, encoder: BaseEncoder, vectors: NDArray[Any], patients: NDArray[Any]) -> Store:
    """Make an index of the encoder's own vectors, and end it as a build does."""
    ids = [f"{number:07d}.png" for number in range(len(vectors))]
    table = pa.table({"id": ids, "patient": patients.astype(str).tolist()})
    with write_index(path, encoder, table, vectors, "patient").writer() as writer:
        renew(writer, first=True)
        return writer.commit()


def called(store: Store, vectors: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pictures an index calls unlike it, asked by their own vectors: bool ``(n,)``."""
    found = Index(store).search([Query.vector(one) for one in vectors], k=5)
    return np.array([hits.note is not None and "unlike anything" in hits.note for hits in found], bool)


def summary(shares: list[float]) -> dict[str, float]:
    """Return the mean with its Monte Carlo error, and the worst."""
    error = np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    named = {"called": np.mean(shares), "error": error, "least": np.min(shares), "most": np.max(shares)}
    return {name: round(float(value), 4) for name, value in named.items()}


def cost(work: Path, encoder: BaseEncoder, data: Set, folder: Path, rows: int, timed: int) -> dict[str, float]:
    """Measure what the fence costs beside embedding."""
    pictures = [folder / row["path"] for row in data.rows[:timed]]
    start = time.process_time()
    encoder.encode_images(pictures)
    each = (time.process_time() - start) / len(pictures)
    drawn = unit(np.random.default_rng(0).normal(size=(rows, encoder.info.dim))).astype(np.float32)
    store = built(work / "cost.retr", encoder, drawn, np.arange(rows))
    with store.writer() as writer:
        writer.note("novelty", None)
        writer.commit()
        start = time.process_time()
        renew(writer, first=True)
        writer.commit()
    spent = time.process_time() - start
    return {
        "rows": rows,
        "measuring, CPU s": round(spent, 2),
        "embedding, CPU s (of as many)": round(each * rows, 1),
        "share": round(spent / (each * rows), 4),
    }


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--work", type=Path, help="folder to keep embedded sets in")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.5, help="of a set's patients that become the index")
    parser.add_argument("--asked", type=int, default=200, help="pictures of each other set")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the index whose fence is timed; 0: none")
    parser.add_argument("--timed", type=int, default=64, help="pictures whose embedding is timed")
    options = parser.parse_args()
    from retr.retrieval.encoders.registry import load_encoder

    encoder = load_encoder(options.encoder)
    figures: dict[str, Any] = {"encoder": options.encoder, "draws": options.draws, "share": options.share}
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        sets = {name: Set(options.data / name, work, encoder) for name in SETS}
        for name, (kind, column) in SETS.items():
            data = sets[name]
            patients = np.array([row[column] if column else str(at) for at, row in enumerate(data.rows)])
            shares: dict[str, list[float]] = {}
            stated: dict[str, Any] = {}
            for draw in range(options.draws):
                rng = np.random.default_rng([draw, len(data.rows)])
                order = rng.permutation(np.unique(patients))
                inside = np.isin(patients, order[: int(options.share * len(order))])
                path = Path(temporary) / f"{name}-{draw}.retr"
                store = built(path, encoder, data.vectors[inside], patients[inside])
                fence, _ = find_novelty(store)
                assert fence is not None
                stated = {"images": len(store), "patients": fence.groups, "stated": round(fence.rate, 4)}
                _, owner = np.unique(patients[~inside], return_inverse=True)
                unlike = called(store, data.vectors[~inside])
                own = np.bincount(owner, unlike) / np.bincount(owner)
                shares.setdefault("own kind", []).append(float(own.mean()))
                for other, (theirs, _) in SETS.items():
                    if other != name:
                        vectors = sets[other].vectors
                        some = vectors[rng.permutation(len(vectors))[: options.asked]]
                        shares.setdefault(f"{other} ({theirs})", []).append(float(called(store, some).mean()))
            figures[f"{name} ({kind})"] = {**stated, **{asked: summary(found) for asked, found in shares.items()}}
        if options.rows:
            first = next(iter(SETS))
            figures["measuring"] = cost(
                Path(temporary), encoder, sets[first], options.data / first, options.rows, options.timed
            )
    record(
        "first_fence",
        figures,
        command="python -m retr.benchmarks.first_fence --data DATA",
        note=f"{options.asked} pictures of each other set a draw",
    )


if __name__ == "__main__":
    main()
