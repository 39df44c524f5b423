"""Linear probes as the protocols define them: frozen features, logistic regression, answers for unseen rows only.

Not the fit of `retr.retrieval.classify.probe`: each published script has a strength, class weights and a scaling of its
own, and gives a class that its rows lack no chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from retr.retrieval.labels.folds import Fold


def held_out(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    folds: Iterable[Fold],
    *,
    strength: float,
    balanced: bool = True,
    standardise: bool = False,
) -> NDArray[np.float64]:
    """Answer every row by a fit that did not see its fold: probabilities, float64 ``(n, classes)``.

    Rows that no fold holds out stay ``nan``.

    Parameters
    ----------
    vectors, labels
        float ``(n, d)`` and int64 ``(n,)``.
    classes
        How many classes there are.
    folds
        Pairs of row numbers: to fit on, to answer.
    strength
        scikit-learn's ``C``.
    balanced
        Weigh classes by the inverse of their size.
    standardise
        Give every dimension mean 0 and deviation 1 on the fitted rows.

    Raises
    ------
    UsageError
        As `require_fits`.
    """
    with needed():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

    folds = list(folds)
    require_fits(labels, folds)
    answers = np.full((len(labels), classes), np.nan)
    for inside, outside in folds:
        mean, scale = np.float64(0), np.float64(1)
        if standardise:
            mean, scale = vectors[inside].mean(axis=0), vectors[inside].std(axis=0) + 1e-6
        weight = "balanced" if balanced else None
        model = LogisticRegression(C=strength, class_weight=weight, max_iter=1000)
        with ignoring(ConvergenceWarning):  # the protocols stop there too
            model.fit((vectors[inside] - mean) / scale, labels[inside])
        answers[np.ix_(outside, model.classes_)] = model.predict_proba((vectors[outside] - mean) / scale)
        answers[outside] = np.nan_to_num(answers[outside], nan=0.0)  # a class that the fit never saw
    return answers


def require_fits(labels: NDArray[np.int64], folds: Iterable[Fold]) -> None:
    """Refuse folds that leave one class or none to fit on, so that it can be known before anything is embedded.

    Raises
    ------
    UsageError
        There are such folds.
    """
    if any(len(np.unique(labels[inside])) < 2 for inside, _ in folds):
        raise UsageError(
            "a linear probe cannot be fitted: with the pictures of one fold held out, fewer than two classes are left",
            hint="give more pictures of each class, of more patients",
        )
