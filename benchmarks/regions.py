"""Search of regions by crops of lesions: kinds and boxes of hits, beside whole pictures and chance; and what it costs.

``--data DIR`` is a folder with ``images/`` and ``boxes.csv`` (``path``, ``class``, ``x``, ``y``, ``w``, ``h`` as
shares). The same sample is drawn every time. A question is the largest box of a kind in a picture, widened to a square
of at least a sixth of the picture's width; its own picture never answers. A hit is right where its picture has a box of
the question's kind, and its region where that overlaps one; chance is a picture, or a region of one, drawn blindly.

Planted needles: the region around a lesion is scaled, pasted into a picture of the sample with a soft edge and saved as
JPEG of quality 75. The question is the region as it was; its own picture is left out. Found is the planted picture
among the first ten, with a region that overlaps the needle.

Times are CPU seconds; builds run one after the other in one process.

Run: ``python -m retr.benchmarks.regions --data DIR [--pictures 100]``
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from retr import Index, Query
from retr.benchmarks.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

K, LEAST, NEEDLES, TIMED = 10, 1 / 6, 20, 20
_ALSO = "optic_disc"
Box: TypeAlias = tuple[float, float, float, float]
Boxes: TypeAlias = "Mapping[str, Mapping[str, Sequence[Box]]]"


def read_boxes(data: Path) -> dict[str, dict[str, list[Box]]]:
    """Return, by path and class, the boxes as shares."""
    found: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    with (data / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            left, top, width, height = (float(row[name]) for name in "xywh")
            found[row["path"]][row["class"]].append((left, top, width, height))
    return found


def overlaps(one: Box, other: Box) -> bool:
    """Return whether two boxes share an area."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return across > 0 and down > 0


def widened(box: Box, size: tuple[int, int]) -> Box:
    """Return a box grown around its middle to a square within the picture, in shares."""
    side = min(max(LEAST * size[0], box[2] * size[0], box[3] * size[1]), *size)
    width, height = side / size[0], side / size[1]
    left = min(max(box[0] + box[2] / 2 - width / 2, 0), 1 - width)
    top = min(max(box[1] + box[3] / 2 - height / 2, 0), 1 - height)
    return left, top, width, height


def as_shares(region: Sequence[int], size: tuple[int, int]) -> Box:
    """Return a region of a hit in shares."""
    left, top, width, height = region
    return left / size[0], top / size[1], width / size[0], height / size[1]


def lesions(index: Index, folder: Path, boxes: Boxes, names: Sequence[str], *, regions: bool) -> dict[str, Any]:
    """Return, by class, how often hits hold it, and how often their regions overlap a box of it."""
    found: dict[str, Any] = {}
    for kind in sorted({kind for name in names for kind in boxes[name]}):
        holds, meets, first, blind, blind_meets = [], [], [], [], []
        grid = [tuple(box) for box in index.store.manifest.extra["regions"]["boxes"]]
        for name in names:
            if kind not in boxes[name]:
                continue
            size = Image.open(folder / name).size
            # the largest of a picture: one question each
            box = max(boxes[name][kind], key=lambda one: one[2] * one[3])
            asked = Query.image(folder / name, region=widened(box, size))
            hits = index.search(asked, k=K, in_regions=regions, columns=[])
            right = [kind in boxes[hit.id] for hit in hits]
            holds.append(np.mean(right))
            first.append(any(right))
            if hits.regions is not None:
                places = [
                    as_shares(one, Image.open(folder / hit.id).size)
                    for hit, one in zip(hits, hits.regions, strict=True)
                ]
                meets.append(
                    np.mean(
                        [
                            any(overlaps(place, one) for one in boxes[hit.id].get(kind, ()))
                            for hit, place in zip(hits, places, strict=True)
                        ]
                    )
                )
            others = [other for other in names if other != name]
            blind.append(np.mean([kind in boxes[other] for other in others]))
            each = [any(overlaps(one, two) for two in boxes[other].get(kind, ())) for other in others for one in grid]
            blind_meets.append(np.mean(each))
        found[kind] = {
            "questions": len(holds),
            "share of 10 hits whose picture has one": _interval(holds),
            "chance": round(float(np.mean(blind)), 3),
            "any of 10": round(float(np.mean(first)), 3),
        }
        if meets:
            found[kind] |= {
                "share of 10 hits whose region overlaps one": _interval(meets),
                "chance of a region": round(float(np.mean(blind_meets)), 3),
            }
    return found


def _interval(shares: Sequence[Any]) -> str:
    """Return a mean with the middle 95 % of means of samples drawn again."""
    values, rng = np.array(shares, float), np.random.default_rng(0)
    means = np.sort(rng.choice(values, (2000, len(values))).mean(axis=1))
    return f"{values.mean():.3f} ({means[50]:.3f} to {means[-51]:.3f})"


def plant(folder: Path, boxes: Boxes, names: Sequence[str], into: Path) -> list[tuple[str, Box, str, Box]]:
    """Write pictures with needles; return of each needle its source, region, the new picture, and where it is."""
    rng, planted = np.random.default_rng(1), []
    for number in range(NEEDLES):
        source, target = (names[int(at)] for at in rng.choice(len(names), 2, replace=False))
        kinds = sorted(kind for kind in boxes[source] if kind != _ALSO)
        box = max(boxes[source][kinds[number % len(kinds)]], key=lambda one: one[2] * one[3])
        with Image.open(folder / source) as one, Image.open(folder / target) as other:
            size, canvas = one.size, other.convert("RGB")
            region = widened(box, size)
            left, top, right, bottom = (
                round(share * side)
                for share, side in zip(
                    (region[0], region[1], region[0] + region[2], region[1] + region[3]), size * 2, strict=True
                )
            )
            part = one.convert("RGB").crop((left, top, right, bottom))
        scale = float(rng.uniform(0.8, 1.25))
        part = part.resize((max(8, round(part.width * scale)), max(8, round(part.height * scale))))
        # within the disc of the retina
        x = int(canvas.width * rng.uniform(0.3, 0.55))
        y = int(canvas.height * rng.uniform(0.25, 0.55))
        edge = max(2, part.width // 12)
        mask = Image.new("L", part.size, 0)
        mask.paste(255, (edge, edge, part.width - edge, part.height - edge))
        canvas.paste(part, (x, y), mask.filter(ImageFilter.GaussianBlur(edge / 2)))
        data = io.BytesIO()
        canvas.save(data, "JPEG", quality=75)
        name = f"planted/{number:03}.jpg"
        (into / name).parent.mkdir(exist_ok=True, parents=True)
        (into / name).write_bytes(data.getvalue())
        planted.append((source, region, name, as_shares((x, y, *part.size), canvas.size)))
    return planted


def needles(
    index: Index, folder: Path, planted: Sequence[tuple[str, Box, str, Box]], *, regions: bool
) -> dict[str, Any]:
    """Return how often planted pictures are found, first and among ten, and with a region on the needle."""
    ranks, met = [], []
    for source, region, name, place in planted:
        hits = index.search(Query.image(folder / source, region=region), k=len(index), in_regions=regions, columns=[])
        at = hits.ids.index(name)
        ranks.append(at + 1)
        if hits.regions is not None:
            found = as_shares(hits.regions[at], Image.open(folder / name).size)
            met.append(at < K and overlaps(found, place))
    shown = {
        "needles": len(ranks),
        "first": sum(rank == 1 for rank in ranks),
        "among 10": sum(rank <= K for rank in ranks),
        "median rank": statistics.median(ranks),
        "chance among 10": round(K / (len(index) - 1), 3),
    }
    return shown | ({"among 10, region on the needle": sum(met)} if met else {})


def milliseconds(ask: Callable[[Query], object], queries: Sequence[Query]) -> float:
    """Return the median CPU time of a question that is embedded already."""
    ask(queries[0])
    times = []
    for query in queries:
        start = time.process_time()
        ask(query)
        times.append(time.process_time() - start)
    return round(statistics.median(times) * 1e3, 3)


def size_of(index: Index) -> int:
    """Return the bytes of an index on disk."""
    return sum(file.stat().st_size for file in index.path.rglob("*") if file.is_file())


def measured(data: Path, n: int, work: Path) -> dict[str, Any]:
    """Return all figures."""
    boxes = read_boxes(data)
    with_lesion = sorted(name for name in boxes if set(boxes[name]) - {_ALSO})
    chosen = np.random.default_rng(0).choice(len(with_lesion), min(n * 3 // 4, len(with_lesion)), replace=False)
    names = [with_lesion[int(at)] for at in chosen]
    without = sorted(path.relative_to(data).as_posix() for path in (data / "images").iterdir())
    without = [name for name in without if not set(boxes[name]) - {_ALSO}]
    names += [
        without[int(at)]
        for at in np.random.default_rng(2).choice(len(without), min(n // 4, len(without)), replace=False)
    ]
    folder = work / "archive"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name, folder / name)
    planted = plant(folder, boxes, [name for name in names if set(boxes[name]) - {_ALSO}], folder)
    found: dict[str, Any] = {"pictures": len(names), "of them with a lesion": len(chosen), "needles": len(planted)}
    base: dict[str, float] = {}
    for division in (None, "grid", "multiscale"):
        start = time.process_time()
        index = Index.build(folder, work / f"{division}.retr", regions=division)
        seconds, size = time.process_time() - start, size_of(index)
        if division is None:
            base = {"seconds": seconds, "bytes": size}
            found["without regions"] = {"build: CPU s": round(seconds, 1), "bytes": size}
            continue
        queries = [Query.vector(index.store.vectors(np.array([row]))[0]) for row in range(TIMED)]
        whole = milliseconds(lambda query, index=index: index.search(query, k=K, columns=[]), queries)  # type: ignore[misc]
        parts = milliseconds(
            lambda query, index=index: index.search(query, k=K, in_regions=True, columns=[]),  # type: ignore[misc]
            queries,
        )
        own = [name for name in names if name in boxes]
        found[division] = {
            "regions of each picture": len(index.store.manifest.extra["regions"]["boxes"]),
            "build: CPU s": round(seconds, 1),
            "build: times without": round(seconds / base["seconds"], 1),
            "bytes": size,
            "bytes added: times without": round((size - base["bytes"]) / base["bytes"], 2),
            "one question, whole pictures: ms": whole,
            "one question, regions: ms": parts,
            "one question: times whole": round(parts / whole, 1),
        }
        planted_names = [name for _, _, name, _ in planted]
        found[division]["needles, regions"] = needles(index, folder, planted, regions=True)
        found[division]["needles, whole pictures"] = needles(index, folder, planted, regions=False)
        index.delete(ids=planted_names)
        found[division]["lesions, regions"] = lesions(index, folder, boxes, own, regions=True)
        found[division]["lesions, whole pictures"] = lesions(index, folder, boxes, own, regions=False)
    return found


def main() -> None:
    """Run it, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--note", default="CPU seconds.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        figures = measured(asked.data, asked.pictures, Path(work))
    command = f"python -m retr.benchmarks.regions --data {asked.data.name} --pictures {asked.pictures}"
    record("regions", figures, command=command, note=asked.note)


if __name__ == "__main__":
    main()
