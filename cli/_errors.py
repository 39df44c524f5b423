"""From an exception to one line and an exit code.

0 done, 1 error, 2 usage, 3 nothing found or abstained, 130 interrupted. Nobody sees a traceback unless
``RETR_TRACEBACK=1`` asks for one.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import typer

from retr.index.errors import RetrError

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING_FOUND = 3


def run(command: Callable[[], object]) -> int:
    """Run a command and give its exit code; an exception becomes one line on standard error."""
    try:
        result = command()
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as stop:
        # typer turns a broken pipe into an exit before it reaches us
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_left()
        raise
    except KeyboardInterrupt:
        return _say("interrupted; what was committed is kept", 130)
    except (RetrError, typer.TyperException, typer.Abort, OSError, MemoryError) as error:
        if os.environ.get("RETR_TRACEBACK"):
            raise
        return _explain(error)
    except Exception as error:
        if os.environ.get("RETR_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _say(f"internal error ({kind}); run again with RETR_TRACEBACK=1 and report what it prints", 1)
    # in typer's non-standalone mode `typer.Exit(3)` comes back as the number 3
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> int:
    if isinstance(error, RetrError):
        return _say(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        message = error.format_message().strip().rstrip(".") or type(error).__name__
        value = _value_of(getattr(error, "param", None))
        got = f", got: {value!r}" if value is not None and repr(value) not in message else ""
        return _say(f"{message[0].lower()}{message[1:]}{got}; see --help", error.exit_code)
    if isinstance(error, typer.Abort):
        return _say("stopped; nothing was changed", 1)
    if isinstance(error, MemoryError):
        return _say("out of memory; use a smaller batch, or a machine with more of it", 1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _say("no space left on the device; what was committed is kept: free some and run again", 1)
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        where = f": {error.filename!r}" if error.filename is not None else ""
        return _say(f"{what.lower()}{where}", 1)
    raise AssertionError(error)


def _value_of(parameter: object) -> str | None:
    """Give what the user typed for an option, since typer's message leaves it out."""
    context = getattr(parameter, "opts", ())
    for name, value in zip(sys.argv, sys.argv[1:], strict=False):
        if name in context:
            return value
    return None


def _reader_left() -> int:
    """Leave quietly when the reader of our output has left (``retr index ls | head``): that is no error."""
    # what is still buffered goes nowhere, without a second complaint at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(message: str, code: int) -> int:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return code
