"""The patient, study and eye identifiers that a DICOM header states."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from retr.retrieval.images import dicom_header
from retr.retrieval.images.dicom_open import is_dicom, open_header
from retr.retrieval.images.picture import Picture
from retr.retrieval.regular_files import open_regular

_PREFIX_BYTES = 352


def stated_identifiers(source: Any) -> dict[str, str]:
    """Return ``patient``, ``study`` and ``series`` as a DICOM file states them, unhashed; nothing of other sources.

    Parameters
    ----------
    source
        A path, the bytes of a file, or a `Picture` that remembers its file; of anything else nothing is known.

    Returns
    -------
    dict
        Empty where the file is no DICOM, states nothing or cannot be read (reading its pixels says why).
    """
    if isinstance(source, Picture):
        return {} if source.origin is None else dict(source.origin.stated)
    if isinstance(source, str | Path):
        try:
            with open_regular(source) as file:
                if not is_dicom(file.read(_PREFIX_BYTES)):
                    return {}
                file.seek(0)
                return _of(file)
        except OSError:
            return {}
    if isinstance(source, bytes | bytearray | memoryview) and is_dicom(bytes(source[:_PREFIX_BYTES])):
        return _of(io.BytesIO(source))
    return {}


def file_identifiers(data: bytes) -> dict[str, str]:
    """Return ``patient``, ``study``, ``series`` and ``instance`` as a DICOM file states them, unhashed."""
    if not is_dicom(data[:_PREFIX_BYTES]):
        return {}
    instance = instance_of(data)[1]
    return {**stated_identifiers(data), **({"instance": instance} if instance else {})}


def instance_of(data: bytes) -> tuple[str, str]:
    """Return the study and the instance that a DICOM file says it is, unhashed; empty texts where it says neither."""
    try:
        header = open_header(io.BytesIO(data))
        return str(header.get("StudyInstanceUID", "")), str(header.get("SOPInstanceUID", ""))
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything; what says nothing is not what was asked for
        return "", ""


def _of(stream: Any) -> dict[str, str]:
    try:
        return dicom_header.identifiers(open_header(stream))
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything; reading the picture says what is wrong
        return {}
