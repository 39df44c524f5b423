"""The house stands as docs/architecture.md draws it: one import package over its folders."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import retr

ROOT = Path(__file__).parents[1]
FOLDERS = ("retrieval", "index", "cli", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_checkout_links_every_folder_into_the_package(folder):
    link = ROOT / "src/retr" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_maps_every_folder_into_the_package(folder):
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert folder in wheel["only-include"]
    assert wheel["sources"][folder] == f"retr/{folder}"


def test_the_package_has_one_version():
    assert PROJECT["project"]["version"] == retr.__version__


def test_public_names_are_sorted_and_importable():
    assert retr.__all__ == sorted(retr.__all__)
    for name in retr.__all__:
        assert getattr(retr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        retr.nothing  # noqa: B018


def test_nothing_is_imported_twice():
    """A module reached through a link and through its folder would exist twice, with two sets of classes."""
    code = """
import os, sys, retr, retr.cli.main
retr.Index, retr.load_encoder
files = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if file and name.split(".")[0] in {"retr", "index", "retrieval", "cli", "benchmarks"}:
        files.setdefault(os.path.realpath(file), []).append(name)
print([names for names in files.values() if len(names) > 1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_stay_one_idea_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert long == {}
