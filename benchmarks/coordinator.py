"""What asking many shards costs who asks: messages through Ray and the merge of answers, by the number of shards.

One process of a cluster answers for all shards, each of a few rows, one after another; messages, their pickling and the
merge are those of a search whose shards are held by as many machines. So CPU seconds of the process that asks are
meant, Ray's threads in it included, medians; wall time is not, for one process stands for all. Answers are compared
with a search of the same index without a cluster.

Run: ``OMP_NUM_THREADS=1 python -m retr.benchmarks.coordinator [--shards 1,4,16,64,256]``
"""

from __future__ import annotations

import argparse
import os
import pickle
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.encoder import EncoderInfo
from retr.index.fan_out import open_shard
from retr.index.store import Store
from retr.retrieval.cluster.holders import manifests_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retr.index.scatter import Question

K, DIM, ROWS_EACH, BATCHES, REPEATS = 10, 256, 200, (1, 16, 256), 20
# spelled so by Ray
_NICENESS = "RAY_worker_niceness"


class Many:
    """What holds all shards, in a process of its own."""

    def __init__(self, path: str) -> None:
        self._path, self._open = Path(path), dict[int, Store]()

    def answer(self, number: int, manifest: bytes, question: Question[Any]) -> Any:
        """Answer for one shard; its manifest travels as it does where each has a process."""
        assert manifest
        if number not in self._open:
            self._open[number] = open_shard(self._path, number)
        return question.answer(self._open[number])


class OneForAll:
    """A `retr.index.scatter.Remote` that counts what a message holds."""

    def __init__(self, ray: Any, path: Path) -> None:
        self._ray = ray
        self._actor = ray.remote(num_cpus=0)(Many).remote(str(path))
        self.bytes: tuple[int, int] | None = None

    def ask(self, store: Store, questions: Sequence[Question[Any]], *, partial: bool) -> list[Any]:
        """Ask all shards at once, as `retr.retrieval.cluster.holders.Holders` does."""
        assert not partial
        refs = [
            self._actor.answer.remote(number, manifest, question)
            for number, (manifest, question) in enumerate(zip(manifests_of(store), questions, strict=True))
        ]
        self._ray.wait(refs, num_returns=len(refs), timeout=600)
        found = [self._ray.get(ref) for ref in refs]
        if self.bytes is None:
            self.bytes = len(pickle.dumps((manifests_of(store)[0], questions[0]))), len(pickle.dumps(found[0]))
        return found

    def prepare(self, store: Store) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def made(path: Path, shards: int) -> Store:
    """Build an index of small shards."""
    info = EncoderInfo("synthetic", DIM, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    store = Store.create(path, encoder=info, dtype="float16", shards=shards)
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        rows = ROWS_EACH * shards
        writer.append(
            pa.table({"id": [f"{row:07d}" for row in range(rows)]}), rng.standard_normal((rows, DIM), np.float32)
        )
        return writer.commit()


def measured(ray: Any, path: Path, shards: int) -> dict[str, Any]:
    """Return what questions to so many shards cost."""
    store = made(path, shards)
    alone = Store.open(path)
    questions = np.random.default_rng(1).standard_normal((max(BATCHES), DIM), np.float32)
    found: dict[str, Any] = {}
    for batch in BATCHES:
        # a new one each time counts the messages of this batch
        store.remote = remote = OneForAll(ray, path)
        asked = questions[:batch]
        here, there = alone.search(asked, K), store.search(asked, K)
        if not (np.array_equal(here.rows, there.rows) and np.array_equal(here.scores, there.scores)):
            raise SystemExit(f"{shards} shards answer otherwise")
        times = []
        for _ in range(REPEATS):
            began = time.process_time()
            store.search(asked, K)
            times.append(time.process_time() - began)
        seconds = statistics.median(times)
        assert remote.bytes is not None
        found[f"batch {batch}: CPU ms"] = round(seconds * 1e3, 2)
        found[f"batch {batch}: questions a second of one processor"] = round(batch / seconds)
        found[f"batch {batch}: bytes to and from a shard"] = list(remote.bytes)
    return found


def main() -> None:
    """Run it, and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--shards", default="1,4,16,64,256")
    parser.add_argument("--note", default=None)
    given = parser.parse_args()
    # without a token of its own, Ray would write one into the user's folder
    os.environ.update({_NICENESS: "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    import ray

    figures: dict[str, Any] = {"rows of a shard": ROWS_EACH, "dimensions": DIM, "k": K}
    with tempfile.TemporaryDirectory(prefix="rc", dir="/tmp", ignore_cleanup_errors=True) as folder:
        local = {"address": "local", "include_dashboard": False, "log_to_driver": False}
        ray.init(num_cpus=1, object_store_memory=200_000_000, _temp_dir=folder, **local)
        try:
            for shards in map(int, given.shards.split(",")):
                figures[f"{shards} shards"] = measured(ray, Path(folder) / f"i{shards}", shards)
        finally:
            ray.shutdown()
    command = f"OMP_NUM_THREADS=1 python -m retr.benchmarks.coordinator --shards {given.shards}"
    record("coordinator", figures, command=command, note=given.note)


if __name__ == "__main__":
    main()
