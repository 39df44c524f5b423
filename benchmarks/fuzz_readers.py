"""Feeds mutated files to the image readers: no crash, no hang, no wrong exception, no memory, no file written.

    python -m retr.benchmarks.fuzz_readers --count 30000 --seed 0

File number i of a run depends on (seed, i) alone, so ``--only I`` repeats one. Files are read in child processes,
which a crash ends and a hang gets killed; the run goes on behind the file. Each child counts as failures: an exception
other than `ImageReadError`, peak memory above 1 GB over one file (Linux: VmHWM, reset before each), and any file opened
for writing or left in its working folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retr.benchmarks.record import record
from retr.index.errors import ImageReadError
from retr.retrieval.images import REASONS, read_images

HANG_SECONDS = 10.0
MEMORY_MB = 1024
_SEED_BYTES = 100_000
_PICTURES = 8
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# -- seeds and mutations ----------------------------------------------------------------------------------------


def seeds() -> dict[str, bytes]:
    """Return valid files to start from: name to bytes, the format first in the name."""
    found = {**_raster_seeds(), **_codec_seeds(), **_dicom_seeds(), **_nifti_seeds()}
    return dict(sorted(found.items()))


def _raster_seeds() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((120, 90), Image.Resampling.BICUBIC)
    deep = Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
        "jpeg/baseline": ("JPEG", smooth, {"exif": exif}),
        "jpeg/progressive": ("JPEG", smooth, {"progressive": True, "subsampling": 2}),
        "jpeg/grey": ("JPEG", smooth.convert("L"), {}),
        "jpeg/cmyk": ("JPEG", smooth.convert("CMYK"), {}),
        "png/rgb": ("PNG", smooth, {"exif": exif}),
        "png/alpha": ("PNG", smooth.convert("RGBA"), {}),
        "png/palette": ("PNG", smooth.quantize(16), {"transparency": 3}),
        "png/16-bit": ("PNG", deep, {}),
        "png/1-bit": ("PNG", smooth.convert("1"), {}),
        "tiff/raw": ("TIFF", smooth, {}),
        "tiff/16-bit": ("TIFF", deep, {}),
        "tiff/float": ("TIFF", deep.convert("F"), {}),
        "tiff/pages": ("TIFF", smooth, {"save_all": True, "append_images": [smooth] * 3}),
        **{
            f"tiff/{kind}": ("TIFF", smooth, {"compression": kind})
            for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        },
        "tiff/group4": ("TIFF", smooth.convert("1"), {"compression": "group4"}),
        "bmp/rgb": ("BMP", smooth, {}),
        "bmp/palette": ("BMP", smooth.quantize(16), {}),
        "webp/lossy": ("WEBP", smooth, {}),
        "webp/lossless": ("WEBP", smooth, {"lossless": True}),
        "gif/frames": ("GIF", smooth, {"save_all": True, "append_images": [smooth.rotate(90)]}),
        "jp2/rgb": ("JPEG2000", smooth, {}),
        "jp2/16-bit": ("JPEG2000", deep, {}),
        "pnm/rgb": ("PPM", smooth, {}),
    }
    files = {}
    for name, (kind, image, options) in made.items():
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        files[name] = stream.getvalue()
    return files


def _codec_seeds() -> dict[str, bytes]:
    """Make what Pillow cannot read, and imagecodecs and tifffile can."""
    import imagecodecs
    import tifffile

    down, across = np.mgrid[0:48, 0:64]
    grey = (down * 40 + across * 30).astype(np.uint16)
    colour = np.stack([grey, grey[::-1], grey[:, ::-1]], -1)
    files = {
        "jpegls/grey": imagecodecs.jpegls_encode(grey),
        "jpegls/rgb": imagecodecs.jpegls_encode((colour >> 4).astype(np.uint8)),
        "jpeg/12-bit": imagecodecs.jpeg8_encode(grey, 95, bitspersample=12),
        "jpeg/lossless": imagecodecs.jpeg8_encode(grey, lossless=True, bitspersample=16),
        "jpegxl/grey": imagecodecs.jpegxl_encode(grey, lossless=True),
        "jpegxl/rgb": imagecodecs.jpegxl_encode((colour >> 4).astype(np.uint8), usecontainer=True),
        "png/grey and alpha": imagecodecs.png_encode(colour[..., :2].copy()),
        "pnm/deep": b"P6 64 48 4095\n" + colour.astype(">u2").tobytes(),
    }
    layouts: dict[str, tuple[Any, dict[str, Any]]] = {
        "planes": (np.moveaxis(colour, 2, 0), {"planarconfig": "separate", "compression": "lzw", "predictor": True}),
        "tiles": (colour.astype(np.float32) / 4096, {"tile": (16, 16), "compression": "zstd", "predictor": True}),
        "float": (grey.astype(np.float64), {"bigtiff": True, "byteorder": ">", "compression": "lzma"}),
        "signed": (grey.astype(np.int8), {"photometric": "miniswhite", "rowsperstrip": 7}),
        **{kind: (grey, {"compression": kind}) for kind in ("lerc", "jpeg2000", "jpegxl", "png")},
        "jpeg 12-bit": (grey, {"compression": "jpeg", "compressionargs": {"bitspersample": 12}}),
    }
    for name, (values, options) in layouts.items():
        stream = io.BytesIO()
        photometric = "minisblack" if values.ndim == 2 else "rgb"
        tifffile.imwrite(stream, values, metadata=None, **{"photometric": photometric, **options})
        files[f"tiff/{name}"] = stream.getvalue()
    return {name: bytes(data) for name, data in files.items()}


def _dicom_seeds() -> dict[str, bytes]:
    try:
        import pydicom
    except ImportError:
        return {}
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    small = [path for path in sorted(folder.glob("*.dcm")) if path.stat().st_size <= _SEED_BYTES]
    files = {f"dicom/{path.stem}": path.read_bytes() for path in small}
    return {name: data for name, data in files.items() if _outcome(data) == "read"}


def _nifti_seeds() -> dict[str, bytes]:
    try:
        import nibabel
    except ImportError:
        return {}
    import gzip

    volume = np.random.default_rng(0).integers(0, 900, (24, 20, 6)).astype(np.int16)
    plain = nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 2.5, 1.0])).to_bytes()
    second = nibabel.Nifti2Image(volume.astype(np.float32), np.eye(4)).to_bytes()
    return {"nifti/1": plain, "nifti/2": second, "nifti/gzip": gzip.compress(plain, mtime=0)}


def mutated(number: int, seed: int, sources: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name of the seed file and the mutated bytes of file ``number``."""
    rng = np.random.default_rng([seed, number])
    names = list(sources)
    formats = sorted({name.split("/")[0] for name in names})
    chosen = formats[int(rng.integers(len(formats)))]
    ours = [name for name in names if name.startswith(f"{chosen}/")]
    name = ours[int(rng.integers(len(ours)))]
    data = bytearray(sources[name])
    for _ in range(1 + int(rng.exponential(1.5))):
        if len(data) < 16:
            break
        # half of the changes hit the header, where sizes and offsets live
        reach = min(len(data), 512) if rng.random() < 0.5 else len(data)
        at, length = int(rng.integers(reach)), int(rng.integers(1, 65))
        action = int(rng.integers(7))
        if action == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif action == 1:
            data[at : at + length] = rng.bytes(len(data[at : at + length]))
        elif action == 2:
            size = int(rng.choice([1, 2, 4]))
            value = _INTERESTING[int(rng.integers(len(_INTERESTING)))] & ((1 << 8 * size) - 1)
            data[at : at + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")
        elif action == 3:
            del data[at : at + length]
        elif action == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 5))
        elif action == 5:
            other = sources[ours[int(rng.integers(len(ours)))]]
            start = int(rng.integers(len(other)))
            data[at : at + length] = other[start : start + length]
        elif rng.random() < 0.3:
            del data[at:]
    if chosen == "png" and rng.random() < 0.7:
        return name, _with_valid_checksums(bytes(data))
    return name, bytes(data)


def _with_valid_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG right again, so that what is wrong inside reaches the decoder."""
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        out += [data[at : at + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        at += 12 + length
    return b"".join(out)


# -- the child: reads files and says what came of each --------------------------------------------------------------


def _child(first: int, last: int, seed: int) -> None:
    written: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(str(arguments[0]))

    sources = seeds()
    for data in sources.values():  # imports and caches are not a file's memory
        _outcome(data)
    sys.addaudithook(watch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for number in range(first, last):
        name, data = mutated(number, seed, sources)
        print(json.dumps({"at": number}), flush=True)
        reset_peak()
        start = time.perf_counter()
        outcome = _outcome(data)
        seconds = time.perf_counter() - start
        if written or any(Path.cwd().iterdir()):
            outcome = "a file was written"
        told = {"number": number, "name": name, "outcome": outcome, "seconds": seconds, "mb": peak_mb()}
        print(json.dumps(told), flush=True)


def _outcome(data: bytes) -> str:
    try:
        for count, _ in enumerate(read_images(data, name="x"), start=1):
            if count == _PICTURES:
                break
    except ImageReadError as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - this is what the run looks for
        return f"wrong exception {type(error).__name__}"
    return "read"


def reset_peak() -> None:
    """Forget the most memory this process has had."""
    fd = os.open("/proc/self/clear_refs", os.O_WRONLY)  # not through open(): the watch would count it
    try:
        os.write(fd, b"5")
    finally:
        os.close(fd)


def peak_mb() -> float:
    """Return the most memory this process has had since `reset_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# -- the parent: starts children, kills what hangs, counts ------------------------------------------------------------


@dataclass
class Report:
    """What came of a run."""

    count: int
    seed: int
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest_seconds: float = 0.0
    peak_mb: float = 0.0
    wall_seconds: float = 0.0

    def add(self, told: dict[str, Any]) -> None:
        """Count one file."""
        outcome, kind = told["outcome"], told["name"].split("/")[0]
        bad = outcome != "read" and outcome not in REASONS
        if told["mb"] > MEMORY_MB:
            outcome, bad = "too much memory", True
        if told["seconds"] > HANG_SECONDS:
            outcome, bad = "hang", True
        if bad:
            self.failures.append({**told, "outcome": outcome})
        counts = self.outcomes.setdefault(kind, {})
        counts[outcome] = counts.get(outcome, 0) + 1
        self.slowest_seconds = max(self.slowest_seconds, told["seconds"])
        self.peak_mb = max(self.peak_mb, told["mb"])


def run(
    count: int,
    seed: int,
    *,
    chunk: int = 1000,
    module: str = "retr.benchmarks.fuzz_readers",
    sources: dict[str, bytes] | None = None,
) -> Report:
    """Read ``count`` mutated files in child processes of ``module``, one after the other."""
    report, started = Report(count, seed), time.perf_counter()
    sources = seeds() if sources is None else sources
    next_number = 0
    while next_number < count:
        last = min(count, next_number + chunk)
        next_number = _run_child(next_number, last, report, sources, module)
    report.wall_seconds = round(time.perf_counter() - started, 1)
    report.outcomes = {kind: dict(Counter(counts).most_common()) for kind, counts in sorted(report.outcomes.items())}
    return report


def _run_child(first: int, last: int, report: Report, sources: dict[str, bytes], module: str) -> int:
    """Run one child; give the number of the file to go on with."""
    command = [sys.executable, "-m", module, "--child"]
    command += [str(first), str(last), "--seed", str(report.seed)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=environment
        )
        assert child.stdout is not None
        at, patience = first, 6 * HANG_SECONDS  # the first file waits for the imports
        ended = "hang"
        while select.select([child.stdout], [], [], patience)[0]:
            line = child.stdout.readline()
            if not line:
                ended = f"crash with code {child.wait()}"
                break
            told = json.loads(line)
            patience = HANG_SECONDS
            if "at" in told:
                at = told["at"]
            else:
                report.add(told)
                at = told["number"] + 1
        child.kill()
        child.wait()
        child.stdout.close()
    if at < last:
        name, _ = mutated(at, report.seed, sources)
        report.add({"number": at, "name": name, "outcome": ended, "seconds": 0.0, "mb": 0.0})
        at += 1
    return at


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="read one file of the run here and say what came of it")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(given.child[0], given.child[1], given.seed)
        return
    if given.only is not None:
        name, data = mutated(given.only, given.seed, seeds())
        print(name, len(data), _outcome(data))
        return
    report = run(given.count, given.seed)
    packages = ("pydicom", "imagecodecs", "nibabel")
    record(
        "fuzz_readers",
        {**asdict(report), "packages": {package: version(package) for package in packages}},
        command=f"python -m retr.benchmarks.fuzz_readers --count {given.count} --seed {given.seed}",
    )
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
