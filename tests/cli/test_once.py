"""Values are read as typer reads them, without pydantic where they can mean one thing only."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.core import TyperCommand

from retr.cli._once import Once

ARGUMENTS = st.lists(
    st.tuples(
        st.sampled_from(["--text", "--many", "--folder", "--count", "--whole", "--real"]),
        st.one_of(
            st.integers().map(str),
            st.sampled_from(
                ["", " ", "0", "007", "+1", "-0", "1_0", "1.0", "٣", "1e3", "9" * 30, ".", "/root", "x\ny"]
            ),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
        ),
    ),
    max_size=4,
)


def command(text: str = "a", many: list[str] | None = None, folder: Path | None = None, count: int = 3,
            whole: Annotated[int, typer.Option(min=1, max=9)] = 4, real: float = 0.5) -> None:  # fmt: skip
    raise NotImplementedError


def read(kind, arguments):
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=kind)(command)
    try:
        return typer.main.get_command(app).make_context("x", [part for pair in arguments for part in pair]).params
    except typer.TyperException as error:
        return str(error.format_message())


@settings(deadline=None)
@given(arguments=ARGUMENTS)
def test_values_are_what_typer_makes_of_them(arguments):
    assert read(Once, arguments) == read(TyperCommand, arguments)


def test_a_path_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "is not readable" in read(Once, [("--folder", str(tmp_path))])
    assert read(Once, [("--folder", str(tmp_path / "new"))])["folder"] == tmp_path / "new"


@pytest.mark.parametrize(("given", "value"), [("5", 5), ("9", 9)])
def test_whole_numbers_within_their_bounds(given, value):
    assert read(Once, [("--whole", given)])["whole"] == value
    assert "Invalid value" in read(Once, [("--whole", given * 2)])
