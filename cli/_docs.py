"""Write the command-line reference from the commands' own help: ``python -m retr.cli._docs docs/cli.md``.

With ``--check`` nothing is written; the exit code is 1 when the page no longer says what the commands say.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = """# The command line

Made from the commands' own help by `make docs`; `make check` fails when the two differ.

Exit codes: 0 done, 1 error, 2 usage, 3 nothing found or abstained. Data goes to standard output, everything else to
standard error. An index is found like a git repository: `--index PATH`, else `RETR_INDEX`, else `.retr/` in this folder
or the nearest parent that has one.
"""


def walk(command: Any, path: tuple[str, ...], parent: Any = None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group below ``command`` with its words and its context, parents first."""
    context = command.make_context(path[-1], [], parent=parent, resilient_parsing=True)
    yield path, context
    below = getattr(context.command, "commands", {})
    for name in sorted(below):
        yield from walk(below[name], (*path, name), context)


def page() -> str:
    """Return the whole reference as Markdown."""
    # the help is wrapped at the terminal's width: one width on every machine
    os.environ["COLUMNS"] = "100"
    from retr.cli.main import app

    parts = [HEADER]
    for path, context in walk(app, ("retr",)):
        text = "\n".join(line.rstrip() for line in context.get_help().splitlines()).strip()
        parts.append(f"## {' '.join(path)}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main(args: list[str]) -> int:
    """Write or check the page; give the exit code."""
    check = "--check" in args
    target = Path(next(arg for arg in args if not arg.startswith("-")))
    text = page()
    if not check:
        target.write_text(text, encoding="utf-8", newline="\n")
        return 0
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"error: {target} does not say what the commands say; run `make docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
