"""Options that are declared once: a field of a frozen dataclass with its default and, as `Option`, what it is for.

Such a dataclass travels whole from where a user gives it to where it is used. From the same declaration the command
line takes its options (`retr.cli._options.unfold`), and a method with ``**options`` its signature and its docstring
(`documents`). A type checker reads no dataclass out of ``**options``: beside each one stands a ``TypedDict`` of the
same names, so that editors complete the names and check the values; a test keeps the two alike. Adding an option is
its line in both, which stand in one file, and its use.

This module imports nothing heavy: ``retr --help`` reads the declarations.
"""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Function = TypeVar("Function", bound=Callable[..., Any])
Options = TypeVar("Options")
_ENTRY = re.compile(r"^( *)options\n(?:\1 +.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """What an option is for.

    Attributes
    ----------
    help
        What it does, in a sentence for the command line's help and for docstrings.
    more
        What a docstring says further.
    spelled
        What the command line's help says further: how the value is spelled there.
    flag
        How the command line spells it where that is not ``--`` and the field's name.
    metavar
        What the command line's help shows for the value.
    least
        The smallest number the command line takes.
    """

    help: str
    more: str = ""
    spelled: str = ""
    flag: str | None = None
    metavar: str | None = None
    least: int | None = None


@cache
def declared(kind: Any) -> dict[str, tuple[Any, Option]]:
    """Return the type and the `Option` of each field that is declared with one, in order."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        hint = hints[field.name]
        option = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Option)), None)
        if option is not None:
            found[field.name] = (hint.__origin__, option)
    return found


def taken(kind: type[Options], given: Mapping[str, Any], what: str) -> Options:
    """Make options of what was given by name.

    Raises
    ------
    TypeError
        There is no such option; the message names the nearest.
    """
    known = declared(kind)  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"{what}() has no option {name!r}" + (f": is {near[0]!r} meant?" if near else ""))
    return kind(**given)


def documents(kind: type) -> Callable[[Function], Function]:
    """Give a function that takes ``**options`` the signature and the docstring of what it takes.

    The entry ``options`` of its docstring's parameters is replaced by one for each option, with its default.
    """

    def document(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        defaults = {field.name: field.default for field in fields(kind)}
        further = {name: one for name, one in declared(kind).items() if name not in signature.parameters}
        own += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hint)
            for name, (hint, _) in further.items()
        ]
        text = function.__doc__ or ""
        function.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        function.__doc__ = _ENTRY.sub(lambda entry: _entries(further, entry[1]), text)
        return function

    return document


def _entries(options: Mapping[str, tuple[Any, Option]], indent: str) -> str:
    lines = []
    for name, (_, option) in options.items():
        lines.append(indent + name)
        text = f"{option.help} {option.more}".strip()
        lines += textwrap.wrap(text, 116, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    ")
    return "\n".join(lines) + "\n"
