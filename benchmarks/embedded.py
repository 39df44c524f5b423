"""Embedded engines with metadata side by side: filling, size, cold, and questions with and without conditions.

The same rows, in the same run, each engine in processes of its own, one thread where it can be told to
(`retr.benchmarks.embedded_engines`). A row has an id, a patient (four rows each) and two whole numbers: ``unrelated``
has nothing to do with the vectors, and ``correlated`` ranks the rows by how near they are to one point, so that its
lowest are one neighbourhood, far from most questions. Conditions keep 1 % and 0.1 % by either.

Every engine is given settings of growing cost until it finds 99 % of the ten nearest of all rows, and keeps that
setting for all questions; exact engines have one. Recall is that of the rows that are asked for: a row counts as found
where its exact score is at least the tenth best among those allowed.

Then all wait and are asked by turns. Figures are CPU milliseconds of the process for one question with ids read, the
lower quartile of the turns, since other programs only ever add. Every condition is a new one, a little wider than the
last, but where it says ``asked before``. Cold is a fresh process from before its first import of
the engine to its first answer. ``20 commits`` are the same rows in twenty commits, before any index is built or
merged by a command.

Run: ``python -m retr.benchmarks.embedded --python ENVIRONMENT/bin/python`` (`benchmarks/engines-requirements.txt`)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.benchmarks.embedded_engines import ENGINES, K, Question

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


QUESTIONS, TURNS = 40, 3
RECALL = 0.99
PIECES = 20
_KINDS: dict[str, Question] = {
    "unfiltered": Question(),
    "1 % unrelated": Question("unrelated", 10_000),
    "0.1 % unrelated": Question("unrelated", 1000),
    "1 % correlated": Question("correlated", 10_000),
    "0.1 % correlated": Question("correlated", 1000),
    "0.1 % unrelated, asked before": Question("unrelated", 1000),
    "one a patient": Question(one_per=True),
}
# Of the rows in twenty commits.
_SHORT = ("unfiltered", "0.1 % unrelated")
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS"), "1")


def make_data(folder: Path, rows: int, dim: int) -> None:
    """Write the vectors, the questions and the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from retr.benchmarks.ann import mixture

    vectors = mixture(rows, dim, 1)
    rng = np.random.default_rng(3)
    ranks = np.empty(rows, np.int64)
    ranks[np.argsort(-(vectors @ vectors[rng.integers(rows)]))] = np.arange(rows)
    table = pa.table(
        {
            "id": [f"{number}" for number in range(rows)],
            "patient": [f"p{number}" for number in rng.permutation(rows) // 4],
            "unrelated": rng.permutation(rows) * 1_000_000 // rows,
            "correlated": ranks * 1_000_000 // rows,
        }
    )
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", mixture(QUESTIONS, dim, 2, rows))
    pq.write_table(table, folder / "table.parquet")


def read_data(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], pa.Table]:
    """Return the vectors, the questions and the table."""
    import pyarrow.parquet as pq

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    return vectors, np.load(folder / "queries.npy"), pq.read_table(folder / "table.parquet")


def fill(name: str, folder: Path) -> None:
    """Fill one engine, at once and in many commits, and print what that took."""
    vectors, _, table = read_data(folder)
    vectors = np.array(vectors)
    figures: dict[str, Any] = {}
    for what, pieces, finish in (("filled", 1, True), ("commits", PIECES, False)):
        began = time.process_time()
        ENGINES[name].fill(folder / f"{name}-{what}", table, vectors, pieces, finish)
        figures[f"{what}, CPU s"] = round(time.process_time() - began, 1)
        files = [file for file in (folder / f"{name}-{what}").rglob("*") if file.is_file()]
        figures[f"{what}, MB"] = round(sum(file.stat().st_size for file in files) / 1e6, 1)
    (folder / f"{name}.json").write_text(json.dumps(figures))


def cold(name: str, folder: Path) -> None:
    """Open one engine, ask one question, and print the CPU and elapsed milliseconds of both."""
    query = np.load(folder / "queries.npy")[0]
    cpu, elapsed = time.process_time(), time.perf_counter()
    search = ENGINES[name].open(folder / f"{name}-filled", len(query))
    search(query, Question(effort=ENGINES[name].efforts[0]))
    print(json.dumps([round(1e3 * (time.process_time() - cpu)), round(1e3 * (time.perf_counter() - elapsed))]))


def serve(name: str, folder: Path) -> None:
    """Answer what stdin asks, a line of JSON each: first the recalls, then the times of a kind of question."""
    vectors, queries, table = read_data(folder)
    engine = ENGINES[name]
    opened = {"filled": engine.open(folder / f"{name}-filled", queries.shape[1])}
    scores = queries @ np.asarray(vectors).T
    patients = np.unique(table["patient"].to_numpy(), return_inverse=True)[1]
    numbers = {column: table[column].to_numpy() for column in ("unrelated", "correlated")}

    def recall(question: Question) -> float:
        mine = scores if question.column is None else scores[:, numbers[question.column] < question.below]
        if question.one_per:
            best = np.full((len(queries), patients.max() + 1), -2, np.float32)
            for line, own in zip(best, scores, strict=True):
                np.maximum.at(line, patients, own)
            mine = best
        most = min(K, mine.shape[1])
        tenth = np.partition(mine, -most, axis=1)[:, -most]
        found = 0
        for at, query in enumerate(queries):
            rows = opened["filled"](query, question)
            allowed = [row for row in rows if not question.column or numbers[question.column][row] < question.below]
            kept = {patients[row]: row for row in allowed}.values() if question.one_per else set(allowed)
            found += sum(bool(scores[at, row] >= tenth[at] - 1e-5) for row in kept)
        return float(found / (most * len(queries)))

    effort = 0
    for effort in engine.efforts:
        if recall(Question(effort=effort)) >= RECALL:
            break
    asked = {kind: replace(question, effort=effort) for kind, question in _KINDS.items()}
    recalls = {kind: round(recall(question), 4) for kind, question in asked.items()}
    print(json.dumps({"effort": effort, "recall": recalls}), flush=True)
    new = 0
    for line in sys.stdin:
        what, kind = json.loads(line)
        if what not in opened:
            # one process holds an engine's folder at a time
            opened[what] = engine.open(folder / f"{name}-{what}", queries.shape[1])
        taken = []
        for query in queries:
            question = asked[kind]
            if question.column and not kind.endswith("asked before"):
                new += 1
                question = replace(question, below=question.below + new)
            began = time.process_time()
            opened[what](query, question)
            taken.append(1e3 * (time.process_time() - began))
        print(json.dumps(taken), flush=True)


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fill every engine, ask all by turns, and return their figures."""
    environment = {**os.environ, **_THREADS}
    figures: dict[str, Any] = {}
    running: dict[str, subprocess.Popen[str]] = {}
    for name in args.engines.split(","):
        python = sys.executable if name == "retr" else args.python
        command = [python, "-m", "retr.benchmarks.embedded"]
        if not (folder / f"{name}.json").exists():
            subprocess.run([*command, "--fill", name, folder], env=environment, check=True)
        figures[name] = json.loads((folder / f"{name}.json").read_text())
        starts = []
        for _ in range(TURNS):
            done = [*command, "--cold", name, folder]
            starts.append(json.loads(subprocess.check_output(done, env=environment, text=True).splitlines()[-1]))
        figures[name]["cold, CPU ms"], figures[name]["cold, elapsed ms"] = map(min, zip(*starts, strict=True))
        running[name] = subprocess.Popen(
            [*command, "--serve", name, folder],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        figures[name] |= _ask(running[name])
        print(name, figures[name], file=sys.stderr)
    asked = [("filled", kind) for kind in _KINDS] + [("commits", kind) for kind in _SHORT]
    for what, kind in asked:
        times: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(TURNS):
            for name, process in running.items():
                times[name] += _ask(process, (what, kind))
        for name, taken in times.items():
            said = "CPU ms" if what == "filled" else f"CPU ms, {PIECES} commits"
            figures[name].setdefault(said, {})[kind] = round(statistics.quantiles(taken, n=4)[0], 3)
    for process in running.values():
        process.communicate()
    return figures


def _ask(process: subprocess.Popen[str], question: tuple[str, str] | None = None) -> Any:
    """Send a worker a question, and read its next line of JSON: libraries print, too."""
    assert process.stdin is not None
    assert process.stdout is not None
    if question is not None:
        print(json.dumps(question), file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith(("{", "[")):
            return json.loads(line)
    raise SystemExit(f"an engine ended before it answered, with status {process.wait()}")


def main() -> None:
    """Read the arguments: a comparison, or one phase of one engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--engines", default="retr,zvec,lancedb,duckdb,qdrant")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs all engines but retr")
    parser.add_argument("--note", help="what to remember of this run, beside its figures")
    parser.add_argument("--work", type=Path, help="keep data and filled engines here, and use those that are there")
    for name in ("--fill", "--cold", "--serve"):
        parser.add_argument(name, nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, phase in (("fill", fill), ("cold", cold), ("serve", serve)):
        if found := getattr(args, name):
            phase(found[0], Path(found[1]))
            return
    from retr.benchmarks.record import record

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        if not (folder / "table.parquet").exists():
            make_data(folder, args.rows, args.dim)
        rows, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
        figures = {"rows": rows, "dim": dim, **compare(args, folder)}
    command = f"python -m retr.benchmarks.embedded --rows {rows} --dim {dim} --engines {args.engines}"
    record(f"embedded_{rows}x{dim}", figures, command=f"{command} --python PYTHON", note=args.note)


if __name__ == "__main__":
    main()
