"""A command line that runs in this process, and one index of real photographs for all its tests."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retr.cli import _errors
from retr.cli.main import app

ROOT = Path(__file__).parents[2]
HRF = ROOT / "examples/hrf45"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self, code: int) -> str:
        """The one line an error ends in."""
        assert self.code == code, self
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert lines == self.err.splitlines()[-1:]
        assert "Traceback" not in self.err
        return lines[0]


class _Stdin(io.StringIO):
    def __init__(self, data: bytes) -> None:
        super().__init__(data.decode("utf-8", "replace"))
        self.buffer = io.BytesIO(data)


@pytest.fixture
def retr(capsys, monkeypatch):
    """``retr("query", "--image", path)`` gives the exit code and what was printed."""

    def run(*args: object, stdin: bytes = b"") -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", _Stdin(stdin))
        monkeypatch.setattr(sys, "argv", ["retr", *map(str, args)])
        code = _errors.run(lambda: app(standalone_mode=False))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def hrf_index(tmp_path_factory) -> Path:
    """The 45 shipped photographs, indexed with the default encoder; read-only."""
    from retr import Index

    path = tmp_path_factory.mktemp("hrf") / "hrf.retr"
    Index.build(HRF, path, metadata=HRF / "labels.csv")
    return path


@pytest.fixture
def placed(hrf_index) -> Path:
    """The index on a machine that knows where its archive lies: what is remembered is each test's own."""
    from retr.index.store import Store
    from retr.retrieval.archive import locations

    locations.remember_source(Store.open(hrf_index).uuid, "", str(HRF))
    return hrf_index


@pytest.fixture
def hrf_copy(hrf_index, tmp_path) -> Path:
    """A copy of the index that a test may change."""
    import shutil

    return Path(shutil.copytree(hrf_index, tmp_path / "copy.retr"))
