"""Classify the PHI in one cell, given its column's title, and mask the cell for display."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from retr.retrieval.audit.phi import forms, names, scripts, titles

if TYPE_CHECKING:
    from collections.abc import Iterator

# Digits of every script, brought to the plain ones.
_DIGITS = {
    code: str(unicodedata.digit(chr(code)))
    for start in (0x660, 0x6F0, 0x966, 0x9E6, 0xE50)
    for code in range(start, start + 10)
}
_ZEROS = str.maketrans("123456789", "000000000")
_LETTERS = re.compile(r"([^\W\d_])([^\W\d_]*)")
_SHOWN = 80
_NAME = 80
# A cell is read so far, and in windows of so many characters: a document's first pages tell whether it tells, and no
# pattern is given a text on which it takes long.
_READ, _WINDOW, _OVERLAP = 200_000, 1000, 100
_SERIAL = re.compile(r"[1-5]\d{4}(?:\.\d+)?")  # a day as a spreadsheet counts it
_PSEUDONYM = re.compile(r"[A-Za-z_-]{1,10}\d{1,4}|\d{1,2}")


def kinds(value: str, title: str = "") -> Iterator[str]:
    """Yield the kinds of what a text tells of a person, each once.

    Parameters
    ----------
    value
        A cell.
    title
        Its column's name, which can promise names or numbers and can say that digits count things.

    Examples
    --------
    >>> list(kinds("DOE^JOHN 1970-03-05")), list(kinds("glaucoma/05_g.jpg")), list(kinds("mail j.d@clinic.org"))
    (['name', 'date'], [], ['e-mail'])
    >>> list(kinds("4711", "patient_id")), list(kinds("4711", "width"))
    (['number'], [])
    """
    text = value[:_READ]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_DIGITS)
    if not text or forms.is_hash(text):
        return
    if text[0] in "{[" and len(value) <= _READ:
        yield from dict.fromkeys(kind for key, leaf in _leaves(text) for kind in kinds(leaf, key or title))
        return
    windows = range(0, max(len(text) - _OVERLAP, 1), _WINDOW - _OVERLAP)
    yield from dict.fromkeys(kind for at in windows for kind in _judged(text[at : at + _WINDOW], title))


def _judged(text: str, title: str) -> Iterator[str]:
    """Yield the kinds of a text of one window."""
    promised = titles.promise(title) if title else None
    found = dict.fromkeys(forms.in_text(text))
    if promised is not None and promised not in found and _keeps(promised, text, title):
        found[promised] = None
        found.pop("digits", None)
    if "digits" in found and (titles.is_quantity(title) or promised == "uid"):
        del found["digits"]
    thing = bool(title) and titles.is_thing(title)
    plain = forms.without_emails(text) if "e-mail" in found else text
    if "name" not in found and _has_name(plain.translate(_ZEROS), thing=thing):
        found = {"name": None, **found}
    yield from found


def nested_texts(value: Any, title: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of nested lists and dicts, each with the key it stands under; keys are texts too.

    >>> list(nested_texts({"classes": ["a", "b"], "n": 3}))
    [('', 'classes'), ('classes', 'a'), ('classes', 'b'), ('', 'n'), ('n', '3')]
    """
    stack = [(title, value)]
    while stack:
        key, entry = stack.pop()
        if isinstance(entry, dict):
            for name, inner in reversed(entry.items()):
                stack += [(str(name), inner), ("", str(name))]
        elif isinstance(entry, list | tuple):
            stack += [(key, inner) for inner in reversed(entry)]
        elif isinstance(entry, str) or (isinstance(entry, int) and not isinstance(entry, bool)):
            yield key, str(entry)


def _leaves(text: str) -> Iterator[tuple[str, str]]:
    """Read a cell that is JSON by its keys; another that begins so as it stands."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict | list):
        yield from nested_texts(found)
    else:
        yield "", " " + text


@lru_cache(maxsize=1 << 14)
def _has_name(text: str, *, thing: bool) -> bool:
    # digits do not matter to a name: given without them, a million numbered files are one question
    return (not text.isascii() and scripts.has_name(text, thing=thing)) or names.has_name(text, thing=thing)


def _keeps(promised: str, text: str, title: str) -> bool:
    """Return whether a cell keeps what its column's title promises."""
    if names.is_placeholder(text):
        return False
    digits = sum(map(str.isdigit, text))
    if promised == "name" and titles.is_sure(title):
        return len(text) <= _NAME and digits < 4 and _LETTERS.search(text) is not None
    if promised == "name":
        return names.could_be_name(text) or (not text.isascii() and scripts.could_be_name(text))
    if promised == "number":
        return (digits >= 3 and _PSEUDONYM.fullmatch(text) is None) or (digits >= 3 and text.isdigit())
    if promised == "ssn":
        return digits >= 4
    if promised == "phone":
        return digits >= 6
    if promised == "date":
        return (
            (6 <= digits <= 20 and "." not in text.strip("."))
            or (digits >= 6 and text.count(".") == 2)
            or _SERIAL.fullmatch(text) is not None
        )
    if promised == "address":
        return len(text) > 3
    if promised == "uid":
        return digits >= 8
    return "@" in text


def mask(value: str) -> str:
    """Show a value's form without its content: the first character of each run of letters, and no digits.

    >>> mask("Doe^John 1970-03-05")
    'D**^J*** ####-##-##'
    """
    letters = _LETTERS.sub(lambda found: found[1] + "*" * len(found[2]), value[:_SHOWN])
    return re.sub(r"\d", "#", letters)
