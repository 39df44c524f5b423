"""Infer from a column's title what it holds: ``patient_name``, ``MRN``, ``Geburtsdatum``, ``姓名``."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from retr.retrieval.audit.phi.lexicon import lists

_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|[^\W\d_]+")

_KINDS = ("name", "date", "number", "ssn", "phone", "e-mail", "address", "uid")
# Titles without case and accents, and words that promise a kind within any title.
_WHOLE = {title: kind for kind in _KINDS for title in lists()[f"title {kind}"]}
_WITHIN = {title: kind for kind in _KINDS for title in lists().get(f"within title {kind}", ())}
# Titles that may as well be those of classes, devices or pseudonyms: a cell must look like a name.
_WEAK = lists()["title weak"]
# with `name` beside it, one of these makes a person's: not file_name, model_name, study_name
_PERSONS = lists()["title persons"]
# Titles of what has many digits, and of what has proper names that are nobody's.
_QUANTITIES, _THINGS = lists()["title quantities"], lists()["title things"]


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss").replace("ı", "i").replace("ł", "l"))
    return unicodedata.normalize("NFC", "".join(sign for sign in plain if not "\u0300" <= sign <= "\u036f"))


@lru_cache(maxsize=4096)
def title_words(title: str) -> tuple[str, ...]:
    """Return the words of a title.

    >>> title_words("ReferringPhysicianName"), title_words("geb_datum 2")
    (('referring', 'physician', 'name'), ('geb', 'datum'))
    """
    return tuple(_fold(word) for word in _WORDS.findall(title))


@lru_cache(maxsize=4096)
def promise(title: str) -> str | None:
    """Return the kind of personal data that a column's title promises, None where it promises none.

    >>> promise("PatientName"), promise("file_name"), promise("hospital_number"), promise("Größe")
    ('name', None, 'number', None)
    """
    parts = title_words(title)
    joined = "".join(parts)
    if joined in _WHOLE:
        return _WHOLE[joined]
    for kind, within in ((_WITHIN[key], key) for key in _WITHIN):
        if within in joined and (len(within) > 3 or within in parts):
            return kind
    if parts and parts[-1] in {"name", "names"} and _PERSONS.intersection(parts[:-1]):
        return "name"
    if {"physician", "doctor", "surgeon"} & set(parts):
        return "name"
    if len(parts) > 1 and parts[-1] in {"date", "datum", "datetime", "dob", "dttm"}:
        return "date"
    if len(parts) > 1 and parts[-1] in {"phone", "mobile", "fax", "tel"}:
        return "phone"
    if len(parts) > 1 and parts[-1] in {"email", "mail"}:
        return "e-mail"
    if (
        len(parts) > 1
        and parts[-1] in {"address", "zip", "zipcode", "postcode", "street"}
        and parts[0] not in {"ip", "mac", "memory"}
    ):
        return "address"
    return None


@lru_cache(maxsize=4096)
def is_quantity(title: str) -> bool:
    """Return whether a column's title is that of quantities or of codes, whose digits tell of nobody."""
    return not _QUANTITIES.isdisjoint(title_words(title))


@lru_cache(maxsize=4096)
def is_thing(title: str) -> bool:
    """Return whether a column's title is that of devices, diseases, drugs, classes: proper names that are nobody's."""
    return not _THINGS.isdisjoint(title_words(title))


@lru_cache(maxsize=4096)
def is_sure(title: str) -> bool:
    """Return whether a title that promises names can promise nothing else."""
    return "".join(title_words(title)) not in _WEAK
