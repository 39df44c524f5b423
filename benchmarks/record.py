"""The result files: what a benchmark measured, by which command, on which commit and machine.

One JSON file a benchmark in ``benchmarks/results/``; ``benchmarks/README.md`` is made from them, so that no number in
the documentation can drift from what was run. Paths of the machine never enter a result file.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from retr.index.machine.whole_file import write_output

RESULTS = Path(__file__).resolve().parent / "results"


def record(
    name: str,
    figures: dict[str, Any],
    *,
    command: str | None = None,
    note: str | None = None,
    quiet: bool = False,
) -> Path:
    """Print the figures and write them to ``benchmarks/results/NAME.json``.

    Parameters
    ----------
    name
        The benchmark's module name, or that and a variant: ``"ann_100k"``.
    figures
        What was measured, JSON-ready.
    command
        The command anyone can repeat; by default ``python -m retr.benchmarks.NAME``.
    note
        What a reader must know of this run.
    quiet
        Print nothing.

    Returns
    -------
    Path
        The file written.
    """
    result = {
        "name": name,
        "command": command or f"python -m retr.benchmarks.{name}",
        "figures": figures,
        "note": note,
        "commit": commit(),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if not quiet:
        sys.stdout.write(text + "\n")
    # elsewhere where the checkout is thrown away
    folder = Path(os.environ.get("RETR_RESULTS") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_output(path, f"{text}\n".encode())
    return path


def commit() -> str:
    """Return the short hash of the checkout, with ``+`` where it holds uncommitted changes.

    A copy without its history is told by ``RETR_COMMIT``.
    """
    if given := os.environ.get("RETR_COMMIT"):
        return given
    root = Path(__file__).resolve().parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    if head.returncode:
        return "unknown"
    # the result files themselves do not count as a change
    others = [":/", ":(exclude,top)benchmarks/results", ":(exclude,top)benchmarks/README.md"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *others], cwd=root, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """Return what ran: processor, cores, memory, accelerator, and the versions that matter."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "onnxruntime", "faiss-cpu", "faiss-gpu", "numpy", "pyarrow", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "accelerator": _accelerator(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    features = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    best = next((name for flag, name in features.items() if flag in fields.get("flags", "").split()), "")
    return ", ".join(part for part in (fields.get("model name", platform.machine()), best) if part)


def _accelerator() -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None
