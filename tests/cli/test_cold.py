"""What a cold query loads: nothing that is not needed to answer it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from retr.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0
sys.stderr.write(" ".join(sorted(sys.modules)))
"""
NEVER = {
    "faiss",
    "numba",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "open_clip",
    "pandas",
    "scipy",
    "sklearn",
    "pydantic",
}


@pytest.mark.parametrize(
    ("by", "unwanted"),
    [("--id", NEVER | {"onnxruntime"}), ("--image", NEVER)],
)
def test_a_query_loads_no_torch_no_faiss_no_pandas_and_no_pydantic(hrf_index, by, unwanted):
    what = "glaucoma/05_g.jpg"
    asked = what if by == "--id" else f"examples/hrf45/{what}"
    command = [sys.executable, "-c", CODE, "query", by, asked, "--index", str(hrf_index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6
    assert unwanted & set(done.stderr.split()) == set()
