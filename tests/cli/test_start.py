"""Starting up is cheap, and every command documents itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retr.cli._docs import page, walk
from retr.cli._lazy import LazyCommand
from retr.cli.main import app

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "faiss",
    "numba",
    "transformers",
    "open_clip",
    "onnxruntime",
    "sklearn",
    "pyarrow",
    "numpy",
    "pydantic",
}


def test_help_loads_nothing_heavy():
    code = """
import sys
from retr.cli.main import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
sys.stderr.write(" ".join(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert HEAVY & loaded == set()
    # nor a command, nor what commands read their options with
    parts = {"main", "_lazy", "_once", "_errors", "_streams", "_output", "_loudness", "_next_steps"}
    parts |= {"_settings", "_waits"}
    assert {name for name in loaded if name.startswith("retr.cli.")} == {f"retr.cli.{part}" for part in parts}
    assert "Search a medical image archive" in done.stdout


def lazy(group=app, path=("retr",)):
    for name, command in group.commands.items():
        if isinstance(command, LazyCommand):
            yield (*path, name), command
        else:
            yield from lazy(command, (*path, name))


def test_what_the_help_lists_is_the_first_sentence_of_each_command():
    listed = {" ".join(path): command.help for path, command in lazy()}
    said = {name: " ".join(context.command.help.split("\n\n")[0].split()) for name, context in COMMANDS}
    assert listed == said
    assert len(listed) > 30


COMMANDS = [
    (" ".join(path), context) for path, context in walk(app, ("retr",)) if not hasattr(context.command, "commands")
]


@pytest.mark.parametrize(("name", "context"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_and_an_example(name, context):
    text = context.get_help()
    assert "Example:" in text, f"`{name}` has no example in its help"
    assert name in text.split("Example:")[1]
    for parameter in context.command.params:
        assert parameter.help, f"`{name}`: {parameter.name} has no help"


def test_one_option_says_one_thing_in_all_commands():
    """What differs on purpose: who loads an encoder, or an index, anew, where output goes, what is counted or read.

    A benchmark joins several sets, and takes for each what other commands take once.
    """
    own = {
        "--column",
        "--data",
        "--encoder",
        "--metadata",
        "--image",
        "--in",
        "--index",
        "--into",
        "--label",
        "--out",
        "--refit",
        "--separator",
        "-k",
    }
    of_each_set = {"--group", "--path-column"}
    said = {}
    for name, context in COMMANDS:
        for parameter in context.command.params:
            if parameter.opts[0].startswith("-") and parameter.opts[0] not in own:
                repeats = parameter.multiple and parameter.opts[0] not in of_each_set
                said.setdefault(parameter.opts[0], {})[parameter.help, parameter.metavar, repeats] = name
    assert {option: list(ways.values()) for option, ways in said.items() if len(ways) > 1} == {}
    assert len(said) > 50


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs/cli.md").read_text() == page(), "run `make docs`"


def test_version():
    done = subprocess.run([sys.executable, "-m", "retr", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("retr ")
