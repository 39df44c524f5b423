"""The data options of ``retr bench``: on which pictures a protocol runs, and where its numbers go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    GroupOptions,
    JsonOption,
    MetadataOptions,
    PathColumnOptions,
    SeedOption,
)
from retr.cli._output import Output
from retr.index.errors import RetrError, UsageError
from retr.index.machine.whole_file import write_output
from retr.retrieval.json_values import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retr.index.store import Store
    from retr.retrieval.evaluation.protocols.class_map import ClassMap
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """On which pictures a protocol runs, and where its numbers go."""

    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="One folder of images for each class; or see --label. With --map NAME=FOLDER, for each public set.",
        ),
    ] = None
    index: Annotated[
        list[Path] | None,
        typer.Option(
            "--index",
            metavar="FOLDER",
            help="Take the vectors of this index instead of embedding; its rows, too, without --data. Repeats: one for "
            "each feature of a protocol.",
        ),
    ] = None
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="FOLDER",
            help="Keep what is embedded in this index, and go on with it; by default in the user's cache.",
        ),
    ] = None
    metadata: MetadataOptions = None
    path_column: PathColumnOptions = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="COLUMN",
            help="The column of class names, of the table or of --index; by default a picture's class is its folder.",
        ),
    ] = None
    group: GroupOptions = None
    seed: SeedOption = 0
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write everything as one JSON object.")
    ] = None
    json_: JsonOption = False

    def open(self, *, several: bool = False) -> tuple[Store, ...]:
        """Open the indexes that were named, and refuse what cannot be meant.

        ``several`` sets, each with a name, are meant by ``--map`` alone.
        """
        from retr.index.store import Store

        if not self.data and not self.index:
            raise UsageError("no pictures were named", hint="give --data FOLDER, or --index FOLDER")
        if self.index and self.work:
            raise UsageError("--work keeps what is embedded, and with --index nothing is", hint="give one of them")
        if self.index and several:
            raise UsageError("--map joins the pictures of sets, and --index is one", hint="leave one of them out")
        if not several:
            for flag, values in self._by_set().items():
                if len(values) > 1:
                    raise UsageError(f"{flag} was given {len(values)} times", hint="several sets need --map")
        if self.path_column and not self.metadata:
            raise UsageError("--path-column is of the table of labels", hint="give it with --metadata FILE")
        if not self.data and self.metadata:
            raise UsageError(
                "--metadata goes with --data", hint="an index has columns: name them with --label, --group"
            )
        if self.out is not None and (self.out.is_dir() or not self.out.absolute().parent.is_dir()):
            raise UsageError(f"--out cannot be written: {str(self.out)!r}", hint="name a file in a folder that exists")
        return tuple(Store.open(path) for path in self.index or ())

    def read(self, stores: tuple[Store, ...], **limits: Any) -> ClassFolder:
        """Read the list of pictures."""
        from retr.index.machine.home import home
        from retr.retrieval.evaluation.protocols.folder import read_folder, read_index

        data, metadata, path_column, label, group = (next(iter(values), None) for values in self._by_set().values())
        if data is None:
            return read_index(stores[0], label=label, group=group, **limits)
        table = None if metadata is None else home(Path(metadata))
        return read_folder(
            home(Path(data)), metadata=table, path_column=path_column, label=label, group=group, **limits
        )

    def unite(self, by: ClassMap, **limits: Any) -> ClassFolder:
        """Read several sets, ``NAME=FOLDER`` each, and join them by a table."""
        from retr.index.machine.home import home
        from retr.retrieval.evaluation.protocols.folder import read_folder
        from retr.retrieval.evaluation.protocols.united import unite

        data, metadata, path_column, label, group = (
            _named(values, flag, by) for flag, values in self._by_set().items()
        )
        for flag, given in zip(self._by_set(), (data, metadata, path_column, label, group), strict=True):
            for name in given:
                if name not in data:
                    raise UsageError(f"{flag} names the set {name!r}, which has no --data", hint=f"add {name}=FOLDER")
        parts = {
            name: read_folder(
                home(Path(folder)),
                metadata=home(Path(metadata[name])) if name in metadata else None,
                path_column=path_column.get(name),
                label=label.get(name),
                group=group.get(name),
                fewest=1,
            )
            for name, folder in data.items()
        }
        return unite(parts, by, **limits)

    def _by_set(self) -> dict[str, list[str]]:
        """Return what is given for each set, by flag."""
        flags = ("--data", "--metadata", "--path-column", "--label", "--group")
        given = (self.data, self.metadata, self.path_column, self.label, self.group)
        return {flag: list(values or ()) for flag, values in zip(flags, given, strict=True)}

    def vectors(self, stores: tuple[Store, ...]) -> Embedder:
        """Return where the vectors come from."""
        from retr.retrieval.evaluation.protocols.vectors import Built, Work

        return Built(stores) if stores else Work(folder=self.work, kept=True, progress=not self.json_)

    def show(self, result: dict[str, Any], show: Callable[[dict[str, Any], Output], None]) -> None:
        """Print what a protocol gave, and write it where it was asked for."""
        out = Output(json_=self.json_)
        if self.json_:
            out.record(result)
        else:
            show(result, out)
        if self.out is not None:
            text = json.dumps(to_plain(result), indent=1, ensure_ascii=False) + "\n"
            try:
                write_output(self.out, text.encode("utf-8", "backslashreplace"))
            except OSError:
                hint = "run again with another --out: nothing is lost"
                raise RetrError(f"cannot write {str(self.out)!r}", hint=hint) from None
            out.note(f"written to {self.out}")


def _named(values: Sequence[str], flag: str, by: ClassMap) -> dict[str, str]:
    """Read ``NAME=VALUE`` of sets that a table knows."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not rest:
            raise UsageError(f"with --map {flag} is NAME=VALUE, got: {value!r}", hint=f"as in {flag} odir={value}")
        by.names_of(name)
        if name in found:
            raise UsageError(f"{flag} names the set {name!r} twice", hint="give each set once")
        found[name] = rest
    return found
