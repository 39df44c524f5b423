"""Evaluate an index on its own labelled rows: `Index.evaluate`, and ``retr eval`` on the command line.

Every labelled row asks in turn, with its own patient out of the gallery. Every number comes with an interval
by patient, overall, for each class, and for each subgroup asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from retr.index.errors import NoTextSideError, UsageError
from retr.index.listed import listed
from retr.retrieval.evaluation import classification
from retr.retrieval.evaluation.evaluation import Evaluation, EvaluationOptions
from retr.retrieval.evaluation.retrieval import retrieval
from retr.retrieval.labels.cases import find_cases
from retr.retrieval.labels.held_out_views import Unseen
from retr.retrieval.labels.label_set import load_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retr.index.store import Store
    from retr.index.types import ItemScore
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.labels.cases import Cases
    from retr.retrieval.labels.label_set import LabelSet

Task = Literal["retrieval", "neighbours", "probe", "zero-shot"]


def evaluate(
    index: IndexLike,
    task: Task,
    label: str,
    *,
    k: int | Sequence[int] | None = None,
    folds: int = 5,
    labels: LabelSet | str | Path | Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    separator: str | None = None,
    group: str | None = None,
    same_patient: bool = False,
    where: str | None = None,
    queries: str | None = None,
    subgroups: Sequence[str] = (),
    seed: int = 0,
    gallery_size: int | str | Sequence[int | str] | None = None,
    item: str | bool | None = None,
    item_score: ItemScore = "maxsim",
) -> Evaluation:
    """Measure an index on its own labelled rows, patients kept apart.

    Parameters
    ----------
    task
        ``"retrieval"``: how many of the nearest rows share the query's class; ``"neighbours"``: a vote of them;
        ``"probe"``: logistic regression on the vectors; ``"zero-shot"``: words alone.
    label
        Column of class names.
    k
        Retrieval: at which depths, by default 1, 5 and 10. Neighbours: how many vote, by default 5.
    folds
        Probe: into how many parts the patients are dealt.
    labels
        Zero-shot: the classes and their prompts, as `retr.retrieval.labels.label_set.load_labels` takes them.
    order
        Naming: the classes from the least grade to the most, where they are grades; then quadratic kappa is measured.
        For zero-shot an ordered label set declares it, too.
    separator, group, same_patient, where, queries
        Which rows ask and answer; see `retr.retrieval.labels.cases.find_cases`.
    subgroups
        Columns by whose values the queries are divided, too.
    seed
        Of the probe's folds, of smaller galleries, and of the blocks of patients behind an interval where patients are
        very many.
    gallery_size
        Retrieval: measure among so many rows, too, drawn by hash, whole patients together; several; ``"all"`` for the
        whole gallery. They come as ``per_gallery``.
    item, item_score
        Retrieval: what a case is, and how it is scored, as `Index.search` takes them: cases ask and answer as one, by
        their labelled rows, and have one label each (`retr.retrieval.evaluation.items`).

    Raises
    ------
    UsageError
        A column is missing, there are fewer than two classes, or an argument is not one of the task's.
    NoTextSideError
        Zero-shot, and the encoder embeds images only.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.evaluate("retrieval", "label").facts["queries"]
    24
    """
    store = index.store
    order = order if order is None or isinstance(order, str) else listed(order, "classes")
    cases = find_cases(
        store,
        label,
        separator=separator,
        group=group,
        same_patient=same_patient,
        where=where,
        queries=queries,
        order=order,
    )
    if order is not None and (task == "retrieval" or cases.several):
        why = "retrieval names no classes" if task == "retrieval" else "rows carry several of them"
        raise UsageError(f"an order of classes means nothing here: {why}", hint="leave the order out")
    if item not in {None, False}:
        if task != "retrieval":
            raise UsageError(f"cases are measured by retrieval, not by {task}", hint="leave the item out")
        from retr.retrieval.evaluation.items import of_items

        cases = of_items(store, cases, item, item_score)
    cases = _without_seen(store, cases, crossed=task in {"retrieval", "neighbours"})
    options = EvaluationOptions(seed, tuple(listed(subgroups, "subgroups")))
    sizes = _sizes(gallery_size)
    if sizes and task != "retrieval":
        raise UsageError(f"the size of a gallery is of retrieval, not of {task}", hint="leave the gallery size out")
    if task == "retrieval":
        ks = (1, 5, 10) if k is None else [k] if isinstance(k, int) else k
        return retrieval(store, cases, ks=ks, options=options, sizes=sizes)
    if task == "neighbours":
        if k is not None and not isinstance(k, int):
            raise UsageError(f"one number of neighbours votes, got: {k!r}", hint="for example k=5")
        return classification.neighbours(store, cases, k=5 if k is None else k, options=options)
    if task == "probe":
        return classification.probe(store, cases, folds=folds, options=options)
    if task != "zero-shot":
        raise UsageError(f"unknown task {task!r}", hint="use retrieval, neighbours, probe or zero-shot")
    if labels is None:
        raise UsageError("zero-shot needs classes and their prompts", hint="give labels, such as 'odir'")
    info = store.manifest.encoder
    if not info.text:
        raise NoTextSideError(
            f"zero-shot needs an encoder with a text side, and {info.name!r} embeds images only",
            hint="build with one of `retr encoders ls`; a bridge (`retr align`) has seen the archive's own texts",
        )
    return classification.zero_shot(store, cases, index.encoder, load_labels(labels), options=options)


def _sizes(given: int | str | Sequence[int | str] | None) -> list[int | None]:
    """Return the sizes of galleries, ``None`` for the whole one."""
    sizes: list[int | None] = []
    several: Iterable[int | str] = given if isinstance(given, Iterable) and not isinstance(given, str) else [given or 0]
    for one in () if given is None else several:
        if one != "all" and (isinstance(one, bool) or not isinstance(one, int) or one < 1):
            raise UsageError(
                f"the size of a gallery is a whole number of at least 1, or 'all', got: {one!r}",
                hint="for example 1000,5000,all",
            )
        sizes.append(None if isinstance(one, str) else one)
    return list(dict.fromkeys(sizes))


def _without_seen(store: Store, cases: Cases, *, crossed: bool) -> Cases:
    """Let rows that the head of an adapted index has seen not ask, but where it was fitted again without them.

    Parameters
    ----------
    crossed
        Whether rows can be asked in the views that lie beside the head.

    Raises
    ------
    UsageError
        No row is left that asks.
    """
    unseen = Unseen(store, cases.rows, cases.group)
    keep = unseen.asked if crossed else unseen.plain
    theirs = cases.asks & ~unseen.plain
    if not theirs.any():
        return cases
    who = "of the rows that ask are among those, or belong to those, that the head of this index was fitted on"
    if not (cases.asks & keep).any():
        other = "" if crossed else ", or measure it with `retr calibrate`"
        raise UsageError(f"all {who}: nothing is held out to measure", hint=f"adapt without refitting{other}")
    said = []
    if again := int((theirs & keep).sum()):
        said.append(f"{again} {who}: they are asked through heads that were fitted without them")
    if lost := int((theirs & ~keep).sum()):
        said.append(f"{lost} {who}: they do not ask")
    return replace(cases, asks=cases.asks & keep, notes=(*cases.notes, *said))
