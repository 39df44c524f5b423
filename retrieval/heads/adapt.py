"""Adapt an index to a label column: a head fitted on some patients, measured on the others.

The adapted index is an index of its own: the same rows, their vectors passed through the head, the head beside them
(`retr.retrieval.heads.adapted`), and in the manifest under ``"adapted"`` what it was fitted on and what it gained. New
pictures and queries pass through the same head. Words do not: its text side is gone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from retr.index.disk.side_data import Move
from retr.index.errors import RetrError, UsageError
from retr.index.machine.home import index_folder
from retr.index.machine.waiting import waiting
from retr.index.rows.carrying import copy
from retr.index.store import Store
from retr.retrieval.archive import locations
from retr.retrieval.heads import head
from retr.retrieval.heads.adapted import adapted_info, as_stored, head_of
from retr.retrieval.heads.features import better_features, embed_again
from retr.retrieval.heads.measuring import measure_head, said_of
from retr.retrieval.heads.mixing import Mixing, space_of
from retr.retrieval.labels.cases import find_cases
from retr.retrieval.labels.folds import by_class, deal
from retr.retrieval.labels.held_out_views import FOLDS, MOST_ROWS, Views
from retr.retrieval.labels.labelled import grouped, merge_groups
from retr.retrieval.labels.trained_rows import FITTED, HEAD_FILE, HEAD_NOTE, HELD_OUT, SPLIT, VIEWS_FILE
from retr.retrieval.labels.training_marks import Marks
from retr.retrieval.transforms.transform import own_vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.heads.head import Head
    from retr.retrieval.heads.measuring import Measured
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.labels.cases import Cases
    from retr.retrieval.stats.intervals import Estimate

_CHUNK = 4096


@dataclass(frozen=True)
class Adapted:
    """What `adapt` did.

    Attributes
    ----------
    store
        The new index's store.
    facts
        What the head was fitted on; also in the manifest.
    before, after
        precision@1, precision@5 and any-hit@5 of held-out rows: as they were, and through the head. The gallery is
        the held-out rows of other patients (``"... among held-out rows"``) or all labelled rows of other patients.
    difference
        The same measures, after less before, each row compared with itself.
    notes
        What the user should know, one line each.
    """

    store: Store
    facts: dict[str, Any]
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    difference: dict[str, Estimate]
    notes: tuple[str, ...]


def adapt(
    index: IndexLike,
    label: str,
    out: Path | str,
    *,
    fit: str | None = None,
    refit: bool = False,
    features: Literal["auto", "stored"] = "auto",
    separator: str | None = None,
    group: str | None = None,
    same_patient: bool = False,
    where: str | None = None,
    mix: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Adapted:
    """Fit a head on half of the patients, measure it on the others, and write the adapted index.

    Parameters
    ----------
    index
        It is not changed.
    label
        Column of class names.
    out
        Where the adapted index goes; nothing must be there.
    fit
        A where-expression: the head is fitted on these rows and measured on the other labelled ones. By default the
        patients are halved at random, classes spread evenly.
    refit
        After measuring, fit the head that is written on all labelled rows.
    features
        ``"auto"``: embed the pictures again where the encoder has features that suit a head better and the archive is
        at hand; ``"stored"``: use the vectors of the index.
    separator, group, same_patient, where
        Which rows are labelled, and whose they are; see `retr.retrieval.labels.cases.find_cases`.
    mix
        The share of the space that was there in what is written, from 0 (the head alone) to 1; by default the one of
        the highest precision@1 that lowers any-hit@5 by no more than its noise (`retr.retrieval.heads.mixing`).
    seed
        Of the split and the folds.
    progress
        Show progress on standard error.

    Raises
    ------
    UsageError
        The index is an adapted one, or one side of the split has fewer than two classes, or a patient is on both, or
        ``mix`` is no share.
    RetrError
        There is an index at ``out``, or a picture can no longer be read.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> adapted = index.adapt("label", index.path.with_name("adapted.retr"))
    >>> len(adapted.store), adapted.store.manifest.encoder.dim
    (24, 48)
    """
    store = index.store
    if features not in {"auto", "stored"}:
        raise UsageError(f"features are auto or stored, got: {features!r}")
    if mix is not None and not 0 <= mix <= 1:
        raise UsageError(f"a share of the space that was there lies between 0 and 1, got: {mix!r}")
    if head_of(store) is not None:
        raise UsageError("the index is an adapted one already", hint="adapt the index it was made from")
    if Store.exists(out):
        raise RetrError(f"there is an index at {str(out)!r} already", hint="choose another --out")
    cases = find_cases(store, label, separator=separator, group=group, same_patient=same_patient, where=where)
    sides = _Sides.of(store, cases, fit, seed)
    rows = store.live_rows()
    info, vectors, again = _features(store, rows, features, progress)
    own = vectors[np.searchsorted(rows, cases.rows)]

    def fitted(chosen: NDArray[np.bool_]) -> tuple[Head, dict[float, float]]:
        at = np.flatnonzero(chosen & sides.single)
        return head.fit_head(own[at], cases.truth[at], sides.groups[at], seed=seed)

    with waiting(f"fitting the head on {int((sides.inside & sides.single).sum())} rows"):
        found, tried = fitted(sides.inside)
    if again and mix:
        raise UsageError("pictures that are embedded again lie in another space than the index", hint="features=stored")
    # features of another kind than the index searches are another space
    mixing = Mixing(None if again else space_of(store), own, sides.single)
    share = mixing.chosen(found, sides.inside, cases.truth, sides.groups, seed=seed) if mix is None else mix

    def measured(share: float) -> Measured:
        return measure_head(mixing(found, sides.inside, share)(own), cases, ~sides.inside, seed=seed)

    before = measure_head(store.vectors(cases.rows), cases, ~sides.inside, seed=seed)
    after = measured(share)
    keeps: float | None = share
    if not after.keeps_any_hit(before):
        keeps = next((more for more in mixing.shares if more > share and measured(more).keeps_any_hit(before)), None)
    everything = np.ones(len(cases.rows), bool)
    found = mixing(fitted(everything)[0], everything, share) if refit else mixing(found, sides.inside, share)
    kept = sides.single if refit else sides.inside & sides.single
    with waiting("fitting the head without each fifth of whom it has seen"):
        views = _views(store, cases, sides.groups, kept, own, lambda few: mixing(fitted(few)[0], few, share))
    found = replace(found, seen=Marks.of(store, cases.rows[kept], [group, store.manifest.group]))
    facts = {
        **sides.facts(kept),
        "refitted_on_everything": refit,
        "shrinkage": found.about["shrinkage"],
        "mix": share,
        "mix_that_keeps_any_hit": keeps,
        "cross_validated_mrr@10": {str(shrinkage): round(value, 4) for shrinkage, value in tried.items()},
        "seed": seed,
        "from": {"uuid": store.uuid, "version": store.version},
    }
    found.about.update(label=cases.label, encoder=info.to_json())
    gained = said_of(before, after, share, keeps, sides.who)
    notes = [*cases.notes, *store.identity.absent(fit), *sides.notes, *again, *gained]
    if refit and views is None:
        notes.append(
            f"this head cannot be measured any more (too few to hold out, or more than {MOST_ROWS} rows): "
            "`retr calibrate` and `retr eval` need one that is not refitted"
        )
    found_before, found_after, difference = before.estimates(), after.estimates(), after.less(before)
    figures = {"before": found_before, "after": found_after, "difference": difference}
    held_out = {when: {name: one.to_json() for name, one in each.items()} for when, each in figures.items()}
    noted = {**facts, "held_out": held_out}
    split = sides.marked(store.n_total, refit=refit)[rows].tolist()
    written = _write(store, index_folder(out), info, found, rows, vectors, split, noted, views)
    return Adapted(written, facts, found_before, found_after, difference, tuple(notes))


@dataclass(frozen=True)
class _Sides:
    """Which labelled rows a head is fitted on, and which it is measured on.

    Attributes
    ----------
    cases
        The labelled rows.
    groups
        int64 ``(n,)``: whoever may answer whom; one patient, or one file, is never on both sides.
    split_by
        The column of patients; ``None`` where pictures are split.
    inside, single
        bool ``(n,)``: which rows are fitted on where they have one class, and which have one.
    notes
        What the user should know of it.
    """

    cases: Cases
    groups: NDArray[np.int64]
    split_by: str | None
    inside: NDArray[np.bool_]
    single: NDArray[np.bool_]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, cases: Cases, fit: str | None, seed: int) -> _Sides:
        """Split rows by a condition, or the patients in half; raise `UsageError` where that cannot be."""
        split_by = cases.group or store.manifest.group
        groups = grouped(store, split_by, cases.rows)[0]
        if store.manifest.group not in {None, split_by}:
            groups = merge_groups(groups, grouped(store, store.manifest.group, cases.rows)[0])
        inside = _halves(cases, groups, seed) if fit is None else store.where(fit)[cases.rows]
        single = np.asarray(cases.member.sum(axis=1) == 1)
        _check(cases, groups, split_by, inside & single, inside)
        notes = []
        if split_by is None and fit is None:
            notes.append("split by picture: two pictures of one person may stand on both sides")
        if not single.all():
            notes.append(f"{int((~single).sum())} rows with several classes were not fitted on")
        return cls(cases, groups, split_by, inside, single, tuple(notes))

    @property
    def who(self) -> str:
        """Whom the split keeps apart."""
        return "patients" if self.split_by else "pictures"

    def facts(self, kept: NDArray[np.bool_]) -> dict[str, Any]:
        """Return what the manifest says of them, where the head was fitted on the rows ``kept``."""
        return {
            "label": self.cases.label,
            "classes": len(self.cases.classes),
            "split_by": self.split_by or "picture",
            "fitted_rows": int(kept.sum()),
            f"fitted_{self.who}": len(np.unique(self.groups[kept])),
            "held_out_rows": int((~self.inside).sum()),
            f"held_out_{self.who}": len(np.unique(self.groups[~self.inside])),
        }

    def marked(self, n: int, *, refit: bool) -> NDArray[Any]:
        """Return the side of each of the ``n`` rows of the index, as its column says it; ``None`` without a label."""
        split = np.full(n, None, dtype=object)
        split[self.cases.rows] = FITTED if refit else np.where(self.inside, FITTED, HELD_OUT)
        return split


def _features(
    store: Store, rows: NDArray[np.int64], asked: str, progress: bool
) -> tuple[EncoderInfo, NDArray[Any], list[str]]:
    """Return what a head is fitted on: whose vectors, the vectors of rows, and what to know of them."""
    encoder = better_features(store) if asked == "auto" else None
    if encoder is None:
        # a head stretches the space itself: it is fitted on what the encoder gives, not on what a transform made of it
        return store.manifest.encoder.own, own_vectors(store, rows), []
    vectors = as_stored(encoder.info, embed_again(store, rows, encoder, progress, otherwise="or use --features stored"))
    options = ", ".join(f"{name}={value}" for name, value in encoder.info.options.items())
    return encoder.info, vectors, [f"pictures embedded again with {options}"]


def _views(
    store: Store,
    cases: Cases,
    groups: NDArray[np.int64],
    kept: NDArray[np.bool_],
    vectors: NDArray[Any],
    fitted: Callable[[NDArray[np.bool_]], Head],
) -> Views | None:
    """Fit the head without each fold of its patients; ``None`` where there are too many rows, or too few patients."""
    if len(kept) > MOST_ROWS or len(np.unique(groups[kept])) < 2:
        return None
    fold = np.full(len(kept), -1, np.int64)
    fold[kept] = deal(groups[kept], FOLDS)
    heads = []
    for one in range(int(fold.max()) + 1):
        others = kept & (fold != one)
        if len(np.unique(cases.truth[others])) < 2 or len(np.unique(groups[others])) < 2:
            return None
        heads.append(fitted(others))
    return Views.of(store, cases.rows, fold, [one(vectors) for one in heads])


def _halves(cases: Cases, groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    inside = np.zeros(len(cases.rows), dtype=bool)
    inside[by_class(cases.truth, groups, 2, seed)[0][0]] = True
    return inside


def _check(
    cases: Cases,
    groups: NDArray[np.int64],
    split_by: str | None,
    fitted: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> None:
    if len(np.unique(cases.truth[fitted])) < 2:
        raise UsageError(
            f"the head would be fitted on {int(fitted.sum())} rows of fewer than two classes",
            hint="give more labelled rows, or another --fit",
        )
    if len(np.unique(groups[fitted])) < 2:
        who = "identical files" if split_by is None else f"one value of {split_by!r}"
        raise UsageError(f"the head would be fitted on {who} alone", hint="give rows of others, too, or another --fit")
    if inside.all():
        raise UsageError("every labelled row is fitted on: nothing is left to measure", hint="narrow --fit")
    both = np.intersect1d(groups[inside], groups[~inside])
    if len(both):
        who = "identical files" if split_by is None else f"patients of {split_by!r}"
        raise UsageError(f"{len(both)} {who} are on both sides of --fit", hint="keep them on one side")


def _write(
    store: Store,
    out: Path,
    base: EncoderInfo,
    fitted: Head,
    rows: NDArray[np.int64],
    vectors: NDArray[Any],
    split: list[str | None],
    facts: dict[str, Any],
    views: Views | None,
) -> Store:
    new = Store.create(out, encoder=adapted_info(base, fitted), dtype=store.manifest.dtype)
    try:
        with new.writer() as writer:
            for start in range(0, len(rows), _CHUNK):
                table = store.table(rows=rows[start : start + _CHUNK])
                if SPLIT in table.column_names:
                    table = table.drop_columns([SPLIT])
                table = table.append_column(SPLIT, pa.array(split[start : start + _CHUNK], pa.string()))
                writer.append(table, fitted(vectors[start : start + _CHUNK]))
            writer.set_group(store.manifest.group)
            writer.set_item(store.manifest.item)
            if store.manifest.n_skipped:
                writer.record_skipped(store.skipped())
            numbers = np.full(store.n_total, -1, np.int64)
            numbers[rows] = np.arange(len(rows))
            copy(store, writer, Move(numbers, same_vectors=False))
            writer.add_file(HEAD_FILE, fitted.to_bytes())
            if views is not None:
                writer.add_file(VIEWS_FILE, views.to_bytes())
            writer.note(HEAD_NOTE, facts)
            written = writer.commit()
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    for name, location in locations.recall_sources(store.uuid).items():
        locations.remember_source(written.uuid, name, location)
    return written
