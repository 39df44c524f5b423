"""The scan for what may identify a person: finds planted data, stays silent on what is not, and never shows values."""

from __future__ import annotations

import hashlib
import json
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import cheap

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.audit.phi import kinds, mask, scan
from retr.retrieval.audit.phi.titles import promise
from retr.retrieval.ingest.build import build


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            "name",
            [
                "john_smith/001.png",
                "Smith, Anna",
                "DOE^JANE^^^",
                "seen by Dr. Weber",
                "José García",
                "Maria de la Cruz",
                "J. R. Hartley",
                "O'Brien, Patrick",
                "Anna-Lena Schmidt",
                "Kim Min-jun",
                "SMITH_JOHN_OD.dcm",
                "JohnSmith_left.png",
                "scans/garcia_maria/1.png",
                "patient Emily Clark reports floaters",
                "name: Zyxwa",
                "Frau Becker kam",
                "Mme Lefèvre",
                "Mrs O'Neill called",
                # in no list, known by their letters
                "Kateřina Vondráčková",
                "Oyelaran Babatunde",
                "Zdzisław Krawczyk",
                "scan belongs to Tomoko Hayashida, not to this eye",
                "same as Ruslan Bogdanov, delete",
                "Walsh, Hope",
                "Kowalczyk,_Danuta_OS.jpg",
                "Chen Wei-ling",
                "Kim, Soo-ah",
                "C. van den Berg",
            ],
        ),
        (
            "name",
            [
                "张伟",
                "王小明_OD.png",
                "患者李秀英,女",
                "歐陽娜娜",
                "山田太郎",
                "佐藤 花子",
                "鈴木様",
                "김민수",
                "환자 박지영 님",
                "由赵晓明检查",
                "刘文清医生复核",
                "박지영 과장",
            ],
        ),
        (
            "name",
            [
                "Иванов Иван Иванович",
                "Петрова А.С.",
                "Смирнова Ольга.jpg",
                "пациент Сидоров",
                "Γιώργος Παπαδόπουλος",
                "محمد علي",
                "Соколова Нина, правый глаз",
                "ნათია გელაშვილი",
                "Արմեն Պետրոսյան",
            ],
        ),
        (
            "date",
            [
                "1985-03-07",
                "07.03.1985",
                "3/7/85",
                "19850307",
                "scan_20190304_2.jpg",
                "7 March 1985",
                "March 7, 1985",
                "07-Mar-85",
            ],
        ),
        (
            "date",
            [
                "1985-03-07T14:33:00Z",
                "7. März 1985",
                "7 de julio de 1985",
                "12 juillet 1965",
                "1965年7月12日",
                "March 2019",
                "１９６５／０７／１２",
                "Thu Feb 03 14:22:10 2011",
                "ngày 12 tháng 9 năm 2020",
            ],
        ),
        (
            "number",
            [
                "MRN: 123456",
                "mrn#884213",
                "Patient ID: 4458812",
                "Pat.-Nr. 448812",
                "943 476 5919",
                "病历号 884213",
                "DE89 3704 0044 0532 0130 00",
                "MRN 4711",
                "Pat.-Nr. 2011",
                "cartella clinica n. 77120",
                "passport no. K12X4477",
                "история болезни 5512/20",
            ],
        ),
        ("ssn", ["123-45-6789", "SSN: 123456789", "social security 123 45 6789"]),
        (
            "phone",
            [
                "(555) 123-4567",
                "555.123.4567",
                "+44 20 7946 0958",
                "030 901820",
                "06 12 34 56 78",
                "Tel: 0171/1234567",
                "call 555-0199",
                "电话 13800138000",
            ],
        ),
        (
            "address",
            [
                "123 Main Street",
                "Springfield, IL 62704",
                "Hauptstraße 12",
                "12 rue de la Paix",
                "Calle Mayor 5",
                "P.O. Box 123",
                "ул. Ленина, д. 5",
            ],
        ),
        ("address", ["wohnt Hinter der Kirche 4", "lives at The Old Mill, flat 3"]),
        ("address", ["北京市朝阳区建国路88号", "東京都新宿区西新宿2-8-1", "NW1 6XE"]),
        ("digits", ["MRN4711082", "a/123456.dcm", "P8842913"]),
        ("uid", ["1.2.840.113619.2.55.3.604688119", "2.25.329800735698586629295641978511506172918"]),
        ("e-mail", ["write to jane.doe@clinic.example.org"]),
        (
            "absolute path",
            ["/home/jdoe/images/a.png", r"C:\Users\jdoe\a.png", "from /Users/jdoe/x.tif", r"\\server\jdoe\a.dcm"],
        ),
    ],
)
def test_planted_data_is_found(kind, values):
    assert [value for value in values if kind not in set(kinds(value))] == []


@pytest.mark.parametrize(
    "values",
    [
        [
            "Graves disease",
            "Vogt-Koyanagi-Harada",
            "Marcus Gunn pupil",
            "Charles Bonnet",
            "Morbus Stargardt",
            "maladie de Best",
            "Ahmed valve",
        ],
        [
            "Zeiss Cirrus",
            "Topcon Triton",
            "Heidelberg Spectralis",
            "Carl Zeiss Meditec",
            "Johns Hopkins Hospital",
            "Siemens Healthineers",
        ],
        [
            "Lucentis",
            "ranibizumab",
            "Avastin 1.25 mg",
            "Timolol maleate",
            "T. gondii",
            "E. Coli",
            "Vitamin D",
            "Dr. advised rest",
            "MS lesion",
        ],
        [
            "glaucoma/05_g.jpg",
            "diabetic_retinopathy/11_dr.jpg",
            "iris/rose bengal/mark 3.png",
            "Rose Bengal",
            "Iris Nevus",
            "No Finding",
        ],
        [
            "IM0001",
            "img_0001234.png",
            "ISIC_0024306.jpg",
            "frame_100000.png",
            "shards/0001.tar::a/b.png",
            "patient001_left.png",
            "resnet50",
        ],
        [
            "Flovent HFA",
            "Doença de Parkinson",
            "Hospital San Rafael",
            "Clínica Santa Lucia",
            "Ver. 05.02.01",
            "visit: 2019",
            "fall: 1500 mm",
            "case: 12-24 mmHg",
            "lives at home with 3 cats",
            "Hornhautverkrümmung Links",
            "医生建议复查",
            "주치의 상담",
        ],
        [
            "left eye, 61 years, 2019",
            "2015-2019",
            "24 mmHg",
            "120/80",
            "1.5 mm x 2.25 mm",
            "512 x 512 x 128",
            "0.123456789",
            "250000 cells",
        ],
        [
            "v1.2.3",
            "6.0.2.81",
            "E11.3513",
            "SNOMED 312903003",
            "NCT02462889",
            "doi:10.1016/j.ophtha.2018.01.023",
            "OCT 2000",
        ],
        [hashlib.sha256(b"patient").hexdigest(), "550e8400-e29b-41d4-a716-446655440000", "sha256:9f86d081884c7d65"],
        [
            "糖尿病视网膜病变",
            "黄斑水肿",
            "白内障",
            "高血压",
            "患者主诉视物模糊",
            "緑内障",
            "正常眼底",
            "백내장",
            "고혈압",
            "유리체",
            "조영제",
        ],
        [
            "Болезнь Паркинсона",
            "Синдром Марфана",
            "правый глаз",
            "Linkes Auge",
            "Grauer Star",
            "œil gauche",
            "ojo derecho",
            "γλαύκωμα",
        ],
    ],
)
def test_what_is_nobodys_data_is_not_a_finding(values):
    assert [value for value in values if list(kinds(value))] == []


@pytest.mark.parametrize(
    ("title", "value", "kind"),
    [
        ("patient_name", "Zyxwa", "name"),
        ("Nachname", "Schmitz", "name"),
        ("nom", "Lefèvre", "name"),
        ("apellido", "Gómez", "name"),
        ("姓名", "张三", "name"),
        ("ФИО", "Кузнецов", "name"),
        ("ReferringPhysicianName", "Patel", "name"),
        ("氏名", "ヤマダ タロウ", "name"),
        ("name", "Müller", "name"),
        ("patient_id", "4711", "number"),
        ("MRN", "H-88231", "number"),
        ("ssn", "123456789", "ssn"),
        ("phone", "5551234", "phone"),
        ("dob", "12 07 1965", "date"),
        ("zip", "62704", "address"),
        ("exam_date", "43210", "date"),
        ("site", "Hong Kong", None),
        ("note", "43210", None),
        # nothing that the title promises
        ("name", "glaucoma", None),
        ("name", "ResNet50", None),
        ("patient_name", "anonymous", None),
        ("patient_id", "P17", None),
        ("patient_id", hashlib.sha256(b"a").hexdigest(), None),
        ("file_name", "Spectralis", None),
        ("model_name", "Weber", None),
        ("width", "1048576", None),
        ("snomed", "193349004", None),
        ("manufacturer", "Reichert Jung", None),
        ("study_name", "AREDS", None),
    ],
)
def test_a_title_says_what_a_cell_is(title, value, kind):
    assert list(kinds(value, title)) == ([] if kind is None else [kind])


def test_titles_that_promise_nothing():
    for title in (
        "file_name",
        "class_name",
        "label",
        "device",
        "age",
        "sex",
        "laterality",
        "study",
        "image_id",
        "date_format",
        "size",
    ):
        assert promise(title) is None, title


@given(st.text(), st.text(max_size=20))
def test_any_text_under_any_title_is_judged(value, title):
    assert set(kinds(value, title)) <= {
        "name",
        "date",
        "number",
        "digits",
        "ssn",
        "phone",
        "e-mail",
        "address",
        "uid",
        "absolute path",
    }


@given(st.text())
def test_a_masked_value_has_no_digit_and_no_second_letter_of_a_word(value):
    shown = mask(value)
    assert not any(character.isdigit() and character in "0123456789" for character in shown)
    for word in [word for word in value.split() if word.isascii() and word.isalpha() and len(word) > 2]:
        assert word not in shown


@given(
    st.dates(date(1900, 1, 1), date(2029, 12, 31)),
    st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%Y%m%d", "%d %B %Y", "%B %d, %Y", "%Y年%m月%d日"]),
)
def test_every_day_is_a_date(day, form):
    assert "date" in set(kinds(f"seen {day.strftime(form)}"))


@given(st.integers(0, 10**9 - 1))
def test_ten_digits_are_an_nhs_number_only_with_their_check_digit(number):
    digits = f"{number:09d}"
    check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
    for last in range(10):
        shown = f"{digits[:3]} {digits[3:6]} {digits[6:]}{last}"
        assert ("number" in set(kinds(shown))) == (last == check % 11 and check != 10)


@pytest.mark.parametrize(
    "piece", ["1", "Ab ", "1 Ab ", "J. ", "都1市", "0", "a.", "123 456 ", "A-", "tel 1 ", "{", "Иван ", "김"]
)
def test_no_long_cell_takes_long(piece):
    value = (piece * 20_000)[:20_000]
    with cheap(10):
        list(kinds(value))


def test_a_long_cell_is_read_beyond_its_first_page():
    assert list(kinds("no finding. " * 5000 + "DOE^JANE")) == ["name"]
    for before in range(880, 1120, 3):
        assert list(kinds("x" * before + " call (555) 123-4567")) == ["phone"]


def store(folder, table, *, skipped=None, notes=None, files=None):
    info = EncoderInfo("synthetic", 4, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    with Store.create(folder, encoder=info).writer() as writer:
        writer.append(table, np.ones((table.num_rows, 4), np.float32))
        if skipped is not None:
            writer.record_skipped(skipped)
        for key, note in (notes or {}).items():
            writer.note(key, note)
        for name, data in (files or {}).items():
            writer.add_file(name, data)
        return writer.commit()


def test_every_column_is_read_whatever_its_name_and_type(tmp_path):
    table = pa.table(
        {
            "id": ["a", "b", "Smith, Anna"],
            "etag": ["John Smith", None, None],
            "mode": ["RGB", "seen by Dr. Weber", "L"],
            "sha256": ["0" * 20, hashlib.sha256(b"a").hexdigest(), "jane.doe@example.org"],
            "size": [1, 2, 12345678],
            "findings": pa.array([["glaucoma"], ["DOE^JANE", "normal"], []]),
            "seen": pa.array([[4711082], [], [1]]),
            "number": pa.array([4711082.0, 0.123456789, float("nan")]),
            "tags": pa.array(["John Smith", "none", "none"]).dictionary_encode(),
            "blob": pa.array([b"MRN: 884213", b"\xff\xfe", None]),
            "extra": [json.dumps({"patient": {"name": "Zyxwa"}}), "{not json", "[]"],
            "born": pa.array([None, None, 0], pa.date32()),
            "probability": [0.25, 0.5, 1.0],
            "John Smith 1970-03-05": [1, 2, 3],
        }
    )
    found = {(finding.column, finding.kind): finding for finding in scan(store(tmp_path / "index", table))}
    assert set(found) == {
        ("id", "name"),
        ("etag", "name"),
        ("mode", "name"),
        ("sha256", "e-mail"),
        ("findings", "name"),
        ("seen", "digits"),
        ("number", "digits"),
        ("tags", "name"),
        ("blob", "number"),
        ("extra", "name"),
        ("born", "date"),
        ("J*** S**** ####-##-##", "name"),
        ("J*** S**** ####-##-##", "date"),
    }
    assert found["born", "date"].rows == 1
    assert found["J*** S**** ####-##-##", "name"].rows == 0
    assert not any(word in str(found) for word in ("Smith", "Weber", "jane", "4711082", "884213", "Zyxwa", "1970"))


def test_what_hangs_on_an_index_is_read(tmp_path):
    table = pa.table({"id": ["a"], "label": ["healthy"]})
    skipped = pa.table({"path": ["MRN4711082.png", "b.png"], "reason": ["damaged", "names John Smith"]})
    notes = {
        "calibration": {"classes": ["glaucoma", "Anna Kowalska"]},
        "build": {"column": "patient", "per": {"DOE^JANE": 3}},
    }
    files = {
        "probe.json": b'{"classes": ["1970-03-05"]}',
        "weights.bin": b"\x00\x01John Smith",
        "notes.txt": b"call 555-123-4567",
    }
    opened = store(tmp_path / "index", table, skipped=skipped, notes=notes, files=files)
    found = {(finding.column, finding.kind): finding.rows for finding in scan(opened)}
    assert found == {
        ("skipped", "digits"): 1,
        ("skipped", "name"): 1,
        ("manifest", "name"): 2,
        ("file probe.json", "date"): 1,
        ("file notes.txt", "phone"): 1,
    }


def test_cells_are_counted_over_pieces_and_deleted_rows_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("retr.retrieval.audit.phi.scanning._PIECE", 3)
    names = ["John Smith", "normal", "Anna Weber", "normal", "John Smith", "normal", "John Smith"]
    table = pa.table({"id": [str(number) for number in range(7)], "note": names})
    opened = store(tmp_path / "index", table)
    with opened.writer() as writer:
        writer.delete(np.array([0]))
        opened = writer.commit()
    (finding,) = scan(opened)
    assert (finding.column, finding.kind, finding.rows) == ("note", "name", 3)
    assert set(finding.examples) == {"A*** W****", "J*** S****"}


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
