"""From what the user named to the source that lists and reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retr.index.home import home
from retr.retrieval.archive import containers, folders, lists

if TYPE_CHECKING:
    from pathlib import Path

    from retr.retrieval.archive.sources import Source


def open_source(archive: Path | str, *, leave_out: tuple[Path, ...] = ()) -> Source:
    """Choose the source for what the user named: a folder, a container, a list of paths, one picture, or a URL.

    Raises
    ------
    UsageError
        It does not exist, or is a list that names no files.
    """
    if "://" in str(archive):
        from retr.retrieval.archive.remote import RemoteSource

        return RemoteSource(str(archive))
    path = home(archive)
    if not path.is_file():
        return folders.FolderSource(path, leave_out=leave_out)
    if containers.is_container_name(path.name):
        source = folders.ContainerSource.open(path)
        if source is not None:
            return source
    if lists.is_list_name(path.name):
        return lists.ListSource(path)
    return folders.FileSource(path)
