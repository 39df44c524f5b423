"""Convert values to JSON-compatible ones."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any


def to_plain(value: Any) -> Any:
    """Return what JSON can hold.

    Numpy's numbers and arrays become plain; dates and moments ISO 8601; decimals, paths and all else text; bytes
    hexadecimal digits; NaN and the infinities null.
    """
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
