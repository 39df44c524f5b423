"""Name pictures after a few examples of each class: `Index.few_shot`, and ``retr classify --shots FILE``.

Three classifiers, nothing of them stored:

* ``prototypes``: a class is the mean of its shots, of unit length; the nearest counts.
* ``probe``: logistic regression, the default without words. The vectors are centred and scaled by one number: to give
  each dimension a deviation of 1, as `retr.retrieval.classify.probe` does with all labelled rows, a few shots tell too
  little, and in a whitened space that was no better than chance (``benchmarks/few_shot.py``).
* ``blend``: where there are words, a class is the embedding of its prompts plus, by the share of the shots that are its
  own, their sum over the temperature (SS-Text, Silva-Rodriguez et al. 2025, arXiv 2506.17500): training-free.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retr.index.errors import ImageReadError, UsageError
from retr.index.machine.home import home
from retr.index.vectors import unit
from retr.retrieval.classify.classify import answer_images
from retr.retrieval.classify.probe import TOGETHER, fit_probe
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.encoders.index_encoder import RecordedEncoder
from retr.retrieval.images.given import each_picture
from retr.retrieval.images.origin import file_sha256
from retr.retrieval.labels.label_set import LabelSet, load_labels
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows, stated_values
from retr.retrieval.query_pictures import split_frame
from retr.retrieval.query_vectors import resolve
from retr.retrieval.stats.confidence import Temperature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.answers import Answer
    from retr.retrieval.classify.classify import Unread
    from retr.retrieval.index_like import IndexLike

Way = Literal["prototypes", "probe", "blend"]
#: The inverse temperature of prototypes, and of encoders that state none.
SHARPNESS = 20.0


def few_shot(
    index: IndexLike,
    images: Iterable[Any],
    shots: Mapping[str, str] | str | Path,
    *,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    way: Way | None = None,
    patient: str | None = None,
    patients: Mapping[str, str] | None = None,
) -> Iterator[Answer | Unread]:
    """Name what pictures show after a few examples; nothing is calibrated, and nothing is stored.

    Shots of a picture's own patient, or the picture itself, say nothing about it. Whose a shot is comes from its row,
    from the header of a DICOM file, or from ``patients``.

    Parameters
    ----------
    images
        As `classify` takes them.
    shots
        The examples with their classes: ids of rows or paths of pictures, or a CSV file with the columns ``id`` or
        ``path`` and ``label``, and ``patient`` where that is known; paths are relative to the file.
    labels
        The classes' prompts, for ``blend``; each class of the shots must be one of the set, and only these are asked.
    way
        By default ``blend`` with ``labels``, else ``probe``.
    patient
        The group key's value of all the pictures.
    patients
        The group key's value of shots, by their name in ``shots``; in a file the column ``patient``.

    Raises
    ------
    UsageError
        The shots cannot be read, are of fewer than two classes, or a class is not of the label set; or their patients
        are named and the index has no group key.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> shots = {"healthy/P03-left.png": "healthy", "glaucoma/P00-left.png": "glaucoma"}
    >>> [one.label for one in index.few_shot([index.path.parent / "healthy/P01-left.png"], shots)]
    ['healthy']
    """
    index = index.snapshot()
    way = way or ("probe" if labels is None else "blend")
    if way not in {"prototypes", "probe", "blend"}:
        raise UsageError(f"unknown way {way!r}", hint="use prototypes, probe or blend")
    if (way == "blend") != (labels is not None):
        raise UsageError("a blend needs the prompts of a label set, and only a blend does", hint="see --labels")
    given, named = (dict(shots), {}) if isinstance(shots, Mapping) else read_shots(home(shots))
    named |= dict(patients or {})
    if unknown := sorted(named.keys() - given.keys()):
        raise UsageError(f"a patient is named of {unknown[0]!r}, which is none of the shots")
    classes = tuple(sorted(set(given.values())))
    if len(classes) < 2:
        raise UsageError(f"the shots are of {len(classes)} classes, at least two are needed")
    store = index.store
    known = (store.rows_of(list(given)) >= 0).tolist()
    queries = [Query.id(name) if row else Query.image(name) for name, row in zip(given, known, strict=True)]
    encoder = RecordedEncoder(store.manifest.encoder, lambda: index.encoder)
    vectors = resolve(queries, encoder, store).vectors
    codes = np.array([classes.index(label) for label in given.values()])
    texts, scale = None, SHARPNESS
    if labels is not None:
        texts, scale = (
            class_texts(index.text_side, load_labels(labels), classes),
            store.manifest.encoder.logit_scale or scale,
        )
    known_rows, marks = _whose(store, queries, [named.get(name) for name in given])
    method = ByShots(classes, vectors, codes, known_rows, way=way, texts=texts, scale=scale)
    every = frozenset[str]().union(*marks)

    def of(image: Any) -> frozenset[str]:
        try:
            return every & _marks(store, image, patient) if every else every
        except ImageReadError:  # said of it in its turn
            return frozenset()

    runs = groupby(each_picture(images), of)
    return chain.from_iterable(
        answer_images(index.encoder, store, method.where([not gone & one for one in marks]), list(run), patient=patient)
        for gone, run in runs
    )


def read_shots(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read a CSV file of examples: ids or paths with their classes, and the patients of those that have one."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UsageError(f"the shots {str(file)!r} cannot be read", hint="give a CSV file: path,label") from None
    columns = set(rows[0]) if rows else set()
    key = next((name for name in ("id", "path") if name in columns), None)
    if key is None or "label" not in columns:
        raise UsageError(f"the shots {str(file)!r} have no columns 'id' or 'path', and 'label'")
    found: dict[str, str] = {}
    patients: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, label = row[key], row["label"]
        if not name or not label:
            raise UsageError(f"line {number} of the shots has an empty cell", hint="give an example and its class")
        if key == "path" and not Path(name).is_absolute():
            name = str(file.parent / name)
        if found.setdefault(name, label) != label:
            raise UsageError(f"line {number} of the shots gives an example another class than a line before it")
        whose = (row.get("patient") or "").strip()
        if whose and patients.setdefault(name, whose) != whose:
            raise UsageError(f"line {number} of the shots gives an example another patient than a line before it")
    return found, patients


def _whose(
    store: Store, queries: Sequence[Query], named: Sequence[str | None]
) -> tuple[list[NDArray[np.int64]], list[frozenset[str]]]:
    """Return the rows of each shot, those of its patient with it, and what marks its file or patient without rows."""
    key = store.manifest.group
    if key is None and any(named):
        raise UsageError(
            "the patients of shots are named, and the index has no group key",
            hint="declare one with `retr index group COLUMN`",
        )
    rows, marks = own_rows(queries, store), []
    for at, (query, who) in enumerate(zip(queries, named, strict=True)):
        part = query.parts[0]
        image = part.value if part.kind == "image" else None
        marks.append(_marks(store, image, who))
        if key is not None:
            said = [one for one in (who, *(stated_values(key, [image]) if image is not None else [])) if one]
            rows[at] = np.union1d(rows[at], np.concatenate([rows[at], *store.identity.rows(key, said)]))
    return rows, marks


def _marks(store: Store, image: Any, patient: str | None) -> frozenset[str]:
    """Return what tells a picture's file, or its patient, from others: a hash, and the texts of its group."""
    key, found = store.manifest.group, set[str]()
    if image is not None and (sha := file_sha256(split_frame(image)[0])) is not None:
        found.add(sha)
    if key is not None:
        said = patient if patient is not None or image is None else stated_values(key, [image])[0]
        found |= {f"{key}={text}" for text in store.identity.texts(key, said)} if said else set()
    return frozenset(found)


class ByShots:
    """A classifier fitted on a few vectors; fitted again without those that must not speak for a picture."""

    key, column, fitted_on = "few-shot", None, None
    uncalibrated = Temperature()

    def __init__(
        self,
        classes: tuple[str, ...],
        vectors: NDArray[np.float32],
        codes: NDArray[np.int64],
        rows: Sequence[NDArray[np.int64]],
        *,
        way: Way,
        texts: NDArray[np.float32] | None = None,
        scale: float = SHARPNESS,
    ) -> None:
        self.classes = classes
        self._vectors, self._codes, self._rows = vectors, codes, rows
        self._way, self._texts, self._scale = way, texts, scale

    def where(self, keep: Sequence[bool]) -> ByShots:
        """Return the classifier of some of the shots."""
        kept, rows = np.array(keep, bool), [one for one, held in zip(self._rows, keep, strict=True) if held]
        some = self._vectors[kept], self._codes[kept]
        return ByShots(self.classes, *some, rows, way=self._way, texts=self._texts, scale=self._scale)

    def evidence(
        self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.float32], None]:
        """Return logits ``(n, c)``, each by the shots that are not in its ``exclude``."""
        logits = np.empty((len(vectors), len(self.classes)), np.float32)
        made: dict[bytes, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for i, gone in enumerate(exclude):
            keep = np.array([not np.isin(rows, gone).any() for rows in self._rows])
            fit = made.get(keep.tobytes())
            if fit is None:
                fit = made[keep.tobytes()] = self._fit(self._vectors[keep], self._codes[keep])
            logits[i] = fit[0] @ vectors[i] + fit[1]
        return logits, None

    def _fit(
        self, vectors: NDArray[np.float32], codes: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if len(np.unique(codes)) < 2 and self._texts is None:
            raise UsageError(
                "without the shots of a picture's own patient fewer than two classes are left",
                hint="give examples of more patients",
            )
        if self._way == "probe":
            return fit_probe(vectors, codes, len(self.classes), TOGETHER.fixed, TOGETHER)
        return class_weights(vectors, codes, len(self.classes), self._scale, self._texts)


def class_weights(
    vectors: NDArray[np.float32],
    codes: NDArray[np.int64],
    classes: int,
    scale: float,
    texts: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the prototypes of shots, or their blend with ``texts``: weights ``(c, d)`` and intercepts ``(c,)``."""
    coef = np.zeros((classes, vectors.shape[1]), np.float32)
    np.add.at(coef, codes, vectors)
    if texts is not None:
        share = (np.bincount(codes, minlength=classes) / max(len(codes), 1))[:, None]
        coef = (texts + share * coef * scale).astype(np.float32)
    filled = np.linalg.norm(coef, axis=1) > 0
    coef[filled] = unit(coef[filled]) * np.float32(scale)
    # a class that lost its shots is less probable than any that has some
    return coef, np.where(filled, 0, -2 * scale).astype(np.float32)


def class_texts(side: Any, labels: LabelSet, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return the embedded prompts of some classes ``(c, d)``, unit vectors."""
    places = [labels.class_of(name) for name in classes]
    unknown = [name for name, at in zip(classes, places, strict=True) if at is None]
    if unknown:
        raise UsageError(
            f"the label set {labels.name!r} does not know {unknown[0]!r}", hint="add it, or an alias of it"
        )
    return unit(class_vectors(side, [labels.classes[at].prompts for at in places if at is not None]))
