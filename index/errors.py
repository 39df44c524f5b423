"""Every error a user can cause, in one tree.

A message says what is wrong, which value it was (``!r``) and what to do about it; the command line prints it
as one line and exits with the class's ``exit_code``. No message holds a patient's name, pixels, or a path that
the user did not type.

::

    RetrError                     exit 1
    ├── UsageError                exit 2   an argument that cannot be meant (k=0, an unknown option value)
    │   ├── FilterError                    a where-expression that cannot be read, with the place of the mistake
    │   └── UnknownIdError                 no row has an id; a KeyError too
    ├── IndexNotFoundError                 no index where one was expected
    ├── IndexLockedError                   another process is writing
    ├── IndexCorruptError                  a file of the index is missing, cut short or altered
    ├── FormatVersionError                 written by a newer retr
    ├── EncoderNotFoundError               no encoder of that name
    ├── EncoderMismatchError               the index was built with another encoder, or with other weights
    ├── NoTextSideError                    text given to an encoder that has images only
    ├── WeightsError                       a checkpoint is missing, altered, or not what it should be
    ├── ImageReadError                     a file that cannot be read as a picture, with the reason
    └── MissingExtraError                  an optional package is not installed
"""

from __future__ import annotations

from typing import Any

# So much of an expression is shown on each side of a mistake.
_SHOWN = 100


class RetrError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    message
        What is wrong and which value it was, in one line, without a final period.
    hint
        What to do about it, often the command to type.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # not by its arguments, which classes below have others of: what a worker raises must reach whoever waits
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RetrError], args: tuple[Any, ...], state: dict[str, Any]) -> RetrError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(RetrError):
    """An argument that cannot be meant."""

    exit_code = 2


class FilterError(UsageError):
    """A where-expression that cannot be read or applied.

    ``position`` is the 0-based offset of the mistake in ``expression``.
    """

    def __init__(self, message: str, *, expression: str, position: int, hint: str | None = None) -> None:
        start = max(position - _SHOWN, 0)
        part = expression[start : position + _SHOWN]
        before, after = "..." * (start > 0), "..." * (position + _SHOWN < len(expression))
        super().__init__(f"{message} at column {position + 1} of {before + part + after!r}", hint=hint)
        self.expression = expression
        self.position = position


class UnknownIdError(UsageError, KeyError):
    """No row of the index has an id."""


class IndexNotFoundError(RetrError):
    """No index where one was expected."""


class IndexLockedError(RetrError):
    """Another process is writing to the index."""


class IndexCorruptError(RetrError):
    """A file of the index is missing, cut short or altered."""


class FormatVersionError(RetrError):
    """The index was written in a format this version does not know."""


class EncoderNotFoundError(RetrError):
    """No encoder of that name is registered."""


class EncoderMismatchError(RetrError):
    """The index was built with another encoder, or with other weights under the same name."""


class NoTextSideError(RetrError):
    """Text was given to an encoder that embeds images only."""


class WeightsError(RetrError):
    """A checkpoint is missing, altered, or not what it should be."""


class ImageReadError(RetrError):
    """A file that cannot be read as a picture.

    ``reason`` is one of a small set of words (see ``retr.retrieval.images``), for counting.
    """

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class MissingExtraError(RetrError):
    """An optional package is not installed."""

    def __init__(self, package: str, *extras: str) -> None:
        commands = " or ".join(f'`pip install "retr[{extra}]"`' for extra in extras) or f"`pip install {package}`"
        super().__init__(f"{package} is not installed", hint=f"install it with {commands}")
