"""docs/environment.md names every environment variable that the code reads or sets, and no other of its own."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from retr.telemetry import SWITCHES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/environment.md").read_text()
SOURCES = [
    path
    for folder in ("index", "retrieval", "cli", "benchmarks", "src/retr")
    for path in (ROOT / folder).rglob("*.py")
    if folder != "src/retr" or path.parent == ROOT / folder
]
READS = re.compile(r"(^|\.)(environ\.(get|setdefault|pop)|getenv)$")
# set for a child of the benchmarks' own, or in a file of commands: nothing that a person sets
CHILDREN = {"MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONPATH", "TMPDIR"}


@cache
def names_in(path: Path) -> set[str]:
    """Return the variables that a module names: strings that look like one of ours, and keys of ``os.environ``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\bRETR_[A-Z_]+\b", node.value))
        key = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            key = node.slice
        elif isinstance(node, ast.Call) and re.search(
            r"environ\.(get|setdefault|pop)$|getenv$", ast.unparse(node.func)
        ):
            key = node.args[0]
        if isinstance(key, ast.Constant):
            found.add(str(key.value))
    return found


def test_every_variable_of_the_code_is_on_the_page():
    named = {name: path.name for path in SOURCES for name in names_in(path)}
    assert {"RETR_INDEX", "RETR_KEY_FILE", "RETR_MAX_PIXELS", "OMP_NUM_THREADS", "RETR_COMMIT"} <= set(named)
    missing = {name: path for name, path in named.items() if f"`{name}`" not in PAGE and name not in CHILDREN}
    assert missing == {}


def test_every_variable_of_the_page_is_in_the_code():
    ours = set(re.findall(r"`(RETR_[A-Z_]+)`", PAGE))
    assert ours <= {name for path in SOURCES for name in names_in(path)}


def test_the_switches_of_libraries_are_listed_where_the_page_says():
    privacy = (ROOT / "docs/privacy.md").read_text()
    assert [name for name in SWITCHES if f"`{name}" not in privacy] == []
