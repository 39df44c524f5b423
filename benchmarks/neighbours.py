"""How often an encoder's nearest neighbours carry the query's label: ``python -m retr.benchmarks.neighbours``.

``--data FOLDER`` holds images and ``labels.csv`` (``path``, ``label``, and the ``--group`` column that tells patients
apart). At most ``--most`` images a class are taken, in file-name order; classes with fewer than ``--least`` and the
label ``--without`` are left out; neighbours of the query's own group are excluded. Cosine, exact, leave-one-out.

Measured are an encoder's own vectors, and the same whitened: fitted on all of them without a label, as an index does
it, and fitted on half of the patients, a mean over ``--seeds`` halvings. The other patients then ask among themselves,
which the fit knows nothing of, and those it was fitted on, as a new picture asks an archive.
``--set`` gives the encoder's options, ``--group ''`` takes each picture for a patient.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.record import record
from retr.index.vectors import unit
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.stats.metrics import any_hit_at, precision_at
from retr.retrieval.transforms.whitening import DIM, POWER, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH = 10
MEASURES = ("precision_at_1", "any_hit_at_5", "any_hit_at_10")


def select(rows: list[dict[str, str]], *, most: int, least: int, without: str) -> list[dict[str, str]]:
    """Take the images of the protocol above, class by class.

    >>> select([{"path": "x/b", "label": "x"}, {"path": "x/a", "label": "x"}], most=1, least=1, without="")
    [{'path': 'x/a', 'label': 'x'}]
    """
    classes = defaultdict(list)
    for row in sorted(rows, key=lambda row: Path(row["path"]).name):
        if row["label"] != without:
            classes[row["label"]].append(row)
    return [row for label in sorted(classes) if len(classes[label]) >= least for row in classes[label][:most]]


def measure(
    vectors: NDArray[np.float32],
    labels: NDArray[np.str_],
    groups: NDArray[np.int64],
    asking: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the shares `MEASURES` of unit vectors ``(n, d)``; with ``asking`` those ask the others."""
    asked = np.ones(len(vectors), bool) if asking is None else ~asking
    asking = asked if asking is None else asking
    scores = vectors[asking] @ vectors[asked].T
    scores[groups[asking, None] == groups[asked]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    hits = labels[asked][order] == labels[asking, None]
    return np.array([precision_at(hits, 1).mean(), any_hit_at(hits, 5).mean(), any_hit_at(hits, DEPTH).mean()])


def halved(
    features: NDArray[np.float16], labels: NDArray[np.str_], groups: NDArray[np.int64], seed: int, **how: Any
) -> NDArray[np.float64]:
    """Fit a whitening on half of the patients; measure the others.

    Among themselves as they are ``[0]`` and whitened ``[1]``, and among those it was fitted on so ``[2]`` and ``[3]``.
    """
    inside = np.random.default_rng(seed).random(int(groups.max()) + 1)[groups] < 0.5
    spaces, outside = (unit(features), fit(features[inside], **how)(features)), ~inside
    among = [measure(space[outside], labels[outside], groups[outside]) for space in spaces]
    return np.stack([*among, *(measure(space, labels, groups, outside) for space in spaces)])


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the encoder")
    parser.add_argument("--group", default="patient", help="column whose value a neighbour must not share")
    parser.add_argument("--most", type=int, default=120)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--without", default="multiple")
    parser.add_argument("--dim", type=int, default=DIM, help="of the whitened vectors")
    parser.add_argument("--power", type=float, default=POWER, help="of the whitening")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()

    with (options.data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = select(list(csv.DictReader(stream)), most=options.most, least=options.least, without=options.without)
    labels = np.array([row["label"] for row in rows])
    groups = np.unique([row[options.group or "path"] for row in rows], return_inverse=True)[1]
    chosen: dict[str, Any] = {
        name: int(value) if value.isdigit() else value for name, value in (one.split("=") for one in options.set)
    }
    encoder = load_encoder(options.encoder, weights=options.weights, **chosen)
    features = unit(encoder.encode_images([options.data / row["path"] for row in rows])).astype(np.float16)
    how = {"dim": options.dim, "power": options.power}
    halves = np.mean([halved(features, labels, groups, seed, **how) for seed in range(options.seeds)], axis=0)
    figures = {
        "": measure(unit(features), labels, groups),
        "whitened": measure(fit(features, **how)(features), labels, groups),
        "half of the patients": halves[0],
        "half of the patients, whitened on the others": halves[1],
        "new patients": halves[2],
        "new patients, whitened on those they ask": halves[3],
    }
    name = options.data.resolve().name
    record(
        "_".join(["neighbours", options.encoder.replace(":", "_").replace("/", "_"), *map(str, chosen.values()), name]),
        {
            "data": name,
            "encoder": options.encoder,
            **chosen,
            "images": len(rows),
            "classes": len(set(labels.tolist())),
            "dimensions": f"{features.shape[1]}, whitened {min(options.dim, len(rows) - 1, features.shape[1] - 1)}",
            **{
                f"{what}: {measured}" if what else measured: round(float(value), 4)
                for what, values in figures.items()
                for measured, value in zip(MEASURES, values, strict=True)
            },
        },
        command=f"python -m retr.benchmarks.neighbours --data {name} --encoder {options.encoder}"
        + "".join(f" --set {one}" for one in options.set)
        + ("" if options.group == "patient" else f" --group '{options.group}'"),
        note=f"whitening of power {options.power}; halves: a mean over {options.seeds} seeds",
    )


if __name__ == "__main__":
    main()
