"""Builders of files that a test can look into."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset


def build_dicom(pixels: np.ndarray, **attributes: Any) -> Dataset:
    """Wrap ``pixels`` (frames first where there are several) as a secondary capture with these attributes."""
    from pydicom import Dataset
    from pydicom.config import disable_value_validation
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    frames = pixels.ndim - (3 if colour else 2)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4"
    data.PatientName, data.PatientID = "Doe^Jane", "JD-1"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    data.Rows, data.Columns = pixels.shape[frames : frames + 2]
    if frames:
        data.NumberOfFrames = pixels.shape[0]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    with disable_value_validation():  # headers of the wild hold invalid values
        for keyword, value in attributes.items():
            setattr(data, keyword, value)
    data.HighBit = data.BitsStored - 1
    if pixels.dtype.kind == "f":
        data.FloatPixelData = pixels.astype("<f4").tobytes()
        for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
            delattr(data, keyword)
    else:
        body = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        data.PixelData = body + b"\0" * (len(body) % 2)
        data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    return data


@pytest.fixture
def dicom() -> Callable[..., Dataset]:
    """Give a function that makes a DICOM data set of an array."""
    return build_dicom


@pytest.fixture
def dicom_bytes() -> Callable[..., bytes]:
    """Give a function that makes a DICOM file of an array or a data set."""

    def encode(pixels: np.ndarray | Dataset, **attributes: Any) -> bytes:
        data = build_dicom(pixels, **attributes) if isinstance(pixels, np.ndarray) else pixels
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return encode
