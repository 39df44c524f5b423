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

    Examples
    --------
    >>> error = RetrError("the index is old", hint="build it again")
    >>> print(error)
    the index is old; build it again
    >>> error.message, error.hint
    ('the index is old', 'build it again')
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
    """An argument that cannot be meant.

    >>> from retr import Query
    >>> try:
    ...     Query.text("")
    ... except UsageError as error:
    ...     print(error.message)
    the text of a query is empty
    """

    exit_code = 2


class FilterError(UsageError):
    """A where-expression that cannot be read or applied.

    ``position`` is the 0-based offset of the mistake in ``expression``.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> try:
    ...     index.count(where="age >")
    ... except FilterError as error:
    ...     print(error.message)
    expected a column or a value, got the end at column 6 of 'age >'
    """

    def __init__(self, message: str, *, expression: str, position: int, hint: str | None = None) -> None:
        start = max(position - _SHOWN, 0)
        part = expression[start : position + _SHOWN]
        before, after = "..." * (start > 0), "..." * (position + _SHOWN < len(expression))
        super().__init__(f"{message} at column {position + 1} of {before + part + after!r}", hint=hint)
        self.expression = expression
        self.position = position


class UnknownIdError(UsageError, KeyError):
    """No row of the index has an id.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> try:
    ...     index["healthy/P01-lefts.png"]
    ... except UnknownIdError as error:
    ...     print(error.message)
    no row has the id 'healthy/P01-lefts.png'
    """


class IndexNotFoundError(RetrError):
    """No index where one was expected.

    >>> from retr import Index
    >>> try:
    ...     Index.open("no/such.retr")
    ... except IndexNotFoundError as error:
    ...     print(error.message)
    no index at 'no/such.retr'
    """


class IndexLockedError(RetrError):
    """Another process is writing to the index.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> try:
    ...     with index.store.writer():
    ...         index.compact()
    ... except IndexLockedError as error:
    ...     print(error.message.partition(" (")[0])
    another process is writing to this index
    """


class IndexCorruptError(RetrError):
    """A file of the index is missing, cut short or altered.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> from retr import Index
    >>> _ = (index.path / "CURRENT").write_text("no number")
    >>> try:
    ...     Index.open(index.path)
    ... except IndexCorruptError as error:
    ...     print(error.message)
    the file 'CURRENT' does not name a manifest
    """


class FormatVersionError(RetrError):
    """The index was written in a format this version does not know.

    >>> print(FormatVersionError("the index has the format version 3", hint="install a newer retr"))
    the index has the format version 3; install a newer retr
    """


class EncoderNotFoundError(RetrError):
    """No encoder of that name is registered.

    >>> from retr import load_encoder
    >>> try:
    ...     load_encoder("litee")
    ... except EncoderNotFoundError as error:
    ...     print(error.message)
    no encoder named 'litee'
    """


class EncoderMismatchError(RetrError):
    """The index was built with another encoder, or with other weights under the same name.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> from retr import Index
    >>> try:
    ...     Index.open(index.path, encoder="lite")
    ... except EncoderMismatchError as error:
    ...     print(error.message)
    the index was built with 'colours', got: 'lite'
    """


class NoTextSideError(RetrError):
    """Text was given to an encoder that embeds images only.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> try:
    ...     index.search(text="drusen")
    ... except NoTextSideError as error:
    ...     print(error.message)
    the encoder 'colours' embeds images only
    """


class WeightsError(RetrError):
    """A checkpoint is missing, altered, or not what it should be.

    >>> from retr import load_encoder
    >>> try:
    ...     load_encoder("flair", weights="no/such.pth")
    ... except WeightsError as error:
    ...     print(error.message)
    no file at 'no/such.pth', weights of 'flair'
    """


class ImageReadError(RetrError):
    """A file that cannot be read as a picture.

    ``reason`` is one of a small set of words (see ``retr.retrieval.images``), for counting.

    >>> from retr import Query
    >>> try:
    ...     Query.image([[0, 1]])
    ... except ImageReadError as error:
    ...     print(error.reason)
    unsupported
    """

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class MissingExtraError(RetrError):
    """An optional package is not installed.

    Parameters
    ----------
    package
        Its name.
    *extras
        Extras of `retr` that bring it; without any the package is installed by its own name.
    alone
        What brings it without the rest of those extras, where that is enough.

    Examples
    --------
    >>> print(MissingExtraError("pydicom", "dicom"))
    pydicom is not installed; install it with `pip install "retr[dicom]"`
    """

    def __init__(self, package: str, *extras: str, alone: str | None = None) -> None:
        wanted = [*([] if alone is None else [alone]), *(f"retr[{extra}]" for extra in extras)]
        commands = " or ".join(f'`pip install "{one}"`' for one in wanted) or f"`pip install {package}`"
        super().__init__(f"{package} is not installed", hint=f"install it with {commands}")
