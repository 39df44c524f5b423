"""Do the stated numbers hold on patients never seen? ``python -m retr.benchmarks.kept_promises --data FOLDER``.

Patients of an archive (images and ``labels.csv`` with a column ``patient``) are drawn into an index and into questions,
several times. In each split the index, as a build of these rows leaves it (with the transform of its encoder), is
calibrated in every way a user can: as it is, adapted, adapted and refitted, through a bridge of words. What is stated
is set beside what the questions measure: how often the set holds the truth (0.90 is promised), of all questions and of
those that are answered, by how much probabilities miss (ECE), and accuracy. What is refused stands there with its
reason.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.query_layer import Set, write_index
from retr.benchmarks.record import record
from retr.index.errors import RetrError
from retr.index.vectors import unit
from retr.retrieval.classify import calibration, methods, probe
from retr.retrieval.classify.answers import answer_pictures
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.heads.adapted import as_stored, head_of
from retr.retrieval.index import Index
from retr.retrieval.labels.label_set import load_labels
from retr.retrieval.raw_vectors import placed
from retr.retrieval.stats.metrics import ece

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.retrieval.classify.methods import Method
    from retr.retrieval.encoders.base import BaseEncoder

ALPHA = 0.1
LABEL = "label"
_KEPT = (LABEL, "patient", "side")


@dataclass(frozen=True)
class Archive:
    """All pictures, embedded once: an index's rows ``table``, the encoder, and its own vectors, float32 ``(n, d)``."""

    table: pa.Table
    vectors: NDArray[np.float32]
    encoder: BaseEncoder

    @property
    def patients(self) -> NDArray[Any]:
        """Whose each row is, str ``(n,)``."""
        return np.array(self.table.column("patient").to_pylist())

    def part(self, rows: NDArray[np.int64]) -> Archive:
        """Keep some of the rows."""
        return Archive(self.table.take(rows), self.vectors[rows], self.encoder)

    def index(self, path: Path) -> Index:
        """Write an index of these rows."""
        return Index(write_index(path, self.encoder, self.table, self.vectors, "patient"))


def embed(data: Path, work: Path) -> Archive:
    """Embed an archive's pictures with lite; what ``work`` holds of an earlier run is reused."""
    encoder = load_encoder("lite")
    embedded = Set(data, work, encoder)
    paths = [row["path"] for row in embedded.rows]
    columns: dict[str, list[str | None]] = {
        "id": paths,
        "sha256": [hashlib.sha256((data / path).read_bytes()).hexdigest() for path in paths],
        **{name: [row[name] or None for row in embedded.rows] for name in _KEPT},
    }
    return Archive(pa.table(columns), embedded.vectors, encoder)


def split(patients: NDArray[Any], rows: int, questions: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Halve the patients, and draw so many rows of the one half for the index, and of the other for the questions."""
    rng = np.random.default_rng(seed)
    names, members = np.unique(patients, return_inverse=True)
    first = (rng.permutation(len(names)) < len(names) // 2)[members]
    known, asked = (rng.permutation(np.flatnonzero(half)) for half in (first, ~first))
    return np.sort(known[:rows]), np.sort(asked[:questions])


@dataclass(frozen=True)
class Questions:
    """Pictures of patients that no index has.

    ``vectors`` float32 ``(n, d)`` as the index searches them, the truth, and whose they are, ``(n,)``; ``own`` are the
    encoder's, where a transform lies between.
    """

    vectors: NDArray[np.float32]
    truth: list[str]
    patients: NDArray[Any]
    own: NDArray[np.float32] | None = None

    def by_patient(self, values: NDArray[Any]) -> float:
        """Return the mean in which each patient counts once."""
        _, members = np.unique(self.patients, return_inverse=True)
        return float((np.bincount(members, values) / np.bincount(members)).mean())


def stated_and_measured(index: Index, method: Method, asked: Questions) -> dict[str, Any]:
    """Return what the record of a method states, and what questions of new patients measure."""
    found, why = calibration.find_calibration(index.store, method.key, method.column)
    if found is None:
        return {"refused": why}
    truth = asked.truth
    none = [np.empty(0, np.int64)] * len(truth)
    answers = answer_pictures(index.store, method, asked.vectors, [""] * len(truth), none, own=asked.own)
    assert all(one.calibrated and one.prediction_set is not None for one in answers)
    covered = np.array([t in (one.prediction_set or ()) for t, one in zip(truth, answers, strict=True)])
    right = np.array([t == one.label for t, one in zip(truth, answers, strict=True)])
    given = np.array([one.abstain is None for one in answers])
    chance = np.zeros((len(answers), 2))
    chance[:, 1] = [one.probabilities[0] for one in answers]
    chance[:, 0] = 1 - chance[:, 1]
    # the confidence of the answer against whether it is right: a problem of two classes
    sure = np.where(chance[:, 1:] >= 0.5, chance, chance[:, ::-1])
    best = np.where(chance[:, 1] >= 0.5, right, ~right)
    return {
        "stated": {
            "coverage": found.coverage,
            # not said before sets counted patients
            "coverage_of_answered": getattr(found, "coverage_answered", None),
            "ece": found.ece_after,
            "accuracy": found.accuracy,
        },
        "measured": {
            "coverage": round(asked.by_patient(covered), 4),
            "coverage_of_pictures": round(float(covered.mean()), 4),
            "coverage_of_answered": round(float(covered[given].mean()), 4) if given.any() else None,
            "answered": round(float(given.mean()), 4),
            "ece": round(ece(sure, np.where(best, sure.argmax(axis=1), 1 - sure.argmax(axis=1))), 4),
            "accuracy": round(float(right.mean()), 4),
            "set_size": round(float(np.mean([len(one.prediction_set or ()) for one in answers])), 2),
        },
    }


def tried(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured, or why it is refused."""
    try:
        return what()
    except RetrError as error:
        return {"refused": error.message}


def by_column(index: Index, asked: Questions) -> dict[str, dict[str, Any]]:
    """Calibrate neighbours and probe, and measure both."""

    def neighbours() -> dict[str, Any]:
        index.calibrate(LABEL, alpha=ALPHA)
        return stated_and_measured(index, methods.ByNeighbours(index.store, LABEL), asked)

    def trained() -> dict[str, Any]:
        found = probe.find_probe(index.store, LABEL)
        assert found is not None
        return stated_and_measured(index, methods.ByProbe(found, index.store), asked)

    first = tried(neighbours)
    return {"by": first, "probe": first if "refused" in first else tried(trained)}


def retrieved(index: Index, asked: Questions) -> dict[str, Any]:
    """Set the stated precision@1 beside that of the questions."""
    stated = index.evaluate("retrieval", LABEL, k=1).metrics["precision@1"]
    rows = index.store.search(asked.vectors, 1).rows[:, 0]
    labels = index.store.table([LABEL], rows).column(0).to_pylist()
    measured = float(np.mean([one == other for one, other in zip(labels, asked.truth, strict=True)]))
    return {"stated": stated.to_json(), "measured": round(measured, 4)}


def bridged(index: Index, asked: Questions) -> dict[str, dict[str, Any]]:
    """Calibrate zero-shot through a bridge, and ask again when another bridge lies in its place."""
    labels = load_labels(sorted({name for name in index.table([LABEL]).column(0).to_pylist() if name}))
    index.align(LABEL)

    def first() -> dict[str, Any]:
        index.calibrate(LABEL, labels=labels, alpha=ALPHA)
        return stated_and_measured(index, methods.ByWords(index.text_side, labels), asked)

    def again() -> dict[str, Any]:
        index.align(LABEL, where="side = 'Left'")
        return stated_and_measured(index, methods.ByWords(index.text_side, labels), asked)

    return {"bridge": tried(first), "bridge, fitted anew": tried(again)}


def measure(archive: Archive, options: argparse.Namespace, seed: int, work: Path) -> dict[str, Any]:
    """Measure every row of the table in one split."""
    inside, outside = split(archive.patients, options.rows, options.questions, seed)
    known, rest = archive.part(inside), archive.part(outside)
    base, unmeasured = (known.index(work / f"{name}.retr") for name in ("plain", "unmeasured"))
    asked = Questions(
        placed(base.store, rest.vectors), rest.table.column(LABEL).to_pylist(), rest.patients, rest.vectors
    )
    figures: dict[str, Any] = {
        "rows": len(inside),
        "patients": len(np.unique(known.patients)),
        "questions": len(outside),
        "patients asked": len(np.unique(asked.patients)),
    }
    figures |= {f"plain, {way}": one for way, one in by_column(base, asked).items()}
    figures |= bridged(base, asked)
    for name, refit in (("adapted", False), ("refitted", True)):
        done = unmeasured.adapt(LABEL, work / f"{name}.retr", features="stored", refit=refit, seed=seed)
        index = Index(done.store)
        head = head_of(index.store)
        assert head is not None
        moved = replace(asked, vectors=unit(head(as_stored(archive.encoder.info, rest.vectors))), own=None)
        figures |= {f"{name}, {way}": one for way, one in by_column(index, moved).items()}
        figures[f"{name}, eval precision@1"] = tried(lambda at=index, of=moved: retrieved(at, of))  # type: ignore[misc]
    return figures


def means(splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the splits of every figure that all of them have."""
    found: dict[str, Any] = {}
    for key in [key for key in splits[0] if all(key in one for one in splits)]:
        values = [one[key] for one in splits]
        if all(isinstance(one, dict) for one in values):
            found[key] = means(values)
        elif all(isinstance(one, int | float) for one in values):
            found[key] = round(float(np.mean(values)), 4)
    return {key: value for key, value in found.items() if value != {}}


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images")
    parser.add_argument("--work", type=Path, help="folder that keeps the embedded pictures for the next run")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--questions", type=int, default=610)
    parser.add_argument("--name", default="kept_promises", help="of the result file")
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["RETR_STATE_DIR"] = f"{scratch}/state"
        work = options.work or Path(scratch)
        archive = embed(data, work)
        splits = []
        for seed in range(options.splits):
            place = Path(scratch) / f"split{seed}"
            place.mkdir()
            splits.append(measure(archive, options, seed, place))
    numbered = {f"split {seed}": one for seed, one in enumerate(splits)}
    record(
        options.name,
        {"data": data.name, "encoder": "lite", "promised": 1 - ALPHA, "mean": means(splits), **numbered},
        command=f"python -m retr.benchmarks.kept_promises --data {data.name}",
        note="patients of the questions are in no index; 'stated' is what the index says of itself; coverage counts "
        "each patient once",
    )


if __name__ == "__main__":
    main()
