"""Feeds mutated containers to the sources: no crash, no hang, no wrong exception, no memory, no file written.

    python -m retr.benchmarks.fuzz_containers --count 20000 --seed 0

The rules, the mutations and the child processes are those of `retr.benchmarks.fuzz_readers`; here each file is a zip,
tar, compressed tar, Parquet or Arrow file in a folder that is listed as an archive, and every member is read.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tarfile
import time
import zipfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from retr.benchmarks.fuzz_readers import mutated, peak_mb, reset_peak, run
from retr.benchmarks.record import record
from retr.index.errors import ImageReadError
from retr.retrieval.archive.folders import FolderSource
from retr.retrieval.archive.sources import Item

MODULE = "retr.benchmarks.fuzz_containers"
_ZIP = {"stored": 0, "deflated": 8, "bzip2": 12, "lzma": 14}


def seeds() -> dict[str, bytes]:
    """Return valid containers to start from: name to bytes, the file's suffix first in the name."""
    members = _members()
    found = {f"zip/{name}": _zip(members, method) for name, method in _ZIP.items()}
    # eight megabytes of nothing in a few thousand bytes
    found["zip/bomb"] = _zip({**members, "bomb.png": bytes(8 << 20)}, zipfile.ZIP_DEFLATED)
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    found |= {f"tar/{name}": _tar(members, "w", kind) for name, kind in formats.items()}
    found |= {f"tar.{kind}/pax": _tar(members, f"w:{kind}", tarfile.PAX_FORMAT) for kind in ("gz", "bz2", "xz")}
    found["tar.gz/bomb"] = _tar({**members, "bomb.png": bytes(8 << 20)}, "w:gz", tarfile.PAX_FORMAT)
    found |= {f"parquet/{kind}": _parquet(members, kind) for kind in ("none", "snappy", "zstd", "gzip")}
    found["arrow/file"] = _arrow(members, pa.ipc.new_file)
    found["arrow/stream"] = _arrow(members, pa.ipc.new_stream)
    return dict(sorted(found.items()))


def _members() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
    members = {}
    for number, picture in enumerate(pixels):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG")
        members[f"a/{number}.png"] = stream.getvalue()
        members[f"a/{number}.json"] = json.dumps({"label": "x" * number, "age": number}).encode()
        members[f"a/{number}.txt"] = b"a caption"
    return members


def _zip(members: dict[str, bytes], method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as container:
        for name, data in members.items():
            container.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return stream.getvalue()


def _tar(members: dict[str, bytes], mode: str, kind: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=kind) as container:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name if kind == tarfile.USTAR_FORMAT else f"{'long/' * 30}{name}")
            info.size = len(data)
            container.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _table(members: dict[str, bytes]) -> pa.Table:
    images = [{"bytes": data, "path": name} for name, data in members.items() if name.endswith(".png")]
    return pa.table({"image": images, "label": ["x"] * len(images), "age": list(range(len(images)))})


def _parquet(members: dict[str, bytes], kind: str) -> bytes:
    stream = io.BytesIO()
    pq.write_table(_table(members), stream, compression=kind, row_group_size=3)
    return stream.getvalue()


def _arrow(members: dict[str, bytes], opened: Any) -> bytes:
    stream, table = io.BytesIO(), _table(members)
    with opened(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return stream.getvalue()


def _child(first: int, last: int, seed: int) -> None:
    written: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(str(arguments[0]))

    folder, sources = Path("archive"), seeds()
    folder.mkdir()
    for name, data in sources.items():  # imports and caches are not a file's memory
        _outcome(_put(folder, name, data))
    sys.addaudithook(watch)
    for number in range(first, last):
        name, data = mutated(number, seed, sources)
        file = _put(folder, name, data)
        print(json.dumps({"at": number}), flush=True)
        reset_peak()
        start = time.perf_counter()
        outcome = _outcome(file)
        seconds = time.perf_counter() - start
        if written or [*Path.cwd().iterdir()] != [Path.cwd() / folder] or [*folder.iterdir()] != [file]:
            outcome = "a file was written"
        told = {"number": number, "name": name, "outcome": outcome, "seconds": seconds, "mb": peak_mb()}
        print(json.dumps(told), flush=True)


def _put(folder: Path, name: str, data: bytes) -> Path:
    """Write the only file of the folder; nothing else may be written, and this not through open()."""
    for old in folder.iterdir():
        old.unlink()
    file = folder / f"x.{name.partition('/')[0]}"
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, data)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    return file


def _outcome(file: Path) -> str:
    """List the folder as an archive and read every item."""
    read = 0
    try:
        source = FolderSource(file.parent)
        for entry in source.entries():
            if not isinstance(entry, Item):
                continue
            try:
                read += bool(entry.data or source.read(entry.path)[0])
            except (ImageReadError, OSError):
                continue
    except Exception as error:  # noqa: BLE001 - this is what the run looks for
        return f"wrong exception {type(error).__name__}"
    return "read" if read else "damaged"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(given.child[0], given.child[1], given.seed)
        return
    report = run(given.count, given.seed, module=MODULE, sources=seeds())
    record(
        "fuzz_containers",
        {**asdict(report), "packages": {"pyarrow": version("pyarrow")}},
        command=f"python -m {MODULE} --count {given.count} --seed {given.seed}",
    )
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
