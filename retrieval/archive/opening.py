"""Open what the user named as a source of pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.archive import containers, folders, lists
from retr.retrieval.regular_files import is_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from retr.retrieval.archive.sources import Source

ArchiveLike: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"

# addresses of a PACS, without TLS and with it
PACS = ("dicomweb://", "dicomwebs://")


def is_place(archive: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether an archive is one place, rather than a list of files."""
    return isinstance(archive, str | os.PathLike)


def open_source(
    archive: ArchiveLike | Source,
    *,
    leave_out: tuple[Path, ...] = (),
    path_column: str | None = None,
    image_column: str | None = None,
    root: str | None = None,
    key: Callable[[], bytes] | None = None,
) -> Source:
    """Choose the source for what the user named: a folder, a container, a list of paths, one picture, or a URL.

    A ``Dataset`` of Hugging Face's ``datasets`` is read as it is.

    Parameters
    ----------
    archive
        What the user named; a source is returned as it is.
    leave_out
        Folders not to enter, such as the index itself.
    path_column
        The column that holds paths, for a list whose column names do not tell.
    image_column
        The column that holds pictures, for Parquet and Arrow tables with several.
    root
        Where the archive lay before: the ids of a list of paths stay relative to it.
    key
        Returns the key of hashed identifiers, for a PACS; by default the user's own.

    Raises
    ------
    UsageError
        It does not exist, or is a list that names no files.
    """
    if hasattr(archive, "entries"):
        return cast("Source", archive)
    if type(archive).__module__.partition(".")[0] == "datasets":
        from retr.retrieval.archive.hf_dataset import DatasetSource

        return DatasetSource(archive, image_column)
    if not isinstance(archive, str | os.PathLike):
        return lists.PathsSource(archive, root)
    archive = archive if isinstance(archive, str) else Path(archive)
    if str(archive).lower().startswith(PACS):
        from retr.retrieval.archive.dicomweb import DicomWebSource

        return DicomWebSource(str(archive), key)
    if "://" in str(archive):
        from retr.retrieval.archive.remote import RemoteSource

        return RemoteSource(str(archive))
    path = home(archive)
    if path.exists() and not path.is_dir() and not is_regular(path.stat()):
        raise UsageError(
            f"archive {str(archive)!r} is a pipe, a socket or a device",
            hint="give a folder, a container, a table or a picture",
        )
    if not path.is_file():
        return folders.FolderSource(path, leave_out=leave_out, image_column=image_column)
    if containers.is_container_name(path.name):
        source = folders.ContainerSource.open(path, image_column)
        if source is not None:
            return source
        if image_column is not None:
            raise UsageError(
                f"table {str(archive)!r} has no column {image_column!r} of pictures",
                hint="name another with --image-column, or leave it out",
            )
    if lists.is_list_name(path.name):
        return lists.ListSource(path, path_column)
    return folders.FileSource(path)
