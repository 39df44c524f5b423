"""Open what the user named as a source of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.archive import containers, folders, lists
from retr.retrieval.regular_files import is_regular

if TYPE_CHECKING:
    from pathlib import Path

    from retr.retrieval.archive.sources import Source


def open_source(
    archive: Path | str,
    *,
    leave_out: tuple[Path, ...] = (),
    path_column: str | None = None,
    image_column: str | None = None,
) -> Source:
    """Choose the source for what the user named: a folder, a container, a list of paths, one picture, or a URL.

    Parameters
    ----------
    archive
        What the user named.
    leave_out
        Folders not to enter, such as the index itself.
    path_column
        The column that holds paths, for a list whose column names do not tell.
    image_column
        The column that holds pictures, for Parquet and Arrow tables with several.

    Raises
    ------
    UsageError
        It does not exist, or is a list that names no files.
    """
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
