"""What a look through an archive finds: rows by rank, each with what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa


@dataclass(frozen=True)
class Findings:
    """Rows in order of rank.

    Attributes
    ----------
    title
        What they are.
    records
        One dictionary a row, JSON-ready, all with the same keys, the first of which are ``rank`` and ``id``. Where
        other rows are the evidence, ``evidence`` lists their ids.
    facts
        How they were found: numbers by name.
    notes
        What a reader must know, one line each.
    """

    title: str
    records: tuple[dict[str, Any], ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """The rows' ids."""
        return [record["id"] for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.records[place]

    def table(self) -> pa.Table:
        """Return them as a table of pyarrow."""
        import pyarrow as pa

        return pa.Table.from_pylist(list(self.records))
