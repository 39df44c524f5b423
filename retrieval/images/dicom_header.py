"""The columns a DICOM header may give to an index, by an allow-list.

Who the patient is enters only as keyed hashes (`retr.index.machine.hash_key`), and only where the caller gives a
key. Codes enter if they are defined terms, maker and model if they are made of known words
(`retr.retrieval.images.dicom_terms`): free text and names typed into such fields are dropped. Ages above 89 are cut to
90, and of dates the study's year alone enters.
"""

from __future__ import annotations

import re
from collections.abc import MutableSequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from retr.index.machine.hash_key import keyed_hash
from retr.retrieval.images.dicom_terms import LATERALITIES, MODALITIES, SEXES, VIEWS, body_part, maker, model
from retr.retrieval.images.dicom_values import numbers

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_COLUMNS = (
    *("modality", "body_part_examined", "view_position", "laterality", "patient_sex", "patient_age", "study_year"),
    *("manufacturer", "manufacturer_model_name", "pixel_spacing_row", "pixel_spacing_column"),
    *("patient", "study", "series", "header_notes"),
)

_IDENTIFIERS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
# years of studies: before, there was no such picture; a later one than the clock's is a mistake
_FIRST_YEAR = 1960
# HIPAA's safe harbour: ages above 89 are one group
_OLDEST, _TOO_OLD = 90.0, 89.0
_YEARS = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


def header_columns(header: Dataset, hash_key: bytes | None) -> dict[str, Any]:
    """Return the allow-listed columns of one file.

    Parameters
    ----------
    hash_key
        Key of the hashes; without one there are no hash columns.

    Returns
    -------
    dict
        Of `HEADER_COLUMNS` those that the header has: ``patient_age`` in years, spacings in mm, ``patient``,
        ``study`` and ``series`` as hex of HMAC-SHA256.
    """
    columns: dict[str, Any] = {
        "modality": _term(header, "Modality", MODALITIES),
        "body_part_examined": body_part(_text(header, "BodyPartExamined")),
        "view_position": _term(header, "ViewPosition", VIEWS),
        "laterality": _term(header, "Laterality", LATERALITIES) or _term(header, "ImageLaterality", LATERALITIES),
        "patient_sex": _term(header, "PatientSex", SEXES),
        "patient_age": _age(header),
        "study_year": _year(header),
        "manufacturer": maker(_text(header, "Manufacturer")),
        "manufacturer_model_name": model(_text(header, "ManufacturerModelName")),
    }
    columns["pixel_spacing_row"], columns["pixel_spacing_column"] = _spacing(header)
    if hash_key is not None:
        columns |= {column: keyed_hash(hash_key, value) for column, value in identifiers(header).items()}
    return {column: value for column, value in columns.items() if value is not None}


def identifiers(header: Dataset) -> dict[str, str]:
    """Return whose a file is and where it belongs, unhashed: ``patient``, ``study`` and ``series``, where stated.

    They never leave the process. Of a header with wrong types what stands there is taken as text.
    """
    stated = {column: _identifier(header, keyword) for column, keyword in _IDENTIFIERS.items()}
    return {column: value for column, value in stated.items() if value}


def _identifier(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
        if isinstance(value, MutableSequence):  # a backslash in it separates values, by the letter of DICOM
            value = "\\".join(map(str, value))
        elif isinstance(value, bytes):
            value = value.decode("latin-1")
        return "" if value is None else str(value).strip(" \0\t\r\n")
    except Exception:  # noqa: BLE001 - pydicom converts on access and raises with the value in the text
        return ""


def _text(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom converts on access and raises with the value in the text
        return ""
    return value.strip(" \0") if isinstance(value, str) else ""


def _term(header: Dataset, keyword: str, terms: frozenset[str]) -> str | None:
    value = _text(header, keyword).upper()
    return value if value in terms else None


def _date(header: Dataset, keyword: str) -> date | None:
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", _text(header, keyword))
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _year(header: Dataset) -> int | None:
    day = _date(header, "StudyDate")
    # a birth date typed in its place would say the year of birth
    if day is None or day == _date(header, "PatientBirthDate"):
        return None
    return day.year if _FIRST_YEAR <= day.year <= datetime.now(tz=UTC).year + 1 else None


def _age(header: Dataset) -> float | None:
    """Return the age in years, from PatientAge (``045Y``, ``018M``, ...) or else from birth and study date."""
    match = re.fullmatch(r"(\d{1,4})([DWMY])", _text(header, "PatientAge").upper())
    born, seen = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if match:
        age = round(int(match[1]) / _YEARS[match[2]], 2)
    elif born is None or seen is None or seen < born:
        return None
    else:
        age = float(seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day)))
    return _OLDEST if age > _TOO_OLD else age


def _spacing(header: Dataset) -> tuple[float | None, float | None]:
    found = numbers(header, "PixelSpacing")
    row, column = found * 2 if len(found) == 1 else found if len(found) == 2 else (None, None)
    return (row, column) if row and column and row > 0 and column > 0 else (None, None)
