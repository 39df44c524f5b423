"""faiss is imported with the kernels of this processor."""

from __future__ import annotations

import subprocess
import sys


def test_faiss_is_loaded_for_this_processor(monkeypatch):
    """The OpenBLAS in faiss's wheels does not know newer processors; what it is told is not left behind."""
    code = """
import os, re, sys
from retr.index.accelerators import faiss_library
from retr.index.scan import processor
faiss_library.load_faiss()
import threadpoolctl
print(os.environ.get("OPENBLAS_CORETYPE"), processor.openblas_kernels())
libraries = [lib for lib in threadpoolctl.threadpool_info() if "faiss" in lib["filepath"]]
print([lib["architecture"] for lib in libraries if "architecture" in lib])
"""
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    left, wanted = first.split()
    assert left == "None"
    if wanted != "None" and second != "[]":
        assert wanted in second
