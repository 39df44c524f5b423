"""What a DICOM header gives to an index, and that nothing else of it does."""

import hashlib
import hmac

import numpy as np
import pytest

from retr.retrieval.images import read_image, read_images
from retr.retrieval.images.dicom_header import HEADER_COLUMNS, header_columns

PIXELS = np.zeros((4, 4), np.uint8)
KEY = b"0123456789abcdef0123456789abcdef"


def test_the_allow_list(dicom, dicom_bytes):
    data = dicom(
        PIXELS,
        Modality="DX",
        BodyPartExamined="Chest",
        ViewPosition="PA",
        Laterality="L",
        PatientSex="F",
        PatientAge="067Y",
        StudyDate="20190314",
        Manufacturer="Siemens Healthineers",
        ManufacturerModelName="Fluorospot Compact FD",
        PixelSpacing=[0.143, 0.15],
    )
    columns = read_image(dicom_bytes(data)).columns
    assert columns == {
        "modality": "DX",
        "body_part_examined": "CHEST",
        "view_position": "PA",
        "laterality": "L",
        "patient_sex": "F",
        "patient_age": 67.0,
        "study_year": 2019,
        "manufacturer": "Siemens Healthineers",
        "manufacturer_model_name": "Fluorospot Compact FD",
        "pixel_spacing_row": 0.143,
        "pixel_spacing_column": 0.15,
    }
    data.WindowWidth = "0"
    assert set(read_image(dicom_bytes(data), hash_key=KEY).columns) == set(HEADER_COLUMNS)


def test_nothing_else_of_a_full_header_comes_out(dicom, dicom_bytes):
    secrets = {
        "PatientName": "Roe^Richard",
        "PatientID": "MRN-77231",
        "PatientBirthDate": "19520229",
        "StudyDate": "20190313",
        "AccessionNumber": "A-991",
        "InstitutionName": "St. Elsewhere",
        "InstitutionAddress": "1 Main Street",
        "ReferringPhysicianName": "Who^Doctor",
        "OperatorsName": "Op^Erator",
        "StudyDescription": "Thorax Richard Roe",
        "PatientComments": "call 555-0199",
        "StationName": "ROOM7",
        "BodyPartExamined": "Roe, Richard!",
        "PatientTelephoneNumbers": "555-0199",
    }
    data = dicom(PIXELS, **secrets)
    picture = read_image(dicom_bytes(data), hash_key=KEY)
    said = repr(picture.columns) + repr(picture.notes)
    for value in secrets.values():
        assert value not in said
    assert "body_part_examined" not in picture.columns
    assert picture.columns["study_year"] == 2019
    assert picture.columns["patient_age"] == 67.0


def test_identifiers_are_keyed_hashes(dicom, dicom_bytes):
    columns = read_image(dicom_bytes(dicom(PIXELS)), hash_key=KEY).columns
    for column, value in (("patient", "JD-1"), ("study", "1.2.3"), ("series", "1.2.3.1")):
        assert columns[column] == hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()
    other = read_image(dicom_bytes(dicom(PIXELS)), hash_key=KEY[::-1]).columns
    assert other["patient"] != columns["patient"]
    assert "patient" not in read_image(dicom_bytes(dicom(PIXELS))).columns


def test_frames_share_their_columns(dicom_bytes):
    data = dicom_bytes(np.zeros((3, 4, 4), np.uint8), Modality="US")
    assert [picture.columns["modality"] for _, picture in read_images(data)] == ["US"] * 3


@pytest.mark.parametrize(
    ("attributes", "age"),
    [
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "026W"}, 0.5),
        ({"PatientAge": "003D"}, 0.01),
        ({"PatientBirthDate": "19800601", "StudyDate": "20200531"}, 39.0),
        ({"PatientBirthDate": "19800601", "StudyDate": "20200601"}, 40.0),
        ({"PatientBirthDate": "20200601", "StudyDate": "20190601"}, None),
        ({"StudyDate": "20190601"}, None),
        ({"PatientAge": "089Y"}, 89.0),
        ({"PatientAge": "090Y"}, 90.0),
        ({"PatientAge": "104Y"}, 90.0),
        ({"PatientAge": "1100M"}, 90.0),
        ({"PatientBirthDate": "19120601", "StudyDate": "20200531"}, 90.0),
        ({"PatientBirthDate": "1912.06.01", "StudyDate": "2020.05.31"}, 90.0),
        ({"PatientAge": "old"}, None),
    ],
)
def test_age_in_years(dicom, attributes, age):
    assert header_columns(dicom(PIXELS, **attributes), None).get("patient_age") == age


@pytest.mark.parametrize(
    ("keyword", "column", "kept", "dropped"),
    [
        ("Modality", "modality", ["CT", "OPT", "mg"], ["DOE JANE", "CTX", "4711"]),
        ("ViewPosition", "view_position", ["PA", "mlo", "LL"], ["ROE", "MRN 1003", "PA ROE"]),
        ("Laterality", "laterality", ["L", "r", "B"], ["LEFT", "X", "DOE"]),
        ("ImageLaterality", "laterality", ["U"], ["JANE"]),
        ("PatientSex", "patient_sex", ["M", "f", "O"], ["MALE", "JANE", "X"]),
        ("BodyPartExamined", "body_part_examined", ["CHEST", "C SPINE", "Lumbar Spine"], ["RICHARD ROE", "MRN 1003"]),
        (
            "Manufacturer",
            "manufacturer",
            ["GE MEDICAL SYSTEMS", "Carl Zeiss Meditec", "FUJIFILM Corporation", "Philips", "TOPCON CO., LTD."],
            [
                "Richard Roe",
                "Siemens, Dr. Roe",
                "SIEMENS 01.02.1950",
                "Carl Roe",
                "SIEMENS jane@example.org",
                "Canon Ray",
            ],
        ),
        (
            "ManufacturerModelName",
            "manufacturer_model_name",
            [
                "SOMATOM Definition AS+",
                "Discovery CT750 HD",
                "DRX-1",
                "TRC-NW8",
                "CIRRUS HD-OCT 5000",
                "LightSpeed VCT",
                "Optima CT660",
                "Revolution EVO",
            ],
            [
                *("Jane Doe", "MRN1003", "Discovery Jane Doe", "SOMATOM 19500102", "SPECTRALIS Roe^Richard"),
                *("Scanner LEE", "SIGNA J DOE", "Scanner MRN1003", "Camera 1934 01 02", "Camera JD 12"),
            ],
        ),
    ],
)
def test_what_is_no_term_does_not_enter(dicom, keyword, column, kept, dropped):
    for value in kept:
        assert column in header_columns(dicom(PIXELS, **{keyword: value}), None), value
    for value in dropped:
        assert column not in header_columns(dicom(PIXELS, **{keyword: value}), None), value


@pytest.mark.parametrize(
    ("attributes", "year"),
    [
        ({"StudyDate": "20190314"}, 2019),
        ({"StudyDate": "2019.03.14"}, 2019),
        ({"StudyDate": "19000101"}, None),
        ({"StudyDate": "29990101"}, None),
        ({"StudyDate": "19520229", "PatientBirthDate": "19520229"}, None),
        ({"StudyDate": "19720229", "PatientBirthDate": "19720229"}, None),
        ({"StudyDate": "spring 1999"}, None),
        ({"StudyDate": "20190230"}, None),
    ],
)
def test_a_study_year_is_one_of_a_study(dicom, attributes, year):
    assert header_columns(dicom(PIXELS, **attributes), None).get("study_year") == year


@pytest.mark.parametrize(("spacing", "columns"), [("0.5", (0.5, 0.5)), (["0", "1"], (None, None)), ("x", (None, None))])
def test_spacings_that_are_no_pair(dicom, spacing, columns):
    found = header_columns(dicom(PIXELS, PixelSpacing=spacing) if spacing != "x" else dicom(PIXELS), None)
    assert (found.get("pixel_spacing_row"), found.get("pixel_spacing_column")) == columns
