"""LVM-Med's linear evaluation: accuracy of a linear classifier on frozen features.

Published (NeurIPS 2023, Table 5): accuracy on FGADR and on the Brain Tumor MRI set, mean and deviation of three runs.
LVM-Med was pre-trained on parts of 55 public sets; where a set has no standard split, the files it saw are listed in
the authors' repository (``lvm-med-training-data/SET/file_list.txt``) and must be kept out of tests: give such lists as
``exclude``. Ours: three runs, each a random fifth of the patients held out.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.waiting import LOGGER
from retr.retrieval.evaluation.protocols.linear import held_out, require_fits
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.labels.folds import by_patient
from retr.retrieval.stats.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder
    from retr.retrieval.labels.folds import Fold

RUNS = 3
SEEN = "seen in pre-training"
PROTOCOL = (
    "accuracy of a linear classifier on frozen features, mean and deviation of three runs, on the sets' own splits"
)
STRENGTH = 0.01
_SOURCE = "NeurIPS 2023, Table 5"
PUBLISHED = tuple(
    {"cell": f"{data}, linear, {network}", "value": value, "deviation": deviation, "source": _SOURCE}
    for network, cells in (
        ("LVM-Med R50", (("FGADR", 0.6833, 0.0048), ("Brain Tumor MRI", 0.6633, 0.0031))),
        ("LVM-Med ViT", (("FGADR", 0.6246, 0.0086), ("Brain Tumor MRI", 0.5931, 0.0048))),
        ("SAM", (("FGADR", 0.5513, 0.0041), ("Brain Tumor MRI", 0.3181, 0.0426))),
        ("CLIP", (("FGADR", 0.5787, 0.0050), ("Brain Tumor MRI", 0.5787, 0.0071))),
    )
    for data, value, deviation in cells
)


def read_exclusions(files: Iterable[Path]) -> frozenset[str]:
    """Read lists of file names, one a line; a path counts by its last part.

    Raises
    ------
    UsageError
        One is no list of names in UTF-8.
    """
    names: set[str] = set()
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError(f"{str(file)!r} is not UTF-8 text", hint="give a list of file names, one a line") from None
        for line in text.splitlines():
            name = PurePosixPath(line.strip().replace("\\", "/")).name
            if name:
                names.add(name)
    return frozenset(names)


def leave_out(data: ClassFolder, names: frozenset[str]) -> tuple[ClassFolder, int]:
    """Leave pictures out whose file name is listed; say how many they were.

    Raises
    ------
    UsageError
        Fewer than two classes are left.
    """
    seen = {path: SEEN for path in data.paths if PurePosixPath(path).name in names}
    return data.without(seen), len(seen)


def _folds(data: ClassFolder, seed: int) -> list[Fold]:
    """Hold a random fifth of the patients out, once a run."""
    return [by_patient(data.groups, 5, seed + number)[0] for number in range(RUNS)]


def run(
    data: ClassFolder,
    encoder: BaseEncoder,
    *,
    exclude: frozenset[str] = frozenset(),
    vectors: Embedder = WORK,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the linear evaluation on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who embeds them.
    exclude
        File names that the encoder was pre-trained on (`read_exclusions`).
    vectors
        Where their vectors come from.
    seed
        Of the splits.

    Raises
    ------
    UsageError
        Too few pictures are left to fit a classifier; said before anything is embedded.
    """
    data, excluded = leave_out(data, exclude)
    if exclude and not excluded:
        LOGGER.warning("none of the pictures is in the lists of files seen in pre-training: nothing was left out")
    require_fits(data.labels, _folds(data, seed))
    embedded = vectors.embed(data, [encoder])
    data, features = embedded.data, embedded.vectors[0]
    accuracies = []
    for fold in _folds(data, seed):
        answers = held_out(
            features, data.labels, len(data.classes), [fold], strength=STRENGTH, balanced=False, standardise=True
        )
        tested = fold[1]
        right = (answers[tested].argmax(axis=1) == data.labels[tested]).astype(np.float64)
        accuracies.append(mean_interval(right, data.groups[tested]))
    values = [one.value for one in accuracies]
    measured: dict[str, Any] = {
        **{f"run {number + 1}": {"accuracy": one.to_json()} for number, one in enumerate(accuracies)},
        "mean of the runs": {"accuracy": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))},
    }
    found = data.outcome(
        "lvm-med",
        encoder.info,
        embedding=embedded.how(),
        measured=measured,
        published=PUBLISHED,
        published_protocol=PROTOCOL,
        because="the published cells are of FGADR and Brain Tumor MRI; name your set",
    )
    found["data"]["excluded_as_seen_in_pre-training"] = excluded
    return found
