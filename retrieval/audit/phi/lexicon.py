"""Lists of personal names, and letter statistics that tell them from ordinary words.

``lexicon.txt`` and ``letters.txt`` are written by ``benchmarks/phi_lexicon.py`` from public-domain and permissively
licensed lists; ``terms.txt`` is written by hand.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent
# Log-odds of a name's letters: below WORD it is taken for a word.
WORD = -0.5
_ALONE = {"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
_LETTERS = str.maketrans(
    {**_ALONE, **{letter.upper(): latin.title() for letter, latin in _ALONE.items() if letter not in "ßı"}}
)


def without_accents(text: str) -> str:
    """Take the accents from Latin, Greek and Cyrillic letters; case stays.

    >>> without_accents("Müller-Łódź"), without_accents("Ёлкин")
    ('Muller-Lodz', 'Елкин')
    """
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    # in Hangul, Thai and Indic scripts marks are letters
    return unicodedata.normalize("NFC", "".join(sign for sign in apart if not "\u0300" <= sign <= "\u036f"))


def fold(text: str) -> str:
    """Bring a word to lower case without accents.

    >>> fold("Müller"), fold("Łukasz")
    ('muller', 'lukasz')
    """
    return without_accents(text).lower()


@cache
def lists() -> Mapping[str, frozenset[str]]:
    """Read the sections of ``lexicon.txt`` and ``terms.txt``."""
    sections: dict[str, list[str]] = {}
    entries: list[str] = []
    lines = [line for file in ("lexicon.txt", "terms.txt") for line in (FOLDER / file).read_text("utf-8").splitlines()]
    for line in lines:
        if line.startswith("["):
            entries = sections.setdefault(line[1:-1], [])
        elif not line.startswith("#"):
            entries += line.split()
    return {name: frozenset(entries) for name, entries in sections.items()}


@cache
def letters() -> Mapping[str, int]:
    """Read the weights of ``letters.txt``, in hundredths, by piece of a word."""
    text = (FOLDER / "letters.txt").read_text(encoding="utf-8").partition("\n")[2]
    return {piece: int(weight) for piece, _, weight in (entry.rpartition(":") for entry in text.split())}


def looks(word: str, weights: Mapping[str, int] | None = None) -> float:
    """Return how much a folded word looks like a name rather than like a word: log-odds.

    >>> looks("kowalczyk") > 2, looks("retinopathy") < -2
    (True, True)
    """
    if weights is None:
        weights = letters()
    text = f"^{word}$"
    pieces = {text[at : at + size] for size in (2, 3, 4) for at in range(len(text) - size + 1)}
    return (weights.get("", 0) + sum(weights.get(piece, 0) for piece in pieces)) / 100


@lru_cache(maxsize=1 << 16)
def likeness(word: str) -> float:
    """Return `looks` of a word that is not a listed ordinary one, -9 for one that is."""
    return -9.0 if word in lists()["words"] else looks(word)
