"""Small DICOM files of a patient."""

from __future__ import annotations

import io

import numpy as np


def dicom(patient: str | None, seed: int, *, frames: int = 1, preamble: bool = True) -> bytes:
    """One file of a patient, with smooth pictures that no other seed gives."""
    import pydicom
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.{seed + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.{seed + 1}", f"1.2.{seed + 1}.1"
    if patient is not None:
        data.PatientID = patient
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    if frames > 1:
        data.NumberOfFrames = frames
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 4, 4), dtype=np.uint8)
    data.PixelData = pixels.repeat(4, axis=1).repeat(4, axis=2).tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=preamble)
    return file.getvalue()
