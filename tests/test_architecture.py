"""docs/architecture.md names every module of index/, retrieval/ and serve/, and no file that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
# one module each for a published system, a protocol, a part of the search for names: told by the folder
BY_FOLDER = {"systems", "networks", "towers", "runtime", "weights", "protocols", "phi", "page"}


def test_every_module_is_named():
    named = set(re.findall(r"`(?:[a-z_]+/)*([a-z_]+)`", PAGE))
    modules = {
        path.stem
        for folder in ("index", "retrieval", "serve")
        for path in (ROOT / folder).rglob("*.py")
        if path.stem != "__init__" and path.parent.name not in BY_FOLDER
    }
    assert sorted(modules - named) == []


def test_every_package_is_named():
    packages = {
        path.parent.name
        for folder in ("index", "retrieval", "serve")
        for path in (ROOT / folder).glob("*/**/__init__.py")
    }
    assert sorted(name for name in packages if f"{name}/`" not in PAGE) == []


def test_every_file_that_is_named_is_there():
    files = set(re.findall(r"`((?:index|retrieval|cli|serve|benchmarks|tests)/[a-z_/]+\.py)", PAGE))
    assert len(files) > 10
    assert sorted(file for file in files if not (ROOT / file).exists()) == []
