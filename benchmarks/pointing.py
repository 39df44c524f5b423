"""Whether the map of a hit points at what it shares with the query.

``python -m retr.benchmarks.pointing --data FOLDER``.

A region of a query picture is pasted into another picture at a place drawn at random, and the map of that picture for
that query is asked for its best place: a point is scored where its middle lies in the region (the pointing game). The
region is a lesion, a box of ``boxes.csv`` (``path``, ``class``, ``x``, ``y``, ``w``, ``h`` as shares of the sides)
where the data has one, else a square of 0.18 of the shorter side with much detail. Compared are

* the map of places, less what other pictures have (`retr.retrieval.correspondence`); the same not less that (raw);
* the same with the region changed: mirrored, 15 % larger, darker, with soft edges;
* a control: the map for a third picture, of which nothing was pasted. What points there points at the paste itself;
* what patches add (the last map of `lite`), less other pictures and raw;
* with ``--blurring N``, for the first N pairs, what the score loses by blurring, ``feature=layers``;
* chance: the region's share of the picture.

Neither the query nor the picture pasted into is among the other pictures.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter

from retr.benchmarks.record import record
from retr.retrieval import explain
from retr.retrieval.correspondence import Correspondence
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.images import read_image
from retr.retrieval.stats.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHARE, POOL, SEED = 0.18, 150, 0
SIDE = 2 * explain.SIDE
# Shares of a picture that count as of a lesion's size.
LEAST, MOST = 0.003, 0.08
Box = tuple[int, int, int, int]


class Pair(NamedTuple):
    """A picture with a region of a query pasted into it, as it is and changed; ``third`` is another picture."""

    query: str
    other: str
    third: str
    same: PIL.Image.Image
    changed: PIL.Image.Image
    box: Box

    @property
    def chance(self) -> float:
        """The region's share of the picture."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top) / (self.same.width * self.same.height)


def region(query: PIL.Image.Image, box: tuple[float, ...] | None, rng: np.random.Generator) -> PIL.Image.Image:
    """Cut out a box, in shares of the sides, or a square with much detail."""
    if box is not None:
        left, top, width, height = box
        across, down = query.size
        return query.crop(
            (int(left * across), int(top * down), int((left + width) * across), int((top + height) * down))
        )
    side = round(SHARE * min(query.size))
    squares = [_window(query, (side, side), rng) for _ in range(40)]
    cuts = [query.crop(square) for square in squares]
    return max(cuts, key=lambda cut: float(np.std(np.asarray(cut.convert("L"), np.float32))) * _lit(cut))


def paste(into: PIL.Image.Image, cut: PIL.Image.Image, rng: np.random.Generator) -> tuple[Any, Any, Box]:
    """Paste a region inside the field of view: the picture with it as it is, with it changed, and where it lies."""
    boxes = [_window(into, cut.size, rng) for _ in range(40)]
    box = max(boxes, key=lambda one: _lit(into.crop(one)))
    same, other = into.copy(), into.copy()
    same.paste(cut, box[:2])
    w, h = cut.size
    turned = PIL.ImageEnhance.Brightness(cut.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)).enhance(0.9)
    turned = turned.resize((w, h), PIL.Image.Resampling.BILINEAR, box=(w * 0.065, h * 0.065, w * 0.935, h * 0.935))
    edge = max(2, min(w, h) // 10)
    mask = PIL.Image.new("L", (w, h), 0)
    mask.paste(255, (edge, edge, w - edge, h - edge))
    other.paste(turned, box[:2], mask.filter(PIL.ImageFilter.GaussianBlur(edge / 2)))
    return same, other, box


def points(scores: NDArray[np.float32], pair: Pair) -> bool:
    """Whether the middle of the best place lies in the region."""
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    x, y = (column + 0.5) / scores.shape[1] * pair.same.width, (row + 0.5) / scores.shape[0] * pair.same.height
    left, top, right, bottom = pair.box
    return bool(left <= x < right and top <= y < bottom)


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--blurring", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    pictures, pairs = _drawn(options.data, options.pairs, rng)
    lite = load_encoder("lite", quality="fast")
    found: dict[str, list[bool]] = {}
    start = time.process_time()
    places = {path: _described(explain.described(lite, picture)) for path, picture in pictures.items()}
    for pair in pairs:
        others = _others(places, pair, rng)
        given = {"places": pair.same, "places, changed region": pair.changed}
        described = {name: _described(lite.place_descriptors(picture)) for name, picture in given.items()}
        for name, map_ in described.items():
            less = Correspondence.of([places[pair.query]], others).heat(map_)
            found.setdefault(name, []).append(points(less, pair))
        asked = Correspondence.of([places[pair.query]], others)
        raw = asked.heat(described["places"], set(others))
        found.setdefault("places, raw", []).append(points(raw, pair))
        control = Correspondence.of([places[pair.third]], others).heat(described["places"])
        found.setdefault("places, for a third picture", []).append(points(control, pair))
    seconds = (time.process_time() - start) / (4 * len(pairs))
    patches = {path: _described(lite.patch_embeddings(picture)) for path, picture in pictures.items()}
    for pair in pairs:
        vector, map_ = patches[pair.query].mean(axis=(0, 1)), _described(lite.patch_embeddings(pair.same))
        for name, usual in (("patches", [*_others(patches, pair, rng).values()]), ("patches, raw", [])):
            scores = explain.contributions(map_, vector, usual, cosine=True)
            found.setdefault(name, []).append(points(scores, pair))
    if options.blurring:
        embed = explain.embedding(load_encoder("lite", quality="fast", feature="layers"))
        vectors = dict(zip(pictures, embed([*pictures.values()]), strict=True))
        middle = np.mean([*vectors.values()], axis=0)
        for pair in pairs[: options.blurring]:
            scores = explain.heat(embed, pair.same, vectors[pair.query], middle)
            found.setdefault("blurring", []).append(points(scores, pair))
    figures = {
        "data": options.data.resolve().name,
        "pictures": len(pictures),
        "chance": round(float(np.mean([pair.chance for pair in pairs])), 4),
        "cpu_seconds_a_map": round(seconds, 2),
        **{name: _estimate(hits, pairs) for name, hits in found.items()},
    }
    record(
        f"pointing_{figures['data']}",
        figures,
        command=f"python -m retr.benchmarks.pointing --data {figures['data']} --pairs {options.pairs}"
        + (f" --blurring {options.blurring}" if options.blurring else ""),
        note="share of maps whose best place lies in the pasted region; intervals over query pictures",
    )


def _drawn(folder: Path, count: int, rng: np.random.Generator) -> tuple[dict[str, PIL.Image.Image], list[Pair]]:
    boxes: dict[str, list[tuple[float, ...]]] = {}
    if (folder / "boxes.csv").exists():
        with (folder / "boxes.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if row["class"] != "optic_disc" and LEAST <= float(row["w"]) * float(row["h"]) <= MOST:
                    boxes.setdefault(row["path"], []).append(tuple(float(row[key]) for key in "xywh"))
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        paths = sorted(row["path"] for row in csv.DictReader(stream))
    pool = sorted(rng.choice(paths, min(len(paths), POOL), replace=False).tolist())
    pictures = {path: _small(folder / path) for path in pool}
    sources = [path for path in pool if path in boxes] if boxes else pool
    pairs: list[Pair] = []
    while len(pairs) < count:
        query = str(rng.choice(sources))
        other, third = (str(path) for path in rng.choice([path for path in pool if path != query], 2, replace=False))
        box = boxes[query][rng.integers(len(boxes[query]))] if boxes else None
        cut = region(pictures[query], box, rng)
        if cut.width < pictures[other].width and cut.height < pictures[other].height:
            pairs.append(Pair(query, other, third, *paste(pictures[other], cut, rng)))
    return pictures, pairs


def _others(maps: dict[str, Any], pair: Pair, rng: np.random.Generator) -> dict[str, Any]:
    free = [path for path in maps if path not in {pair.query, pair.other, pair.third}]
    return {path: maps[path] for path in rng.choice(free, explain.PICTURES, replace=False)}


def _window(picture: PIL.Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Box:
    x, y = (int(rng.integers(whole - part)) for whole, part in zip(picture.size, size, strict=True))
    return (x, y, x + size[0], y + size[1])


def _lit(cut: PIL.Image.Image) -> bool:
    """Whether a region has no black border."""
    return float((np.asarray(cut.convert("L")) > 20).mean()) > 0.99


def _described(found: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if found is None:
        raise ValueError("this encoder describes no places")
    return found


def _small(path: Path) -> PIL.Image.Image:
    picture = read_image(path).image.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    return picture


def _estimate(found: Sequence[bool], pairs: Sequence[Pair]) -> dict[str, Any]:
    queries = np.unique([pair.query for pair in pairs[: len(found)]], return_inverse=True)[1].astype(np.int64)
    return {"pairs": len(found), **mean_interval(np.array(found, np.float64), queries).to_json()}


if __name__ == "__main__":
    main()
