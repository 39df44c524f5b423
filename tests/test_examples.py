"""Examples: every public name, property and method has one that runs, and the scripts in `examples/` use every name."""

from __future__ import annotations

import ast
import doctest
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import retr
import retr.encoders
import retr.sample

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"
MODULES = (retr, retr.encoders, retr.sample)


def public() -> Iterator[tuple[str, str]]:
    """Every public name, and of classes every public method and property of ours, with its docstring."""
    for module in MODULES:
        names = getattr(module, "__all__", ["sample_index", "sample_encoder"])
        for name in names:
            thing = getattr(module, name)
            yield name, thing.__doc__ or ""
            for member in dir(thing) if inspect.isclass(thing) else ():
                static = inspect.getattr_static(thing, member)
                found = static.fget if isinstance(static, property) else getattr(thing, member)
                ours = callable(found) and (getattr(found, "__module__", None) or "").startswith("retr.")
                if ours and not member.startswith("_"):
                    yield f"{name}.{member}", found.__doc__ or ""


def lacks_an_example(docstring: str) -> bool:
    examples = doctest.DocTestParser().get_examples(docstring)
    runs = [one for one in examples if doctest.SKIP not in one.options]
    return not any(one.want or one.exc_msg for one in runs)


def test_every_public_name_and_method_has_an_example_that_runs():
    found = dict(public())
    assert {"Index.search", "Index.classify", "Hits.table", "BaseEncoder.encode_images", "UsageError"} <= set(found)
    assert [name for name, docstring in found.items() if lacks_an_example(docstring)] == []


@pytest.mark.parametrize("docstring", ["", "Text.", ">>> x = 1", ">>> 1  # doctest: +SKIP\n1"])
def test_what_shows_nothing_is_no_example(docstring):
    assert lacks_an_example(docstring)
    assert not lacks_an_example(">>> 1\n1\n")


def test_the_scripts_use_every_public_name():
    used: set[str] = set()
    for script in EXAMPLES.rglob("*.py"):
        tree = ast.parse(script.read_text())
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {*retr.__all__, *retr.encoders.__all__} - used == set()
