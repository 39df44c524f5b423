"""Classify pictures or rows: choose a method, embed, exclude the same patient, answer.

`classify` and `classify_rows` are methods of `Index`, and ``retr classify`` on the command line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import ImageReadError, UsageError
from retr.index.machine.home import home
from retr.index.rows.identifiers import identifier_text
from retr.index.vectors import unit
from retr.retrieval import novelty
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.classify import findings
from retr.retrieval.classify import probe as probes
from retr.retrieval.classify.answers import SEEN, UNLIMITED, Answer, answer_pictures, row_exclusions, store_answers
from retr.retrieval.classify.calibration import find_calibration, rows_seen_by_fits
from retr.retrieval.classify.methods import ByNeighbours, ByProbe, ByWords, Method
from retr.retrieval.encoders.runtime.truncation import unread_ends
from retr.retrieval.images.given import each_picture, given_picture
from retr.retrieval.images.origin import file_sha256
from retr.retrieval.labels.label_set import LabelSet, load_labels
from retr.retrieval.labels.labelled import unit_of
from retr.retrieval.labels.trained_rows import seen_fits
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows, stated_values
from retr.retrieval.query_pictures import one_picture, split_frame
from retr.retrieval.raw_vectors import encode_own, placed
from retr.retrieval.read_options import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from retr.index.store import Store
    from retr.retrieval.classify.findings import PictureFindings
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike

BATCH = 64
#: The name of a picture that could not be read, and why.
Unread = tuple[str, ImageReadError]


def classify(
    index: IndexLike,
    images: Iterable[Any],
    *,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    by: str | None = None,
    probe: str | None = None,
    k: int | None = None,
    where: str | None = None,
    retrain: bool = False,
    train: bool = True,
    patient: str | None = None,
    strict_exclude: bool = False,
    max_set: int | None = None,
    calibrated_on: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Answer | PictureFindings | Unread]:
    """Name what pictures show, in their order and in batches; one that cannot be read gives its name and the error.

    Exactly one of ``labels``, ``by`` and ``probe`` is given.

    Parameters
    ----------
    images
        Several pictures, as `Query.image` takes one: paths, bytes, PIL images, arrays ...; also a batch of four axes.
    labels
        Zero-shot: a label set. Where its classes may be present together, or the encoder scores findings, each picture
        gives `PictureFindings`.
    by
        A column: the nearest rows vote with its values.
    probe
        A column: a classifier trained on it; trained and stored if there is none.
    k, where
        With ``by`` how many rows vote (by default as calibrated, else 5), and among which.
    retrain
        Train the probe again.
    train
        Whether a probe that is not stored may be trained and stored; otherwise it is an error.
    patient
        The group key's value of all the pictures, raw where the index keeps hashes: its rows say nothing about them.
        Pictures that are indexed, and DICOM files, say themselves whose they are.
    strict_exclude
        A patient that no row has is an error; otherwise the answers' note says so.
    max_set
        Abstain when more classes than this stay possible; by default half of them, rounded up. It counts where there
        is a calibration; otherwise the answers' notes say so.
    calibrated_on
        Zero-shot: the column whose calibration counts, where there are calibrations on several.
    say
        Told what a person should know of the way chosen, a line at a time.

    Raises
    ------
    UsageError
        None or several ways are given, or a column is unknown.
    NoTextSideError
        Zero-shot, for an encoder without a text side, and no bridge.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> file = index.path.parent / "healthy/P01-left.png"
    >>> [answer.label for answer in index.classify([file], by="label")]
    ['healthy']
    """
    images = each_picture(images)
    classes = _checked(labels, by, probe, k, where, max_set, calibrated_on)
    # what one step finds the next one uses: another thread may move the index on meanwhile
    moving, index = index, index.snapshot()
    before = index.store
    if classes is not None and _asks_findings(index.encoder, classes):
        if max_set is not None:
            raise UsageError(
                f"findings may be present together and make no set, got a limit of: {max_set!r}", hint="leave it out"
            )
        if patient is not None:
            raise UsageError(
                f"findings are scored on each picture alone, and no row of {patient!r} says anything about them",
                hint="leave the patient out",
            )
        side = None if hasattr(index.encoder, "score") else index.text_side
        return _find_findings(index.encoder, side, classes, images, index.store)
    remarks = [*index.store.identity.absent(where), *_nobody(index.store, patient, strict=strict_exclude)]
    words = None if classes is None else ByWords(index.text_side, classes, calibrated_on=calibrated_on)
    method = _choose(index, words, by=by, probe=probe, k=k, where=where, retrain=retrain, train=train, say=say)
    if index.store is not before:
        # a probe was trained, and committed
        moving.refresh()
    return answer_images(index.encoder, index.store, method, images, patient=patient, max_set=max_set, remarks=remarks)


def _nobody(store: Store, patient: str | None, *, strict: bool) -> list[str]:
    """Say, or raise where ``strict``, that no row is of a patient."""
    if patient is None or len(row_exclusions(store, [np.empty(0, np.int64)], patient)[0]):
        return []
    if not (identifier_text(patient) or "").strip():
        raise UsageError("the patient is empty", hint="leave the patient out where it is not known")
    absent = f"no row has the {store.manifest.group} {patient!r}"
    if strict:
        raise UsageError(absent, hint=f"see the values with `retr index ls --columns {store.manifest.group}`")
    return [f"{absent}: nothing was kept out for it"]


def classify_rows(
    index: IndexLike,
    *,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    by: str | None = None,
    probe: str | None = None,
    k: int | None = None,
    where: str | None = None,
    retrain: bool = False,
    max_set: int | None = None,
    into: str | None = None,
    calibrated_on: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Name every row of the index, each without its own patient; the answers become columns of it.

    Parameters
    ----------
    into
        What the new columns' names begin with; by default zeroshot, neighbours or probe.
    labels, by, probe, k, where, retrain, max_set, calibrated_on, say
        As in `classify`.

    Returns
    -------
    dict
        ``rows``, how many of them were ``answered``, and the ``columns``.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.classify_rows(by="label")["columns"]
    'neighbours_label, neighbours_probability'
    """
    classes = _checked(labels, by, probe, k, where, max_set, calibrated_on)
    moving, index = index, index.snapshot()
    index.refresh()
    if classes is not None and _asks_findings(index.encoder, classes):
        raise UsageError(
            f"the findings of {classes.name!r} are scored on pictures, not on stored vectors",
            hint="store them with `retr index build --score`, or give --image or --folder",
        )
    words = None if classes is None else ByWords(index.text_side, classes, calibrated_on=calibrated_on)
    method = _choose(index, words, by=by, probe=probe, k=k, where=where, retrain=retrain, say=say)
    for note in (*index.store.identity.absent(where), *(method.notes if isinstance(method, ByWords) else ())):
        say(note)
    known = rows_seen_by_fits(index.store, method.fitted_on)
    if known is not None and known.any():
        say(f"{int((known & index.store.alive()).sum())} rows: {SEEN}")
    prefix = into or {"z": "zeroshot", "n": "neighbours", "p": "probe"}[method.key[0]]
    found, why = find_calibration(index.store, method.key, method.column)
    for note in (
        why,
        novelty.find_novelty(index.store)[1],
        UNLIMITED if max_set is not None and found is None else None,
    ):
        if note:
            say(note)
    answered = store_answers(index.store, method, prefix=prefix, max_set=max_set)
    moving.refresh()
    columns = [f"{prefix}_label", f"{prefix}_probability", *([] if found is None else [f"{prefix}_set"])]
    return {"rows": len(index), "answered": answered, "columns": ", ".join(columns)}


def classify_without_index(
    encoder: BaseEncoder, labels: LabelSet, images: Iterable[Any]
) -> Iterator[Answer | PictureFindings | Unread]:
    """Classify pictures zero-shot with an encoder alone; nothing is calibrated."""
    images = each_picture(images)
    if _asks_findings(encoder, labels):
        return _find_findings(encoder, encoder, labels, images, None)
    return answer_images(encoder, None, ByWords(encoder, labels), images)


def _asks_findings(encoder: BaseEncoder, labels: LabelSet) -> bool:
    """Return whether each class is a question of its own."""
    return labels.multilabel or hasattr(encoder, "score")


def _checked(
    labels: LabelSet | str | Path | Sequence[str] | None,
    by: str | None,
    probe: str | None,
    k: int | None,
    where: str | None,
    max_set: int | None,
    calibrated_on: str | None,
) -> LabelSet | None:
    """Refuse what cannot be meant; give the classes of zero-shot, where that is the way."""
    if sum(one is not None for one in (labels, by, probe)) != 1:
        raise UsageError("a way to classify is needed, and one only", hint="give one of --labels, --by and --probe")
    if where is not None and by is None:
        raise UsageError(f"a condition chooses the rows that vote, got: {where!r}", hint="use it with --by")
    if k is not None and by is None:
        raise UsageError(f"k is how many rows vote, got: {k!r}", hint="use it with --by; --top shows more classes")
    if calibrated_on is not None and labels is None:
        raise UsageError(
            f"{calibrated_on!r} would choose a calibration of zero-shot; other ways have one for their own column",
            hint="use --calibrated-on with --labels",
        )
    if max_set is not None and max_set < 1:
        raise UsageError(f"a set of at least one class may be allowed, got a limit of: {max_set!r}")
    return None if labels is None else load_labels(labels)


def _choose(
    index: IndexLike,
    words: ByWords | None,
    *,
    by: str | None,
    probe: str | None,
    k: int | None,
    where: str | None,
    retrain: bool,
    say: Callable[[str], None],
    train: bool = True,
) -> Method:
    if words is not None:
        if index.bridge is not None:
            say(index.bridge.note([]))
        return words
    if by is not None:
        return ByNeighbours(index.store, by, k, where=where)
    assert probe is not None
    found = None if retrain else probes.find_probe(index.store, probe)
    if found is None:
        # another process may have changed rows since this one looked
        index.refresh()
        if not train:
            raise UsageError(
                f"there is no trained probe for {probe!r}",
                hint=f"train it with `retr classify --probe {probe}`, or ask as one who may write",
            )
        found = probes.train_and_store(index.store, probe)
        index.refresh()
        # rows that changed in the meantime are not those it was trained on
        found = probes.find_probe(index.store, probe) or found
        figures = found.figures
        measured = ", ".join(
            f"{name} {figures[name]:.3f}" for name in ("accuracy", "top5", "macro_recall") if name in figures
        )
        whom = f"{figures['groups']} {unit_of(index.store.manifest.group)}s"
        say(
            f"trained a probe for {probe!r} on {figures['rows']} rows of {whom}; "
            + (f"held-out {measured}" if measured else "not measured: the head of this index has seen all of them")
        )
    return ByProbe(found, index.store)


def answer_images(
    encoder: BaseEncoder,
    store: Store | None,
    method: Method,
    images: Sequence[Any],
    *,
    patient: str | None = None,
    max_set: int | None = None,
    remarks: Sequence[str] = (),
) -> Iterator[Answer | Unread]:
    """Name pictures by a method, in batches, each without its own patient."""
    for names, good, pictures, bad in _read(encoder, images, store):
        yield from bad
        if not good:
            continue
        own = encode_own(encoder, pictures)
        vectors = own if store is None else placed(store, own)
        if encoder.info.similarity == "cosine":
            vectors = unit(vectors)
        exclude, fitted = [np.empty(0, dtype=np.int64)] * len(good), None
        said: list[list[str]] = [[] for _ in good]
        if store is not None:
            exclude, known = _kept_out(store, good, patient)
            fitted = _fitted(store, method, good, patient)
            said = [[*([] if one else [_whose(store)]), *remarks, *store.identity.warnings()] for one in known]
        ways = method.notes if isinstance(method, ByWords) else ()
        notes = ["; ".join([*one, *ways]) or None for one in said]
        yield from answer_pictures(
            store, method, vectors, names, exclude, own=own, max_set=max_set, notes=notes, fitted=fitted
        )


def _kept_out(store: Store, images: Sequence[Any], patient: str | None) -> tuple[list[NDArray[np.int64]], list[bool]]:
    """Find the rows that must not speak for each picture, and say of which pictures the patient is known."""
    own = own_rows([Query.image(image) for image in images], store)
    key = store.manifest.group
    if key is None:
        return row_exclusions(store, own, patient), [False] * len(images)
    stated = stated_values(key, images)
    theirs = [np.union1d(*both) for both in zip(own, store.identity.rows(key, stated), strict=True)]
    known = [
        patient is not None or value is not None or any(one is not None for one in store.identity.of(key, rows))
        for value, rows in zip(stated, own, strict=True)
    ]
    return row_exclusions(store, theirs, patient), known


def _fitted(store: Store, method: Method, images: Sequence[Any], patient: str | None) -> NDArray[np.bool_]:
    """Return which pictures, or patients, a head or a bridge was fitted on, also those without rows in the index."""
    fits, key = seen_fits(store, bridge=method.fitted_on is not None), store.manifest.group
    if not fits:
        return np.zeros(len(images), bool)
    # by the columns that told patients apart when it was fitted, too
    columns = dict.fromkeys([*(one for fit in fits for one in fit.columns), *([key] if key else [])])
    stated = {one: stated_values(one, images) for one in columns if one in store.schema.names}
    found = []
    for i, image in enumerate(images):
        named = [(key, patient), *((one, values[i]) for one, values in stated.items())]
        spelled = [text for column, who in named if column and who for text in store.identity.texts(column, who)]
        found.append(any(one.knows(spelled, file_sha256(split_frame(image)[0])) for one in fits))
    return np.array(found, bool)


def _whose(store: Store) -> str:
    """Return what it means that the patient of a picture is not known."""
    if store.manifest.group is None:
        return "no column says whose a picture is: others of the same person may have spoken; see `retr index group`"
    return "whose picture this is, is not known: if the index has rows of the patient, name it with --patient"


def _find_findings(
    encoder: BaseEncoder, side: Any, labels: LabelSet, images: Sequence[Any], store: Store | None
) -> Iterator[PictureFindings | Unread]:
    """Score findings that may be present together; ``side`` embeds the words."""
    asked = labels.names if side is None else [prompt for one in labels.classes for prompt in one.prompts]
    note = "; ".join(unread_ends(encoder if side is None else side, asked)) or None
    for names, _, pictures, bad in _read(encoder, images, store):
        yield from bad
        if pictures:
            scores = findings.from_pictures(encoder, pictures, labels)
            if scores is None:
                scores = findings.from_vectors(side, encoder.encode_images(pictures), labels)
            yield from findings.present(scores, labels, names, note)


def image_files(folder: Path) -> list[Path]:
    """List the image files of a folder and its sub-folders, by name.

    Raises
    ------
    UsageError
        If there is none.
    """
    from retr.retrieval.archive.folders import is_picture_file

    folder = home(folder)
    if not folder.is_dir():
        raise UsageError(f"no folder {str(folder)!r}", hint="check the path")
    files = sorted(path for path in folder.rglob("*") if is_picture_file(path))
    if not files:
        raise UsageError(f"no image files in {str(folder)!r}", hint="check the path")
    return files


def _read(
    encoder: BaseEncoder, images: Sequence[Any], store: Store | None
) -> Iterator[tuple[list[str], list[Any], list[Image.Image], list[Unread]]]:
    """Read pictures in batches: the names of those that could be read, how they were given, and what could not."""
    from retr.retrieval.images import read_image

    info = encoder.info
    reading = ReadOptions() if store is None else BuildNotes.of(store).reading
    how: Any = {**reading.by_name(), "draft_size": info.draft_size, "grey16": info.grey16}
    for start in range(0, len(images), BATCH):
        names, good, pictures, bad = [], [], [], []
        for number, image in enumerate(images[start : start + BATCH], start + 1):
            name = _name(image, number)
            try:
                given = given_picture(image, name)
                picture = read_image(one_picture(given, info, reading), **{**how, "name": name})
                pictures.append(picture.image)
                good.append(given)
                names.append(name)
            except ImageReadError as error:
                bad.append((name, error))
        yield names, good, pictures, bad


def _name(image: Any, number: int) -> str:
    if isinstance(image, str | os.PathLike):
        return os.fsdecode(image)
    return "standard input" if isinstance(image, bytes) else f"picture {number}"
