"""Options that are declared once: a field of a frozen dataclass with its default and, as `Option`, what it is for.

Such a dataclass travels whole from where a user gives it to where it is used. From the same declaration the command
line takes its options (`retr.cli._options.unfold`), and a method with ``**options`` its signature and its docstring
(`documents`). A type checker reads no dataclass out of ``**options``: beside each one stands a ``TypedDict`` of the
same names, so that editors complete the names and check the values; a test keeps the two alike. Adding an option is
its line in both, which stand in one file, and its use.

This module imports nothing heavy: ``retr --help`` reads the declarations.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Function = TypeVar("Function", bound=Callable[..., Any])
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
        How the command line spells it where that is not ``--`` and the field's name; empty where it has none.
    metavar
        What the command line's help shows for the value.
    least
        The smallest number the command line takes.
    kept
        Whether what it was first given for is kept and goes for later times: it counts as asked only where it is given.
    """

    help: str
    more: str = ""
    spelled: str = ""
    flag: str | None = None
    metavar: str | None = None
    least: int | None = None
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options, and which of them were given: those that are `kept` may be left to what was recorded.

    A value of another kind than declared is a `UsageError`: the text ``"no"`` would count as true.
    """

    given: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self) -> None:
        kind: Any = type(self)
        own = vars(self)
        for name, default, hint in _defaults(kind):
            # a default is of its kind
            if own[name] is not default:
                _require_kind(name, own[name], hint)

    def by_name(self) -> dict[str, Any]:
        """Return every option, as `taken` takes them."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "given"}

    def asked(self) -> dict[str, Any]:
        """Return what was given, as `taken` takes it."""
        return {name: value for name, value in self.by_name().items() if name in self.given}


Kind = TypeVar("Kind", bound=Options)


def declared(kind: Any) -> dict[str, tuple[Any, Option]]:
    """Return the type and the `Option` of each field that is declared with one, in order."""
    return _declared(kind)


@cache
def _declared(kind: Any) -> dict[str, tuple[Any, Option]]:
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for one in fields(kind):
        hint = hints[one.name]
        option = next((at for at in getattr(hint, "__metadata__", ()) if isinstance(at, Option)), None)
        if option is not None:
            found[one.name] = (hint.__origin__, option)
    return found


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any, Any], ...]:
    """Return the name, the default and the type of each field that is declared with an `Option`."""
    return tuple((name, getattr(kind, name, MISSING), hint) for name, (hint, _) in declared(kind).items())


def _is_number(plain: Any) -> bool:
    return isinstance(plain, int | float) and not isinstance(plain, bool)


# What is asked of a value is a plain one: numpy's and torch's numbers give theirs.
_KINDS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda plain: isinstance(plain, bool)),
    int: ("a whole number", lambda plain: _is_number(plain) and (isinstance(plain, int) or plain.is_integer())),
    float: ("a number", _is_number),
    str: ("a text", lambda plain: isinstance(plain, str)),
}


def _require_kind(name: str, value: Any, hint: Any) -> None:
    """Raise `UsageError` where a value is not of the plain kind that is declared; others are left to their use."""
    kinds = get_args(hint) or (hint,)
    if type(value) in _KINDS and type(value) in kinds:
        return
    plain = [kind for kind in kinds if kind in _KINDS]
    if len(plain) + (NoneType in kinds) < len(kinds) or (value is None and NoneType in kinds):
        return
    own = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    if not any(_KINDS[kind][1](own) for kind in plain):
        wanted = " or ".join(_KINDS[kind][0] for kind in plain)
        raise UsageError(f"{name} must be {wanted}, got: {value!r}")


def taken(kind: type[Kind], given: Mapping[str, Any], what: str) -> Kind:
    """Make options of what was given by name; ``None`` for one that is `kept` leaves it to what is recorded.

    Raises
    ------
    TypeError
        There is no such option; the message names the nearest.
    UsageError
        A value is of another kind than declared.
    """
    known = declared(kind)
    for name in given:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"{what}() has no option {name!r}" + (f": is {near[0]!r} meant?" if near else ""))
    meant = {name: value for name, value in given.items() if value is not None or not known[name][1].kept}
    own: Any = kind
    plain = _plain(own)
    if plain is None:
        return kind(**meant, given=frozenset(meant))
    # as the class itself makes it, but for the defaults, which need no look
    made = object.__new__(kind)
    vars(made).update(plain)
    vars(made).update(meant, given=frozenset(meant))
    for name, value in meant.items():
        if value is not plain[name]:
            _require_kind(name, value, known[name][0])
    return made


@cache
def _plain(kind: Any) -> dict[str, Any] | None:
    """Return the default of each field; ``None`` where one has none, or the class looks at more than the kinds."""
    if kind.__post_init__ is not Options.__post_init__:
        return None
    found = {one.name: one.default for one in fields(kind)}
    return None if MISSING in found.values() else found


def part(kind: type[Kind], options: Kind) -> Kind:
    """Return the options that a base class declares, as one of it."""
    found = {name: getattr(options, name) for name in declared(kind)}
    return kind(**found, given=options.given & found.keys())


def documents(kind: type, further: str | None = None) -> Callable[[Function], Function]:
    """Return a decorator that puts an options class into a function's signature and docstring, for ``**options``.

    The entry ``options`` of its docstring's parameters is replaced by one for each option. ``further`` is the name of
    what it takes beside them.
    """

    def document(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        defaults = {one.name: ... if one.default is MISSING else one.default for one in fields(kind)}
        own_names = signature.parameters.keys()
        others = {name: one for name, one in declared(kind).items() if name not in own_names}
        own += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hint)
            for name, (hint, _) in others.items()
        ]
        own += [inspect.Parameter(further, inspect.Parameter.VAR_KEYWORD, annotation=Any)] if further else []
        text = function.__doc__ or ""
        function.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        function.__doc__ = _ENTRY.sub(lambda entry: _entries(others, entry[1]), text)
        return function

    return document


def _entries(options: Mapping[str, tuple[Any, Option]], indent: str) -> str:
    lines = []
    for name, (_, option) in options.items():
        lines.append(indent + name)
        text = f"{option.help} {option.more}".strip()
        lines += textwrap.wrap(text, 116, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    ")
    return "\n".join(lines) + "\n"
