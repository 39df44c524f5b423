"""pyarrow without what most questions do not need: pandas, and its own parts that take long to import.

`pc` and `pq` are pyarrow's ``compute`` and ``parquet``, imported when something of them is first used.

pyarrow imports pandas, where it is installed, at the first array or value made from Python's own, to find out whether
they are a Series: several times what it takes to open an index and ask it something. It tries once in a process. Here
that attempt fails, and pyarrow is told of pandas as soon as anybody imports it; so it converts as it always does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    import pyarrow.compute as pc
    import pyarrow.parquet as pq

__all__ = ["pc", "pq", "without_pandas"]

_lock = threading.Lock()


class Later:
    """A module that is imported when something of it is first used.

    >>> Later("json").dumps([1])
    '[1]'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        module = vars(self).get("_module")
        if module is None:
            module = self._module = importlib.import_module(self._name)
        return getattr(module, name)


if not TYPE_CHECKING:
    pc, pq = Later("pyarrow.compute"), Later("pyarrow.parquet")


def without_pandas() -> None:
    """Keep pyarrow from importing pandas by itself, in a process that has not imported it."""
    with _lock:
        if "pandas" in sys.modules or any(isinstance(finder, _Pandas) for finder in sys.meta_path):
            return
        import pyarrow as pa

        if not hasattr(pa.lib, "_pandas_api"):
            return
        finder = _Pandas(threading.get_ident())
        sys.meta_path.insert(0, finder)
        pa.scalar(0)
        finder.refused = None


class _Pandas:
    """A finder that hides pandas from one thread for a moment; later it has pyarrow look once somebody imports it."""

    def __init__(self, refused: int | None) -> None:
        self.refused = refused
        self._finding = threading.local()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        if name != "pandas" or getattr(self._finding, "now", False):
            return None
        if threading.get_ident() == self.refused:
            raise ModuleNotFoundError(name)
        self._finding.now = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._finding.now = False
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _look_again()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _look_again() -> None:
    """Have pyarrow import pandas, which is there by now; one that is too old for it stays unknown to it."""
    import pyarrow as pa

    with suppress(ImportError):
        pa.lib._pandas_api.pd  # noqa: B018
