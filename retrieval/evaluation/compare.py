"""Compare encoders on one labelled folder: what each reaches, by how much they differ, and what each costs.

All answer the same questions: every picture asks in turn, its patient left out of the gallery. So a difference is taken
row by row, and its interval is that of the difference (`retr.retrieval.stats.paired`), over patients. Each file is read
once, and decoded once for all encoders whose pictures come out the same. What is compared are the encoders' own
vectors, without a transform that an index might put behind them.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import RetrError, UsageError
from retr.index.machine.home import home
from retr.retrieval.classify.probe import STANDARDISED, fit_probe
from retr.retrieval.encoders.costs import FEWEST, Cost, measure
from retr.retrieval.encoders.index_encoder import require_loaded
from retr.retrieval.encoders.options import split_spelled
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.evaluation.protocols.folder import read_folder
from retr.retrieval.evaluation.protocols.retizero import Pool, retrieve
from retr.retrieval.evaluation.protocols.vectors import WORK, Work
from retr.retrieval.images import read_image
from retr.retrieval.labels.folds import by_patient
from retr.retrieval.labels.labelled import unit_of
from retr.retrieval.stats.intervals import Estimate, mean_interval
from retr.retrieval.stats.metrics import any_hit_at, precision_at
from retr.retrieval.stats.paired import paired_difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import PIL.Image
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder

_FOLDS = 5


@dataclass(frozen=True)
class Compared:
    """One of the encoders: what it was called, what it reaches by measure, and what it costs."""

    name: str
    metrics: Mapping[str, Estimate]
    cost: Cost


@dataclass(frozen=True)
class Difference:
    """What ``second`` reaches more than ``first``, by measure, paired."""

    first: str
    second: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """What several encoders reach on the same pictures.

    Attributes
    ----------
    data
        What was compared on: pictures, classes, patients, what was left out and why.
    encoders
        One `Compared` each.
    differences
        One `Difference` for each pair.
    notes
        What a reader of the numbers must know, one line each.
    """

    data: Mapping[str, Any]
    encoders: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON-ready object."""

        def plain(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
            return {name: one.to_json() for name, one in metrics.items()}

        return {
            "data": dict(self.data),
            "encoders": [
                {"name": one.name, "metrics": plain(one.metrics), "cost": asdict(one.cost)} for one in self.encoders
            ],
            "differences": [
                {"first": one.first, "second": one.second, "second_minus_first": plain(one.metrics)}
                for one in self.differences
            ],
            "notes": list(self.notes),
        }


def compare(
    encoders: Sequence[str | BaseEncoder],
    folder: str | Path,
    *,
    label: str | None = None,
    metadata: str | Path | None = None,
    path_column: str | None = None,
    group: str | None = None,
    probe: bool = False,
    most: int | None = None,
    seed: int = 0,
    vectors: Work = WORK,
    **loading: Any,
) -> Comparison:
    """Evaluate several encoders on one labelled folder of images, with paired intervals over patients.

    Parameters
    ----------
    encoders
        At least two: names of ``retr encoders ls``, with options behind commas (``"lite,feature=layers"``), or loaded
        encoders.
    folder
        The images. The class of one is the folder in it that holds it, or what ``label`` says.
    label, metadata, path_column
        The column of class names in a table of the images, and the column of their paths.
    group
        The table's column that tells patients apart; without it every image counts as a patient of its own.
    probe
        Measure a linear probe, too: logistic regression, every patient answered by a fit that never saw that patient.
    most
        At most so many images of a class, in the order of their names.
    seed
        Of the probe's folds.
    vectors
        Where the vectors are kept; by default nowhere.
    **loading
        Options of ``load_encoder`` for all of them: ``device=``, ``precision=``.

    Returns
    -------
    Comparison
        precision@1, precision@5 and any_hit@5, and where asked the accuracy of the probe; precision@1 and that
        accuracy macro over classes, too.

    Raises
    ------
    UsageError
        There are fewer than two encoders, or two of one name; the folder holds fewer than two classes.

    Examples
    --------
    >>> from retr.encoders import from_callable
    >>> from retr.sample import sample_encoder, sample_index
    >>> def sizes(pictures):
    ...     return np.array([picture.size for picture in pictures])
    >>> encoders = [sample_encoder(), from_callable(sizes, dim=2, name="sizes", fingerprint="1")]
    >>> found = compare(encoders, sample_index().path.parent)
    >>> [(one.first, one.second, f"{one.metrics['precision@1']:.2f}") for one in found.differences]
    [('colours', 'sizes', '-0.50 [-0.70, -0.24]')]
    """
    if len(encoders) < 2:
        raise UsageError(f"a comparison needs at least two encoders, got {len(encoders)}")
    for one in encoders:
        if not isinstance(one, str):
            require_loaded(one)
    names = [one if isinstance(one, str) else one.info.name for one in encoders]
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise UsageError(
            f"the encoder {twice[0]!r} is named twice", hint="options tell them apart: lite,feature=layers"
        )
    data = read_folder(
        home(folder),
        metadata=None if metadata is None else home(metadata),
        path_column=path_column,
        label=label,
        group=group,
        most=most,
    )
    if len(np.unique(data.groups)) < 2:
        raise UsageError("all images are of one patient: none is left to find", hint="give those of more patients")
    loaded = []
    for one in encoders:
        name, options = split_spelled(one) if isinstance(one, str) else (one, {})
        loaded.append(load_encoder(name, **{**loading, **options}) if isinstance(name, str) else name)
    data, found = _embed(data, loaded, vectors)
    rows = [_measures(one, own, data, probe=probe, seed=seed) for one, own in zip(loaded, found, strict=True)]
    member = np.eye(len(data.classes), dtype=bool)[data.labels]
    return Comparison(
        data=data.describe(),
        encoders=tuple(
            Compared(name, _estimates(values, data, member), measure(one, _pictures(data, one)))
            for name, one, values in zip(names, loaded, rows, strict=True)
        ),
        differences=tuple(
            Difference(names[first], names[second], _differences(rows[first], rows[second], data, member))
            for first, second in itertools.combinations(range(len(names)), 2)
        ),
        notes=tuple(_notes(data, loaded)),
    )


def _embed(
    data: ClassFolder, encoders: Sequence[BaseEncoder], work: Work
) -> tuple[ClassFolder, list[NDArray[np.float32]]]:
    """Embed every picture by every encoder; what one of them has no vector of is left out of all."""
    parts: dict[int, tuple[ClassFolder, NDArray[np.float32]]] = {}
    groups = _readings(encoders)
    for alike, embedded in zip(groups, work.embed_groups(data, groups), strict=True):
        parts |= {id(one): (embedded.data, own) for one, own in zip(alike, embedded.vectors, strict=True)}
    for part, _ in parts.values():
        reasons = dict(part.left_out)
        data = data.without({path: reasons[path] for path in data.paths if path in reasons})
    found = []
    for one in encoders:
        part, own = parts[id(one)]
        row = {path: number for number, path in enumerate(part.paths)}
        found.append(own[[row[path] for path in data.paths]])
    return data, found


def _readings(encoders: Sequence[BaseEncoder]) -> list[list[BaseEncoder]]:
    """Divide encoders into those that read pictures alike."""
    alike: dict[tuple[Any, ...], list[BaseEncoder]] = {}
    for one in encoders:
        alike.setdefault((one.info.draft_size, one.info.grey16), []).append(one)
    return list(alike.values())


def _pictures(data: ClassFolder, encoder: BaseEncoder) -> list[PIL.Image.Image]:
    """Read a few pictures as an encoder reads them, to measure what it costs."""
    found, info = [], encoder.info
    for path in data.paths[:: max(1, len(data.paths) // FEWEST)][:FEWEST]:
        with suppress(RetrError):  # the member of a container
            found.append(read_image(data.root / path, draft_size=info.draft_size, grey16=info.grey16).image)
    return found or [picture()]


def _measures(
    encoder: BaseEncoder, vectors: NDArray[np.float32], data: ClassFolder, *, probe: bool, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return the measures of each picture, float64 ``(n,)``."""
    pool = Pool(vectors, data.labels, data.groups, encoder.info.similarity == "cosine", unit=True)
    hits = retrieve(pool)["strict"].hits
    found = {
        "precision@1": precision_at(hits, 1),
        "precision@5": precision_at(hits, 5),
        "any_hit@5": any_hit_at(hits, 5),
    }
    if probe:
        right, own = np.zeros(len(data.labels)), pool.own_vectors()
        for inside, outside in by_patient(data.groups, _FOLDS, seed):
            coef, intercept = fit_probe(own[inside], data.labels[inside], len(data.classes), STANDARDISED.fixed)
            right[outside] = (own[outside] @ coef.T + intercept).argmax(axis=1) == data.labels[outside]
        found["probe_accuracy"] = right
    return found


def _over(names: Iterable[str], member: NDArray[np.bool_]) -> dict[str, tuple[str, NDArray[np.bool_] | None]]:
    """Return the measures to take means of, and those over classes, by name: of what, and the classes."""
    over: dict[str, tuple[str, NDArray[np.bool_] | None]] = {name: (name, None) for name in names}
    return over | {f"macro_{name}": (name, member) for name in ("precision@1", "probe_accuracy") if name in over}


def _estimates(
    values: Mapping[str, NDArray[np.float64]], data: ClassFolder, member: NDArray[np.bool_]
) -> dict[str, Estimate]:
    over = _over(values, member)
    return {name: mean_interval(values[of], data.groups, member=classes) for name, (of, classes) in over.items()}


def _differences(
    first: Mapping[str, NDArray[np.float64]],
    second: Mapping[str, NDArray[np.float64]],
    data: ClassFolder,
    member: NDArray[np.bool_],
) -> dict[str, Estimate]:
    return {
        name: paired_difference(first[of], second[of], data.groups, member=classes)
        for name, (of, classes) in _over(first, member).items()
    }


def _notes(data: ClassFolder, encoders: Sequence[BaseEncoder]) -> list[str]:
    notes = [note for one in encoders for note in one.notes]
    if data.group is None:
        notes.append("no column says whose the images are (--group): intervals take each for a patient's only one")
    patients = [len(np.unique(data.groups[data.labels == code])) for code in range(len(data.classes))]
    if alone := [name for name, count in zip(data.classes, patients, strict=True) if count < 2]:
        notes.append(f"classes of one {unit_of(data.group)} alone, which nothing can find: {', '.join(alone)}")
    if len(encoders) > 2:
        pairs = len(encoders) * (len(encoders) - 1) // 2
        notes.append(f"{pairs} differences, each with its own 95 % interval: nothing allows for their number")
    return list(dict.fromkeys(notes))
