"""Rows of a column of whole numbers by the order of their values: a comparison finds them without reading the rest.

Reading all values for each comparison takes longer, on an index of some size, than comparing the vectors of the few
rows that it keeps. A column that is compared again and again is therefore sorted, once: the values, and 4 bytes a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.where import comparisons

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from retr.index.where.parse import Predicate

_ENDS = ("greater_equal", "less_equal")


class OrderedColumn:
    """One column of one segment; rows without a value are in no order, as no comparison is true for them.

    Parameters
    ----------
    column
        Whole numbers, as they are stored.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._kind = column.type
        values: NDArray[Any] = column.drop_null().to_numpy()
        order = np.argsort(values, kind="stable")
        self._values = values[order]
        if column.null_count:
            order = np.flatnonzero(column.is_valid().to_numpy())[order]
        self._rows = order.astype(np.int32 if len(column) < 1 << 31 else np.int64)

    def rows(self, test: Predicate, most: int) -> NDArray[np.int64] | None:
        """Return the rows for which a test of this column is true, in any order; ``None`` if more than ``most`` are.

        Parameters
        ----------
        test
            One that `answers`.
        """
        first, last = 0, len(self._values)
        signs = _ENDS if test.kind == "between" else (test.kind,)
        for sign, operand in zip(signs, test.right, strict=True):
            assert isinstance(operand.value, comparisons.Number)
            start, stop = self._run(*comparisons.as_step(sign, self._kind, operand.value))
            first, last = max(first, start), min(last, stop)
        if last - first > most:
            return None
        return self._rows[first : max(first, last)].astype(np.int64)

    def _run(self, become: str | bool, step: int) -> tuple[int, int]:
        """Return where the values that a comparison with one of the column's own values keeps begin and end."""
        n = len(self._values)
        if isinstance(become, bool):
            return (0, n) if become else (0, 0)
        value = self._values.dtype.type(step)
        at = int(self._values.searchsorted(value, "left" if become in {"equal", "less", "greater_equal"} else "right"))
        if become == "equal":
            return at, int(self._values.searchsorted(value, "right"))
        return (0, at) if become in {"less", "less_equal"} else (at, n)


def answers(test: Predicate) -> bool:
    """Return whether an order of values answers a test: a column between numbers, or on one side of one."""
    if test.negated or test.left.name is None or test.kind not in {"equal", "less", "greater", *_ENDS, "between"}:
        return False
    return all(isinstance(operand.value, comparisons.Number) for operand in test.right)
