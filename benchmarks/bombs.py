"""Reads the largest pictures that the pixel limit lets through, made of next to no bytes: peak memory and time.

    python -m retr.benchmarks.bombs

Each file is a constant picture of `MAX_PIXELS`, compressed as well as its format can, and where the format has one
with an EXIF orientation that makes the reader turn it. One child process makes it, another reads it.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.benchmarks.record import record
from retr.retrieval.images import read_image
from retr.retrieval.images.picture import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_MB = 1024
SECONDS = 10.0
_SIZE = (8192, MAX_PIXELS // 8192)


def _pillow(mode: str, kind: str, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        turned = {} if kind in {"GIF", "BMP", "JPEG2000", "PPM"} else {"exif": exif}
        Image.new(mode, _SIZE).save(stream, kind, **turned, **options)
        return stream.getvalue()

    return make


def _tiff(dtype: str, samples: int, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        import tifffile

        shape = _SIZE[::-1] + ((samples,) if samples > 1 else ())
        stream = io.BytesIO()
        photometric = "rgb" if samples > 1 else "miniswhite"
        turned = [(274, 3, 1, 6, True)]
        tifffile.imwrite(
            stream, np.ones(shape, dtype), photometric=photometric, metadata=None, extratags=turned, **options
        )
        return stream.getvalue()

    return make


def _codec(encoder: str, dtype: str, samples: int = 1, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        import imagecodecs

        shape = _SIZE[::-1] + ((samples,) if samples > 1 else ())
        return bytes(getattr(imagecodecs, encoder)(np.ones(shape, dtype), **options))

    return make


def _dicom(syntax: str, *, colour: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        import pydicom
        from pydicom.dataset import FileMetaDataset

        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        wanted = getattr(pydicom.uid, syntax)
        native = pydicom.uid.ExplicitVRLittleEndian if wanted.is_encapsulated else wanted
        data.file_meta.TransferSyntaxUID = native
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        data.Columns, data.Rows = _SIZE
        data.SamplesPerPixel = 3 if colour else 1
        data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8 if colour else 16
        data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
        if colour:
            data.PlanarConfiguration = 0
        data.PixelData = bytes(MAX_PIXELS * (3 if colour else 2))
        data["PixelData"].VR = "OB" if colour else "OW"
        if wanted.is_encapsulated:
            data.PixelData = pydicom.encaps.encapsulate([_compressed(syntax, data.SamplesPerPixel)])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = wanted
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return make


def _compressed(syntax: str, samples: int) -> bytes:
    import imagecodecs

    if syntax == "JPEG2000Lossless":
        shape = (_SIZE[1], _SIZE[0], *([samples] if samples > 1 else []))
        pixels = np.zeros(shape, np.uint8 if samples > 1 else np.uint16)
        return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True))
    plane = b"\x81\0" * (MAX_PIXELS // 128)  # runs of 128 zeros
    count = 3 if samples > 1 else 2
    starts = [64 + number * len(plane) for number in range(count)]
    return struct.pack(f"<{1 + count}I", count, *starts).ljust(64, b"\0") + plane * count


def _nifti() -> bytes:
    import nibabel

    volume = np.zeros((512, 512, 12 * MAX_PIXELS // (512 * 512 * 2)), np.int16)
    return gzip.compress(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes(), mtime=0)


BOMBS: dict[str, Callable[[], bytes]] = {
    "jpeg": _pillow("RGB", "JPEG"),
    "jpeg, progressive": _pillow("RGB", "JPEG", progressive=True),
    "png, alpha": _pillow("RGBA", "PNG"),
    "png, 16-bit": _pillow("I;16", "PNG"),
    "png, 1-bit": _pillow("1", "PNG"),
    "tiff, colour": _pillow("RGB", "TIFF", compression="tiff_adobe_deflate"),
    "tiff, float": _pillow("F", "TIFF", compression="tiff_adobe_deflate"),
    "tiff, double": _tiff("f8", 1, compression="zlib", tile=(256, 256)),
    "tiff, one strip": _tiff("f8", 1, compression="zlib"),
    "tiff, deep colour": _tiff("u2", 4, compression="zlib"),
    "tiff, float colour": _tiff("f4", 3, compression="zstd"),
    "tiff, jpeg xl": _tiff("u2", 3, compression="jpegxl", tile=(256, 256)),
    "jpeg, lossless": _codec("jpeg8_encode", "u2", lossless=True, bitspersample=16),
    "jpeg-ls": _codec("jpegls_encode", "u2"),
    "jpeg xl": _codec("jpegxl_encode", "u1", 3),
    "jpeg xl, 16-bit": _codec("jpegxl_encode", "u2", 3, lossless=True),
    "jpeg xl, float": _codec("jpegxl_encode", "f4", 3, lossless=True),
    "gif": _pillow("P", "GIF"),
    "webp": _pillow("RGB", "WEBP", lossless=True),
    "jpeg 2000": _pillow("RGB", "JPEG2000"),
    "dicom, native": _dicom("ExplicitVRLittleEndian"),
    "dicom, deflated": _dicom("DeflatedExplicitVRLittleEndian"),
    "dicom, rle": _dicom("RLELossless"),
    "dicom, rle colour": _dicom("RLELossless", colour=True),
    "dicom, jpeg 2000": _dicom("JPEG2000Lossless"),
    "dicom, jpeg 2000 colour": _dicom("JPEG2000Lossless", colour=True),
    "nifti, gzipped": _nifti,
}


def _read(path: Path) -> None:
    started = time.perf_counter()
    with path.open("rb") as stream:
        picture = read_image(stream)
    seconds = time.perf_counter() - started
    peak = Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]
    told = {"bytes": path.stat().st_size, "size": picture.image.size, "seconds": round(seconds, 2)}
    print(json.dumps({**told, "mb": round(int(peak) / 1024)}))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        Path(given.make[1]).write_bytes(BOMBS[given.make[0]]())
        return
    if given.read:
        _read(given.read)
        return
    results = {}
    again = [sys.executable, "-m", "retr.benchmarks.bombs"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bomb")
        for name in BOMBS:
            subprocess.run([*again, "--make", name, str(path)], check=True)
            child = subprocess.run([*again, "--read", str(path)], check=True, capture_output=True, text=True)
            results[name] = json.loads(child.stdout)
    record("bombs", results)
    sys.exit(any(told["mb"] > MEMORY_MB or told["seconds"] > SECONDS for told in results.values()))


if __name__ == "__main__":
    main()
