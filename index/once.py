"""Values that are made once, however many threads ask for them at the same time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Once:
    """A store of values by key: the first thread to ask for one makes it, the others wait for that.

    What is made may ask for values of other keys. An error is the first thread's alone: the next one tries again.

    >>> once = Once()
    >>> once("squares", lambda: [0, 1, 4]) is once("squares", list)
    True

    Parameters
    ----------
    most
        So many values are kept, those that were asked for last; ``None`` keeps all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._values: dict[Hashable, Any] = {}
        self._making: dict[Hashable, threading.RLock] = {}
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of a key, made by ``make`` if there is none."""
        with self._lock:
            if key in self._values:
                return self._used(key)
            making = self._making.setdefault(key, threading.RLock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._used(key)
            value = make()
            self.put(key, value)
            return value

    def put(self, key: Hashable, value: Any) -> None:
        """Take in a value that was made elsewhere."""
        with self._lock:
            self._values[key] = value
            self._making.pop(key, None)
            while self._most is not None and len(self._values) > self._most:
                self._values.pop(next(iter(self._values)))

    def get(self, key: Hashable) -> Any:
        """Return the value of a key, ``None`` where there is none yet."""
        return self._values.get(key)

    def _used(self, key: Hashable) -> Any:
        value = self._values[key]
        if self._most is not None:
            # the last to be dropped
            self._values[key] = self._values.pop(key)
        return value
