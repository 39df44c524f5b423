"""Does an index name patients? A scan of every text column, path and column name for what may identify a person.

The scan knows forms, not people: names, dates finer than a year, long runs of digits, DICOM UIDs, e-mail addresses,
absolute paths, and column names that promise any of these. A finding is a reason to look, not a proof; an index
without findings is not proven free of them. Values are shown masked: a report of findings must not be one itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.index.store import Store

# Columns that the build computes; they cannot hold a person's data.
_COMPUTED = frozenset({"size", "mtime", "sha256", "width", "height", "mode", "etag"})
_EXAMPLES = 3
_LONG_DIGITS = 6

_MONTHS = "jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-./_](?:0?[1-9]|1[0-2])[-./_](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|[12]\d|3[01])[-./](?:19|20)?\d\d"
    r"|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    rf"|(?:0?[1-9]|[12]\d|3[01])[. ]+(?:{_MONTHS})[a-z]*\.?[ ,]+(?:19|20)\d\d"
    rf"|(?:{_MONTHS})[a-z]*\.? (?:0?[1-9]|[12]\d|3[01]),? (?:19|20)\d\d)(?!\d)",
    re.IGNORECASE,
)
_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}(?![\d.]*\d)")
_ABSOLUTE = re.compile(r"^(?:/(?:home|Users|mnt|media|data|srv|root|tmp|var)/|[A-Za-z]:\\|\\\\\w)")
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Herr|Frau|Mme|Mlle|Sr|Sra)\.? +[A-ZÀ-Þ][a-zà-ÿ]{1,}")
_DICOM_NAME = re.compile(r"\b[A-Za-zÀ-ÿ'-]{2,}\^[A-Za-zÀ-ÿ'-]+")
_HASH = re.compile(r"(?=[0-9]*[a-f])[0-9a-f]{16,}")
_WORD = re.compile(r"[A-Za-zÀ-ÿ]+")

# What a column's name promises; compared without case and punctuation.
_COLUMNS = {
    "name": """
        name patientname patientsname firstname lastname surname givenname familyname fullname nachname vorname
        othernames physician physicianname referringphysicianname operatorsname
    """,
    "date": "dob birthdate patientbirthdate dateofbirth geburtsdatum studydate seriesdate",
    "number": """
        patientid mrn medicalrecordnumber ssn socialsecuritynumber accessionnumber insurancenumber nhsnumber
    """,
    "e-mail": "email mail emailaddress",
    "contact": "address street patientaddress phone telephone phonenumber zipcode postcode",
    "uid": "studyinstanceuid seriesinstanceuid sopinstanceuid",
}
_TAGS = {name: kind for kind, names in _COLUMNS.items() for name in names.split()}

# Common given names of several languages; those that are everyday or medical words (iris, grace, mark) are left out.
_GIVEN_NAMES = """
    james john robert michael william david richard joseph thomas charles christopher daniel matthew anthony donald
    steven paul andrew joshua kenneth kevin brian george edward ronald timothy jason jeffrey ryan jacob gary nicholas
    eric jonathan stephen larry justin scott brandon benjamin samuel gregory alexander patrick jack dennis jerry tyler
    aaron jose adam nathan henry zachary douglas peter kyle noah ethan jeremy walter keith roger terry austin sean
    gerald carl harold dylan arthur lawrence jordan jesse bryan billy bruce gabriel joe logan alan juan albert willie
    elijah wayne randy vincent philip ralph eugene russell louis mary patricia jennifer linda elizabeth barbara susan
    jessica sarah karen lisa nancy betty sandra margaret ashley kimberly emily donna michelle carol amanda melissa
    deborah stephanie rebecca sharon laura cynthia dorothy amy kathleen angela shirley brenda emma anna pamela nicole
    samantha katherine christine helen debra rachel carolyn janet maria catherine heather diane olivia julie joyce
    victoria ruth virginia lauren kelly christina joan evelyn judith andrea hannah jacqueline martha gloria teresa ann
    sara madison frances kathryn janice jean abigail alice julia judy sophia denise amber doris marilyn danielle
    beverly isabella theresa diana natalie brittany charlotte marie kayla alexis lori hans klaus juergen jürgen wolfgang
    heinz dieter manfred uwe günter guenter horst bernd stefan andreas ursula monika petra sabine renate helga karin
    brigitte ingrid erika gisela heike pierre michel andré philippe jacques bernard françois nathalie isabelle sylvie
    monique giovanni giuseppe francesco antonio luigi giulia rosa carlos luis miguel javier alejandro carmen lucia
    ana mohamed mohammed ahmed ali omar fatima aisha hassan ibrahim yusuf mehmet mustafa ayse ayşe emine wei fang ming
    hiroshi takashi yuki haruka kenji satoshi raj priya amit sanjay anil sunita ivan dmitri sergei olga natasha
    vladimir tatiana piotr krzysztof katarzyna agnieszka lars erik sven ingrid bjorn björn
"""
_GIVEN = frozenset(_GIVEN_NAMES.split())


@dataclass(frozen=True)
class PhiFinding:
    """What one column may tell of persons.

    Attributes
    ----------
    column
        Where it was found; ``skipped`` for the record of unreadable files.
    kind
        ``"name"``, ``"date"``, ``"digits"``, ``"number"``, ``"uid"``, ``"e-mail"``, ``"contact"``, ``"absolute path"``.
    rows
        How many rows have it; 0 where the column's own name is the finding.
    examples
        A few of the values, masked.
    """

    column: str
    kind: str
    rows: int
    examples: tuple[str, ...]


def scan(store: Store) -> list[PhiFinding]:
    """Look for what may identify a person in all live rows, the skipped record and the column names of an index."""
    findings: list[PhiFinding] = []
    for field in store.schema:
        if field.name in _COMPUTED:
            continue
        tag = _TAGS.get(re.sub(r"[^a-z]", "", field.name.lower()))
        if tag is not None and not _all_hashes(store.table([field.name])[field.name]):
            findings.append(PhiFinding(field.name, tag, 0, ()))
        if field.name == "id" and "path" in store.schema.names:
            continue  # the path and a frame's number
        findings += _scan_column(field.name, store.table([field.name])[field.name])
    skipped = store.skipped()
    return [*findings, *_scan_column("skipped", skipped["path"])]


def kinds(value: str) -> Iterator[str]:
    """Give the kinds of what may identify a person in a text, each once.

    >>> list(kinds("DOE^JOHN 1970-03-05")), list(kinds("glaucoma/05_g.jpg")), list(kinds("mail j.d@clinic.org"))
    (['name', 'date'], [], ['e-mail'])
    """
    if _TITLE.search(value) or _DICOM_NAME.search(value) or _has_given_name(value):
        yield "name"
    if _DATE.search(value):
        yield "date"
    elif _UID.search(value):
        yield "uid"
    elif any(not _HASH.fullmatch(word) and _run(word) for word in re.split(r"[^0-9A-Za-z]+", value)):
        yield "digits"
    if _EMAIL.search(value):
        yield "e-mail"
    if _ABSOLUTE.search(value):
        yield "absolute path"


def mask(value: str) -> str:
    """Show a value's form without its content: the first character of each run of letters, and no digits.

    >>> mask("Doe^John 1970-03-05")
    'D**^J*** ####-##-##'
    """
    letters = re.sub(r"([^\W\d_])([^\W\d_]*)", lambda found: found[1] + "*" * len(found[2]), value)
    return re.sub(r"\d", "#", letters)[:80]


def _scan_column(name: str, column: pa.ChunkedArray) -> list[PhiFinding]:
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        filled = len(column) - column.null_count
        return [PhiFinding(name, "date", filled, ("####-##-##",))] if filled else []
    if pa.types.is_integer(kind):
        column = pc.cast(column, pa.string())
    elif pa.types.is_list(kind):
        column = pc.list_flatten(column)
    if not pa.types.is_string(column.type):
        return []
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    # each value is looked at once, however many rows have it
    for entry in column.value_counts().to_pylist():
        for found in kinds(entry["values"] or ""):
            counts[found] = counts.get(found, 0) + entry["counts"]
            shown = examples.setdefault(found, [])
            if len(shown) < _EXAMPLES:
                shown.append(mask(entry["values"]))
    return [PhiFinding(name, found, rows, tuple(dict.fromkeys(examples[found]))) for found, rows in counts.items()]


def _all_hashes(column: pa.ChunkedArray) -> bool:
    """Say whether a column holds keyed hashes only, as DICOM headers leave them."""
    if not pa.types.is_string(column.type):
        return False
    values = column.drop_null().unique().to_pylist()
    return bool(values) and all(_HASH.fullmatch(value) for value in values)


def _run(word: str) -> bool:
    return re.search(rf"\d{{{_LONG_DIGITS},}}", word) is not None


def _has_given_name(value: str) -> bool:
    """Say whether a given name stands beside another word of letters, as in ``john_smith.png`` or ``Smith, Anna``."""
    words = _WORD.findall(value.rpartition(".")[0] if re.search(r"\.\w{2,4}$", value) else value)
    return any(
        word.lower() in _GIVEN and any(len(other) > 1 for other in words[max(0, at - 1) : at] + words[at + 1 : at + 2])
        for at, word in enumerate(words)
    )
