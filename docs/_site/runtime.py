"""An extension of griffe: signatures and docstrings as the running program has them, and examples as code.

Options are declared once and reach a method's signature and docstring when its module is imported
(`retr.index.options.documents`); methods of `retr.Index` that other modules define are found at their first use. Of
public names, what the sources say is therefore replaced by what Python says of the same object. Examples that stand
outside a section of their own become blocks of code, since Markdown would take ``>>>`` for a quotation.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Modules whose public names the reference shows.
MODULES = ("retr", "retr.encoders", "retr.interop", "retr.sample")
_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
_SECTION = re.compile(r"^Examples\n-+$", re.MULTILINE)


def with_fences(docstring: str) -> str:
    r"""Return a docstring whose examples, but those of a section "Examples", are blocks of code.

    >>> print(with_fences("Add.\n\n>>> 1 + 1\n2\n"))
    Add.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    """
    section = _SECTION.search(docstring)
    end = section.start() if section else len(docstring)
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", docstring[:end]) + docstring[end:]


class Runtime(griffe.Extension):
    """Bring the static picture of the package up to what runs."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Correct every public name, and of classes every public method."""
        if pkg.path != "retr":
            return
        for shown, running in _public(loader):
            if isinstance(shown, griffe.Class):
                _correct_class(shown, running, loader)
            _correct(shown, running, loader)


def _public(loader: griffe.GriffeLoader) -> Iterator[tuple[griffe.Object, Any]]:
    for name in MODULES:
        module = import_module(name)
        for public in getattr(module, "__all__", ["sample_index", "sample_encoder"]):
            running = getattr(module, public)
            yield _found(loader, running), running


def _found(loader: griffe.GriffeLoader, running: Any) -> griffe.Object:
    function = _unwrapped(running)
    return cast("griffe.Object", loader.modules_collection[f"{function.__module__}.{function.__qualname__}"])


def _unwrapped(running: Any) -> Any:
    return inspect.unwrap(running)


def _correct_class(shown: griffe.Class, running: type, loader: griffe.GriffeLoader) -> None:
    """Correct the methods of a class; those that other modules define become its own."""
    for name in dir(running):
        static = inspect.getattr_static(running, name)
        member = static.fget if isinstance(static, property) else getattr(running, name)
        if name.startswith("_") or not (getattr(member, "__module__", None) or "").startswith("retr."):
            continue
        owner = next(base for base in running.__mro__ if name in vars(base))
        elsewhere = not inspect.isclass(member) and "." not in _unwrapped(member).__qualname__
        if elsewhere:
            method = _as_method(cast("griffe.Function", _found(loader, member)), name)
            shown.set_member(name, method)
            _correct(method, member, loader)
        elif owner.__module__.startswith("retr."):
            there = cast("griffe.Class", _found(loader, owner))
            if name in there.members:
                _correct(cast("griffe.Object", there.members[name]), member, loader)


def _as_method(function: griffe.Function, name: str) -> griffe.Function:
    """Return a function as a method: its first parameter is the object."""
    first, *others = function.parameters
    parameters = griffe.Parameters(griffe.Parameter("self", kind=first.kind), *others)
    method = griffe.Function(name, parameters=parameters, returns=function.returns, docstring=function.docstring)
    method.lineno, method.endlineno = function.lineno, function.endlineno
    return method


def _correct(shown: griffe.Object, running: Any, loader: griffe.GriffeLoader) -> None:
    """Give an object the docstring, and a function the options, that it has when it runs."""
    text = inspect.cleandoc(running.__doc__ or "")
    if isinstance(shown, griffe.Function) and "index" not in {one.name for one in shown.parameters}:
        # of a function that is shown as a method
        text = re.sub(r"^index\n(?: +.*\n)+", "", text, flags=re.MULTILINE)
    if text:
        shown.docstring = griffe.Docstring(
            with_fences(text),
            parent=shown,
            lineno=shown.lineno,
            parser=loader.docstring_parser,
            parser_options=loader.docstring_options,
        )
    if not isinstance(shown, griffe.Function) or not hasattr(_unwrapped(running), "__signature__"):
        return
    named = {one.name: one for one in shown.parameters}
    found = []
    for one in inspect.signature(running).parameters.values():
        default = None if one.default is one.empty else repr(one.default)
        kind = griffe.ParameterKind(one.kind.description)
        made = griffe.Parameter(one.name, annotation=_annotation(one.annotation), kind=kind, default=default)
        found.append(named.get(one.name, made))
    first = [one for one in list(shown.parameters)[:1] if one.name in {"self", "cls"}]
    begin = [] if found and found[0].name in {"self", "cls"} else first
    shown.parameters = griffe.Parameters(*begin, *found)
    # they differ in the options alone, for type checkers
    shown.overloads = None


def _annotation(hint: Any) -> str | None:
    """Return a type as it is written, without the modules of its names."""
    if hint is inspect.Parameter.empty:
        return None
    return re.sub(r"\b[a-z_]\w*\.", "", inspect.formatannotation(hint))
