"""Machine code is made once, found again without the compiler, and made again where it is not what was written."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from patience import until

from retr.index.machine import waiting
from retr.index.machine.kept import read_kept
from retr.index.scan import kernels, machine_code
from retr.index.scan.machine_code import Loop, packed


def products(stored):
    """Stand in for a loop over stored vectors: it adds one to each of some numbers."""

    def loop(p):
        numbers = kernels._line(p, 0, np.float32)
        for i in range(len(numbers)):
            numbers[i] += 1

    return loop


@pytest.fixture
def loop(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "products", products)
    return lambda: Loop("scan.kernels", "products")


def ask(loop):
    numbers = np.arange(3, dtype=np.float32)
    loop(np.dtype(np.float32), *packed(numbers))
    assert numbers.tolist() == [1, 2, 3]


def test_a_loop_is_compiled_once_and_again_where_its_file_was_damaged(loop, tmp_path, monkeypatch, caplog):
    def late(stored):
        until(lambda: caplog.messages)
        return products(stored)

    monkeypatch.setattr(kernels, "products", late)
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    said = ["compiling a part of the search for this processor, once ..."]
    with caplog.at_level("INFO", "retr"):
        first = loop()
        ask(first)
        ask(first)
    assert caplog.messages == said
    file = next((tmp_path / "cache/kernels").glob("products32-*.o"))
    whole = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "machine_code", None)
        ask(loop())
    for damaged in (whole[:100], b"", whole[:-1] + b"\0", whole[:200] + b"\1" + whole[201:]):
        file.write_bytes(damaged)
        ask(loop())
        assert file.read_bytes()[32:] == whole[32:]


def test_a_loop_runs_where_nothing_can_be_kept(loop, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    ask(loop())


def test_a_loop_is_called_through_another_numba_whose_internals_differ(loop, tmp_path, monkeypatch):
    def differs(*_):
        raise AttributeError("_tm")

    monkeypatch.setattr(kernels, "machine_code", differs)
    ask(loop())
    assert not list((tmp_path / "cache").rglob("products*.o"))


def test_machine_code_of_another_user_is_not_loaded(loop, tmp_path, monkeypatch):
    ask(loop())
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        file = next((tmp_path / "cache/kernels").glob("products32-*.o"))
        if file.stat().st_uid == 0:
            os.chown(file, 1, -1)
        with pytest.raises(ValueError, match="another user"):
            read_kept(file)
    ask(loop())


def test_another_processor_or_source_has_another_file(monkeypatch):
    machine_code._key.cache_clear()
    key = machine_code._key()
    monkeypatch.setattr(machine_code._llvm(), "get_host_cpu_name", lambda: "another")
    machine_code._key.cache_clear()
    try:
        assert machine_code._key() != key
    finally:
        machine_code._key.cache_clear()


def test_a_later_process_loads_no_compiler():
    code = (
        "import sys, numpy as np;"
        "from retr.index.accelerators.rotation import Rotation;"
        "Rotation(64)(np.ones((1, 64), np.float32));"
        "assert len(sys.argv) == 1 or not {'numba', 'scipy', 'faiss'} & sys.modules.keys()"
    )
    for more in ([], ["again"]):
        subprocess.run([sys.executable, "-c", code, *more], check=True)


def test_memory_that_may_not_be_written_is_read():
    frozen = np.arange(6, dtype=np.float16).reshape(2, 3)
    words = packed(frozen)
    frozen.flags.writeable = False
    assert packed(frozen) == words == [frozen.ctypes.data, 2, 3]
    assert packed(np.empty(0, bool))[1:] == [0]
