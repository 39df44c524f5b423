"""A library that another thread has only begun to import is not used yet."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

from patience import LONG

from retr.index.machine.imported import imported


def test_whole_modules_alone(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "imported_by_test", (begun, go_on), raising=False)
    (tmp_path / "slow_to_import.py").write_text(
        "import sys\nbegun, go_on = sys.imported_by_test\nbegun.set()\ngo_on.wait()\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert imported("slow_to_import") is None
    importing = threading.Thread(target=__import__, args=("slow_to_import",))
    importing.start()
    try:
        assert begun.wait(LONG)
        assert "slow_to_import" in sys.modules
        assert imported("slow_to_import") is None
    finally:
        go_on.set()
        importing.join()
    try:
        assert imported("slow_to_import").whole
    finally:
        del sys.modules["slow_to_import"]
    monkeypatch.setitem(sys.modules, "made_by_hand", ModuleType("made_by_hand"))
    assert imported("made_by_hand") is sys.modules["made_by_hand"]
