"""Which changed copies are found: ``python -m retr.benchmarks.duplicates --data FOLDER``.

Copies of some pictures are planted beside all of them: compressed anew, mirrored, turned, cropped at random places.
Measured is the share that ``Index.duplicates`` connects with their original, without and with geometry, the share whose
original is among the 16 nearest rows by vectors, and how many pairs of other pictures are called copies: with geometry
each picture is laid on up to 48 that look most like it.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retr.benchmarks.record import record
from retr.retrieval.index import Index
from retr.retrieval.raw_vectors import raw_vectors
from retr.retrieval.stats.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from retr.index.store import Store
    from retr.retrieval.audit.duplicates import Duplicates

NEAREST = 16


def changes(rng: np.random.Generator) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return what is done to a picture, by name."""

    def compressed(image: Image.Image, quality: int) -> Image.Image:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        return Image.open(sink).convert("RGB")

    def cropped(image: Image.Image, share: float) -> Image.Image:
        width, height = int(image.width * share), int(image.height * share)
        x, y = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
        return image.crop((int(x), int(y), int(x) + width, int(y) + height))

    def turned(image: Image.Image, degrees: float) -> Image.Image:
        return image.rotate(degrees, Image.Resampling.BICUBIC)

    def mirrored(image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    return {
        **{f"JPEG of quality {quality}": partial(compressed, quality=quality) for quality in (30, 60, 95)},
        "mirrored": mirrored,
        "mirrored, JPEG of quality 60": lambda image: compressed(mirrored(image), 60),
        **{f"turned by {degrees} degrees": partial(turned, degrees=degrees) for degrees in (2, 8)},
        **{f"cropped to {share:.0%}": partial(cropped, share=share) for share in (0.9, 0.7, 0.5)},
        "mirrored, cropped to 70%": lambda image: cropped(mirrored(image), 0.7),
        "cropped to 50%, JPEG of quality 60": lambda image: compressed(cropped(image, 0.5), 60),
        "turned by 4 degrees, cropped to 70%": lambda image: cropped(turned(image, 4), 0.7),
    }


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--copies", type=int, default=40, help="of each kind")
    parser.add_argument("--most", type=int, default=300, help="pictures taken at most, drawn at random")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    files = sorted(path for path in options.data.rglob("*") if path.suffix in {".jpg", ".png"})
    files = [files[at] for at in sorted(rng.permutation(len(files))[: options.most].tolist())]
    with tempfile.TemporaryDirectory() as folder:
        archive, origin = Path(folder) / "archive", {}
        archive.mkdir()
        for at, path in enumerate(files):
            shutil.copy(path, archive / f"{at:05d}{path.suffix}")
            origin[f"{at:05d}{path.suffix}"] = at
        planted: dict[str, list[tuple[str, str]]] = {}
        for number, (name, change) in enumerate(changes(rng).items()):
            for at in rng.permutation(len(files))[: options.copies].tolist():
                copy, own = f"copy-{number}-{at:05d}.png", f"{at:05d}{files[at].suffix}"
                with Image.open(files[at]) as image:
                    change(image.convert("RGB")).save(archive / copy)
                origin[copy] = at
                planted.setdefault(name, []).append((own, copy))
        index = Index.build(archive, Path(folder) / "index", encoder="lite")
        plain = index.duplicates()
        started = time.process_time()
        found = index.duplicates(geometry=True)
        seconds = time.process_time() - started
        false = [pair for pair in found.pairs if origin[pair.a] != origin[pair.b]]
        compared = found.candidates + (found.overlaid or 0)
        name = options.data.resolve().name
        recalls = {
            what: {
                "found": f"{_share(_together(plain, pairs)):.3f}",
                "found with geometry": f"{_share(_together(found, pairs)):.3f}",
                f"original among the {NEAREST} nearest originals": f"{_share(_near(index.store, pairs, origin)):.3f}",
            }
            for what, pairs in planted.items()
        }
        record(
            f"duplicates_{name}",
            {
                "data": name,
                "pictures": len(files),
                "copies of each kind": len(next(iter(planted.values()))),
                "pairs of other pictures called copies": len(false),
                "pairs compared": compared,
                "false alarms per 1,000 pairs compared": round(1000 * len(false) / max(compared, 1), 3),
                "rows without enough structure": found.plain,
                "seconds of processor a row, with geometry": round(seconds / len(index), 3),
                **recalls,
            },
            command=f"python -m retr.benchmarks.duplicates --data {name} --copies {options.copies} "
            f"--most {options.most}",
            note="With 95 % intervals. Both cores were also busy with other work.",
        )


def _share(held: list[bool]) -> object:
    return mean_interval(np.array(held, np.float64), np.arange(len(held)))


def _together(found: Duplicates, pairs: list[tuple[str, str]]) -> list[bool]:
    """Return of which pairs both are in one cluster."""
    clusters = {name: at for at, cluster in enumerate(found.clusters) for name in cluster}
    return [clusters.get(a, -1) == clusters.get(b, -2) for a, b in pairs]


def _near(store: Store, pairs: list[tuple[str, str]], origin: dict[str, int]) -> list[bool]:
    """Return of which copies the original is among the nearest originals."""
    originals = [name for name in origin if not name.startswith("copy")]
    gallery = raw_vectors(store, store.rows_of(originals))
    scores = raw_vectors(store, store.rows_of([copy for _, copy in pairs])) @ gallery.T
    own = scores[np.arange(len(pairs)), [originals.index(name) for name, _ in pairs]]
    return [bool(one) for one in (scores > own[:, None]).sum(axis=1) < NEAREST]


if __name__ == "__main__":
    main()
