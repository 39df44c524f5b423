"""Fixtures for all tests: an encoder without a network and small archives."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# beside the test modules, so that subprocesses can import it too
sys.path.insert(0, str(Path(__file__).parent))
from fake_encoder import FakeEncoder, picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from PIL import Image


def imported(name: str, **_: object) -> ModuleType:
    """Import a module, its warnings passed over as `pytest.importorskip` does; fail where it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


# The same inputs at each run, so that a test fails when something has changed and at no other time: not by a new
# example, by one of a run before, or by a clock. `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("tests", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("tests")

if os.environ.get("CI"):
    # a test that cannot look counts as one that failed
    pytest.importorskip = imported  # type: ignore[assignment]


# begun in the background, a process ignores Ctrl-C, and so does every process that it begins
signal.signal(signal.SIGINT, signal.default_int_handler)
# what a person has set for the program is not set for its tests, but for what is meant for these
for setting in {name for name in os.environ if name.startswith("RETR_")}:
    if setting not in {"RETR_CACHE_DIR", "RETR_STRESS_SECONDS", "RETR_TEST_CACHE"}:
        del os.environ[setting]


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a machine remembers of archives out of the user's folders."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("RETR_STATE_DIR", str(state))
    # the key of hashed identifiers is made there on first use
    monkeypatch.setenv("XDG_CONFIG_HOME", str(state))


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    """A fresh encoder; ``encoded`` counts the pictures it was given."""
    return FakeEncoder()


@pytest.fixture
def make_encoder() -> type[FakeEncoder]:
    """The fake encoder's class, to make others: ``make_encoder(weights="1" * 64)``."""
    return FakeEncoder


@pytest.fixture
def make_picture() -> Callable[..., Image.Image]:
    """``make_picture(seed, (width, height))``: a picture that no other seed gives."""
    return picture


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[..., Path]:
    """``make_archive(count=12, name="archive")``: a folder of pictures in two classes, with ``labels.csv``."""

    def make(count: int = 12, name: str = "archive") -> Path:
        folder = tmp_path / name
        lines = ["path,label,patient,age"]
        for number in range(count):
            label = ("healthy", "glaucoma")[number % 2]
            suffix = ("png", "jpg", "tif", "bmp", "webp")[number % 5]
            file = folder / label / f"{number:03d}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(file)
            lines.append(f"{label}/{file.name},{label},P{number // 3:02d},{40 + number}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        return folder

    return make


@pytest.fixture
def archive(make_archive: Callable[..., Path]) -> Path:
    """Twelve pictures of five formats in two classes, with ``labels.csv``."""
    return make_archive()
