"""Loading the compiled loops brings nothing that they do not use."""

from __future__ import annotations

import subprocess
import sys


def test_loops_are_loaded_without_scipy_and_others_still_have_it():
    code = (
        "import sys, numpy as np;"
        "from retr.index.accelerators.rotation import Rotation; Rotation(64)(np.ones((1, 64), np.float32));"
        "assert 'scipy.linalg' not in sys.modules;"
        "import numba; assert numba.njit(lambda a: np.dot(a, a))(np.eye(2))[0, 0] == 1;"
        "assert 'scipy.linalg' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
