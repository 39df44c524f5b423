"""Rows dealt into folds: what is fitted on some is measured on others, and no patient is on both sides.

`deal` numbers the folds of whole patients and needs no seed: calibrations, probes, bridges and heads of one index are
all measured on the same ones. `by_patient`, `by_class` and `by_row` are scikit-learn's splits, by which published
protocols and the figures of evaluations are made; for one seed they stay what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def deal(groups: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Deal groups into ``n`` folds, or one fold a group where there are fewer; the same groups give the same folds.

    >>> deal(np.array([7, 7, 8, 9]), 5).tolist() in ([2, 2, 1, 0], [2, 2, 0, 1], [1, 1, 2, 0])
    True
    """
    unique, members = np.unique(groups, return_inverse=True)
    n = min(n, len(unique))
    if n < 2:
        raise UsageError(
            "all labelled rows belong to one group, so nothing can be held out",
            hint="label more rows that do not belong together, or declare another group key",
        )
    order = np.random.default_rng(0).permutation(len(unique))
    fold = np.empty(len(unique), dtype=np.int64)
    fold[order] = np.arange(len(unique)) % n
    return fold[members]


def by_patient(groups: NDArray[np.int64], folds: int, seed: int) -> list[Fold]:
    """Split rows so that whole patients are held out: pairs of row numbers, inside and outside.

    Raises
    ------
    UsageError
        There is one patient.
    """
    with needed():
        from sklearn.model_selection import GroupKFold

    folds = min(folds, len(np.unique(groups)))
    if folds < 2:
        raise UsageError("all pictures are of one patient: none is left to fit on", hint="give those of more patients")
    return list(GroupKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(groups)), groups=groups))


def by_class(codes: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> list[Fold]:
    """Split rows as `by_patient` does, the classes spread over the folds.

    Where every class has fewer rows than there are folds, which scikit-learn refuses, patients alone decide.
    """
    with needed():
        from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(np.unique(groups)))
    if folds < 2 or np.bincount(codes).max() < folds:
        return by_patient(groups, folds, seed)
    # a class with fewer rows than folds is in some folds only: nothing to do about it
    with ignoring(UserWarning):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        return list(splitter.split(np.zeros(len(codes)), codes, groups))


def by_row(n: int, folds: int, seed: int) -> list[Fold]:
    """Split rows without regard to patients, as the published scripts do; at least two rows."""
    with needed():
        from sklearn.model_selection import KFold

    return list(KFold(min(folds, n), shuffle=True, random_state=seed).split(np.zeros(n)))
