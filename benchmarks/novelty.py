"""How often an ordinary picture is called unlike an archive: ``python -m retr.benchmarks.novelty --data FOLDER``.

``FOLDER`` holds the sets ``odir5k``, ``hrf45``, ``flickr8k_1000``, ``cxr_kermany`` and ``cxr_hannover243``, each with
``labels.csv``; their vectors are kept in ``--work`` between runs. ``stated`` is what the fence promises on average over
archives; ``called`` the share of pictures of new patients below it, mean over ``--draws`` archives with its Monte Carlo
error; ``worst`` that of the worst archive; ``within`` the share of archives that keep below what is stated of them with
95 % confidence. ``quartiles`` is the rule of before, on the same archives: 1.5 interquartile ranges below the first
quartile of all rows, at most their 1 % point.

*New patients*: archives of some patients of ``odir5k``, and of a drawn mixture (five kinds of picture, patients of 1 to
20 pictures, some patients far out), asked by patients who are not in them. *Cut*: three quarters of an archive's
patients are deleted after the measurement. *Another camera*: the photographs of ``hrf45`` ask an archive of
``odir5k``, without and with half of ``hrf45`` in it, with and without a fence for each camera; of two drawn cameras
one has few patients, whose pictures differ more. *Other kinds*: how many chest X-rays and photographs of everything
else are called unlike.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.query_layer import Set
from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval import novelty
from retr.retrieval.labels.labelled import others

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZES = (20, 50, 100, 200, 520)
DIM = 32
DRAWN = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)


class People:
    """Vectors, and the patient and the camera of each."""

    def __init__(self, vectors: NDArray[np.float32], patients: NDArray[Any], camera: str = "one") -> None:
        self.vectors, self.patients = vectors, patients
        self.cameras = np.full(len(vectors), camera, dtype="U8")

    @classmethod
    def drawn(cls, rng: np.random.Generator, n: int) -> People:
        """Draw patients of the mixture."""
        centres = unit(np.random.default_rng(7).normal(size=(5, DIM)))
        person = centres[rng.integers(0, 5, n)] + rng.normal(size=(n, DIM)) * 0.1 * rng.chisquare(2, (n, 1))
        owner = np.repeat(np.arange(n), rng.integers(1, 21, n))
        pictures = person[owner] + rng.normal(size=(len(owner), DIM)) * 0.05
        return cls(unit(pictures).astype(np.float32), owner)

    def part(self, keep: NDArray[np.bool_]) -> People:
        """Return some of the rows."""
        found = People(self.vectors[keep], self.patients[keep])
        found.cameras = self.cameras[keep]
        return found

    def beside(self, other: People) -> People:
        """Return the rows of both."""
        names = [np.char.add(mark, one.patients.astype(str)) for mark, one in (("a", self), ("b", other))]
        found = People(np.concatenate([self.vectors, other.vectors]), np.concatenate(names))
        found.cameras = np.concatenate([self.cameras, other.cameras])
        return found

    def split(self, rng: np.random.Generator, n: int) -> tuple[People, People]:
        """Return ``n`` patients, and the others."""
        inside = np.isin(self.patients, rng.permutation(np.unique(self.patients))[:n])
        return self.part(inside), self.part(~inside)


class Bench:
    """Makes indexes of people and asks them."""

    def __init__(self, folder: Path, info: EncoderInfo) -> None:
        self._folder, self._info, self._numbers = folder, info, count()

    def store(self, people: People) -> Store:
        """Make an index."""
        store = Store.create(self._folder / f"{next(self._numbers)}.retr", encoder=self._info)
        ids = [f"{at}" for at in range(len(people.vectors))]
        table = {"id": ids, "patient": people.patients.astype(str).tolist(), "camera": people.cameras.tolist()}
        with store.writer() as writer:
            writer.append(pa.table(table), people.vectors)
            writer.set_group("patient")
            return writer.commit()


def two_cameras(bench: Bench, draws: int) -> dict[str, Any]:
    """Ask an archive of 400 drawn patients of one camera and 60 of another, whose pictures differ more."""
    centre = unit(np.random.default_rng(8).normal(size=(1, DIM)))
    ways: dict[str, dict[str, list[float]]] = {}
    stated: dict[str, Any] = {}
    for seed in range(draws):
        rng = np.random.default_rng([9, seed])

        def few(n: int, rng: np.random.Generator = rng) -> People:
            return People(unit(centre + 0.35 * rng.normal(size=(n, DIM))).astype(np.float32), np.arange(n), "few")

        archive = People.drawn(rng, 400).beside(few(60))
        store = bench.store(archive)
        each = novelty.measure_novelty(store, "camera")
        assert each.devices is not None
        stated = {name: round(one.rate, 4) for name, one in each.devices.items()}
        asked = {"camera of many": People.drawn(rng, 1000), "camera of few": few(1000)}
        for way, fence in {"one fence": novelty.measure_novelty(store), "a fence for each": each}.items():
            for name, people in asked.items():
                ways.setdefault(way, {}).setdefault(name, []).append(called(people, archive, fence.threshold))
    return {
        "stated for each": stated,
        **{way: {name: summary(shares) for name, shares in each.items()} for way, each in ways.items()},
    }


def called(people: People, archive: People, threshold: float | None) -> float:
    """Return the share of pictures below a threshold, the mean over patients."""
    nearest = (people.vectors @ archive.vectors.T).max(axis=1)
    below = np.zeros(len(nearest)) if threshold is None else (nearest < threshold).astype(float)
    _, owner = np.unique(people.patients, return_inverse=True)
    return float((np.bincount(owner, below) / np.bincount(owner)).mean())


def quartiles(store: Store) -> float:
    """Return the fence of before."""
    rows = store.live_rows()
    nearest = store.search(np.asarray(store.vectors(rows)), 1, exclude=others(store, rows)).scores[:, 0]
    low, high = np.quantile(nearest, [0.25, 0.75])
    return float(min(low - 1.5 * (high - low), np.quantile(nearest, 0.01)))


def summary(shares: list[float]) -> dict[str, float]:
    """Return the mean with its Monte Carlo error, and the worst."""
    error = np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    return {
        "called": round(float(np.mean(shares)), 4),
        "error": round(float(error), 4),
        "worst": round(float(np.max(shares)), 4),
    }


def new_patients(bench: Bench, draw: Callable[[int, int], tuple[People, People]], draws: int) -> dict[str, Any]:
    """Ask archives of several sizes with patients who are not in them."""
    figures: dict[str, Any] = {}
    for size in SIZES:
        shares, before, within, fence = [], [], [], None
        for seed in range(draws):
            archive, asked = draw(size, seed)
            store = bench.store(archive)
            fence = novelty.measure_novelty(store)
            shares.append(called(asked, archive, fence.threshold))
            within.append(shares[-1] <= fence.high)
            before.append(called(asked, archive, quartiles(store)))
        assert fence is not None
        figures[f"{size} patients"] = {
            "stated": round(fence.rate, 4),
            "high": round(fence.high, 4),
            **summary(shares),
            "within": round(float(np.mean(within)), 3),
            "quartiles": summary(before),
        }
    return figures


def cut(bench: Bench, eyes: People, draws: int) -> dict[str, Any]:
    """Delete three quarters of an archive's patients, and ask before, by the fence noted, and measured again."""
    whole, left, again, stale = [], [], [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        archive, asked = eyes.split(rng, 520)
        kept, _ = archive.split(rng, 130)
        store = bench.store(archive)
        fence = novelty.measure_novelty(store)
        gone = ~np.isin(archive.patients, kept.patients)
        with store.writer() as writer:
            writer.note(novelty.NOVELTY_NOTE, novelty.novelty_note(store, fence))
            writer.commit()
        with store.writer() as writer:
            writer.delete(np.flatnonzero(gone))
            after = writer.commit()
        found, why = novelty.find_novelty(after)
        stale.append(found is None and why is not None)
        whole.append(called(asked, archive, fence.threshold))
        left.append(called(asked, kept, fence.threshold))
        again.append(called(asked, kept, novelty.measure_novelty(after).threshold))
    return {
        "before the cut": summary(whole),
        "after it, by the old fence (no longer used)": summary(left),
        "found stale": round(float(np.mean(stale)), 3),
        "measured again": summary(again),
    }


def another_camera(
    bench: Bench, eyes: People, camera: People, strange: dict[str, People], draws: int
) -> dict[str, Any]:
    """Ask an archive with photographs of a second camera, which is in it or not, and with other kinds of pictures."""
    ways: dict[str, dict[str, list[float]]] = {}
    stated: dict[str, Any] = {}
    camera.cameras[:] = "other"
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        archive, asked = eyes.split(rng, 520)
        some, rest = camera.split(rng, len(np.unique(camera.patients)) // 2)
        both = archive.beside(some)
        store = bench.store(both)
        each = novelty.measure_novelty(store, "camera")
        assert each.devices is not None
        stated = {name: round(one.rate, 4) for name, one in each.devices.items()}
        fences = {
            "camera not in the archive": (archive, novelty.measure_novelty(bench.store(archive))),
            "camera in it, one fence": (both, novelty.measure_novelty(store)),
            "camera in it, a fence for each": (both, each),
        }
        for way, (rows, fence) in fences.items():
            for name, people in {"own kind": asked, "other camera": rest, **strange}.items():
                ways.setdefault(way, {}).setdefault(name, []).append(called(people, rows, fence.threshold))
    return {
        "stated for each": stated,
        **{way: {name: summary(shares) for name, shares in each.items()} for way, each in ways.items()},
    }


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--work", type=Path, help="folder to keep embedded sets in")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--draws", type=int, default=200, help="archives of each size")
    options = parser.parse_args()
    from retr.retrieval.encoders.registry import load_encoder

    encoder = load_encoder(options.encoder)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)

        def people(name: str, column: str | None = None) -> People:
            data = Set(options.data / name, work, encoder)
            names = [row[column] if column else str(at) for at, row in enumerate(data.rows)]
            return People(data.vectors, np.array(names))

        eyes = people("odir5k", "patient")
        strange = {name: people(name) for name in ("cxr_kermany", "cxr_hannover243", "flickr8k_1000")}
        real, drawn = (Bench(Path(temporary) / info.name, info) for info in (encoder.info, DRAWN))

        def mixture(n: int, seed: int) -> tuple[People, People]:
            rng = np.random.default_rng([n, seed])
            return People.drawn(rng, n), People.drawn(rng, 1000)

        few = max(options.draws // 5, 2)
        figures = {
            "encoder": options.encoder,
            "draws": options.draws,
            "new patients, odir5k": new_patients(
                real, lambda n, seed: eyes.split(np.random.default_rng([n, seed]), n), options.draws
            ),
            "new patients, mixture": new_patients(drawn, mixture, options.draws),
            "cut": cut(real, eyes, few),
            "two cameras, drawn": two_cameras(drawn, options.draws),
            "another camera": another_camera(real, eyes, people("hrf45"), strange, few),
        }
    record(
        "novelty",
        figures,
        command=f"python -m retr.benchmarks.novelty --data DATA --encoder {options.encoder} --draws {options.draws}",
        note=f"cut and another camera: {few} archives of 520 patients",
    )


if __name__ == "__main__":
    main()
