"""What a build is asked to do, and what it is to be done on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - the declarations are read when the program runs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from retr.index.errors import UsageError
from retr.index.listed import listed
from retr.index.options import Option
from retr.retrieval.archive.table_like import Table  # noqa: TC001
from retr.retrieval.read_options import ReadKeywords, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.retrieval.archive.metadata import Metadata
    from retr.retrieval.archive.sources import Entry, Item, Source

COMMIT_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class BuildOptions(ReadOptions):
    """How an archive becomes rows; the fields of `BuildKeywords`, by which callers give them."""

    metadata: Annotated[
        Table | None,
        Option(
            "CSV, TSV or Parquet table joined on its `path` column.",
            "Or a table of pyarrow, pandas or polars, a dict of columns or a list of rows, read as Parquet is.",
            metavar="FILE",
        ),
    ] = None
    path_column: Annotated[
        str | None, Option("The table's column of paths, where its name does not tell.", metavar="COLUMN")
    ] = None
    image_column: Annotated[
        str | None, Option("The column of pictures, of a Parquet file with several.", metavar="COLUMN")
    ] = None
    types: Annotated[
        Mapping[str, str] | None,
        Option(
            "Store a column as numbers or as text, whatever its cells look like.",
            'By column, ``"number"`` or ``"text"``; kept for later builds.',
            spelled="Repeats. Kept for later builds.",
            flag="--type",
            metavar="COLUMN=number|text",
        ),
    ] = None
    group: Annotated[
        str | None,
        Option("The column that tells patients apart; by default the one recorded, if any.", metavar="COLUMN"),
    ] = None
    item: Annotated[
        str | None,
        Option(
            "What a case is: study, series, volume, patient, eye-pair or a column whose value its rows share.",
            "Recorded, so that a search of cases need not name it (`retr.index.rows.items`).",
            spelled="Of a question: declared is what the index records.",
            metavar="CASE",
        ),
    ] = None
    scores: Annotated[
        Sequence[str] | None,
        Option(
            "Store p(finding) as a column, for encoders that score findings (kad).",
            "Kept for later builds.",
            spelled="Repeats.",
            flag="--score",
            metavar="FINDING",
        ),
    ] = None
    prune: Annotated[bool, Option("Drop rows whose files are gone.", "Otherwise they are kept and counted.")] = False
    rehash: Annotated[
        bool | None,
        Option(
            "Read files that look unchanged again: all, or none; by default those whose inode or ctime changed.",
            "That is, those that this machine has not read in the state they are in (size, mtime, inode, ctime).",
            flag="--rehash/--no-rehash",
        ),
    ] = None
    keep_identifiers: Annotated[
        bool | None,
        Option(
            "Keep on this machine whose each DICOM file is, for links back, or forget it; by default as before.",
            "The real identifiers, in the state folder, readable by the user alone, never in an index.",
            flag="--keep-identifiers/--forget-identifiers",
        ),
    ] = None
    dtype: Annotated[
        Literal["float32", "float16"] | None,
        Option("Vectors of a new index: float32, or float16 in half the space; an existing one keeps its type."),
    ] = None
    shards: Annotated[
        int | None,
        Option(
            "Spread the rows of a new index over so many folders, each an index, a patient's rows in one of them.",
            "An existing index keeps its number; see `Index.shard`.",
            spelled="An existing index keeps its number; see `retr index shard`.",
            metavar="N",
        ),
    ] = None
    transform: Annotated[
        Literal["auto", "none", "whitening"],
        Option(
            "What a new index puts behind its encoder: whitening, fitted on its own rows, or none.",
            "auto: whitening where that was measured to be of use (`retr.retrieval.encoders.spec.Spec.transform`).",
            spelled="auto: where that was measured to be of use.",
        ),
    ] = "auto"
    regions: Annotated[
        str | None,
        Option(
            "Also embed parts of each picture, for a search that says where: grid, multiscale.",
            "Of a new index; an existing one keeps its own. ``grid``: nine windows of half the size; ``multiscale``: "
            "halves, thirds and quarters. Each is one more picture for the encoder (`retr.retrieval.regions.layout`).",
            spelled="Each part takes as long as a picture.",
            metavar="DIVISION",
        ),
    ] = None
    commit_rows: Annotated[int, Option("Rows between two commits.", flag="")] = COMMIT_ROWS
    workers: Annotated[
        int | None, Option("Threads that read and decode; by default as many as there are cores.", flag="")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scores is not None:
            object.__setattr__(self, "scores", tuple(listed(self.scores, "scores")))
        if self.transform not in {"auto", "none", "whitening"}:
            raise UsageError(f"a transform is 'auto', 'none' or 'whitening', got: {self.transform!r}")
        if self.regions is not None:
            from retr.retrieval.regions.layout import require_division

            require_division(self.regions)
        if self.shards is not None:
            from retr.index.disk.creation import number_of_shards

            number_of_shards(self.shards)
        if self.commit_rows < 1:
            raise UsageError(f"commit_rows must be at least 1, got: {self.commit_rows!r}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be at least 1, got: {self.workers!r}")


class BuildKeywords(ReadKeywords, total=False):
    """The fields of `BuildOptions` by name."""

    metadata: Table | None
    path_column: str | None
    image_column: str | None
    types: Mapping[str, str] | None
    group: str | None
    item: str | None
    scores: Sequence[str] | None
    prune: bool
    rehash: bool | None
    keep_identifiers: bool | None
    dtype: Literal["float32", "float16"] | None
    shards: int | None
    transform: Literal["auto", "none", "whitening"]
    regions: str | None
    commit_rows: int
    workers: int | None


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes
    ----------
    source, entries, first
        The archive, what it lists, and its first item.
    asked
        How; its ``types`` with those that the index keeps.
    name
        The source's name, with which the ids begin; empty for the archive the index was first built from.
    table
        The metadata to join.
    """

    source: Source
    entries: Iterator[Entry]
    first: Item
    asked: BuildOptions
    name: str = ""
    table: Metadata | None = None
