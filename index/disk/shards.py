"""Shards: the rows of one index spread over several folders, each of which is an ordinary index.

An index of format version 3 has no segments of its own::

    CURRENT, manifests/00000012.json      what the index holds beside its rows, and the manifest of each shard
    files/, segments/                     side data; rows on their way to a shard
    shards/0000/                          an ordinary index of some of the rows
    shards/0001/ ...

The top manifest names that of each shard with its sha256, so a commit over all shards becomes visible with the one
replacement of the top ``CURRENT``. What is read of an index is one manifest with the segments of all shards
(`assembled`): rows are numbered shard by shard, and whatever works on a list of segments works on shards.

A shard's own ``CURRENT`` follows behind (`point`), for whoever opens a shard alone. It is not written to alone: its
manifest says whose it is (`NOTE`).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from retr.index.disk.files import FileRef, read_small, replace_bytes, require_folders
from retr.index.disk.manifest import (
    CURRENT,
    FILES,
    IDENTIFIERS,
    MANIFESTS,
    MENDING,
    SEGMENTS,
    SHARDS,
    TUNING,
    Manifest,
    shard_folder,
)
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.json_fields import stored

if TYPE_CHECKING:
    from pathlib import Path

# The note of a shard: the index that it belongs to, and which of how many it is.
NOTE = "shard"
# Ten times the manifest of a hundred million rows.
_MOST_BYTES = 256 << 20
_NUMBER = re.compile("[0-9]{4}")


def read_manifest(root: Path, name: str, digest: str) -> Manifest:
    """Read the manifest ``root / name``.

    Raises
    ------
    FileNotFoundError
        There is none.
    IndexCorruptError
        It has another sha256 than ``digest``, or is no manifest.
    """
    text = read_small(root, name, _MOST_BYTES)
    if hashlib.sha256(text).hexdigest() != digest:
        raise IndexCorruptError(f"the manifest {name!r} was changed after it was written", hint=MENDING)
    manifest = Manifest.from_bytes(text)
    if not f"/{name}".endswith(f"/{manifest.file}"):
        raise IndexCorruptError(f"the manifest {name!r} says that it is {manifest.file!r}", hint=MENDING)
    return manifest


def assembled(root: Path, top: Manifest) -> Manifest:
    """Return the manifest with the segments of its shards; the same where there are none.

    Raises
    ------
    FileNotFoundError
        The manifest of a shard is gone.
    IndexCorruptError
        One does not belong to this index.
    """
    if not top.shards:
        return top
    _require_folders(root, top.folders)
    segments = []
    for number, (folder, ref) in enumerate(zip(top.folders, top.shard_files, strict=True)):
        shard = read_manifest(root, ref.file, ref.sha256)
        with stored(f"the manifest of the shard {number}", MENDING):
            if replace(of_shard(top, number), segments=shard.segments, version=shard.version) != _plain(shard, top):
                raise ValueError("a shard of another index")
        segments += [info.moved(folder) for info in shard.segments]
    whole = replace(top, segments=tuple(segments))
    with stored("the manifest", MENDING):
        whole.require_sense()
    return whole


def _plain(shard: Manifest, top: Manifest) -> Manifest:
    """Return a shard's manifest but for what it says of its own moment."""
    return replace(shard, committed=top.committed)


def of_shard(whole: Manifest, number: int) -> Manifest:
    """Return the manifest of a shard: of an ordinary index with its segments, without the side files of the whole."""
    folder = shard_folder(number)
    kept = {key: whole.extra[key] for key in (TUNING, IDENTIFIERS) if key in whole.extra}
    return Manifest(
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{whole.uuid}/{number}")),
        encoder=whole.encoder,
        dtype=whole.dtype,
        schema=whole.schema,
        created=whole.created,
        committed=whole.committed,
        version=whole.version,
        group=whole.group,
        segments=tuple(info.moved("") for info in whole.segments if info.folder == folder),
        extra={**kept, NOTE: {"of": whole.uuid, "number": number, "shards": whole.shards}},
        row_arrays=whole.row_arrays,
    )


def require_whole(manifest: Manifest) -> None:
    """Raise `UsageError` for the manifest of a shard, which is changed with the index that it belongs to."""
    if NOTE in manifest.extra:
        raise UsageError(
            "this is a shard of an index, and changes with that alone", hint="name the folder above `shards`"
        )


def written(root: Path, manifest: Manifest) -> Manifest:
    """Write the manifests of the shards that changed, and return the manifest of the whole with all of them."""
    refs = []
    for number in range(manifest.shards):
        shard, old = of_shard(manifest, number), manifest.shard_files[number : number + 1]
        if old and len(manifest.shard_files) == manifest.shards:
            before = read_manifest(root, old[0].file, old[0].sha256)
            if replace(shard, version=before.version, committed=before.committed).to_bytes() == before.to_bytes():
                refs.append(old[0])
                continue
        name, text = shard_folder(number) + shard.file, shard.to_bytes()
        replace_bytes(root / name, text)
        refs.append(FileRef(name, hashlib.sha256(text).hexdigest(), len(text)))
    return replace(manifest, shard_files=tuple(refs))


def pointer(manifest: Manifest) -> bytes:
    """Return what ``CURRENT`` says where a manifest is the live one."""
    return f"{manifest.file} {hashlib.sha256(manifest.to_bytes()).hexdigest()}\n".encode()


def point(root: Path, manifest: Manifest) -> None:
    """Let the ``CURRENT`` of each shard name what the committed manifest of the whole names."""
    for folder, ref in zip(manifest.folders, manifest.shard_files, strict=False):
        text = f"{ref.file.removeprefix(folder)} {ref.sha256}\n".encode()
        try:
            same = read_small(root, folder + CURRENT, len(text)) == text
        except (FileNotFoundError, IndexCorruptError):
            same = False
        if not same:
            replace_bytes(root / folder / CURRENT, text)


def make_folders(root: Path, manifest: Manifest) -> None:
    """Make the folders that an index with these shards writes to."""
    for folder in dict.fromkeys(["", *manifest.folders]):
        for inner in (MANIFESTS, SEGMENTS, FILES):
            (root / folder / inner).mkdir(parents=True, exist_ok=True)
    _require_folders(root, ["", *manifest.folders])


def found_folders(root: Path) -> list[str]:
    """Return the folders of an index that hold files of ours: its own, and those of all shards that lie there.

    Raises
    ------
    IndexCorruptError
        One of them leads elsewhere.
    """
    _require_folders(root, [""])
    try:
        names = sorted(path.name for path in (root / SHARDS).iterdir() if _NUMBER.fullmatch(path.name))
    except FileNotFoundError:
        names = []
    folders = ["", *(f"{SHARDS}/{name}/" for name in names)]
    _require_folders(root, folders)
    return folders


def remove_empty_folders(root: Path, manifest: Manifest) -> None:
    """Remove the folders of shards that the index no longer has, where nothing is left in them."""
    for folder in found_folders(root)[1:]:
        if folder not in manifest.folders:
            for place in [*(root / folder / inner for inner in (MANIFESTS, SEGMENTS, FILES)), root / folder]:
                _remove_if_empty(place)
    if not manifest.shards:
        _remove_if_empty(root / SHARDS)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _require_folders(root: Path, folders: list[str]) -> None:
    shards = [SHARDS, *(folder.rstrip("/") for folder in folders if folder)]
    require_folders(root, *shards, *(folder + inner for folder in folders for inner in (MANIFESTS, SEGMENTS, FILES)))
