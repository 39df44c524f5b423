"""How fast containers build beside a folder of the same pictures, and whether they give the same vectors.

``python -m retr.benchmarks.containers`` makes 500 JPEGs from the shipped photographs, packs them as zip, tar, tar.gz,
webdataset shards and Parquet, and builds an index of each with `lite`, in turns; every figure is the best of the
rounds.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from retr.benchmarks.record import record
from retr.index.store import Store
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.ingest.build import build

ARCHIVE = Path("examples/hrf45")
IMAGES, SIDE, ROUNDS, SHARDS = 500, 700, 2, 5


def make_folder(folder: Path) -> list[Path]:
    """Write the JPEGs: the shipped photographs, enlarged, each with fresh grain."""
    originals = sorted(ARCHIVE.rglob("*.jpg"))
    folder.mkdir()
    for number in range(IMAGES):
        image = Image.open(originals[number % len(originals)]).convert("RGB").resize((SIDE, SIDE), 3)
        grain = np.random.default_rng(number).normal(0, 2, (SIDE, SIDE, 1))
        noisy = np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:04d}.jpg", quality=90)
    return sorted(folder.iterdir())


def pack(files: list[Path], folder: Path) -> dict[str, Path]:
    """Write the containers beside the folder; give all forms by name."""
    forms = {"folder": files[0].parent, "zip": folder / "a.zip", "tar": folder / "a.tar", "tar.gz": folder / "a.tar.gz"}
    with zipfile.ZipFile(forms["zip"], "w") as target:
        for file in files:
            target.write(file, file.name)
    for form in ("tar", "tar.gz"):
        with tarfile.open(forms[form], "w" if form == "tar" else "w:gz") as target_tar:
            for file in files:
                target_tar.add(file, file.name)
    forms["webdataset"] = folder / "shards"
    forms["webdataset"].mkdir()
    for shard in range(SHARDS):
        with tarfile.open(forms["webdataset"] / f"{shard:04d}.tar", "w") as target_tar:
            for file in files[shard::SHARDS]:
                target_tar.add(file, file.name)
                label = tarfile.TarInfo(f"{file.stem}.cls")
                label.size = 1
                target_tar.addfile(label, io.BytesIO(b"1"))
    forms["parquet"] = folder / "a.parquet"
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": images}), forms["parquet"], row_group_size=100)
    return forms


def vectors(index: Path) -> dict[str, bytes]:
    """Return each picture's stored vector by its name."""
    store = Store.open(index)
    names = [str(path).rpartition("::")[2] for path in store.table(["path"])["path"].to_pylist()]
    return {name: row.tobytes() for name, row in zip(names, store.vectors(store.live_rows()), strict=True)}


def main() -> None:
    """Measure, print and write the result file."""
    encoder = load_encoder("lite")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        forms = pack(make_folder(root / "archive"), root)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for turn in range(ROUNDS):
            for form, archive in forms.items():
                start = time.perf_counter()
                build(archive, root / f"index-{form}-{turn}", encoder)
                seconds[form].append(time.perf_counter() - start)
        best = {form: min(taken) for form, taken in seconds.items()}
        expected = vectors(root / "index-folder-0")
        figures: dict[str, Any] = {"images": IMAGES, "side_pixels": SIDE}
        for form in forms:
            figures[form] = {
                "images_per_second": round(IMAGES / best[form], 1),
                "share_of_folder": round(best["folder"] / best[form], 3),
                "same_vectors": vectors(root / f"index-{form}-0") == expected,
            }
    record("containers", figures)


if __name__ == "__main__":
    main()
