"""Archives in remote stores through fsspec: ``s3://``, ``gs://``, ``az://``, ``http(s)://``.

Folders are listed one at a time, as the build gets to them, in the same order as on a disk. Reading and listing are
tried again with growing pauses; what keeps failing becomes a record. A store says by its ETag, or else by size and
time of change, whether an object is the one that was embedded. Credentials and end points are the ones that the
store's own tools use (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...); nothing of them enters an index.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from retr.index.errors import RetrError, UsageError
from retr.index.machine.extras import needed
from retr.retrieval.archive.sources import (
    SNIFF_BYTES,
    Bytes,
    Entry,
    Item,
    Other,
    Skipped,
    is_image_name,
    looks_like_image,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRIES = 5
# seconds before the second try; doubled for each further one, with some chance so that threads do not march in step
PAUSE = 0.5

_T = TypeVar("_T")
_MTIMES = ("LastModified", "mtime", "last_modified", "updated", "Last-Modified", "created")
_MARKS = ("ETag", "etag", "Content-MD5", "md5Hash")


class RemoteSource:
    """The objects below a URL.

    Raises
    ------
    RetrError
        The package for this kind of store is not installed.
    UsageError
        The place does not exist or cannot be listed.
    """

    parallel = 16
    """Reads wait for the network, not for a core."""

    def __init__(self, url: str) -> None:
        try:
            with needed():
                import fsspec

            self._fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            package = error.name or "fsspec"
            raise RetrError(
                f"{package} is not installed",
                hint=f"install it with `pip install {package}` or `pip install retr[remote]`",
            ) from None
        except ValueError:
            raise UsageError(
                f"{url.partition('://')[0]!r} is not a kind of store",
                hint="give an s3://, gs://, az:// or https:// URL",
            ) from None
        root = root.rstrip("/")
        # one object given by name is an archive of one
        self._only = root.rpartition("/")[2] if is_image_name(root) else None
        self._root = root.rpartition("/")[0] if self._only else root
        self.location = url.rstrip("/").rpartition("/")[0] if self._only else url.rstrip("/")
        self._url = url

    def entries(self) -> Iterator[Entry]:
        """List the objects, a folder at a time, in the order of their paths."""
        self._fs.invalidate_cache()
        if self._only is not None:
            yield self._item(self._only, again(lambda: self._fs.info(f"{self._root}/{self._only}")))
            return
        try:
            stack = [iter(self._list(""))]
        except FileNotFoundError:
            raise UsageError(f"archive {self._url!r} does not exist", hint="check the bucket and the prefix") from None
        except OSError as error:
            raise UsageError(
                f"archive {self._url!r} cannot be listed: {type(error).__name__}", hint="check address and credentials"
            ) from None
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                continue
            path, info = found
            if info.get("type") == "directory":
                try:
                    stack.append(iter(self._list(path + "/")))
                except OSError:
                    yield Skipped(path, "unreadable")
            else:
                yield self._classify(path, info)

    def count(self) -> int | None:
        """Return None: counting would be listing."""
        return None

    def read(self, path: str) -> Bytes:
        """Read one object."""
        if ".." in path.split("/"):
            raise FileNotFoundError(path)
        data = bytes(again(lambda: self._fs.cat_file(f"{self._root}/{path}")))
        return data, len(data), None

    def _list(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        """List one folder: paths relative to the root, sorted as a folder's walk is."""
        found = {}
        for info in again(lambda: self._fs.ls(f"{self._root}/{prefix}".rstrip("/") + "/", detail=True)):
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            # a web server's index page links to other places too
            inside = str(info["name"]).rstrip("/") == f"{self._root}/{prefix}{name}"
            if name and inside and not name.startswith((".", "?")):
                found[name + ("/" if info.get("type") == "directory" else "")] = (prefix + name, info)
        return [found[name] for name in sorted(found)]

    def _classify(self, path: str, info: dict[str, Any]) -> Entry:
        promised = is_image_name(path)
        try:
            if promised is None:
                start = again(lambda: self._fs.cat_file(f"{self._root}/{path}", start=0, end=SNIFF_BYTES))
                promised = looks_like_image(bytes(start))
            if not promised:
                return Other(path)
            if info.get("size") is None:
                info = again(lambda: self._fs.info(f"{self._root}/{path}"))
        except FileNotFoundError:
            return Skipped(path, "missing")
        except OSError:
            return Skipped(path, "unreadable")
        return self._item(path, info)

    def _item(self, path: str, info: dict[str, Any]) -> Item:
        mtime = next((info[key] for key in _MTIMES if info.get(key)), None)
        mark = next((str(info[key]).strip('"') for key in _MARKS if info.get(key)), None)
        seconds = mtime.timestamp() if isinstance(mtime, dt.datetime) else 0.0
        return Item(path, int(info.get("size") or 0), seconds, mark=mark)


def again(attempt: Callable[[], _T], final: tuple[type[Exception], ...] = ()) -> _T:
    """Try, and try again with growing pauses; give up at once on what will not change.

    Parameters
    ----------
    attempt
        What may fail.
    final
        Errors that another try would meet again, beside the two below.

    Raises
    ------
    FileNotFoundError, PermissionError
        The store says so.
    OSError
        It failed `TRIES` times.
    """
    ends: tuple[type[Exception], ...] = (FileNotFoundError, PermissionError, *final)
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1) * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            return attempt()
        except ends:
            raise
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            last = error
    raise OSError(f"the store did not answer in {TRIES} tries: {type(last).__name__}")
