"""Suppress decoders' warnings, which may quote names from a patient's header.

Python's ``warnings.catch_warnings`` swaps global state and is not safe in decode threads. What is done
instead is a process-wide filter for warnings raised *in* the decoding libraries' own modules; everybody
else's are left alone, and so is Pillow's decompression-bomb warning.
"""

from __future__ import annotations

import logging
import re
import warnings

# `PIL.Image` itself is not listed: its warning about decompression bombs belongs to the user.
_MODULES = r"(PIL\.\w+ImagePlugin|pydicom|nibabel|tifffile)($|\.)"
_LOGGERS = ("pydicom", "nibabel.global", "tifffile")
_FILTER = ("ignore", None, Warning, re.compile(_MODULES), 0)


def silence_decoders() -> None:
    """Ignore warnings and logs of the decoding libraries; cheap and idempotent: called before every file."""
    for logger in _LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
    # compared with the front only: whoever put a stricter filter before ours since then has it moved behind
    if not warnings.filters or warnings.filters[0] != _FILTER:
        warnings.filterwarnings("ignore", module=_MODULES)
