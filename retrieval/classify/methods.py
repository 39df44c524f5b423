"""Three classification methods.

Zero-shot compares a vector with the prompts of classes, neighbours vote with the labels of the nearest rows, a probe
is a trained classifier. Each gives evidence, of which `retr.retrieval.classify.answers` makes answers.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from retr.index.errors import IndexCorruptError, UsageError
from retr.retrieval.classify import calibration
from retr.retrieval.classify.prompts import class_vectors
from retr.retrieval.encoders.runtime.truncation import unread_ends
from retr.retrieval.hits import Hits
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.labels.labelled import labelled_rows, others
from retr.retrieval.stats.confidence import Temperature, Votes, VoteScale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.classify.probe import Probe
    from retr.retrieval.classify.prompts import FittedWordEncoder, WordEncoder
    from retr.retrieval.labels.label_set import LabelSet
    from retr.retrieval.labels.labelled import Labelled
    from retr.retrieval.stats.confidence import Scaling

DEFAULT_NEIGHBOURS = 5


class Method(Protocol):
    """A way to classify."""

    @property
    def key(self) -> str:
        """Name under which its calibration is kept."""

    @property
    def column(self) -> str | None:
        """The label column it answers for, or whose calibration is asked for; ``None`` for the only one there is."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def uncalibrated(self) -> Scaling:
        """How its evidence becomes probabilities without a calibration."""

    @property
    def fitted_on(self) -> str | None:
        """The column whose texts a part of it was fitted on, on all rows; else ``None``."""

    def evidence(
        self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]
    ) -> tuple[Any, list[Hits] | None]:
        """Return logits ``(n, c)`` or `Votes`, and the rows that speak for them."""


class ByWords:
    """Zero-shot: similarity to the prompts of each class, in the encoder's own scale.

    Parameters
    ----------
    encoder
        What embeds words.
    labels
        Classes that exclude each other.
    calibrated_on
        The column on which it was calibrated, needed where that was done on several.
    """

    uncalibrated = Temperature()

    def __init__(self, encoder: WordEncoder, labels: LabelSet, *, calibrated_on: str | None = None) -> None:
        if labels.multilabel:
            raise UsageError(
                f"the classes of {labels.name!r} may be present together, so they do not share one probability",
                hint="leave `multilabel` out of the label set to make them exclude each other",
            )
        self.labels, self.column = labels, calibrated_on
        self.fitted_on: str | None = getattr(encoder, "fitted_on", None)
        self._encoder = encoder
        self._texts = class_vectors(encoder, [one.prompts for one in labels.classes])
        self.notes = unread_ends(encoder, [prompt for one in labels.classes for prompt in one.prompts])

    @property
    def key(self) -> str:
        """The set's name, and a fingerprint of its prompts."""
        prompts = repr([(one.name, one.prompts) for one in self.labels.classes])
        return f"zero-shot:{self.labels.name}:{hashlib.sha256(prompts.encode()).hexdigest()[:8]}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.labels.names)

    def logits(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 ``(n, c)``."""
        return self._encoder.similarity_logits(np.asarray(vectors, dtype=np.float32), self._texts)

    def held_out(self, store: Store, labelled: Labelled) -> tuple[NDArray[np.float32], Labelled]:
        """Return logits ``(n, c)`` of labelled rows, each by words that were not fitted on its patient, and those rows.

        A bridge is fitted again for each fold of the patients, on the others.

        Raises
        ------
        UsageError
            It cannot be fitted again, or the head of the index has seen every patient.
        """
        if self.fitted_on is None:
            return self.logits(store.vectors(labelled.rows)), labelled
        side, unseen = cast("FittedWordEncoder", self._encoder), Unseen(store, labelled.rows)
        folds = unseen.folds(labelled.groups)
        logits = np.zeros((len(labelled), len(self.classes)), np.float32)
        for fold in np.unique(folds[unseen.asked]).tolist():
            gone = np.unique(np.concatenate(others(store, labelled.rows[folds == fold])))
            plain, moved = unseen.plain & (folds == fold), unseen.fold == fold
            if plain.any():
                logits[plain] = self._by(side.without(store, gone, None), store.vectors(labelled.rows[plain]))
            if moved.any():
                logits[moved] = self._by(side.without(store, gone, fold), unseen.view(fold, moved))
        return logits[unseen.asked], labelled.part(unseen.asked)

    def _by(self, side: WordEncoder, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits by another text side; a class of whose words it knows none is the least probable."""
        logits = np.full((len(vectors), len(self.classes)), np.nan, np.float32)
        for at, one in enumerate(self.labels.classes):
            with contextlib.suppress(UsageError):
                texts = class_vectors(side, [one.prompts])
                logits[:, at] = side.similarity_logits(np.asarray(vectors, np.float32), texts)[:, 0]
        least = np.nanmin(logits, initial=0)
        return np.where(np.isnan(logits), least, logits)

    def evidence(
        self,
        vectors: NDArray[np.float32],
        exclude: Sequence[NDArray[np.int64]],  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], None]:
        """Return logits ``(n, c)``."""
        return self.logits(vectors), None


class ByNeighbours:
    """The labelled rows nearest to a query vote, the nearer the more.

    Parameters
    ----------
    k
        How many vote; by default the number that was calibrated best, else 5.
    where
        Only rows for which this expression is true vote.
    """

    uncalibrated = VoteScale()
    fitted_on = None

    def __init__(self, store: Store, column: str, k: int | None = None, *, where: str | None = None) -> None:
        self._store = store
        self._labelled = labelled_rows(store, column, where=where)
        self._mask = np.zeros(store.n_total, dtype=bool)
        self._mask[self._labelled.rows] = True
        self.column = column
        self.k = k if k is not None else calibration.default_neighbours(store, column) or DEFAULT_NEIGHBOURS
        # A vote among some of the rows only is another vote than the one that was calibrated.
        self.key = f"neighbours:{self.k}" if where is None else "neighbours:some"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._labelled.classes

    def evidence(self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]) -> tuple[Votes, list[Hits]]:
        """Return the votes, and the neighbours."""
        found = self._store.search(vectors, self.k, mask=self._mask, exclude=exclude)
        codes = np.where(found.rows >= 0, self._labelled.codes_of_rows(self._store.n_total)[found.rows], -1)
        votes = Votes(np.where(codes >= 0, found.scores, found.scores[:, :1]), codes, self._labelled.prior)
        hits = Hits.all_of(self._store, found, [""] * len(vectors))
        return votes, hits


class ByProbe:
    """A trained probe; pictures of patients it was trained on are answered by the fold that has not seen them."""

    key = "probe"
    uncalibrated = Temperature()
    fitted_on = None

    def __init__(self, probe: Probe, store: Store) -> None:
        self._probe, self._store = probe, store
        self._labelled = labelled_rows(store, probe.column)
        if len(self._labelled) != len(probe.fold_of):
            raise IndexCorruptError("the stored probe is of other rows", hint="train it again with --retrain")
        self.column = probe.column

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._probe.classes

    def evidence(
        self, vectors: NDArray[np.float32], exclude: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.float32], None]:
        """Return logits ``(n, c)``, each from a fit without the rows that must not speak."""
        return self._probe.logits_without(vectors, self._labelled, self._store, exclude), None
