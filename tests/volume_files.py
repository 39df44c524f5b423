"""Volumes of CT as DICOM series and as NIfTI, with the geometry that a test wants."""

from __future__ import annotations

import io

import numpy as np

# columns, rows, slices of a DICOM series: Hounsfield units with something to see in each window
SHAPE = (14, 10, 6)
VALUES = np.random.default_rng(8).integers(-1000, 1400, SHAPE)
SPACING = (0.8, 0.8, 3.0)


def rotation(order, signs, angle):
    """Directions of columns, rows and slices in LPS: a permutation with signs, tilted."""
    about = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turn = np.array([[np.cos(angle / 2), -np.sin(angle / 2), 0], [np.sin(angle / 2), np.cos(angle / 2), 0], [0, 0, 1]])
    axes = about @ turn @ np.eye(3)[:, list(order)] * np.array(signs)
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return axes


def dicom_file(pixels, **attributes):
    """Write one slice of CT, ``pixels`` by row, stored with a rescale."""
    import pydicom
    from pydicom import Dataset

    data = Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = "MRN1", "1.2.3", "1.2.3.4"
    data.Modality, data.RescaleSlope, data.RescaleIntercept = "CT", "2", "-1024"
    data.PixelSpacing = [SPACING[1], SPACING[0]]
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.PixelData = ((pixels + 1024) // 2).astype("<i2").tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def series(axes, origin=(-40.0, 25.0, 100.0), values=VALUES, **attributes):
    return [
        dicom_file(
            values[:, :, number].T,
            ImageOrientationPatient=[*map(float, axes[:, 0]), *map(float, axes[:, 1])],
            ImagePositionPatient=list(np.array(origin) + number * SPACING[2] * axes[:, 2]),
            SliceThickness=SPACING[2],
            InstanceNumber=99 - number,
            **attributes,
        )
        for number in range(values.shape[2])
    ]


def volume(axes, origin=(-40.0, 25.0, 100.0), values=VALUES):
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ axes * SPACING
    affine[:3, 3] = np.array([-1, -1, 1]) * origin
    image = nibabel.Nifti1Image(((values + 1024) // 2).astype(np.int16), affine)
    image.header.set_slope_inter(2, -1024)
    # `to_bytes` scales anew unless the stored values are what the header says
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([2, -1024], "<f4").tobytes()
    return bytes(data)
