"""What a person at a terminal is shown: help, waits, next steps, tables that fit; and how much of it, by -q and -v."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from patience import LONG, until

from retr.cli import _errors, _next_steps, _settings, _streams, _waits
from retr.cli._docs import walk
from retr.cli.main import app
from retr.index.errors import UsageError
from retr.index.machine import waiting
from retr.index.store import Store
from retr.retrieval.search_options import SearchOptions

ROW = "glaucoma/05_g.jpg"


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """``on_terminal("query", ..., columns=40)`` gives what a terminal of so many columns was sent, in order."""

    def run(*arguments: object, columns: int = 100) -> str:
        raw = _Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8", write_through=True))
        monkeypatch.setattr(sys, "stderr", _streams.Sayings(raw, "utf-8", write_through=True))
        _errors.run(lambda: app(args=list(map(str, arguments)), standalone_mode=False))
        sys.stdout.flush()
        sys.stderr.flush()
        return raw.getvalue().decode()

    return run


def on_a_real_terminal(*arguments: object, stdout: int | None = None) -> str:
    """Run a command with its streams on a terminal; return what was written there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "retr", *map(str, arguments)]
    to = theirs if stdout is None else stdout
    with subprocess.Popen(command, stdin=theirs, stdout=to, stderr=theirs) as process:
        os.close(theirs)
        parts = []
        # a terminal whose last writer is gone cannot be read
        with suppress(OSError):
            while part := os.read(ours, 65536):
                parts.append(part)
        process.wait(LONG)
    os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("words", [(), ("index",), ("sets",), ("eval",)])
def test_a_group_alone_shows_its_help(retr, words):
    done = retr(*words)
    assert done.code == 2
    assert done.err == ""
    assert done.out.startswith(f"Usage: {' '.join(('retr', *words))} [OPTIONS] COMMAND")
    assert "\nCommands:\n" in done.out
    assert done.out == retr(*words, "-h").out == retr(*words, "--help").out


def test_help_says_whole_sentences_and_fits(retr, monkeypatch):
    for columns in (40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        for words in ((), ("index",), ("index", "ls"), ("query",)):
            text = retr(*words, "-h").out
            assert max(map(len, text.splitlines())) <= columns
            assert "..." not in text.replace("[ARGS]...", "")


def test_every_command_says_what_may_come_next():
    commands = {" ".join(path): context for path, context in walk(app, ("retr",))}
    leaves = {name for name, context in commands.items() if not hasattr(context.command, "commands")}
    assert leaves == _next_steps.STEPS.keys()
    for step in _next_steps.STEPS.values():
        words = shlex.split(step.format(index=" --index x.retr"))
        name = next(" ".join(words[:n]) for n in range(len(words), 0, -1) if " ".join(words[:n]) in commands)
        options = {option for parameter in commands[name].command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, step


def test_settings_are_options_of_their_commands():
    commands = {" ".join(path): context.command.params for path, context in walk(app, ("retr",))}
    for key, about in _settings.KEYS.items():
        for name in about.commands:
            assert key in {parameter.name for parameter in commands[name]}, name
    assert _settings.KEYS["k"].default == SearchOptions().k


def test_a_person_is_told_what_may_come_next_and_a_pipe_is_not(hrf_index, tmp_path, on_terminal):
    asked = ("query", "--id", ROW, "-k", 1, "--index", hrf_index)
    assert on_a_real_terminal(*asked).endswith(f"next: retr show ID --index {hrf_index}\n")
    assert "next:" not in on_terminal(*asked, "-q")
    with (tmp_path / "out").open("w") as file:
        assert "next:" not in on_a_real_terminal(*asked, stdout=file.fileno())
    assert "glaucoma" in (tmp_path / "out").read_text()


def test_a_wait_is_shown_while_it_lasts(hrf_index, on_terminal, monkeypatch):
    from retr.retrieval.classify import calibrate

    said = re.compile(rb"\r\x1b\[Kmeasuring how far answers can be trusted \.\.\. \d+ s")

    def slow(*_: object, **__: object) -> None:
        until(lambda: said.search(sys.stderr.buffer.getvalue()))
        raise UsageError("enough")

    def short(*_: object, **__: object) -> None:
        time.sleep(0.1)
        raise UsageError("enough")

    monkeypatch.setattr(calibrate, "calibrate", slow)
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    monkeypatch.setattr(_waits, "_EVERY", 0.02)
    asked = ("calibrate", "--label", "label", "--index", hrf_index)
    shown = on_terminal(*asked)
    # nothing of it stays beside what is written next
    assert shown.rpartition("\r\x1b[K")[2] == "error: enough\n"
    monkeypatch.setattr(calibrate, "calibrate", short)
    assert on_terminal(*asked, "--quiet") == "error: enough\n"


def test_what_is_printed_takes_the_wait_away(on_terminal, hrf_index, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    monkeypatch.setattr(_waits, "_EVERY", 0.001)
    opened = Store.open

    def late(*arguments: object, **options: object) -> Store:
        until(lambda: b"\r\x1b[Kretr index ls ... " in sys.stderr.buffer.getvalue())
        return opened(*arguments, **options)

    monkeypatch.setattr(Store, "open", late)
    shown = on_terminal("index", "ls", "--json", "--index", hrf_index)
    assert len([line for line in shown.splitlines() if '{"id"' in line]) == 45


def test_no_wait_is_shown_over_a_question(on_terminal, hrf_copy, monkeypatch):
    def ask(question: str, **_: object) -> None:
        sys.stderr.write(question)
        time.sleep(0.1)
        sys.stderr.write("y\n")

    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    monkeypatch.setattr(_waits, "_EVERY", 0.01)
    monkeypatch.setattr("typer.confirm", ask)
    assert "Delete 1 of 45 rows?y\n" in on_terminal("index", "delete", ROW, "--index", hrf_copy)


def test_verbose_says_what_is_done_and_the_two_exclude_each_other(retr, hrf_index, caplog):
    with caplog.at_level(logging.DEBUG, logger="retr"):
        retr("query", "--id", ROW, "-k", "1", "-v", "--index", hrf_index)
        assert "searched 45 rows exactly" in caplog.text
        assert str(hrf_index) not in caplog.text
        caplog.clear()
        retr("-q", "query", "--id", ROW, "-k", "1", "--index", hrf_index)
        assert caplog.text == ""
    for words in (("-q", "query", "-v", "--id", ROW), ("query", "-q", "-v", "--id", ROW)):
        assert "--quiet and --verbose exclude each other" in retr(*words, "--index", hrf_index).error(2)
    # nothing of it is left for the next command line
    assert retr("query", "--id", ROW, "-v", "--index", hrf_index).code == 0


def test_a_library_sees_the_same_by_its_logger(hrf_index, caplog):
    from retr import Index

    with caplog.at_level(logging.DEBUG, logger="retr"):
        Index.open(hrf_index).search(id=ROW, k=1)
    assert [record.name for record in caplog.records][-1] == "retr.retrieval.answering"
    assert "searched 45 rows exactly" in caplog.text


def test_a_table_that_does_not_fit_is_shown_row_by_row(hrf_index, on_terminal):
    asked = ("query", "--id", ROW, "-k", 2, "--index", hrf_index)
    wide = on_terminal(*asked, columns=100)
    assert len([line for line in wide.splitlines() if "glaucoma/" in line]) == 2
    lines = on_terminal(*asked, columns=40).splitlines()
    assert lines[:3] == ["rank    1", "score   0.1807", "id      glaucoma/03_g.jpg"]
    assert max(len(line) for line in lines if not line.startswith("next:")) <= 40
    # a number is never in two lines
    shown = on_terminal("eval", "retrieval", "--label", "label", "--index", hrf_index, columns=40)
    assert not [line for line in shown.splitlines() if re.fullmatch(r"\s*\d{1,2}", line)]


@pytest.mark.parametrize("columns", [30, 40, 60, 80])
def test_nothing_is_lost_where_lines_are_folded(on_terminal, columns, monkeypatch):
    from retr.cli._output import Output

    raw = _Terminal()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8", write_through=True))
    row = {"name of it": "x" * 90, "b": 123456.5, "words": "one two three " * 9, "日本": "日本語", "none": None}
    Output().rows([row, row])
    Output().record(row)
    text = raw.getvalue().decode()
    assert re.sub(r"\s|\x1b\[\d*m", "", text).count("x") == 270
    assert text.count("123456.5000") == 3
    assert len(re.findall("three", text)) == 27
