"""Reading untrusted JSON by key and type.

Whoever hands over an index also wrote its hashes, so a file may hold anything although its hash is right. `parse_json`
reads only what JSON itself allows, `Fields` returns a value only if it is of the type asked for, and `stored` turns
every other error into one `IndexCorruptError`.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

from retr.index.errors import IndexCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Counts beyond this are no counts; every sum and product of a few of them still fits 64 bits.
_MOST = 1 << 53
_REQUIRED: Any = object()
# Objects inside objects: no record of ours has more than a few.
_DEEPEST = 64


def parse_json(text: bytes | str) -> Any:
    """Read JSON: no key twice, no number that is none, nothing nested so deep that a recursion over it would fail.

    Raises
    ------
    ValueError
        It is something else.

    >>> parse_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    _require_shallow(data)
    return data


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _require_shallow(data: Any) -> None:
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("JSON nested too deeply")
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]


@contextlib.contextmanager
def stored(what: str, hint: str = "run `retr index check`") -> Iterator[None]:
    """Turn what a malformed record raises into one `IndexCorruptError` that says which record it is."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise IndexCorruptError(f"{what} cannot be read", hint=hint) from error


class Fields:
    """One JSON object; each method gives the value of a key, or raises ``ValueError`` where it is of another type.

    A method with ``default`` gives that where the key is missing.
    """

    def __init__(self, data: object) -> None:
        if not isinstance(data, dict):
            raise _unfit("not an object")
        self._data: dict[str, Any] = data

    def _take(self, key: str, default: Any) -> Any:
        if key not in self._data and default is not _REQUIRED:
            return default
        return self._data[key]

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """Return a string."""
        value = self._take(key, default)
        if not isinstance(value, str) or not is_unicode(value):
            raise _unfit(f"{key} is no text")
        return value

    def choice(self, key: str, among: tuple[str, ...], default: Any = _REQUIRED) -> Any:
        """Return one of a few strings."""
        value = self.text(key, default)
        if value not in among:
            raise _unfit(f"{key} is none of {among}")
        return value

    def whole(self, key: str, default: Any = _REQUIRED, *, least: int = 0, most: int = _MOST) -> int:
        """Return a whole number between two bounds."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _unfit(f"{key} is no whole number from {least} to {most}")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """Return a finite number."""
        value = self._take(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise _unfit(f"{key} is no number")
        return float(value)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """Return true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise _unfit(f"{key} is neither true nor false")
        return value

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self._take(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) and is_unicode(one) for one in value):
            raise _unfit(f"{key} is no list of texts")
        return tuple(value)

    def numbers(self, key: str, default: Any = _REQUIRED) -> dict[str, float]:
        """Return an object of finite numbers."""
        inner = self.inner(key, default)
        return {name: inner.number(name) for name in inner}

    def inner(self, key: str, default: Any = _REQUIRED) -> Fields:
        """Return an object inside."""
        return Fields(self._take(key, default))

    def items(self, key: str, default: Any = _REQUIRED) -> list[Any]:
        """Return a list of anything."""
        value = self._take(key, default)
        if not isinstance(value, list):
            raise _unfit(f"{key} is no list")
        return value

    def has(self, key: str) -> bool:
        """Return whether there is something under a key: ``null`` is nothing."""
        return self._data.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def data(self) -> dict[str, Any]:
        """Return the object itself."""
        return self._data


def _unfit(why: str) -> ValueError:
    return ValueError(why)


def is_unicode(value: str) -> bool:
    """Return whether a text can be written: half of a surrogate pair cannot."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
