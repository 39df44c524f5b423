"""Pictures in, answers out: choose a way to classify, embed the pictures, keep their patients out, answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import ImageReadError, UsageError
from retr.retrieval.classify import findings, probe
from retr.retrieval.classify.methods import Answer, ByNeighbours, ByProbe, ByWords, Method, answer, row_exclusions
from retr.retrieval.query import Query, own_rows_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retr.retrieval.classify.findings import Findings
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.engine import Index
    from retr.retrieval.labels.label_set import LabelSet

BATCH = 64


def choose(
    index: Index,
    *,
    labels: LabelSet | None = None,
    by: str | None = None,
    trained: str | None = None,
    k: int | None = None,
    where: str | None = None,
    retrain: bool = False,
) -> tuple[Method, str | None]:
    """Give a way to classify, and what a person should know of it.

    Exactly one of ``labels`` (zero-shot), ``by`` (neighbours' column) and ``trained`` (a probe's column; trained and
    stored if there is none) is given.
    """
    if sum(one is not None for one in (labels, by, trained)) != 1:
        raise UsageError("a way to classify is needed, and one only", hint="give one of --labels, --by and --probe")
    if where is not None and by is None:
        raise UsageError("a condition chooses the rows that vote", hint="use it with --by")
    if labels is not None:
        return ByWords(index.text_side, labels), None if index.bridge is None else index.bridge.note([])
    if by is not None:
        return ByNeighbours(index.store, by, k, where=where), None
    assert trained is not None
    found = None if retrain else probe.find(index.store, trained)
    note = None
    if found is None:
        found = probe.train_and_store(index.store, trained)
        index.refresh()
        figures = found.figures
        measured = ", ".join(f"{name} {figures[name]:.3f}" for name in ("accuracy", "top5", "macro_recall"))
        note = (
            f"trained a probe for {trained!r} on {figures['rows']} rows of {figures['groups']} groups; "
            f"held-out {measured}"
        )
    return ByProbe(found), note


def classify_images(
    index: Index,
    method: Method,
    images: Sequence[Any],
    *,
    patient: str | None = None,
    max_set: int | None = None,
) -> Iterator[Answer | tuple[str, ImageReadError]]:
    """Classify pictures, in batches; one that cannot be read gives its name and the error.

    Parameters
    ----------
    images
        Paths, or the bytes of files.
    patient
        The group key's value of all the pictures, where they are not indexed: its rows say nothing about them.
    """
    for batch in _batches(images):
        good, vectors, bad = _embed(index.encoder, batch)
        yield from bad
        if good:
            own = own_rows_all([Query.image(image) for image in good], index.store)
            exclude = row_exclusions(index.store, own, [patient] * len(good))
            yield from answer(index.store, method, vectors, [_name(image) for image in good], exclude, max_set=max_set)


def classify_without_index(
    encoder: BaseEncoder, labels: LabelSet, images: Sequence[Any]
) -> Iterator[Answer | tuple[str, ImageReadError]]:
    """Classify pictures zero-shot with an encoder alone; nothing is calibrated."""
    method = ByWords(encoder, labels)
    for batch in _batches(images):
        good, vectors, bad = _embed(encoder, batch)
        yield from bad
        if good:
            nothing = [np.empty(0, dtype=np.int64)] * len(good)
            yield from answer(None, method, vectors, [_name(image) for image in good], nothing)


def find_findings(
    encoder: BaseEncoder, side: Any, labels: LabelSet, images: Sequence[Any]
) -> Iterator[Findings | tuple[str, ImageReadError]]:
    """Score findings that may be present together; ``side`` embeds the words."""
    for batch in _batches(images):
        good, pictures, bad = _read(encoder, batch)
        yield from bad
        if good:
            scores = findings.from_pictures(encoder, pictures, labels)
            if scores is None:
                scores = findings.from_vectors(side, encoder.encode_images(pictures), labels)
            yield from findings.present(scores, labels, [_name(image) for image in good])


def image_files(folder: Path) -> list[Path]:
    """List the image files of a folder and its sub-folders, by name.

    Raises
    ------
    UsageError
        If there is none.
    """
    from retr.retrieval.archive.sources import is_image_name

    if not folder.is_dir():
        raise UsageError(f"no folder {str(folder)!r}", hint="check the path")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_image_name(path.name))
    if not files:
        raise UsageError(f"no image files in {str(folder)!r}", hint="check the path")
    return files


def _batches(images: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def _read(encoder: BaseEncoder, images: Sequence[Any]) -> tuple[list[Any], list[Any], list[tuple[str, ImageReadError]]]:
    """Read pictures: what could be read, the pictures, and what could not."""
    from retr.retrieval.images import read_image

    good, pictures, bad = [], [], []
    info = encoder.info
    for image in images:
        try:
            pictures.append(read_image(image, draft_size=info.draft_size, grey16=info.grey16).image)
            good.append(image)
        except ImageReadError as error:
            bad.append((_name(image), error))
    return good, pictures, bad


def _embed(
    encoder: BaseEncoder, images: Sequence[Any]
) -> tuple[list[Any], NDArray[np.float32], list[tuple[str, ImageReadError]]]:
    good, pictures, bad = _read(encoder, images)
    vectors = encoder.encode_images(pictures) if good else np.empty((0, encoder.info.dim), dtype=np.float32)
    if encoder.info.similarity == "cosine":
        from retr.index.vectors import unit

        vectors = unit(vectors)
    return good, vectors, bad


def _name(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else "standard input"
