"""From a text to the terms that are indexed: words without endings, those that are denied marked as such.

A question is read in the same way: "no effusion" asks for reports that deny one, "effusion" for those that find one.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import NamedTuple

from retr.retrieval.words.negation import CUE_WORDS, denied

#: What terms depend on: an index of words that was made by another is made again.
VERSION = 2
#: What a denied term begins with; no word does.
DENIED = "!"
# A letter or digit with the accents that follow it.
_WORD = re.compile("(?:[^\\W_][\u0300-\u036f]*)+")
# Lucene's list for English.
_STOP = frozenset(
    re.findall(
        "[a-z]+",
        """a an and are as at be but by for if in into is it no not of on or such that the their then there these they
        this to was will with""",
    )
)


class Term(NamedTuple):
    """A term, and where its word stands in the text: from ``start`` to before ``stop``, in characters."""

    text: str
    start: int
    stop: int


def terms(text: str) -> list[Term]:
    """Return the terms of a text, in order.

    >>> [term.text for term in terms("Small left effusion. No pneumothorax.")]
    ['small', 'left', 'effusion', '!pneumothorax']
    """
    found = [(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]
    words = [unicodedata.normalize("NFKC", word).casefold() for word, _, _ in found]
    gaps = [text[stop:start] for (_, _, stop), (_, start, _) in pairwise(found)]
    # a line that begins with a capital is a sentence of its own, not the rest of the one before
    gaps = [
        "\n\n" if "\n" in gap and word.istitle() else gap for gap, (word, _, _) in zip(gaps, found[1:], strict=True)
    ]
    marks = denied(words, [*gaps, text[found[-1][2] :]] if found else [])
    return [
        Term(f"{DENIED if mark else ''}{singular(word)}", start, stop)
        for word, mark, (_, start, stop) in zip(words, marks, found, strict=True)
        if word not in _STOP and word not in CUE_WORDS
    ]


def singular(word: str) -> str:
    """Return an English word without the ending of its plural (Harman 1991).

    >>> [singular(word) for word in ("effusions", "opacities", "stenosis", "mass", "lens")]
    ['effusion', 'opacity', 'stenosis', 'mass', 'len']
    """
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss", "is")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return f"{word[:-3]}y"
    return word[:-1]
