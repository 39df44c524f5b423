"""An open index goes to other processes: pickled by path, version and options."""

from __future__ import annotations

import subprocess
import sys

from retr import Index

CODE = """
import multiprocessing, sys
from importlib.util import find_spec
from retr import Index

if __name__ == "__main__":
    index = Index.open(sys.argv[1])
    ids = ["a", "b", "c"]
    wanted = [index.search(id=one, k=2).ids for one in ids]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = [pool.apply(index.search, (), {"id": one, "k": 2}) for one in ids]
    assert [hits.ids for hits in found] == wanted
    if find_spec("joblib"):
        from joblib import Parallel, delayed

        found = Parallel(n_jobs=2)(delayed(index.search)(id=one, k=2) for one in ids)
        assert [hits.ids for hits in found] == wanted
    assert found[0].metadata["age"].to_pylist() == index.search(id="a", k=2).metadata["age"].to_pylist()
"""


def test_other_processes_answer_as_this_one(tmp_path):
    """With multiprocessing's spawn, and with joblib where it is installed."""
    path = tmp_path / "x.retr"
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]
    Index.from_vectors(vectors, {"id": ["a", "b", "c"], "age": [1, 2, 3]}, path, encoder="mine", fingerprint="1")
    script = tmp_path / "ask.py"
    script.write_text(CODE)
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
