"""An index in an object store that speaks S3: pushed there file by file, and pulled from there.

Below the address lies what lies in an index's folder, under the same names; ``CURRENT`` is written last, on the
condition that nobody else has written it meanwhile. Files never change, so only new ones travel, and a run that was
stopped goes on. Every file is compared with its recorded sha256: before it goes up, and before a copy that came down
counts.

What a store holds beyond the live state is removed by each push: so nothing stays there of rows that were purged here.

An index has one line of versions. A push goes over what the same folder pushed or pulled before, as this machine
remembers it, and a pull over a copy that was not changed since; otherwise one of them would be lost, and it is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.disk import journal, shards
from retr.index.disk.current import read_current
from retr.index.disk.files import FileRef, disk_errors, read_small, replace_bytes
from retr.index.disk.lock import writer_lock
from retr.index.disk.manifest import CURRENT, MANIFESTS, OURS, UNFINISHED_PURGE, Manifest
from retr.index.disk.sweep import sweep
from retr.index.errors import IndexCorruptError, IndexNotFoundError, RetrError, UsageError
from retr.index.machine.extras import needed
from retr.index.machine.home import index_folder
from retr.index.store import Store
from retr.retrieval.archive.remote import again
from retr.retrieval.machine_state import read_locations, write_locations
from retr.retrieval.progress import make_progress
from retr.system import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retr.retrieval.index_like import IndexLike

_POINTER = re.compile(rf"(?P<file>{MANIFESTS}/[0-9]{{8,20}}\.json) (?P<sha256>[0-9a-f]{{64}})\n")
_ADDRESS = re.compile(r"s3://(?P<bucket>[^/@?#]+)/(?P<key>[^?#]*[^/?#])/*")
_POINTER_BYTES = 200
# A file on its way down: what a pull that was stopped left of one goes.
_DRAFT = ".pulled"
# As often a pull begins anew where somebody pushes meanwhile.
_TRIES = 3
_PUSHED = "stores"


@dataclass(frozen=True)
class Copied:
    """What `push` or `pull` did.

    Attributes
    ----------
    version
        Of the index, here and there.
    files, bytes
        What travelled.
    kept
        How many files were there already.
    removed
        How many files of older states were removed where it went.
    notes
        What a person should know besides, a sentence each.

    Examples
    --------
    >>> Copied(version=3, files=4, bytes=1000, kept=0, removed=0).files
    4
    """

    version: int
    files: int
    bytes: int
    kept: int
    removed: int
    notes: tuple[str, ...] = ()


class ObjectStore:
    """The objects below an address ``s3://BUCKET/PREFIX``; login and end point are those of the store's own tools.

    Raises
    ------
    MissingExtraError
        ``s3fs`` is not installed.
    UsageError
        It is no such address.
    """

    def __init__(self, address: str) -> None:
        found = _ADDRESS.fullmatch(str(address))
        if found is None:
            hint = "other stores that speak S3 are named by AWS_ENDPOINT_URL"
            raise UsageError(f"an index is pushed to s3://BUCKET/PREFIX, got: {str(address)!r}", hint=hint)
        with needed():
            import s3fs
        self.address = f"s3://{found['bucket']}/{found['key']}"
        self._bucket, self._key = found["bucket"], found["key"]
        self._fs = s3fs.S3FileSystem()

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn whatever a store raises into one line; what is missing or changed stays as it is."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, RetrError):
            raise
        except Exception as error:  # noqa: BLE001 - every store has errors of its own
            why = "no permission" if isinstance(error, PermissionError) else type(error).__name__
            raise RetrError(
                f"the store {self.address!r} refused {doing}: {why}", hint="check address and login, and run it again"
            ) from None

    def sizes(self) -> dict[str, int]:
        """Return what lies there: the size of each object, by its name below the address."""
        with self._errors("to list what it holds"):
            self._fs.invalidate_cache()
            root = f"{self._bucket}/{self._key}/"
            try:
                found = again(lambda: self._fs.find(root, detail=True))
            except FileNotFoundError:
                return {}
            return {name.removeprefix(root): int(info["size"]) for name, info in found.items()}

    def read(self, name: str) -> tuple[bytes, str]:
        """Return a small object, and its ETag; ``FileNotFoundError`` where there is none."""
        with self._errors("reading"):
            what = {"Bucket": self._bucket, "Key": f"{self._key}/{name}"}
            head = again(lambda: self._fs.call_s3("head_object", **what))
            data = bytes(again(lambda: self._fs.cat_file(f"{self._bucket}/{self._key}/{name}")))
            return data, str(head["ETag"])

    def write(self, name: str, data: bytes, **condition: str) -> None:
        """Write a small object; ``FileExistsError`` where the condition does not hold."""
        with self._errors("writing"):
            what = {"Bucket": self._bucket, "Key": f"{self._key}/{name}", "Body": data, **condition}
            try:
                again(lambda: self._fs.call_s3("put_object", **what), (OSError,) if condition else ())
            except OSError as error:
                if condition and _refused(error):
                    raise FileExistsError(name) from None
                raise

    def put(self, root: Path, ref: FileRef) -> None:
        """Bring a file up, if it is as it was written."""
        with disk_errors(f"reading {ref.file!r}"), (root / ref.file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != ref.sha256:
                raise IndexCorruptError(f"{ref.file!r} was changed after it was written", hint="run `retr index check`")
        with self._errors("writing"):
            there = f"{self._bucket}/{self._key}/{ref.file}"
            again(lambda: self._fs.put_file(str(root / ref.file), there))

    def get(self, root: Path, ref: FileRef) -> None:
        """Bring a file down: it gets its name when it is found to be as it was written."""
        draft = (root / ref.file).with_name(_DRAFT)
        with self._errors("reading"):
            again(lambda: self._fs.get_file(f"{self._bucket}/{self._key}/{ref.file}", str(draft)))
        if not _is(draft, ref):
            draft.unlink(missing_ok=True)
            raise IndexCorruptError(f"{ref.file!r} in the store is not as it was written", hint="push the index again")
        with disk_errors("keeping what came down"):
            draft.replace(root / ref.file)

    def remove(self, names: list[str]) -> None:
        """Remove objects."""
        with self._errors("to remove what is no longer of the index"):
            for start in range(0, len(names), 1000):
                keys = [{"Key": f"{self._key}/{name}"} for name in names[start : start + 1000]]
                done = self._fs.call_s3("delete_objects", Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
                if done.get("Errors"):
                    raise PermissionError

    def keeps_versions(self) -> bool:
        """Return whether the store keeps what is overwritten or removed, as far as it says so."""
        with contextlib.suppress(Exception):
            found = self._fs.call_s3("get_bucket_versioning", Bucket=self._bucket)
            return found.get("Status") in {"Enabled", "Suspended"}
        return False


def push(index: IndexLike, address: str, *, replace: bool = False, progress: bool = False) -> Copied:
    """Bring an index up to date in an object store: only files that are not there travel.

    Readers of the store see the state of before until all is there. What the store holds of older states is removed, so
    that nothing stays of rows that were purged.

    Parameters
    ----------
    address
        ``s3://BUCKET/PREFIX``.
    replace
        Also go over a state that was neither pushed nor pulled here.
    progress
        Show progress on standard error.

    Raises
    ------
    UsageError
        Another index lies there, or a state of this one that would be lost.
    RetrError
        The store refuses, or somebody pushes at the same time: there is the state of before then.
    IndexCorruptError
        A file is not as it was written.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> sample_index().push("https://example.org")
    Traceback (most recent call last):
    ...
    retr.index.errors.UsageError: an index is pushed to s3://BUCKET/PREFIX, got: 'https://example.org'; ...
    """
    store = ObjectStore(address)
    root = index.path
    with writer_lock(root):
        manifest = read_current(root)
        shards.require_whole(manifest)
        if UNFINISHED_PURGE in manifest.extra:
            raise RetrError("a purge of the index was not finished", hint="run `retr index compact`, and push then")
        unsaved = len(journal.tail(root, journal.folded(manifest)))
        pointer = read_small(root, CURRENT, _POINTER_BYTES)
        own = _named(pointer)
        own_ref = FileRef(own[0], own[1], (root / own[0]).stat().st_size)
        try:
            there, mark = store.read(CURRENT)
            condition = {"IfMatch": mark}
            _require_line(store, root, _top(store, there), manifest, there, pointer, replace=replace)
        except FileNotFoundError:
            condition = {"IfNoneMatch": "*"}
        sizes = store.sizes()
        refs = [own_ref, *manifest.refs()]
        missing = [ref for ref in refs if sizes.get(ref.file) != ref.bytes]
        with make_progress(show=progress) as shown:
            shown.total(len(missing))
            # the manifests last: what they name is there
            for ref in sorted(missing, key=lambda ref: f"/{MANIFESTS}/" in f"/{ref.file}"):
                store.put(root, ref)
                shown.step()
        try:
            store.write(CURRENT, pointer, **condition)
        except FileExistsError:
            hint = "pull what is there, or push again"
            raise RetrError(f"somebody pushed to {store.address!r} at the same time", hint=hint) from None
        _remember(manifest, store, root, pointer)
        for folder, ref in zip(manifest.folders, manifest.shard_files, strict=False):
            store.write(folder + CURRENT, f"{ref.file.removeprefix(folder)} {ref.sha256}\n".encode())
        named = {ref.file for ref in refs} | {CURRENT, *(folder + CURRENT for folder in manifest.folders)}
        old = sorted(name for name in sizes if name not in named and OURS.fullmatch(name))
        store.remove(old)
    notes = [f"{unsaved} entries saved since the last commit stay here: `retr index compact` takes them in"] * bool(
        unsaved
    )
    if store.keeps_versions():
        notes.append("the bucket keeps older versions of objects: what was purged stays in those until they expire")
    sent = sum(ref.bytes for ref in missing)
    return Copied(manifest.version, len(missing), sent, len(refs) - len(missing), len(old), tuple(notes))


def pull(address: str, path: Path | str, *, replace: bool = False, progress: bool = False) -> Copied:
    """Bring an index down from an object store, or a copy of it up to date: only files that are not here travel.

    Readers of the copy see the state of before until all is here, and found to be as it was written.

    Parameters
    ----------
    address, replace, progress
        As in `push`.
    path
        The index folder to make or to bring up to date.

    Raises
    ------
    UsageError
        Another index lies here, or this copy was changed since.
    IndexNotFoundError
        None lies at the address.
    IndexCorruptError, RetrError
        A file there is not as it was written, or the store refuses: the copy is as it was.
    """
    store, root = ObjectStore(address), index_folder(path)
    for _ in range(_TRIES):
        try:
            pointer, _mark = store.read(CURRENT)
        except FileNotFoundError:
            hint = "look at the address, or push an index there"
            raise IndexNotFoundError(f"no index at {store.address!r}", hint=hint) from None
        with contextlib.suppress(FileNotFoundError):
            return _pull(store, root, _top(store, pointer), pointer, replace=replace, progress=progress)
    raise RetrError(f"somebody pushes to {store.address!r} again and again", hint="pull later")


def _pull(store: ObjectStore, root: Path, top: Manifest, pointer: bytes, *, replace: bool, progress: bool) -> Copied:
    """Bring down the state that a pointer names; ``FileNotFoundError`` where it is no longer there."""
    before = read_current(root) if Store.exists(root) else None
    with disk_errors("making the index's folder"):
        shards.make_folders(root, top)
    with writer_lock(root):
        if before is not None:
            _require_line(store, root, before, top, read_small(root, CURRENT, _POINTER_BYTES), pointer, replace=replace)
            if journal.tail(root, journal.folded(before)) and not replace:
                hint = "`retr index compact` and a push take them in; --replace drops them"
                raise UsageError("entries were saved in this copy since its last commit", hint=hint)
        own = _named(pointer)
        done = [] if _sha256(root / own[0]) == own[1] else [own[0]]
        data, _ = store.read(own[0])
        if hashlib.sha256(data).hexdigest() != own[1]:
            raise FileNotFoundError(own[0])
        with disk_errors("keeping what came down"):
            replace_bytes(root / own[0], data)
        size = len(data) if done else 0
        fetched = [ref for ref in top.shard_files if not _fetch(store, root, ref, None)]
        whole = shards.assembled(root, top)
        known = set() if before is None else set(before.refs())
        refs = [ref for ref in whole.refs() if ref not in top.shard_files]
        with make_progress(show=progress) as shown:
            shown.total(len(refs))
            for ref in refs:
                if not _fetch(store, root, ref, known):
                    fetched.append(ref)
                shown.step()
        with disk_errors("making the pulled state the live one"):
            for folder in whole.folders:
                sync_folder(root / folder / MANIFESTS)
            replace_bytes(root / CURRENT, pointer)
            _remember(whole, store, root, pointer)
            shards.point(root, whole)
            older = len(known - set(whole.refs()))
            sweep(root, whole)
    files = len(fetched) + len(done)
    kept = len(refs) + 1 + len(top.shard_files) - files
    return Copied(whole.version, files, size + sum(ref.bytes for ref in fetched), kept, older)


def _fetch(store: ObjectStore, root: Path, ref: FileRef, known: set[FileRef] | None) -> bool:
    """See to it that a file is here; return whether it was."""
    if known and ref in known and (root / ref.file).is_file():
        return True
    if _is(root / ref.file, ref):
        return True
    store.get(root, ref)
    return False


def _is(path: Path, ref: FileRef) -> bool:
    """Return whether a file is here and as it was written."""
    return _sha256(path) == ref.sha256


def _sha256(path: Path) -> str | None:
    """Return the sha256 of a regular file, None where there is none."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _named(pointer: bytes) -> tuple[str, str]:
    """Return the manifest that a pointer names, and its sha256; `IndexCorruptError` where it is no pointer."""
    found = _POINTER.fullmatch(pointer.decode(errors="replace"))
    if found is None:
        raise IndexCorruptError(f"what is called {CURRENT!r} names no manifest", hint="push the index again")
    return found["file"], found["sha256"]


def _refused(error: OSError) -> bool:
    """Return whether a store refused a conditional write since the condition does not hold."""
    cause: Any = error.__cause__ or error
    code = getattr(cause, "response", {}).get("Error", {}).get("Code", "")
    return code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def _top(store: ObjectStore, pointer: bytes) -> Manifest:
    """Read the manifest that a pointer in the store names, without the rows of its shards."""
    name, sha256 = _named(pointer)
    data, _ = store.read(name)
    manifest = Manifest.from_bytes(data)
    if hashlib.sha256(data).hexdigest() != sha256 or manifest.file != name:
        raise IndexCorruptError(f"the manifest at {store.address!r} was changed", hint="push the index again")
    return manifest


def _require_line(
    store: ObjectStore,
    root: Path,
    old: Manifest,
    new: Manifest,
    old_pointer: bytes,
    new_pointer: bytes,
    *,
    replace: bool,
) -> None:
    """Refuse to go over a state of another index, or over one that would be lost."""
    if old.uuid != new.uuid:
        hint = "choose another place"
        raise UsageError(f"another index than that lies where {store.address!r} would be copied from or to", hint=hint)
    known = read_locations(_PUSHED, new.uuid).get(_line(store, root))
    if not replace and old_pointer != new_pointer and hashlib.sha256(old_pointer).hexdigest() != known:
        raise UsageError(
            f"version {old.version} would be lost: this copy neither pushed nor pulled it in this state",
            hint="look at both copies; --replace goes over it",
        )


def _remember(manifest: Manifest, store: ObjectStore, root: Path, pointer: bytes) -> None:
    """Note on this machine which state a folder and an address have in common."""
    known = read_locations(_PUSHED, manifest.uuid)
    write_locations(_PUSHED, manifest.uuid, {**known, _line(store, root): hashlib.sha256(pointer).hexdigest()})


def _line(store: ObjectStore, root: Path) -> str:
    return f"{store.address} {hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}"
