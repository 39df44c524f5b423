"""Unit vectors, which a cosine index stores and is searched with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A zero vector divided by anything is zero; no other float32 vector is as short as this.
_TINY = float(np.finfo(np.float64).tiny)


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Scale vectors ``(..., d)`` to length 1, each by itself; a zero vector stays zero.

    The norm is taken in float64, so that a vector's scaled bits do not depend on what lies beside it.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).round(4).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    exactly = np.array(vectors, dtype=np.float64)
    if exactly.size == exactly.shape[-1] > 0:
        # of one vector, without arrays of one number
        exactly /= max(math.sqrt(np.add.reduce(exactly * exactly, axis=-1).item()), _TINY)
    else:
        norms = np.sqrt(np.add.reduce(exactly * exactly, axis=-1, keepdims=True))
        exactly /= np.maximum(norms, _TINY, out=norms)
    return exactly.astype(np.float32)


def plain_array(values: Any) -> NDArray[Any]:
    """Return an array, a tensor wherever it is, or a list of rows, as a numpy array; bfloat16 becomes float32.

    Raises
    ------
    ValueError
        Some of its values are masked: there is nothing to put in their place.
    """
    if np.ma.is_masked(values):
        raise ValueError("masked values")
    # a file has `detach` too
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    return np.asarray(values)
