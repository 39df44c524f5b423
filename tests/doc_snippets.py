"""The snippets of a page of the documentation, and running them: commands in this process, Python block by block."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

from retr.cli import _errors
from retr.cli._docs import walk
from retr.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).parents[1]
#: Pages with snippets; the command line's page is made from the commands, the reference from docstrings.
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if path.name != "cli.md" and path.parent.name not in {"reference", "notebooks"}
}
_MARK = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
# printed, drawn, or for another program
_SHOWN = {"text", "nginx"}


@dataclass(frozen=True)
class Snippet:
    """A block of code on a page."""

    line: int
    kind: str
    text: str
    not_run: str | None  # why
    shown: str = ""  # what stands behind it as printed

    def commands(self) -> list[str]:
        """Return the lines of a block of commands, each whole, without its comment."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in (re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines()) if line]


def snippets(page: str) -> list[Snippet]:
    """Return the blocks of a page that are code: indented ones are commands, others are what their fence says.

    >>> [one.not_run for one in snippets("<!-- not run: why -->\\n\\n    ls\\n\\ntext\\n\\n    ls\\n")]
    ['why', None]
    """
    found: list[Snippet] = []
    mark, before = None, ""
    for token in MarkdownIt("commonmark").parse(page):
        if token.type in {"code_block", "fence"}:
            kind = token.info.strip() or "sh"
            assert token.map is not None
            if kind not in _SHOWN:
                found.append(Snippet(token.map[0] + 1, kind, token.content, mark))
            elif before in {"code_block", "fence"}:
                found[-1] = replace(found[-1], shown=token.content)
        mark = hit[1] if token.type == "html_block" and (hit := _MARK.search(token.content)) else None
        before = token.type
    return found


def same_print(shown: str, printed: str) -> bool:
    """Whether the lines that are shown were printed, in order; numbers may differ in the last digits.

    >>> same_print("b 0.18", "a 1\\nb 0.1801\\n"), same_print("b 0.2", "b 0.18")
    (True, False)
    """
    lines = iter(printed.splitlines())
    return all(any(_same_line(line, other) for other in lines) for line in shown.splitlines())


def _same_line(shown: str, printed: str) -> bool:
    pairs = list(zip_longest(shown.split(), printed.split(), fillvalue=""))
    return all(one == other or _near(one, other) for one, other in pairs)


def _near(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) < 0.005
    except ValueError:
        return False


def spoken_commands(page: str) -> Iterator[str]:
    """Yield the commands that a page names within its text."""
    for token in MarkdownIt("commonmark").parse(page):
        for part in token.children or ():
            if part.type == "code_inline" and part.content.startswith("retr "):
                yield part.content


def tree() -> dict[str, set[str]]:
    """Return every command with its options."""
    return {
        " ".join(path): {name for one in context.command.params for name in (*one.opts, *one.secondary_opts)}
        for path, context in walk(app, ("retr",))
    }


def unknown(command: str, known: dict[str, set[str]]) -> list[str]:
    """Return the words of a command that are no command and no option.

    >>> known = {"retr": {"--version"}, "retr index": {"--help"}, "retr index ls": {"--json"}}
    >>> unknown("retr index ls --json --cvs", known), unknown("retr index sl", known), unknown("retr index", known)
    (['--cvs'], ['sl'], [])
    """
    words = list(takewhile(lambda word: not re.match(r"[|<>&;]", word), shlex.split(command)))
    name, rest = words[0], words[1:]
    while rest and f"{name} {rest[0]}" in known:
        name = f"{name} {rest.pop(0)}"
    if rest and any(other.startswith(f"{name} ") for other in known) and not rest[0].startswith("-"):
        return rest[:1]
    options = (word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word))
    return [option for option in options if option not in known[name] | {"--help"}]


def run(snippet: Snippet, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a snippet as it stands; what it leaves in ``names`` is there for the next one of its page."""
    if snippet.kind == "python":
        exec(compile("\n" * snippet.line + snippet.text, "snippet", "exec"), names)
    elif snippet.kind == "json":
        json.loads(snippet.text)
    elif snippet.kind == "toml":
        tomllib.loads(snippet.text)
    elif snippet.kind == "sh" and " | " in snippet.text:
        shell = f'retr() {{ "{sys.executable}" -m retr "$@"; }}\n{snippet.text}'
        subprocess.run(["bash", "-euo", "pipefail", "-c", shell], check=True)
    elif snippet.kind == "sh":
        for command in snippet.commands():
            run_command(command, monkeypatch)
    else:
        raise AssertionError(f"a block of {snippet.kind!r} is neither run nor marked")


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command of ours as a shell would; 3 says that nothing was found or that the answer abstained."""
    words = shlex.split(command.removeprefix("nohup ").removesuffix("&"))
    if words[0] != "retr":
        raise AssertionError(f"{command!r} is neither run nor marked")
    with monkeypatch.context() as patch, ExitStack() as files:
        if ">" in words:
            at = words.index(">")
            patch.setattr(sys, "stdout", files.enter_context(Path(words[at + 1]).open("w", encoding="utf-8")))
            words = words[:at]
        patch.setattr(sys, "argv", words)
        code = _errors.run(lambda: app(standalone_mode=False))
    assert code in {0, 3}, f"{command!r} ended with {code}"
