"""Importing faiss, with the fastest kernels that this processor has."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retr.index.machine.extras import missing
from retr.index.scan.processor import openblas_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADING = threading.Lock()


def load_faiss() -> Any:
    """Import faiss.

    Raises
    ------
    MissingExtraError
        It is not installed: neither alone nor with ``retr[cpu]`` or ``retr[gpu]``.
    """
    # a library that another thread is importing is not whole: the statement waits for it, the look-up does not
    try:
        if "faiss" in sys.modules:
            import faiss
        else:
            with _LOADING, _current_kernels():
                import faiss
    except ImportError as error:
        # also where it is installed and lacks a library of the system
        raise missing("faiss") from error
    return faiss


@contextmanager
def _current_kernels() -> Iterator[None]:
    """Let the OpenBLAS inside faiss's wheels use this processor while it is loaded.

    That OpenBLAS (0.3.15, 2021) takes a processor newer than itself for one without AVX and multiplies matrices at a
    fifth of the speed; it reads which kernels to take from the environment, once.
    """
    name = "OPENBLAS_CORETYPE"
    kernels = None if name in os.environ else openblas_kernels()
    if kernels is None:
        yield
        return
    os.environ[name] = kernels
    try:
        yield
    finally:
        del os.environ[name]
