"""Labels from the siblings of a picture in a container: ``.txt``, ``.cls`` and ``.json`` files of the same name.

A label belongs to the pictures of its own name: ``1.2.840.113.json`` to ``1.2.840.113.png`` and to no other, since dots
are part of a UID. Where webdataset adds words behind the key, the longest name that fits wins: ``0001.json`` is also
beside ``0001.seg.png`` if that has no JSON of its own, and ``0001.caption.txt`` beside ``0001.png``. A word begins with
a letter; what begins with a digit is another number of a UID.

How accents are composed decides nothing, as long as one picture alone reads so.

The text of ``0001.txt`` becomes the column ``txt`` (of ``0001.caption.txt``, ``caption.txt``), ``0001.cls`` an integer
where it is spelled as one, and the keys of ``0001.json`` columns of their own names. Whatever cannot be read as labels
is refused whole: no picture gets a part of them.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from retr.retrieval.archive.matching import composed_text
from retr.retrieval.archive.sources import is_image_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SUFFIXES = (".txt", ".json", ".cls")
# A caption or some labels; more than this is something else.
MAX_BYTES = 1 << 20
MAX_KEYS = 1000
_MAX_NAME = 200
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def is_sibling(name: str) -> bool:
    """Return whether a member is one that labels pictures."""
    return name.lower().endswith(SUFFIXES)


class Siblings:
    """Which members of a container stand beside which.

    Parameters
    ----------
    names
        All members that are files.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        self._worded: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        stems: set[str] = set()
        for name in names:
            if is_sibling(name):
                self._named[name.rpartition(".")[0]].append(name)
            elif is_image_name(name) is not False:
                stems.update(_stems(name))
        self._compose(stems)
        for named, siblings in self._named.items():
            if named not in stems:
                key = next((stem for stem in _shorter(named) if stem in stems), None)
                if key is not None:
                    word = named[len(key) + 1 :]
                    self._worded[key] += [(name, f"{word}{name[name.rindex('.') :]}") for name in siblings]

    def _compose(self, stems: set[str]) -> None:
        """Put what stands beside no picture to the one whose accents alone are composed in another way."""
        reads: defaultdict[str, set[str]] = defaultdict(set)
        for stem in stems:
            for one in () if stem.isascii() else (stem, *_shorter(stem)):
                reads[composed_text(one)].add(one)
        known = set().union(*reads.values())
        for named in [named for named in self._named if not named.isascii() and named not in known]:
            for one in (named, *_shorter(named)):
                same = reads.get(composed_text(one), ())
                if len(same) == 1 and one not in known:
                    beside = next(iter(same)) + named[len(one) :]
                    # what is spelled as the picture is read last, and so has the last word
                    self._named[beside] = self._named.pop(named) + self._named[beside]
                if same:
                    break

    def of(self, picture: str) -> dict[str, str]:
        """Return the members beside a picture, those of its very name last, and what a text of each is called."""
        stems = _stems(picture)
        own = [name for stem in stems for name in self._named.get(stem, ())]
        have = {_suffix(name) for name in own}
        found: dict[str, str] = {}
        for key in _shorter(stems[-1]):
            named = [name for name in self._named.get(key, ()) if _suffix(name) not in have]
            found |= {name: _suffix(name) for name in named}
            have.update(map(_suffix, named))
        for stem in stems:
            found |= dict(self._worded.get(stem, ()))
        return found | {name: _suffix(name) for name in own}


def labels_of(name: str, called: str, data: bytes) -> Mapping[str, Any]:
    """Read what stands beside a picture.

    Parameters
    ----------
    called
        The column of a text or a class.

    Raises
    ------
    ValueError
        It is not what its name says, or no labels: not UTF-8, contradicting itself, of more than `MAX_KEYS` keys ...
    """
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    text = data.decode("utf-8-sig").strip()
    if not name.lower().endswith(".json"):
        is_class = name.lower().endswith(".cls") and _INTEGER.fullmatch(text)
        return {called: int(text) if is_class else composed_text(text) or None}
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        if not isinstance(content, dict) or len(content) > MAX_KEYS:
            raise ValueError("not an object of some keys")
        labels = {composed_text(key): column_value(value) for key, value in content.items() if key}
    except RecursionError:
        raise ValueError("too deep") from None
    for key, value in labels.items():
        # half of a pair of surrogates is no text: it could be stored nowhere
        f"{key}{value}".encode()
        if len(key) > _MAX_NAME:
            raise ValueError("a key too long for a column")
    return labels


def column_value(value: Any) -> Any:
    """Return what a column can hold: numbers, texts and truth values as they are, anything deeper as JSON text.

    >>> column_value(3), column_value(["a"]), column_value(None), column_value(float("nan"))
    (3, '["a"]', None, None)
    """
    if isinstance(value, str):
        return composed_text(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return str(value)
    if value is None or isinstance(value, int):
        return value
    return composed_text(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs) and any(content[key] != value for key, value in pairs):
        raise ValueError("a key with two values")
    return content


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _stems(picture: str) -> list[str]:
    """Return the names under which a picture's labels may stand: its own, and that without its suffix."""
    if picture.lower().endswith(".nii.gz"):
        return [picture, picture[:-7]]
    folder, slash, base = picture.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    # of a name that tells nothing, such as a UID, the last number is no suffix
    cut = bool(dot and stem) and (is_image_name(picture) is True or suffix[:1].isalpha())
    return [picture, folder + slash + stem] if cut else [picture]


def _shorter(stem: str) -> Iterator[str]:
    """Return what is left of a name without the words at its end, the longest first."""
    while True:
        shorter, dot, word = stem.rpartition(".")
        if not dot or not shorter or "/" in word or not word[:1].isalpha():
            return
        yield shorter
        stem = shorter
