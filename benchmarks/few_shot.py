"""What a few examples of each class are worth: ``python -m retr.benchmarks.few_shot --index FOLDER``.

Of each class 1, 2, 4, 8 and 16 rows are drawn, each of another patient and of at most half of the class's patients;
the rows of all other patients are named by ``Index.few_shot``'s classifiers. Measured is the mean recall of the classes
with a 95 % interval over draws and patients: both are drawn again, with replacement, at the same time. ``raw`` is the
encoder's own space, ``searched`` that of the index. With ``--labels`` the blend of words and examples is measured, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.feedback import described
from retr.benchmarks.record import record
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.classify.few_shot import SHARPNESS, ByShots
from retr.retrieval.evaluation.protocols.few_shot import SHOTS, draw, recall_interval
from retr.retrieval.raw_vectors import raw_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.classify.few_shot import Way


def measure(store: Store, label: str, group: str, seeds: int, texts: NDArray[np.float32] | None) -> dict[str, Any]:
    """Measure all ways in both spaces; ``texts`` are the classes' words, for the blend."""
    rows = store.live_rows()
    table = store.table([label, group], rows)
    classes, codes = np.unique(table[label].to_pylist(), return_inverse=True)
    groups = np.unique(table[group].to_pylist(), return_inverse=True)[1]
    spaces = {"searched": unit(store.vectors(rows)), "raw": raw_vectors(store, rows)}
    ways: tuple[Way, ...] = ("prototypes", "probe") if texts is None else ("prototypes", "probe", "blend")
    scale, nothing = store.manifest.encoder.logit_scale or SHARPNESS, np.empty(0, np.int64)
    figures: dict[str, Any] = {"classes": len(classes), "chance": round(1 / len(classes), 4), "draws": seeds}
    for space, vectors in spaces.items():
        if space == "raw" and np.array_equal(vectors, spaces["searched"]):
            continue
        for way in ways:
            for shots in SHOTS:
                right = np.full((seeds, len(rows)), np.nan)
                for seed in range(seeds):
                    at = draw(codes, groups, shots, seed)
                    words = texts if way == "blend" else None
                    method = ByShots(
                        tuple(classes), vectors[at], codes[at], [nothing] * len(at), way=way, texts=words, scale=scale
                    )
                    asked = np.flatnonzero(~np.isin(groups, groups[at]))
                    logits = method.evidence(vectors[asked], [nothing] * len(asked))[0]
                    right[seed, asked] = logits.argmax(axis=1) == codes[asked]
                estimate = recall_interval(right, codes, groups)
                figures[f"{space}, {way}, {shots} of each class"] = (
                    f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
                )
    return figures


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--label", default="label")
    parser.add_argument("--group", default="patient")
    parser.add_argument("--labels", help="a label set with prompts, of encoders with words")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    store = Store.open(options.index)
    name = options.index.name.removesuffix(".retr")
    texts = None if options.labels is None else words(options.index, options.labels, options.label)
    transform = store.manifest.encoder.transform
    record(
        f"few_shot_{name}",
        {
            "data": name,
            **described(store),
            "searched through": transform.name if transform else "nothing",
            **measure(store, options.label, options.group, options.seeds, texts),
        },
        command=f"python -m retr.benchmarks.few_shot --index {name}.retr"
        + ("" if options.group == "patient" else f" --group {options.group}"),
        note="mean recall of the classes; intervals of 95 % over draws and patients",
    )


def words(index: Path, labels: str, label: str) -> NDArray[np.float32]:
    """Return the embedded prompts of the classes of a column, in the order of their names."""
    from retr.retrieval.classify.few_shot import class_texts
    from retr.retrieval.index import Index
    from retr.retrieval.labels.label_set import load_labels

    opened = Index.open(index)
    named = sorted(set(opened.store.table([label], opened.store.live_rows())[label].to_pylist()))
    return class_texts(opened.text_side, load_labels(labels), named)


if __name__ == "__main__":
    main()
