"""The methods of `Index` that live in rooms of their own, imported at their first use.

Each is a function whose first parameter is the index; a command line of the same name calls it.
"""

from __future__ import annotations

from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retr.retrieval import exporting, tuning
    from retr.retrieval.audit import duplicates, leaks
    from retr.retrieval.classify import ask, calibrate
    from retr.retrieval.evaluation import evaluate
    from retr.retrieval.heads import adapt
    from retr.retrieval.words import align


class _In:
    """A method of `Index` that lives in a room of its own, imported at its first use."""

    def __init__(self, room: str) -> None:
        self._room = f"retr.retrieval.{room}"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, index: object | None, owner: type) -> Any:
        function = getattr(import_module(self._room), self._name)
        return function if index is None else MethodType(function, index)


class Rooms:
    """What labels give, what stands in an index twice, and how it is searched."""

    if TYPE_CHECKING:
        classify = ask.classify
        classify_rows = ask.classify_rows
        calibrate = calibrate.calibrate
        evaluate = evaluate.evaluate
        adapt = adapt.adapt
        align = align.align
        duplicates = duplicates.duplicates
        leaks = leaks.leaks
        tune = tuning.tune
        export = exporting.export
    else:
        classify = _In("classify.ask")
        classify_rows = _In("classify.ask")
        calibrate = _In("classify.calibrate")
        evaluate = _In("evaluation.evaluate")
        adapt = _In("heads.adapt")
        align = _In("words.align")
        duplicates = _In("audit.duplicates")
        leaks = _In("audit.leaks")
        tune = _In("tuning")
        export = _In("exporting")
