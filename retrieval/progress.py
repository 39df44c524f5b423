"""Progress of long runs: a bar on a terminal and in a notebook, plain lines elsewhere, on standard error.

A step without a count (loading an encoder, fitting a probe) is named by `retr.index.machine.waiting`, once it has
taken a while.
"""

from __future__ import annotations

import html
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Between two plain lines, in seconds: a log file of a night's build stays readable.
_EVERY = 10.0
# Between two moves of a notebook's bar.
_MOVE = 0.25
_TAG = re.compile(r"<[^>]*>")


class Progress(Protocol):
    """Told how far a run is; a context manager around the run."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def say(self, text: str) -> None:
        """Show one line now."""

    def total(self, count: int | None) -> None:
        """Set how many steps there will be; None when that is unknown."""

    def step(self, count: int = 1) -> None:
        """Note that ``count`` more steps are done."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """Show nothing."""

    def total(self, count: int | None) -> None:
        """Note nothing."""

    def step(self, count: int = 1) -> None:
        """Note nothing."""


class Lines(Silent):
    """A plain line every few seconds: done, rate, time left."""

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self._done = 0
        self._total: int | None = None
        self._start = self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Write one line."""
        print(visible(text), file=sys.stderr, flush=True)  # noqa: T201

    def total(self, count: int | None) -> None:
        """Set how many steps there will be."""
        self._total = count

    def step(self, count: int = 1) -> None:
        """Note steps, and write a line when the last one is old enough."""
        self._done += count
        now = time.monotonic()
        if now - self._last >= self._every:
            self._last = now
            self.say(describe_progress(self._done, self._total, now - self._start))


class Bar(Silent):
    """A bar on a terminal, with rate and time left."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("images", total=None, rate="")
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Write one line above the bar."""
        self._bar.console.print(visible(text), highlight=False, markup=False)

    def total(self, count: int | None) -> None:
        """Set the bar's length."""
        self._bar.update(self._task, total=count)

    def step(self, count: int = 1) -> None:
        """Move the bar."""
        self._bar.advance(self._task, count)
        elapsed = time.monotonic() - self._start
        done = self._bar.tasks[0].completed
        self._bar.update(self._task, rate=f"{done / elapsed:.1f}/s" if elapsed > 0 else "")


class NotebookBar(Silent):
    """A bar below the cell of a notebook; what was done stays, in one line, when the run is over."""

    def __init__(self) -> None:
        self._done = 0
        self._total: int | None = None
        self._start = self._last = time.monotonic()
        self._shown: Any = None

    def __enter__(self) -> Self:
        from IPython.display import DisplayHandle

        self._shown = DisplayHandle()
        self._shown.display(self._html())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = duration(time.monotonic() - self._start)
        self._shown.update(_Html(f"<div>{self._done:,} images in {took}</div>"))

    def say(self, text: str) -> None:
        """Write one line below the cell."""
        from IPython.display import display

        display(_Html(f"<div>{html.escape(visible(text))}</div>"))

    def total(self, count: int | None) -> None:
        """Set the bar's length."""
        self._total = count

    def step(self, count: int = 1) -> None:
        """Move the bar, a few times a second at most: each move is a message to the browser."""
        self._done += count
        now = time.monotonic()
        if now - self._last >= _MOVE:
            self._last = now
            self._shown.update(self._html())

    def _html(self) -> _Html:
        said = describe_progress(self._done, self._total, time.monotonic() - self._start)
        bar = "" if not self._total else f"<progress value='{self._done}' max='{self._total}'></progress> "
        return _Html(f"<div>{bar}{html.escape(said)}</div>")


class _Html:
    """HTML as a notebook takes it, and without one what it says."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return html.unescape(_TAG.sub("", self._text)).strip()


def in_notebook() -> bool:
    """Return whether this program runs in a notebook's kernel, which alone shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def make_progress(*, show: bool) -> Progress:
    """Choose how to show progress: not at all, a bar on a terminal or in a notebook, or plain lines."""
    if not show:
        return Silent()
    if in_notebook():
        return NotebookBar()
    return Bar() if sys.stderr.isatty() else Lines()


def describe_progress(done: int, total: int | None, seconds: float) -> str:
    """Write how far a run is.

    >>> describe_progress(500, 2000, 10.0)
    '500 of 2,000 images, 50.0 images/s, 30 s left'
    >>> describe_progress(500, None, 10.0)
    '500 images, 50.0 images/s'
    """
    rate = done / seconds if seconds > 0 else 0.0
    if total is None:
        return f"{done:,} images, {rate:.1f} images/s"
    left = f", {duration((total - done) / rate)} left" if rate > 0 and total >= done else ""
    return f"{done:,} of {max(total, done):,} images, {rate:.1f} images/s{left}"


def duration(seconds: float) -> str:
    """Write a time span in the two largest units.

    >>> duration(9.4), duration(125), duration(7260)
    ('9 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
