"""Detect names of persons in Latin script.

Two neighbouring words are a name where together they speak for it: what the lists know of each as a given name and as
a surname, how their letters look (`lexicon`), how they are capitalised, and what stands around them. A single word is
one only after what introduces persons (``Dr.``, ``seen by``) or under a column's title that promises names. What
follows can say that nobody is meant: in ``Graves disease`` or ``Johns Hopkins Hospital`` the last word does.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from retr.retrieval.audit.phi.lexicon import fold, likeness, lists, without_accents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# ``Min-jun`` is one word, ``Anna-Lena`` two
_TOKEN = re.compile(r"[A-Z][a-z]+-[a-z]{2,}(?![A-Za-z])|[A-Za-z]+(?:['’][A-Za-z]+)*")
_CAMEL = re.compile(r"(?<=[a-z])(?<!\bMc)(?<!\bMac)(?<!\bDe)(?<!\bDi)(?<!\bLa)(?<!\bLe)(?<!\bVan)(?=[A-Z][a-z])")
_EXTENSION = re.compile(r"\.[A-Za-z]{2,5}(?:\.gz)?$")
_FILE = re.compile(r"[\w)\]]\.(?:gz|[A-Za-z]{2,4}\d?)$|[/\\_]|^[a-z0-9]+-[a-z0-9-]+$")
_CARET = re.compile(r"[^\W\d_][\w'’. -]{0,60}\^[^\W\d_]")
# Letters that terms in English, German or a Romance language do not have.
_FOREIGN = re.compile("[ÅåØøÆæÐðÞþ\u0100-\u017f\u0218-\u021b\u1ea0-\u1ef9]")
_SEPARATORS = re.compile(r" {1,2}|,[ _]?|_{1,2}|-|\.|\. | - |\+|")

_INTRODUCED = re.compile(
    r"(?<![\w])(?:(?:Mrs?|Ms|Miss|Mx|Dr|Drs|Prof|Professor|Doctor|Herrn?|Frau|Hr|Fr|Mme|Mlle|Madame|Monsieur|Sr|Sra|"
    r"Srta|Señora?|Don|Doña|"
    r"Dra|Sig|Sigra|Dott|Dottssa|Signora?|Dhr|Mevr?|Mevrouw|Pan|Pani|Nurse|Sister|Senhora?|Fru|Bay|Bayan|Dipl|"
    r"med)\.? +)+"
    r"(?:[A-Z]\.? ?)*(?:(?:von|van|de|der|den|di|da|del|el|al|la|le|du|zu|O['’]) *)*(?P<name>[A-Z][a-zA-Z'’-]+)"
)
_CUE = re.compile(
    r"(?:(?<![a-z])(?:[Pp]atient(?:in|e)?|[Pp]aciente|[Pp]aziente|[Pp]asient|[Pp]t|[Nn]ame|[Nn]om|[Nn]ombre|[Nn]ome|"
    r"PATIENT|NAME|[Mm]other|[Ff]ather|"
    r"[Hh]usband|[Ww]ife|[Dd]aughter|[Ss]on|[Ss]urgeon|[Pp]hysician|[Oo]perator|[Tt]echnician|[Pp]hotographer|"
    r"[Rr]eader|[Gg]rader|[Ss]igned|[Aa]ttending|[Rr]eferrer|"
    r"(?:[Ss]een|[Rr]eviewed|[Rr]eported|[Rr]ead|[Ee]xamined|[Rr]eferred|[Aa]nnotated|[Gg]raded|[Vv]erified|"
    r"[Aa]pproved|[Ss]igned|[Pp]erformed|[Aa]cquired|[Tt]aken|"
    r"[Uu]ploaded|[Dd]ictated|[Rr]equested|[Oo]rdered|[Cc]reated|[Ii]nterpreted|[Ww]ritten|[Pp]hotographed|[Ii]maged|"
    r"[Ss]canned|[Tt]reated|[Oo]perated) by|"
    r"(?:[Dd]iscussed|[Ss]poke|[Ss]poken) (?:with|to)|[Cc][Cc]:|[Uu]ntersucht von|[Bb]efundet von|[Vv]u par|"
    r"[Vv]isto por|[Rr]ef(?:\.|erring)(?: by)?))(?P<colon>:)?"
    r"[ :_#-]{1,3}(?:(?:by|is|von|par) )?(?:[A-Z]\. ?)*(?P<name>[A-Z][\w'’-]+)"
)
# A word of these must stand in a text before `_INTRODUCED` and `_CUE` are tried, which take their time.
_INTRODUCERS, _CUES = lists()["introducers"], lists()["cues"]
_INITIALS = re.compile(
    r"(?<![\w.])(?:[A-Z]\. ?(?:-?[A-Z]\. ?){0,4}(?:(?:von|van|der|den|ter|ten|zu|al|el|bin|ibn) )*"
    r"(?P<after>[A-Z][a-z]+(?:['’-][A-Z]?[a-z]+)*|[A-Z]{3,})"
    r"|(?P<before>[A-Z][a-z]+(?:['’-][A-Z]?[a-z]+)*|[A-Z]{3,}),? [A-Z]\.(?: ?[A-Z]\.){0,4})(?![\w])"
)
# How much a common and a rare given name speak for a name.
_COMMON, _RARE = 3.0, 1.6
# How much two words must speak for a name, by whether they stand alone in a cell or in a file's name, and whether in
# small letters.
_NEEDED = {(True, False): 2.7, (False, False): 4.0, (True, True): 3.1, (False, True): 5.0}
_PARTICLES, _SUFFIXES = lists()["particles"], lists()["suffixes"]
# After these a proper name is that of a disease, sign, test, device, place or study.
_THINGS = re.compile(f"(?:{'|'.join(lists()['thing stems'])})|(?:{'|'.join(lists()['thing nouns'])})(?:e?s)?$")
_AFTER_THINGS = re.compile(
    r"(?:morbus|m\.|maladie d[eu']|syndrome d[eu'e]|sindrome d[ei]|enfermedad de|malattia di|doenca de|signe de|"
    r"signo de|mal de|ziekte van|"
    r"ad modum|sec(?:undum)?\.?|nach|after|modified|per|using|with an?|on an?|the) ?$",
    re.IGNORECASE,
)
# So do these, with a capital: in ``at the clinic John Smith`` somebody is meant.
_INSTITUTION = re.compile(
    r"(?<![A-Za-z])(?:[A-Z][a-z]*k|K)linik\w* $|(?<![A-Za-z])(?:Clini[ck]\w*|Hospital|Hopital|Ospedale|Policlinico|"
    r"Universi[a-z]+|Institut[a-z]*|School|College)(?: (?:of|de|di|du|da))? $"
)
# ``Tsai Ya-ting``, ``Kim, Min-jun``: a listed surname beside two syllables of Chinese or Korean.
_SYLLABLE = r"(?:[bcdfghjklmnpqrstwxyz]|[ckstz]h|hs|k[wy]|[hmr]y)?[aeiouy]{1,3}(?:ng?|[hklmprt])?"
_SYLLABLES = rf"(?=[A-Z])(?i:{_SYLLABLE}-{_SYLLABLE})(?![\w-])"
_ROMANISED = re.compile(
    rf"(?<![\w-])(?:(?P<before>[A-Z][A-Za-z]+)(?:,? |_){_SYLLABLES}|"
    rf"{_SYLLABLES}(?: |_)(?P<after>[A-Z][A-Za-z]+))(?![\w-])"
)
# Before these a proper name is that of a place.
_SAINTS = frozenset(["san", "santa", "santo", "sao", "saint", "sankt", "los", "las"])
_SAINT = re.compile(r"(?<![A-Za-z])(?:San|Santa|Santo|Sao|Saint|Sankt|St\.?|Los|Las) $")
# Endings of terms in the languages of Europe, which surnames do not have.
_TERM = re.compile(
    r"...(?:ungen|ierung|igung|rung|lung|tung|heit|keit|schaft|itis|osis|ose|oosi|patie|pat[hi]+[ae]?|log[hi]+[ae]|"
    r"gra(?:ph|f)i[ea]?|[sk][ck]opi[ea]|e[ck]tomi[ea]|tion|zione|cion|cao|sjon|psi[ea]|a?emi[ae]|troph?i[ea]|"
    r"plasi[ea]|genesis?|om[ae]|omat|itas|ism[uo]s?|skop|meter|gramm?|ektasi[ea]|stenose)$"
)
# Words that stand in tables of eyes and lungs, with a capital, and look like names.
_WORDS = lists()["common words"]
# Companies, places and eponyms that are written like a person's name.
_NOBODY = frozenset(pair.replace("_", " ") for pair in lists()["nobody"])
_PLACEHOLDER = re.compile(
    r"[\W_]*(?:anonym\w*|unknown|none|null|nan|n/?a|nil|redacted|removed|deleted|missing|withheld|blank|test|demo|"
    r"phantom|xxx*|de-?identified|"
    r"pseudo\w*|not? (?:available|known|given)|unbekannt|inconnu|desconocido|yes|no|true|false|male|female|m|"
    r"f)[\W\d_]*",
    re.IGNORECASE,
)


class _Word(NamedTuple):
    """A word, and how it is written: ``I`` one capital, ``U`` capitals, ``T`` a capital first, ``L`` small letters."""

    folded: str
    shape: str
    start: int
    end: int


def is_placeholder(value: str) -> bool:
    """Return whether a value stands for a name that is not told: ``Anonymous``, ``n/a``."""
    return _PLACEHOLDER.fullmatch(value) is not None


def has_name(value: str, *, thing: bool = False) -> bool:
    """Return whether a text names a person.

    Parameters
    ----------
    value
        A cell.
    thing
        It stands in a column of devices, diseases, drugs: proper names that are nobody's.
    """
    text = without_accents(value)
    foreign = not value.isascii() and _FOREIGN.search(value) is not None
    if "^" in text and _CARET.search(text):
        return True
    tokens = _TOKEN.findall(text)
    lowered = set(map(str.lower, tokens))
    if not _INTRODUCERS.isdisjoint(lowered) and any(
        _is_person(found["name"], text, found.end()) for found in _INTRODUCED.finditer(text)
    ):
        return True
    if not thing and not _CUES.isdisjoint(lowered) and any(_is_cued(found, text) for found in _CUE.finditer(text)):
        return True
    if "." in text and any(_is_initialled(found, text, thing=thing) for found in _INITIALS.finditer(text)):
        return True
    if "-" in text and not thing and any(_is_romanised(found, text) for found in _ROMANISED.finditer(text)):
        return True
    filed = _FILE.search(text) is not None
    # a pair is two words with a capital, or has a listed given name, in a file's name a listed name
    capitals = sum(not token[0].islower() for token in tokens)
    if capitals < 2 and not (filed and capitals) and _telling(filed=filed).isdisjoint(lowered):
        return False
    if not filed:
        return _in_words(text, filed=False, thing=thing, foreign=foreign)
    pieces = re.split(r"[/\\]|::", _EXTENSION.sub("", text))
    return any(_in_words(piece, filed=True, thing=thing, foreign=foreign) for piece in pieces)


def could_be_name(value: str) -> bool:
    """Return whether a cell under a title such as ``name`` or ``doctor`` can be a person's name."""
    words = _words(without_accents(value))
    if not words or len(words) > 6 or re.search(r"\d", value) or is_placeholder(value):
        return False
    if any(word.shape == "L" and word.folded not in _PARTICLES for word in words) and not all(
        word.shape == "L" for word in words
    ):
        return False
    full = [word.folded for word in words if word.shape != "I" and word.folded not in _PARTICLES]
    if any(_is_word(folded) and not _listed(folded) for folded in full) or _THINGS.match(full[-1] if full else ""):
        return False
    return any(_given(folded) >= _RARE or _surname(folded) >= 2 or likeness(folded) > 1 for folded in full)


def _words(text: str) -> list[_Word]:
    found = []
    for match in _TOKEN.finditer(text):
        whole, start = match[0], match.start()
        cuts = (
            [0, *(cut.start() for cut in _CAMEL.finditer(whole)), len(whole)]
            if _CAMEL.search(whole)
            else (0, len(whole))
        )
        for begin, end in pairwise(cuts):
            part = whole[begin:end]
            if part[0].islower():
                shape = "L"
            elif part.isupper():
                shape = "I" if len(part) == 1 else "U"
            else:
                shape = "T"
            found.append(
                _Word(
                    part.lower().replace("'", "").replace("’", "").replace("-", ""), shape, start + begin, start + end
                )
            )
    return found


@cache
def _telling(*, filed: bool) -> frozenset[str]:
    """Return the listed names that are no words, without surnames for a text that is no file's name."""
    names = lists()["given"] | lists()["rare given"] | (lists()["surnames"] if filed else frozenset())
    return names - lists()["words"] - _WORDS


def _is_word(folded: str) -> bool:
    return folded in _WORDS or likeness(folded) < -1


def _listed(folded: str) -> bool:
    return _given(folded) > 0 or _surname(folded) > 0


def _given(folded: str) -> float:
    """Return how much a listed given name speaks for one, 0 for what is not listed."""
    known = lists()
    if folded in _WORDS:
        return 0
    if folded in known["given"]:
        return 1.0 if folded in known["words"] else _COMMON
    if folded in known["rare given"]:
        return 0.5 if folded in known["words"] else _RARE
    return 0


def _surname(folded: str) -> float:
    if folded not in lists()["surnames"] or folded in _WORDS:
        return 0
    return 0.5 if folded in lists()["words"] else 2.0


def _form(folded: str, most: float) -> float:
    """Return how much the letters of a word in no list speak for a name, at most so much."""
    ordinary = folded in _WORDS or len(folded) < 2 or _TERM.search(folded) is not None
    return -9.0 if ordinary else min(likeness(folded), most)


def _score(one: str, other: str) -> float:
    """Return how much two neighbouring words speak for a name, in either order."""
    # neither listed, they may as well be two words of a language that the letters were not told from
    doubt = 0.0 if _listed(one) or _listed(other) else 0.3
    return max(_as_name(one, other), _as_name(other, one)) - doubt


def _as_name(given: str, surname: str) -> float:
    # letters alone speak less for a given name: more of those are in the lists
    return (_given(given) or 0.5 * _form(given, 4) - 0.4) + (_surname(surname) or _form(surname, 2))


def _pairs(words: Sequence[_Word], text: str) -> Iterator[tuple[_Word, _Word, int]]:
    """Yield neighbouring words, with particles and initials between them passed over, and the place of the second."""
    for at, one in enumerate(words):
        if one.shape == "I" or one.folded in _PARTICLES or _is_suffix(one):
            continue
        begin, after = one.end, at + 1
        while (
            after < len(words) and after < at + 4 and (words[after].shape == "I" or words[after].folded in _PARTICLES)
        ):
            after += 1
        if after >= len(words):
            return
        if _is_suffix(words[after]):
            continue
        between = _TOKEN.sub("", text[begin : words[after].start])
        passed = after > at + 1
        if len(between) <= 2 * (after - at) and (
            (passed and not between.strip(" .'’,-_")) or _SEPARATORS.fullmatch(between)
        ):
            yield one, words[after], after
            if (
                text[begin : words[after].start] == "-"
                and " " in text[words[after].end :][:1]
                and after + 1 < len(words)
            ):
                yield one, words[after + 1], after + 1


def _is_suffix(word: _Word) -> bool:
    """Return whether a word is a degree or, as two capitals are, an abbreviation."""
    return word.folded in _SUFFIXES or (word.shape == "U" and len(word.folded) == 2)


def _in_words(text: str, *, filed: bool, thing: bool, foreign: bool) -> bool:
    words = _words(text)
    if len(words) < 2:
        return False
    alone = _is_alone(words, text)
    small = sum(word.shape == "L" for word in words)
    quoted = not filed and small >= 2 and len(words) - small <= 4  # a sentence, in which a capital is no title's
    for one, other, at in _pairs(words, text):
        shapes = {one.shape, other.shape}
        if shapes == {"L"} and not all(len(word.folded) > 3 or _listed(word.folded) for word in (one, other)):
            continue
        if shapes > {"L"} or f"{one.folded} {other.folded}" in _NOBODY:
            continue
        between = text[one.end : other.start]
        if (between == "-" and not filed) or _is_abbreviated(one, other, between):
            continue
        if one.folded in _SAINTS or _SAINT.search(text[: one.start]):
            continue
        needed = _NEEDED[filed or alone, shapes == {"L"}]
        if filed and "L" not in shapes:
            needed -= 0.4
        elif alone and not thing and _COMMON in {_given(one.folded), _given(other.folded)}:
            needed -= 0.5
        elif quoted:
            needed -= 0.8
        if alone and "," in between:
            # as a list of persons has it: a listed surname, then a listed given name
            needed = 1.4 if len(words) == 2 and _given(other.folded) and _surname(one.folded) else needed - 0.5
        if foreign and (alone or filed):
            needed -= 0.8
        if thing:
            needed += 2.4
        if _score(one.folded, other.folded) >= needed and not _is_thing(words, at, text, one):
            return True
    return False


def _is_abbreviated(one: _Word, other: _Word, between: str) -> bool:
    """Return whether one of two words is an abbreviation: three capitals beside small letters: ``Ventolin HFA``."""
    return (
        {one.shape, other.shape} == {"T", "U"}
        and "," not in between
        and any(word.shape == "U" and len(word.folded) == 3 and not _listed(word.folded) for word in (one, other))
    )


def _is_alone(words: Sequence[_Word], text: str) -> bool:
    """Return whether a cell holds nothing but capitalised words, as few as a name has."""
    full = [word for word in words if word.shape != "I" and word.folded not in _PARTICLES | _SUFFIXES]
    cased = {word.shape for word in full}
    return (
        2 <= len(full) <= 4
        and (cased <= {"T", "U"} or (cased == {"L"} and len(full) == 2))
        and not re.search(r"\d", text)
    )


def _is_thing(words: Sequence[_Word], at: int, text: str, first: _Word) -> bool:
    """Return whether what stands around two words makes them the name of a thing."""
    around = [word.folded for word in words[at : at + 3]]
    if _listed(around[0]):
        del around[0]
    if not _listed(first.folded):
        around.append(first.folded)
    before = text[: first.start]
    named_after = _AFTER_THINGS.search(before) or _INSTITUTION.search(before)
    return named_after is not None or any(map(_THINGS.match, around))


def _is_person(name: str, text: str, end: int) -> bool:
    folded = fold(name.split("-", maxsplit=1)[0].split("'", maxsplit=1)[0].split("’", maxsplit=1)[0])
    following = _TOKEN.match(text, end + 1)
    if following is not None and _THINGS.match(fold(following[0])):
        return False
    return _surname(folded) > 0 or (folded not in _WORDS and likeness(folded) > -2.5)


def _is_cued(found: re.Match[str], text: str) -> bool:
    folded = fold(re.split(r"['’_-]", found["name"])[0])
    following = _TOKEN.match(text, found.end() + 1)
    if len(folded) < 2 or folded in _WORDS or (following is not None and _THINGS.match(fold(following[0]))):
        return False
    if found["name"].isupper() and len(folded) < 4:
        return False
    return bool(found["colon"]) or _given(folded) >= _RARE or _surname(folded) >= 2 or likeness(folded) > 0.5


def _is_romanised(found: re.Match[str], text: str) -> bool:
    following = _TOKEN.match(text, found.end() + 1)
    surname = fold(found["before"] or found["after"])
    return surname in lists()["surnames"] and not (following and _THINGS.match(fold(following[0])))


def _is_initialled(found: re.Match[str], text: str, *, thing: bool) -> bool:
    name = fold(re.split(r"['’-]", found["after"] or found["before"])[0])
    following = _TOKEN.match(text, found.end() + 1)
    if thing or (following is not None and _THINGS.match(fold(following[0]))):
        return False
    return _surname(name) >= 2 or (name not in _WORDS and likeness(name) > 1)
