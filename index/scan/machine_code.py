"""Compiled loops as machine code: kept on disk, and called without the compiler.

A loop is a function that numba compiles for this machine's processor, once: importing numba and having it find what it
compiled before takes longer than hundreds of searches. What comes of it is therefore kept in the cache folder as an
object file, under a name that says of which source and for which processor it is, and later processes have LLVM load
that alone. Machine code runs as this user, so a file counts only if this user or root owns it. Where nothing can be
kept each process compiles.

A loop is called with numbers and arrays, and writes into arrays; it holds no Python objects and lets other threads run.
"""

from __future__ import annotations

import ctypes
import hashlib
from array import array
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.machine.home import cache_folder
from retr.index.machine.kept import keep, read_kept
from retr.index.machine.waiting import waiting
from retr.index.once import Once

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Where loops stand. Of each the file is part of the name under which its machine code is kept.
_SOURCES = ("scan/kernels.py", "accelerators/lists.py", "accelerators/mixing.py", "accelerators/probing.py")
_CALL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_START: Any = (ctypes.c_char * 0).from_buffer
# Where functions that numba compiled write that they return nothing, and what they raise, which is nothing.
_NOTHING = (ctypes.c_void_p(), ctypes.c_void_p())
_RESULT, _ERROR = map(ctypes.addressof, _NOTHING)


class Loop:
    """One loop over stored vectors, loaded at its first call.

    Parameters
    ----------
    module
        Where it stands, below `retr.index`; imported where it has to be compiled.
    name
        Of a function that takes the type of stored values, ``np.float32`` or ``np.uint16`` (the bits of float16), and
        returns what is compiled: a function of a pointer to int64, which finds there what `packed` makes of the
        arguments.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = f"retr.index.{module}", name
        self._loaded = Once()

    def __call__(self, stored: np.dtype[Any], *words: int) -> None:
        """Call it with what `packed` gave, for vectors that are stored as float32 or float16."""
        call = self._loaded.get(stored.itemsize) or self.load(stored)
        numbers = array("q", words)
        if call(_RESULT, _ERROR, numbers.buffer_info()[0]):
            raise RuntimeError(f"the loop {self._name} failed")

    def load(self, stored: np.dtype[Any]) -> Any:
        """Load it for vectors that are stored as float32 or float16, or compile it, before it is called."""
        return self._loaded(stored.itemsize, lambda: self._load(stored.itemsize))

    def _load(self, size: int) -> Any:
        name = f"{self._name}{8 * size}"
        file = cache_folder() / "kernels" / f"{name}-{_key()}.o"
        with suppress(OSError, ValueError, RuntimeError):
            return _linked(name, read_kept(file))
        with waiting("compiling a part of the search for this processor, once"):
            from retr.index.scan import kernels

            function = getattr(import_module(self._module), self._name)(np.uint16 if size == 2 else np.float32)
            try:
                code = kernels.machine_code(function, name)
            except (AttributeError, RuntimeError):
                # of another numba, whose internals differ: this process calls it through numba
                return kernels.callback(function)
        keep(file, code)
        return _linked(name, code)


def loaded() -> bool:
    """Return whether any loop is loaded, so that another costs little."""
    return bool(_ENGINES)


def packed(*arrays: NDArray[Any]) -> list[int]:
    """Return where contiguous arrays lie and their shapes, as a loop takes them; they must live until it returns."""
    words = []
    for one in arrays:
        try:
            # a fifth of what numpy takes to say it
            words.append(ctypes.addressof(_START(one)))
        except TypeError:
            # it may not be written to
            words.append(one.ctypes.data)
        words += one.shape
    return words


@cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@cache
def _key() -> str:
    """Name the processor and the source of all loops."""
    llvm = _llvm()
    here = Path(__file__).parents[1]
    parts = [(here / name).read_bytes() for name in (*_SOURCES, "scan/machine_code.py")]
    features = llvm.get_host_cpu_features().flatten()
    parts += [
        text.encode() for text in (llvm.get_host_cpu_name(), features, ".".join(map(str, llvm.llvm_version_info)))
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


# What was loaded is called until the process ends.
_ENGINES: list[Any] = []


def _linked(name: str, code: bytes) -> Any:
    """Load machine code; return its function of this name."""
    llvm = _llvm()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    address = engine.get_function_address(name)
    if not address:
        raise ValueError(f"no {name}")
    return _CALL(address)
