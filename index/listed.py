"""Names and ids that callers give as a list, a tuple, a pandas Series, an array or a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def listed(values: Iterable[Any], called: str) -> list[str]:
    """Return texts as a list.

    Parameters
    ----------
    called
        The argument that takes them, for the error.

    Raises
    ------
    UsageError
        They are one text rather than several, or something else than texts.

    >>> listed(("a", "b"), "ids")
    ['a', 'b']
    """
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise UsageError(f"{called} are a list of texts, got: {values!r}", hint=f"write {called}=[{values!r}]")
    found = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    other = next((one for one in found if not isinstance(one, str)), None)
    if other is not None or None in found:
        raise UsageError(f"{called} are a list of texts, got one of the type {type(other).__name__}")
    return [str(one) for one in found]
