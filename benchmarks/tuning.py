"""Whether the recall that `retr index tune` promises holds on queries it has never seen, by image and by text.

For each set an index of ``--rows`` rows is tuned for each recall asked; then queries that had no part in it are
searched one by one, as people ask, and their recall against exact search is compared with the promise for their sort.
``text`` queries lie elsewhere in the space than images do, as words do.

``mixture``
    the Gaussians of `retr.benchmarks.ann`; text queries are drawn alike and moved by a common offset.
``captions`` (``--photographs FOLDER``, with ``labels.csv``: ``path``, ``captions`` separated by ``||``)
    photographs embedded with ``lite`` and tiled with noise; text queries are captions, through a bridge fitted on
    other photographs (`retr align`).
``INDEX`` (``--index``)
    the vectors of a real index, tiled with noise; text queries are such vectors, moved by a common offset.

Run: ``python -m retr.benchmarks.tuning --photographs FOLDER --index INDEX``
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.ann import mixture, tiled
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.tune import K, tune
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    # Name, rows of the index, and for each sort of query those given to `tune` and those it never sees.
    Case = tuple[str, NDArray[np.float32], dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]

UNSEEN = 3000
GIVEN = 2000
RECALLS = (0.9, 0.95, 0.99)


def moved(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move unit vectors ``(n, d)`` by one random vector half as long, as a modality gap does."""
    offset = np.random.default_rng(7).standard_normal(vectors.shape[1], np.float32)
    return unit(vectors + 0.5 * offset / np.linalg.norm(offset))


def gaussians(rows: int) -> Case:
    """Make the set ``mixture``."""
    image, text = mixture(UNSEEN, 512, 3), moved(mixture(GIVEN + UNSEEN, 512, 4))
    return "mixture", mixture(rows, 512, 1), {"text": text[:GIVEN]}, {"image": image, "text": text[GIVEN:]}


def real(index: Path, rows: int) -> Case:
    """Make the set of an index."""
    image, text = tiled(index, UNSEEN, 3), moved(tiled(index, GIVEN + UNSEEN, 4))
    return index.stem, tiled(index, rows, 1), {"text": text[:GIVEN]}, {"image": image, "text": text[GIVEN:]}


def captions(folder: Path, rows: int, scratch: Path) -> Case:
    """Make the set ``captions``."""
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.text import align

    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        photographs = list(csv.DictReader(stream))
    encoder = load_encoder("lite")
    store = Store.create(scratch / "photographs", encoder=encoder.info)
    half = len(photographs) // 2
    with store.writer() as writer:
        columns = {
            "id": [row["path"] for row in photographs],
            "captions": [row["captions"] for row in photographs],
            "part": ["fit" if number < half else "ask" for number in range(len(photographs))],
        }
        writer.append(pa.table(columns), encoder.encode_images([folder / row["path"] for row in photographs]))
        store = writer.commit()
    bridge = align.fit_bridge(store, "captions", where="part = 'fit'")
    asked = align.collect_texts(store, "captions", where="part = 'ask'").texts
    text = bridge.encode_texts(list(np.random.default_rng(0).permutation(asked)))
    image = tiled(store.path, UNSEEN, 3)
    return "captions", tiled(store.path, rows, 1), {"text": text[::2]}, {"image": image, "text": text[1::2]}


def measure(case: Case, scratch: Path) -> dict[str, Any]:
    """Tune an index of one set for every recall asked; give what was promised and what was reached."""
    name, rows, given, unseen = case
    info = EncoderInfo(
        "benchmark", rows.shape[1], "cosine", "none", text=True, weights_sha256="0", preprocessing="none"
    )
    store = Store.create(scratch / name, encoder=info, dtype="float16")
    with store.writer() as writer:
        writer.append(pa.table({"id": [str(number) for number in range(len(rows))]}), rows)
        store = writer.commit()
        truth = {sort: store.search(queries, K, exact=True).scores[:, -1:] for sort, queries in unseen.items()}
        found: dict[str, Any] = {"rows": len(rows), "dim": rows.shape[1]}
        for recall in RECALLS:
            tuning = tune(writer, recall=recall, queries=given)
            store = Store.open(store.path)
            found[f"asked {recall}"] = figures = {
                "chosen": str(tuning.config),
                "ms a query": round(tuning.seconds * 1e3, 2),
            }
            for sort, queries in unseen.items():
                scores = np.concatenate([store.search(query[None], K).scores for query in queries])
                reached = float(np.mean(scores >= truth[sort]))
                promised = tuning.recalls[sort]
                figures[sort] = f"promised {promised:.4f}, reached {reached:.4f}, {reached - promised:+.4f}"
    return found


def cases(options: argparse.Namespace, scratch: Path) -> Iterator[Case]:
    """Make the sets that were asked for, one after the other."""
    yield gaussians(options.rows)
    if options.photographs:
        yield captions(options.photographs, options.rows, scratch)
    if options.index:
        yield real(options.index, options.rows)


def main() -> None:
    """Measure all sets, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--index", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        figures = {case[0]: measure(case, scratch) for case in cases(options, scratch)}
    given = [f"--{name} {path.name}" for name in ("photographs", "index") if (path := getattr(options, name))]
    record("tuning", figures, command=" ".join(["python -m retr.benchmarks.tuning", f"--rows {options.rows}", *given]))


if __name__ == "__main__":
    main()
