"""How often an encoder's nearest neighbours carry the query's label: ``python -m retr.benchmarks.neighbours``.

``--data FOLDER`` holds images and ``labels.csv`` (``path``, ``label``, and the ``--group`` column that tells patients
apart). At most ``--most`` images a class are taken, in file-name order; classes with fewer than ``--least`` and the
label ``--without`` are left out; neighbours of the query's own group are excluded. Cosine, exact, leave-one-out.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from retr.benchmarks.record import record
from retr.index.vectors import unit
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.stats.metrics import any_hit_at, precision_at

DEPTH = 10


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


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--group", default="patient", help="column whose value a neighbour must not share")
    parser.add_argument("--most", type=int, default=120)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--without", default="multiple")
    options = parser.parse_args()

    with (options.data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = select(list(csv.DictReader(stream)), most=options.most, least=options.least, without=options.without)
    labels = np.array([row["label"] for row in rows])
    groups = np.array([row[options.group] for row in rows])
    encoder = load_encoder(options.encoder, weights=options.weights)
    vectors = unit(encoder.encode_images([options.data / row["path"] for row in rows]))
    scores = vectors @ vectors.T
    scores[groups[:, None] == groups] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    hits = labels[order] == labels[:, None]
    name = options.data.resolve().name
    record(
        f"neighbours_{options.encoder.replace(':', '_').replace('/', '_')}_{name}",
        {
            "data": name,
            "encoder": options.encoder,
            "images": len(rows),
            "classes": len(set(labels.tolist())),
            "precision_at_1": round(float(precision_at(hits, 1).mean()), 4),
            "any_hit_at_5": round(float(any_hit_at(hits, 5).mean()), 4),
            "any_hit_at_10": round(float(any_hit_at(hits, 10).mean()), 4),
        },
        command=f"python -m retr.benchmarks.neighbours --data {name} --encoder {options.encoder}",
    )


if __name__ == "__main__":
    main()
