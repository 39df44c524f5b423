"""The notebooks of docs/notebooks: they run as they stand, and what is kept of their outputs may be passed on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs/notebooks"
NAMES = ["fundus", "chest-x-ray-dicom", "own-encoder"]
# in a process of its own: a client of kernels has sockets and loops that outlive a test
RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=None, record_timing=False, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[3])
"""


def outputs(file: Path) -> list[list[tuple[str, str]]]:
    """Return of each cell of code the kinds of its outputs and what they say, numbers and hashes left out."""
    cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [[(one["output_type"], re.sub(r"[\d.]+", "#", said(one))) for one in cell["outputs"]] for cell in cells]


def said(output: dict) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain") or output.get("ename", ""))


def test_there_is_a_test_for_each():
    assert sorted(file.stem for file in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_may_be_passed_on(name):
    text = (FOLDER / f"{name}.ipynb").read_text()
    kept = json.loads(text)
    ran = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    assert "error" not in {one["output_type"] for cell in ran for one in cell["outputs"]}
    assert re.findall(r"/(?:home|root|tmp|work|Users)/\w+", text) == []
    assert text.count("asked with") >= 1
    assert "data:image/jpeg;base64," in text
    assert len(text) < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_says_what_is_kept(name, tmp_path):
    """Numbers differ with the machine; what they are of does not."""
    file, made = FOLDER / f"{name}.ipynb", tmp_path / "made.ipynb"
    command = [sys.executable, "-c", RUN, str(file), str(FOLDER), str(made)]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert outputs(made) == outputs(file)
