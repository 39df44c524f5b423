"""Keep pyarrow from importing pandas, which no command needs and which would slow a cold query.

pyarrow imports pandas, where it is installed, at the first array made from Python values, to find out whether they
are a Series. It asks once in a process; refused then, it goes on without. Only the command line does this: a program
that uses retr as a library keeps pyarrow's pandas conversions.
"""

from __future__ import annotations

import sys


class _NoPandas:
    """A finder for which there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004
        if name == "pandas":
            raise ModuleNotFoundError(name)


def without_pandas() -> None:
    """Make pyarrow's one attempt to import pandas fail; other code of the process still imports it."""
    if "pandas" in sys.modules or "pyarrow.lib" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([])
    finally:
        sys.meta_path.remove(finder)
