"""Escape untrusted text for a terminal or a page.

File names, labels and columns come from whoever made the archive. Control characters move a cursor or hide a line,
bidirectional and invisible format characters make one name look like another; a person is shown their code instead.
"""

from __future__ import annotations

import re
import unicodedata

# control, format (bidirectional, zero-width), lone surrogates, line and paragraph separators
_ACTS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def visible(text: str) -> str:
    r"""Write each character that acts, rather than shows, as its escape.

    >>> visible("a\tb\x1b[31m"), visible("scan\u202egnp.exe"), visible("Ménière 日本")
    ('a\\tb\\x1b[31m', 'scan\\u202egnp.exe', 'Ménière 日本')
    """
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in _ACTS else sign for sign in text
    )


def columns_wide(text: str) -> int:
    """Count the columns of a terminal that a text takes.

    >>> columns_wide("abc"), columns_wide("日本"), columns_wide("e\u0301")
    (3, 4, 1)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return len(text) + wide - sum(unicodedata.combining(sign) > 0 for sign in text)


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet may take a text for a formula: in any width, and after quotes and what is not seen.

    >>> is_formula("=1"), is_formula(" ＝1"), is_formula("-1.5"), is_formula("a=1")
    (True, True, False, False)
    """
    if _NUMBER.fullmatch(text):
        return False
    passed = {"Cc", "Cf", "Zl", "Zp", "Zs"}
    signs = (sign for sign in unicodedata.normalize("NFKC", text) if unicodedata.category(sign) not in passed)
    first = next((sign for sign in signs if sign not in "\"'"), "")
    return text.startswith(("\t", "\r", "\n")) or first in set("=+-@|%")
