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
NEVER = {"faiss", "numba", "torch", "torchvision", "timm", "transformers", "open_clip", "pandas", "scipy", "sklearn"}


@pytest.mark.parametrize(
    ("by", "unwanted"),
    [("--id", NEVER | {"onnxruntime"}), ("--image", NEVER)],
)
def test_a_query_loads_no_torch_no_faiss_and_no_pandas(hrf_index, by, unwanted):
    what = "glaucoma/05_g.jpg"
    asked = what if by == "--id" else f"examples/hrf45/{what}"
    command = [sys.executable, "-c", CODE, "query", by, asked, "--index", str(hrf_index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6
    assert unwanted & set(done.stderr.split()) == set()


def test_pandas_can_still_be_imported_afterwards():
    pytest.importorskip("pandas")
    code = (
        "from retr.cli._arrow import without_pandas; without_pandas(); import sys;"
        "assert 'pandas' not in sys.modules; import pyarrow as pa; pa.array(['a']).to_numpy(zero_copy_only=False);"
        "assert 'pandas' not in sys.modules; import pandas; pandas.DataFrame({'a': [1]})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
