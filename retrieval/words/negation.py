"""Which words of an English report are denied: the cues and scopes of NegEx (Chapman et al. 2001), as a short list.

A cue in front ("no", "without", "negative for") denies the words behind it, one behind ("is absent", "ruled out") those
before it, both within their clause and so many words. What ends a clause: a full stop, a semicolon, a blank line, a
verb such as "is" or "shows" (not that of "does not show"), "but" and its like; behind a cue that stands behind, a comma
too. Phrases that look like cues and deny nothing ("no change", "cannot be excluded", "not without") are passed over.
"Effusion: no" is an answer.

Limits: English alone; no grammar, so that a list is denied as far as it goes ("no effusion, heart enlarged" denies the
heart, too); "unlikely", "possible" and other doubts count as found; a history ("resolved", "previous") does, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_What = Literal["nothing", "behind", "before", "end"]
#: How far a cue reaches, in words.
_BEHIND, _BEFORE = 14, 6
_PHRASES: Mapping[_What, str] = {
    "nothing": """
        no change|no interval change|no significant change|no significant interval change|no increase|no decrease
        no further change|no further increase|no further decrease|no progression|no worsening|no improvement
        no resolution|no regression|not without|never without|no absence of|not absent|not free of|not clear of
        no lack of|not negative for|not negative|can t exclude|can t be excluded|couldn t be excluded
        no new change|no suspicious change|without change|without difficulty|without interval change|not only
        not necessarily|not certain if|not certain whether|not ruled out|not been ruled out|not be ruled out
        not excluded|not been excluded|not be excluded|cannot be excluded|cannot be ruled out|cannot exclude
        cannot rule out|can not be excluded|can not exclude|gram negative|no doubt|not rule out|not exclude
    """,
    "behind": """
        no|not|without|absence of|denies|denied|denying|negative for|free of|clear of|lack of|lacks|never
        no evidence of|no evidence for|no sign of|no signs of|without evidence of|without signs of
        no radiographic evidence of
        nothing to suggest|nothing suggestive of|no suggestion of|doesn t|didn t|isn t|aren t|wasn t|weren t
        hasn t|haven t|hadn t
        fails to reveal|rules out|ruled out for|rule out for|rather than|excludes|neither|nor
    """,
    "before": """
        not seen|not identified|not present|not visualized|not visualised|not evident|not detected|not demonstrated
        not noted|not visible|not observed|not shown|no longer visible|no longer evident|no longer identified
        no longer noted
        not found|not appreciated|not apparent|is absent|are absent|was absent|were absent|absent
        is negative|are negative
        was negative|negative|none|is excluded|are excluded|was excluded|were excluded|is ruled out|are ruled out
        was ruled out|were ruled out|ruled out|no longer seen|no longer present
    """,
    "end": """
        but|however|although|though|except|except for|apart from|aside from|other than|still|yet|because|since|which
        there|is|are|was|were|has|have|had|shows|show|showed|demonstrates|demonstrate|reveals|remains|remain
        appears|appear
        with|and the|and there|secondary to|due to|suggests|suggesting|consistent with
    """,
}
# Verbs that belong to a cue in front of them, "does not show", and end no clause there.
_OF_CUE = frozenset({"not", "never", "t"})
# "Effusion: no", where nothing follows.
_ASKED, _ANSWERED = re.compile("[:=?]"), re.compile(r"[,.;)\]|/\n]")
# Behind "ruled out" and its like a verb of the same clause stands between it and what it denies.
_VERBS = frozenset({"is", "are", "was", "were", "has", "have", "had", "been", "be"})
_CLAUSE = re.compile(r"[.](?:\s|$)|[;!?]|\n\s*[\n*•·-]")


def _table() -> dict[tuple[str, ...], set[_What]]:
    found: dict[tuple[str, ...], set[_What]] = {}
    for what, phrases in _PHRASES.items():
        for phrase in re.split(r"[|\n]", phrases):
            if words := tuple(phrase.split()):
                found.setdefault(words, set()).add(what)
    return found


_CUES = _table()
_LONGEST = max(map(len, _CUES))
_FIRST = frozenset(words[0] for words in _CUES)
#: Words that deny: they are no content themselves.
CUE_WORDS = frozenset({"no", "not", "without", "nor", "neither", "none", "never"})


def denied(words: Sequence[str], gaps: Sequence[str]) -> list[bool]:
    """Return which words are denied.

    Parameters
    ----------
    words
        In lower case, in order.
    gaps
        What stands behind each of them, up to the next.

    Examples
    --------
    >>> denied(["no", "effusion", "but", "oedema"], [" ", " ", " ", ""])
    [False, True, False, False]
    """
    found = [False] * len(words)
    if _FIRST.isdisjoint(words):
        return found
    at = 0
    cues: list[tuple[int, int, set[_What]]] = []
    while at < len(words):
        length = _matched(words, gaps, at)
        if length:
            cues.append((at, at + length, _CUES[tuple(words[at : at + length])]))
        at += length or 1
    ends = [False] * len(words)
    for start, _, whats in cues:
        ends[start] = "end" in whats
    inside = {at for start, stop, whats in cues if whats != {"end"} for at in range(start, stop)}
    for start, stop, whats in cues:
        if words[start:stop] == ["no"] and start and _is_answer(gaps, start):
            _deny_before(found, words, gaps, ends, start)
        elif "behind" in whats:
            # the verb of "does not show" ends nothing
            own = stop < len(words) and words[stop - 1] in _OF_CUE and ends[stop]
            _deny_behind(found, gaps, ends, stop + own)
        if "before" in whats:
            _deny_before(found, words, gaps, ends, start)
    return [one and at not in inside for at, one in enumerate(found)]


def _matched(words: Sequence[str], gaps: Sequence[str], at: int) -> int:
    """Return how many words the longest phrase has that begins here; 0 for none."""
    if words[at] not in _FIRST:
        return 0
    for length in range(min(_LONGEST, len(words) - at), 0, -1):
        if tuple(words[at : at + length]) in _CUES and not any(map(_CLAUSE.search, gaps[at : at + length - 1])):
            return length
    return 0


def _is_answer(gaps: Sequence[str], at: int) -> bool:
    """Return whether a word answers what stands before it, and nothing belongs to it."""
    last = at == len(gaps) - 1
    return bool(_ASKED.search(gaps[at - 1]) and (last or _ANSWERED.search(gaps[at])))


def _deny_behind(found: list[bool], gaps: Sequence[str], ends: Sequence[bool], stop: int) -> None:
    if _CLAUSE.search(gaps[stop - 1]):
        return
    for at in range(stop, min(stop + _BEHIND, len(found))):
        if ends[at]:
            return
        found[at] = True
        if _CLAUSE.search(gaps[at]):
            return


def _deny_before(
    found: list[bool], words: Sequence[str], gaps: Sequence[str], ends: Sequence[bool], start: int
) -> None:
    for at in range(start - 1, max(start - 1 - _BEFORE, -1), -1):
        if _CLAUSE.search(gaps[at]) or ("," in gaps[at] and at < start - 1):
            return
        if ends[at] and words[at] not in _VERBS:
            return
        found[at] = True
