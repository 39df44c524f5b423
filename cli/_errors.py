"""Convert an exception into one line on standard error and an exit code.

0 done, 1 error, 2 usage, 3 nothing found or abstained, 130 interrupted, 143 terminated. Nobody sees a traceback unless
``RETR_TRACEBACK=1`` asks for one.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from retr.cli import _streams
from retr.cli._output import unwritten
from retr.index.errors import RetrError
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING_FOUND = 3
_INTERRUPTED = 130
_TERMINATED = 143


class _Terminated(KeyboardInterrupt):
    """SIGTERM: cleaned up after as Ctrl-C is, where the default action would cut a command off in mid-line."""


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    global _stopped  # noqa: PLW0603
    _stopped = True
    raise _Terminated


# typer makes one exit code of both interrupts
_stopped = False


def listen() -> None:
    """Turn SIGTERM into an interrupt (in the main thread, where Python allows it)."""
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)


def run(command: Callable[[], object]) -> int:
    """Run a command and return its exit code; an exception becomes one line on standard error."""
    code = _run(command)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has left (`retr index ls | head`): that is no error
        _streams.discard()
    except OSError as error:
        _streams.discard()
        return code or _explain(unwritten(error))
    return code


def _run(command: Callable[[], object]) -> int:
    try:
        result = command()
    except BrokenPipeError:
        _streams.discard()
        return 0
    except SystemExit as stop:
        # typer turns a broken pipe into an exit before it reaches us
        if isinstance(stop.__context__, BrokenPipeError):
            _streams.discard()
            return 0
        raise
    except KeyboardInterrupt:
        return _interrupted()
    except (RetrError, typer.TyperException, typer.Abort, OSError, MemoryError) as error:
        if os.environ.get("RETR_TRACEBACK"):
            raise
        return _explain(error)
    except Exception as error:
        if os.environ.get("RETR_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _say(f"internal error ({kind}); run again with RETR_TRACEBACK=1 and report what it prints", 1)
    # in typer's non-standalone mode `typer.Exit(3)` comes back as the number 3, and Ctrl-C as 130
    if result == _INTERRUPTED:
        return _interrupted()
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    if _stopped:
        return _say("terminated; what was committed is kept", _TERMINATED)
    return _say("interrupted; what was committed is kept", _INTERRUPTED)


def _explain(error: BaseException) -> int:
    if isinstance(error, RetrError):
        return _say(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        message = error.format_message().strip().rstrip(".") or type(error).__name__
        value = _value_of(getattr(error, "param", None))
        got = f", got: {value!r}" if value is not None and repr(value) not in message else ""
        return _say(f"{message[0].lower()}{message[1:]}{got}; see --help", error.exit_code)
    if isinstance(error, typer.Abort):
        if isinstance(error.__context__, KeyboardInterrupt):
            return _interrupted()
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
    """Return what the user typed for an option, since typer's message leaves it out."""
    context = getattr(parameter, "opts", ())
    for name, value in zip(sys.argv, sys.argv[1:], strict=False):
        if name in context:
            return value
    return None


def _say(message: str, code: int) -> int:
    # blanks inside a name are part of it
    line = " ".join(part.strip() for part in re.split(r"[\r\n]+", message.strip()))
    sys.stderr.write(f"error: {visible(line)}\n")
    return code
