"""The scan for what may identify a person: finds planted data, stays silent on what is not, and never shows values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retr.index.store import Store
from retr.retrieval.audit.phi import kinds, mask, scan
from retr.retrieval.ingest.build import build


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("john_smith/001.png", "name"),
        ("Smith, Anna", "name"),
        ("DOE^JANE^^^", "name"),
        ("seen by Dr. Weber", "name"),
        ("1985-03-07", "date"),
        ("07.03.1985", "date"),
        ("3/7/85", "date"),
        ("19850307", "date"),
        ("scan_20190304_2.jpg", "date"),
        ("7 March 1985", "date"),
        ("March 7, 1985", "date"),
        ("MRN4711082", "digits"),
        ("a/123456.dcm", "digits"),
        ("1.2.840.113619.2.55.3.604688119", "uid"),
        ("write to jane.doe@clinic.example.org", "e-mail"),
        ("/home/jdoe/images/a.png", "absolute path"),
        (r"C:\Users\jdoe\a.png", "absolute path"),
    ],
)
def test_planted_data_is_found(value, kind):
    assert kind in set(kinds(value))


@pytest.mark.parametrize(
    "value",
    [
        "glaucoma/05_g.jpg",
        "diabetic_retinopathy/11_dr.jpg",
        "moderate non proliferative retinopathy, laser spot",
        "IM0001",
        "left eye, 61 years, 2019",
        "iris/rose bengal/mark 3.png",
        "shards/0001.tar::a/b.png",
        hashlib.sha256(b"patient").hexdigest(),
        "1.5 mm x 2.25 mm",
        "v1.2.3",
    ],
)
def test_what_is_nobodys_data_is_not_a_finding(value):
    assert list(kinds(value)) == []


@given(st.text())
def test_a_masked_value_has_no_digit_and_no_second_letter_of_a_word(value):
    shown = mask(value)
    assert not any(character in "0123456789" for character in shown)
    for word in [word for word in value.split() if word.isascii() and word.isalpha() and len(word) > 2]:
        assert word not in shown


def test_an_index_is_scanned_wherever_text_can_be(archive, tmp_path, fake_encoder):
    (archive / "labels.csv").write_text(
        "path,label,note,ward,patient_id,born,hashed\n"
        f"healthy/000.png,healthy,seen by Dr. Weber,7,4711,1970-03-05,{hashlib.sha256(b'a').hexdigest()}\n"
        f"healthy/002.tif,healthy,,7,4712,1971-04-05,{hashlib.sha256(b'b').hexdigest()}\n"
    )
    (archive / "healthy" / "004.webp").rename(archive / "healthy" / "john_smith.webp")
    (archive / "MRN4711082.png").write_bytes(b"not a picture")
    build(archive, tmp_path / "index", fake_encoder, metadata=archive / "labels.csv")
    found = {(finding.column, finding.kind): finding for finding in scan(Store.open(tmp_path / "index"))}
    assert set(found) == {
        ("path", "name"),
        ("note", "name"),
        ("patient_id", "number"),
        ("born", "date"),
        ("skipped", "digits"),
    }
    assert found["born", "date"].rows == 2
    assert "john" not in str(found)
    assert "Weber" not in str(found)


def test_hashed_identifiers_under_a_telling_name_are_no_finding(archive, tmp_path, fake_encoder):
    digest = hashlib.sha256(b"a").hexdigest()
    (archive / "labels.csv").write_text(f"path,PatientID\nhealthy/000.png,{digest}\n")
    build(archive, tmp_path / "index", fake_encoder, metadata=archive / "labels.csv")
    assert scan(Store.open(tmp_path / "index")) == []
