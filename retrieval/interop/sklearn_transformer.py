"""An index's encoder as a step of a scikit-learn pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.index import Index


class IndexTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn ids of an index's rows, or pictures, into vectors.

    Nothing is learnt: ``fit`` looks at the index alone, so that a pipeline may be cross-validated as it is. Folds that
    keep patients apart are the caller's (``GroupKFold`` over the index's group column).

    Parameters
    ----------
    index
        An open `retr.Index`, or its path.
    by
        ``"id"``: what is transformed are ids of rows, whose vectors the index has; ``"image"``: paths, bytes, PIL
        images or arrays, which its encoder embeds.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> rows = index.store.table(["id", "label"]).to_pydict()
    >>> fitted = make_pipeline(IndexTransformer(index), KNeighborsClassifier(3)).fit(rows["id"], rows["label"])
    >>> fitted.predict(["healthy/P01-left.png"]).tolist()
    ['healthy']
    """

    def __init__(self, index: Index | str | Path | None = None, by: str = "id") -> None:
        self.index = index
        self.by = by

    def fit(self, X: Any, y: Any = None) -> IndexTransformer:  # noqa: ARG002, N803 - scikit-learn's names
        """Open the index; learn nothing."""
        import retr

        if self.by not in {"id", "image"}:
            raise UsageError(f"rows are found by 'id' or by 'image', got: {self.by!r}")
        if self.index is None:
            raise UsageError("no index is given", hint="IndexTransformer(index)")
        self.index_ = retr.Index.open(self.index) if isinstance(self.index, str | Path) else self.index
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803 - scikit-learn's name
        """Return the vectors, float32 ``(n, dim)``.

        Raises
        ------
        UnknownIdError, ImageReadError
            No row has an id, or a picture cannot be read.
        """
        check_is_fitted(self, "index_")
        values = list(X)
        if self.by == "image":
            from retr.retrieval.query import Query
            from retr.retrieval.query_vectors import resolve

            queries = [Query.image(one) for one in values]
            return resolve(queries, self.index_.encoder, self.index_.store).vectors
        ids = [str(one) for one in np.asarray(values).reshape(-1).tolist()]
        rows = self.index_.store.rows_of(ids)
        if (rows < 0).any():
            from retr.index.rows.row_ids import unknown_id

            raise unknown_id(self.index_.store, ids[int(np.argmax(rows < 0))])
        return np.asarray(self.index_.store.vectors(rows), np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Return ``vector0``, ``vector1``, ... as scikit-learn names columns."""
        check_is_fitted(self, "index_")
        return np.array([f"vector{at}" for at in range(self.index_.store.manifest.encoder.dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "index_")
