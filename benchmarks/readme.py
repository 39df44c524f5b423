"""Write ``benchmarks/README.md`` from the result files: ``python -m retr.benchmarks.readme [--check]``.

No number stands in that page that a run did not write into ``benchmarks/results/``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from retr.benchmarks.record import RESULTS

PAGE = RESULTS.parent / "README.md"
_HEAD = """# Benchmarks

Written by `python -m retr.benchmarks.readme` from the files in `results/`: for every claim the command, the numbers,
the commit (`+`: with uncommitted changes) and the machine. Data sets are named by their folder; where to get them is
said in `docs/howto/`. Published numbers of others stand only under "paper" or "published", never among what was
measured here.
"""


def page() -> str:
    """Return the page."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return "\n".join([_HEAD, *(section(result) for result in results)])


def section(result: dict[str, Any]) -> str:
    """Return one benchmark's section."""
    machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items() if value is not None)
    lines = [f"## {result['name']}", "", f"    {result['command']}", ""]
    if result.get("note"):
        note = result["note"].rstrip(".")
        lines += [f"{note[0].upper()}{note[1:]}.", ""]
    lines += ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in flat(result["figures"])]
    lines += ["", f"Commit {result['commit']}, {result['date']}; {machine}.", ""]
    return "\n".join(lines)


def flat(figures: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Unfold nested figures into names and values.

    >>> flat({"a": {"b": 0.123456789}, "c": [1, 2]})
    [('a, b', '0.1235'), ('c', '1, 2')]
    """
    if isinstance(figures, dict):
        return [pair for key, value in figures.items() for pair in flat(value, f"{prefix}, {key}" if prefix else key)]
    if isinstance(figures, list) and any(isinstance(value, dict | list) for value in figures):
        numbered = ((f"{prefix}, {place}", value) for place, value in enumerate(figures, start=1))
        return [pair for name, value in numbered for pair in flat(value, name)]
    values = figures if isinstance(figures, list) else [figures]
    return [(prefix, ", ".join(_show(value) for value in values).replace("|", "\\|"))]


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value)


def main() -> None:
    """Write the page, or with ``--check`` say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        sys.exit(0 if current == page() else "benchmarks/README.md is not what the result files say: write it anew")
    Path(PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
