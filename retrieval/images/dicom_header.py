"""The columns a DICOM header may give to an index: an allow-list, and nothing beside it.

Who the patient is enters only as keyed hashes (`retr.index.hash_key`), and only where the caller gives a
key. Coded values (VR CS) are kept when they look like codes: free text typed into them is dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import MutableSequence
from datetime import date
from typing import TYPE_CHECKING, Any

from retr.index.hash_key import keyed_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset

HEADER_COLUMNS = (
    *("modality", "body_part_examined", "view_position", "laterality", "patient_sex", "patient_age", "study_year"),
    *("manufacturer", "manufacturer_model_name", "pixel_spacing_row", "pixel_spacing_column"),
    *("patient", "study", "series"),
)

_IDENTIFIERS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_PRODUCT = re.compile(r"[\w .,/+()&-]{1,64}")


def header_columns(header: Dataset, hash_key: bytes | None) -> dict[str, Any]:
    """Give the allow-listed columns of one file.

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
        "modality": _matching(header, "Modality", _CODE, str.upper),
        "body_part_examined": _matching(header, "BodyPartExamined", _CODE, str.upper),
        "view_position": _matching(header, "ViewPosition", _CODE, str.upper),
        "laterality": _matching(header, "Laterality", _CODE, str.upper)
        or _matching(header, "ImageLaterality", _CODE, str.upper),
        "patient_sex": _matching(header, "PatientSex", re.compile("[MFO]"), str.upper),
        "patient_age": _age(header),
        "study_year": _year(header),
        "manufacturer": _matching(header, "Manufacturer", _PRODUCT, str),
        "manufacturer_model_name": _matching(header, "ManufacturerModelName", _PRODUCT, str),
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


def _matching(header: Dataset, keyword: str, pattern: re.Pattern[str], change: Callable[[str], str]) -> str | None:
    value = change(_text(header, keyword))
    return value if pattern.fullmatch(value) else None


def _date(header: Dataset, keyword: str) -> date | None:
    try:
        return date.fromisoformat(_text(header, keyword))
    except ValueError:
        return None


def _year(header: Dataset) -> int | None:
    day = _date(header, "StudyDate")
    return day.year if day else None


def _age(header: Dataset) -> float | None:
    """Give the age in years, from PatientAge (``045Y``, ``018M``, ...) or else from birth and study date."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", _text(header, "PatientAge"))
    if match:
        return round(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]], 2)
    born, seen = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if born is None or seen is None or seen < born:
        return None
    return float(seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day)))


def _spacing(header: Dataset) -> tuple[float | None, float | None]:
    try:
        row, column = (float(value) for value in header.PixelSpacing)
    except Exception:  # noqa: BLE001 - absent, empty, or not two numbers
        return None, None
    return (row, column) if math.isfinite(row) and math.isfinite(column) else (None, None)
