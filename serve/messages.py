"""Messages as strangers may read them."""

from __future__ import annotations

import re

# inside quotes up to the next one, else up to a blank
_PATH = re.compile(
    r"(?<=['\"])(?:file://)?/[^'\"]*[^'\"/](?=['\"])|(?:(?<![\w/.:'\"<])|file://)/[\w.-]+(?:/[^\s'\",;:)]*)?"
)


def without_paths(text: str) -> str:
    """Return a message without the paths of the server's disk, which no client typed.

    >>> without_paths("cannot read '/data/my archive/x.png', see /data/log")
    "cannot read '(a file of the server)', see (a file of the server)"
    """
    return _PATH.sub("(a file of the server)", text)
