"""Compiling loops brings nothing that they do not use, and what is made needs nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from retr.index.scan import kernels


def test_loops_are_compiled_without_scipy_and_others_still_have_it():
    code = (
        "import sys, numpy as np;"
        "import retr.index.scan.kernels;"
        "assert 'scipy.linalg' not in sys.modules;"
        "import numba; assert numba.njit(lambda a: np.dot(a, a))(np.eye(2))[0, 0] == 1;"
        "assert 'scipy.linalg' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loop_that_would_need_numba_is_refused():
    def loop(p):
        p[0] = len(np.empty(p[1]))

    with pytest.raises(RuntimeError, match=r"the loop greedy calls .*NRT"):
        kernels.machine_code(loop, "greedy")
