"""What marking hits as right or wrong is worth: ``python -m retr.benchmarks.feedback --data FOLDER``.

Simulated users: every image of `neighbours.py` asks in turn, is shown ten hits, marks each by whether it carries the
query's label, and asks again; patients whose pictures were shown, and the query's own, do not come back. Each round's
page is of rows not seen before. ``unmarked`` goes on to the next page, ``one right row`` asks by the first hit that was
right; ``both`` marks right and wrong rows, the others one kind alone. A click is a hit that was judged.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.neighbours import select
from retr.benchmarks.record import record
from retr.index.vectors import unit
from retr.retrieval.diversity import CANDIDATES, marginal_relevance
from retr.retrieval.feedback import moved
from retr.retrieval.stats.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.index.store import Store

    Array = NDArray[np.float64]
    Way = Callable[[Array, Array, Array], Array]

PAGE, ROUNDS, WANTED = 10, 3, 3


def rocchio(toward: float, away: float) -> Way:
    """Return Rocchio's rule with two weights, the question's being 1."""

    def move(question: Array, like: Array, unlike: Array) -> Array:
        if len(like):
            question = question + toward * like.mean(axis=0)
        return question - away * unlike.mean(axis=0) if len(unlike) else question

    return move


WAYS: dict[str, Way] = {
    "unmarked": lambda question, *_: question,
    "one right row": lambda question, like, _: like[0] if len(like) else question,
    "both, Rocchio 1 and 0.5": rocchio(1, 0.5),
    "both, Rocchio 2 and 1": rocchio(2, 1),
    "both, as retr does (regression)": moved,
    "right ones, as retr does (Rocchio)": lambda question, like, _: moved(question, like, like[:0]),
    "wrong ones, as retr does (Rocchio)": lambda question, _, unlike: moved(question, unlike[:0], unlike),
}


def ask(store: Store, way: Way, labels: NDArray[Any], groups: NDArray[np.int64]) -> tuple[Array, Array]:
    """Let all rows ask: the precision of each page ``(n, 1 + ROUNDS)``, and the clicks until three are right ``(n,)``.

    Who has not found three on all pages counts as having clicked once more.
    """
    rows = store.live_rows()
    vectors = np.asarray(unit(np.asarray(store.vectors(rows), np.float32)), np.float64)
    place = np.full(store.n_total, -1, np.int64)
    place[rows] = np.arange(len(rows))
    right: NDArray[np.bool_] = np.zeros((len(rows), 0), bool)
    shown: NDArray[np.int64] = np.zeros((len(rows), 0), np.int64)
    pages = []
    for _ in range(1 + ROUNDS):
        asked = np.array(
            [way(vectors[i], vectors[shown[i][right[i]]], vectors[shown[i][~right[i]]]) for i in range(len(rows))]
        )
        gone = [rows[np.isin(groups, groups[[i, *shown[i]]])] for i in range(len(rows))]
        page = place[store.search(asked.astype(np.float32), PAGE, exclude=gone).rows]
        hits = labels[page] == labels[:, None]
        shown, right = np.hstack([shown, page]), np.hstack([right, hits])
        pages.append(hits.mean(axis=1))
    enough = np.cumsum(right, axis=1) >= WANTED
    clicks = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, right.shape[1] + 1)
    return np.column_stack(pages), clicks.astype(np.float64)


def measure(store: Store, label: str, group: str) -> dict[str, Any]:
    """Measure all ways, with intervals over patients."""
    table = store.table([label, group], store.live_rows())
    labels = np.array(table[label].to_pylist())
    groups = np.unique(np.array(table[group].to_pylist()), return_inverse=True)[1].astype(np.int64)
    figures: dict[str, Any] = {}
    for name, way in WAYS.items():
        pages, clicks = ask(store, way, labels, groups)
        for number in (1, ROUNDS):
            found = mean_interval(pages[:, number], groups)
            figures[f"{name}: precision@10 of the unseen page after {number}"] = (
                f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
            )
        most = PAGE * (1 + ROUNDS) + 1
        found = mean_interval(clicks / most, groups)
        figures[f"{name}: clicks until three right, mean"] = (
            f"{found.value * most:.1f} ({found.low * most:.1f} to {found.high * most:.1f})"
        )
        figures[f"{name}: share without three in {most - 1} clicks"] = round(float((clicks == most).mean()), 4)
    figures["first page, precision@10"] = round(float(pages[:, 0].mean()), 4)
    return {**figures, **diversity(store, labels, groups)}


def diversity(store: Store, labels: NDArray[Any], groups: NDArray[np.int64]) -> dict[str, Any]:
    """Measure what maximal marginal relevance does to the first ten."""
    rows = store.live_rows()
    vectors = np.asarray(unit(np.asarray(store.vectors(rows), np.float32)), np.float64)
    place = np.full(store.n_total, -1, np.int64)
    place[rows] = np.arange(len(rows))
    own = [rows[groups == group] for group in groups]
    found = store.search(vectors.astype(np.float32), CANDIDATES, exclude=own)
    figures = {}
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        first = []
        for best, scores in zip(place[found.rows], found.scores, strict=True):
            first.append(best[marginal_relevance(scores.astype(np.float64), vectors[best], share)[:PAGE]])
        page = np.array(first)
        hits = labels[page] == labels[:, None]
        figures[f"diverse {share:g}: precision@10, any-hit@10, classes, patients of ten"] = [
            round(float(hits.mean()), 3),
            round(float(hits.any(axis=1).mean()), 3),
            round(float(np.mean([len(set(labels[one])) for one in page])), 2),
            round(float(np.mean([len(set(groups[one])) for one in page])), 2),
        ]
    return figures


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images")
    parser.add_argument("--index", type=Path, help="an index of these images, instead of building one")
    parser.add_argument("--group", default="patient")
    options = parser.parse_args()
    name = options.data.resolve().name
    with tempfile.TemporaryDirectory() as work:
        os.environ.setdefault("RETR_STATE_DIR", work)
        store = open_index(options.data.resolve(), options.group, Path(work), options.index)
        figures = measure(store, "label", options.group)
        record(
            f"feedback_{name}",
            {"data": name, **described(store), **figures},
            command=f"python -m retr.benchmarks.feedback --data {name}",
            note="intervals of 95 % over patients",
        )


def open_index(data: Path, group: str, work: Path, index: Path | None) -> Store:
    """Build an index of the images of `neighbours.py` with the default encoder, or open one."""
    from retr.index.store import Store
    from retr.retrieval.index import Index

    if index is not None:
        return Store.open(index)
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = select(list(csv.DictReader(stream)), most=120, least=5, without="multiple")
    for row in rows:
        link = work / "data" / row["path"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data / row["path"])
    return Index.build(work / "data", work / "index.retr", metadata=data / "labels.csv", group=group).store


def described(store: Store) -> dict[str, Any]:
    """Return which encoder, with which options, made the vectors."""
    info = store.manifest.encoder
    return {"encoder": info.name, **{str(key): str(value) for key, value in info.options.items()}, "images": len(store)}


if __name__ == "__main__":
    main()
