"""Row arrays: numbers of any length and type, one line for each row, beside the vectors that are searched.

A kind of side data (`retr.index.disk.side_data`) declares one for the whole index, such as the features that a
transform was fitted on. Every segment then has a ``.npy`` of it, row for row with its table: it is appended with the
rows, merged and purged with them, and no number of a row stands in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.json_fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from retr.index.disk.manifest import Dtype

#: What a row array may hold.
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
#: How one is called, which is part of the names of its files.
NAME = re.compile("[a-z0-9][a-z0-9_-]{0,39}")
# The most numbers that a line can have.
_MOST_DIMS = 1 << 20


@dataclass(frozen=True)
class RowArray:
    """What the manifest says of a row array: whose it is, and the type and number of each row's values."""

    kind: str
    dtype: str
    dim: int

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of its numbers on the disk."""
        return np.dtype(self.dtype).newbyteorder("<")

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {"dim": self.dim, "dtype": self.dtype, "kind": self.kind}

    @classmethod
    def from_json(cls, data: object) -> RowArray:
        """Read what `to_json` wrote; ``ValueError`` for anything else."""
        fields = Fields(data)
        dim = fields.whole("dim", least=1, most=_MOST_DIMS)
        return cls(fields.text("kind"), fields.choice("dtype", DTYPES), dim)

    def lines(self, name: str, values: Any, rows: int) -> NDArray[Any]:
        """Return values as they are stored.

        Parameters
        ----------
        name
            The array's, for an error.
        values
            Numbers ``(rows, dim)``.
        rows
            How many are wanted.

        Raises
        ------
        UsageError
            They have another shape, or hold what the array's type cannot.
        """
        given = np.asarray(values)
        if given.shape != (rows, self.dim):
            raise UsageError(f"the row array {name!r} takes the shape {(rows, self.dim)} here, got {given.shape}")
        with np.errstate(all="ignore"):
            found = np.ascontiguousarray(given.astype(self.stored))
        fits = np.isfinite(found).all() if self.stored.kind == "f" else np.array_equal(found, given)
        if not fits:
            raise UsageError(f"the row array {name!r} holds {self.dtype}, which cannot hold every value given")
        return found


@dataclass(frozen=True)
class RowLayout:
    """What a row has beside its metadata: a vector of length ``dim`` and type ``dtype``, and a line of each array."""

    dim: int
    dtype: Dtype
    arrays: Mapping[str, RowArray] = field(default_factory=dict)

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of the vectors' numbers on the disk."""
        return np.dtype(self.dtype).newbyteorder("<")
