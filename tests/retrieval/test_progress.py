"""A wait is explained once it lasts, to whoever listens to the logger ``retr``."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

from patience import LONG

from retr.index.machine.waiting import LOGGER, waiting


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.any = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.any.set()


def test_a_long_wait_is_named_and_a_short_one_is_not(monkeypatch):
    heard = _Heard()
    monkeypatch.setattr(LOGGER, "handlers", [heard])
    monkeypatch.setattr(LOGGER, "level", logging.INFO)
    LOGGER.manager._clear_cache()
    with waiting("loading nothing", patience=0.01):
        assert heard.any.wait(LONG)
    with waiting("never said", patience=10 * LONG):
        pass
    assert heard.texts == ["loading nothing ..."]


def test_the_command_line_listens_and_a_program_does_not():
    said = "from retr.index.machine.waiting import LOGGER; LOGGER.info('a wait')"
    main = "import retr.cli.main as m; m._errors.run = lambda run: 0\ntry: m.main()\nexcept SystemExit: pass\n"
    for first, heard in ((main, "a wait\n"), ("", "")):
        done = subprocess.run([sys.executable, "-c", first + said], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", heard)
