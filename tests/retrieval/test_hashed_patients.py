"""Raw identifiers and their keyed hashes are one patient, wherever a value is given."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from dicom_file import dicom

from retr.index.errors import FilterError, ImageReadError, UsageError
from retr.index.machine.hash_key import keyed_hash, load_hash_key
from retr.retrieval.classify.answers import SEEN
from retr.retrieval.heads.adapted import AdaptedEncoder, head_of
from retr.retrieval.index import Index
from retr.retrieval.labels.labelled import row_groups
from retr.retrieval.query import Query

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")


@pytest.fixture
def folder(tmp_path):
    """Four patients with two files each; the pictures of one file are a little different from each other."""
    folder = tmp_path / "dicom"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.dcm").write_bytes(dicom(f"MRN{1000 + number // 2}", number))
    return folder


@pytest.fixture
def index(folder, tmp_path, fake_encoder):
    return Index.build(folder, tmp_path / "i.retr", encoder=fake_encoder, group="patient")


MRN1001 = {"2.dcm", "3.dcm"}


def left(hits):
    return set(hits.ids)


def test_a_data_set_is_as_its_file(index, folder, tmp_path):
    file = folder / "2.dcm"
    asked = {"k": 8, "exclude_same": "patient"}
    wanted = index.search(image=file, **asked)
    assert left(wanted) & MRN1001 == set()
    (tmp_path / "elsewhere.dcm").write_bytes(file.read_bytes())
    for data in (
        pydicom.dcmread(file),
        pydicom.dcmread(tmp_path / "elsewhere.dcm"),
        pydicom.dcmread(io.BytesIO(file.read_bytes())),
    ):
        hits = index.search(image=data, **asked)
        assert (hits.ids, hits.scores.tolist()) == (wanted.ids, wanted.scores.tolist())
        # the file's own row and its copies stay out, as with the file
        assert index.search(image=data, k=8).ids == index.search(image=file, k=8).ids
    altered = pydicom.dcmread(file)
    altered.PatientID = "MRN1003"
    assert left(index.search(image=altered, **asked)) & {"6.dcm", "7.dcm"} == set()
    stranger = pydicom.dcmread(file)
    stranger.PatientID = "MRN7777"
    assert "MRN7777" not in str(index.search(image=stranger, **asked).note)
    labels = pa.table({"id": list(index), "label": ["a", "b"] * 4})
    with index.store.writer() as writer:
        writer.replace_columns(labels)
        writer.commit()
    index.refresh()
    by_file, by_data = index.classify((one for one in (file, pydicom.dcmread(file))), by="label")
    assert by_file.to_json()["voters"] == by_data.to_json()["voters"]
    assert by_data.query == "picture 2"


def test_a_raw_identifier_is_hashed_where_the_index_keeps_hashes(index, tmp_path):
    file = tmp_path / "new.png"
    from PIL import Image

    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file)
    digest = keyed_hash(load_hash_key(), "MRN1001")
    for value in ("MRN1001", "MRN1001 ", digest, ["MRN1001"]):
        hits = index.search(image=file, k=8, exclude_same={"patient": value})
        assert left(hits) & MRN1001 == set()
        assert (len(hits), hits.note) == (6, None)
    both = index.search(image=file, k=8, exclude_same={"patient": ["MRN1001", "MRN1000"]})
    assert left(both) == {f"{n}.dcm" for n in range(4, 8)}
    for empty in ("", " ", [], ["MRN1001", ""], float("nan")):
        with pytest.raises(UsageError, match="the value to leave out is empty"):
            index.search(image=file, exclude_same={"patient": empty})
    own = index.search(id="0.dcm", k=8, exclude_same={"patient": [None, "MRN1001"]})
    assert left(own) == {f"{n}.dcm" for n in range(4, 8)}
    unknown = index.search(image=file, k=8, exclude_same={"patient": "mrn1001"})
    assert len(unknown) == 8
    assert "no row has the patient 'mrn1001'" in unknown.note
    with pytest.raises(UsageError, match=r"has no known 'patient'; give the value .*--exclude-same patient=VALUE"):
        index.search(image=file, exclude_same="patient")


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("patient = 'MRN1001'", 2),
        ("'MRN1001' = patient", 2),
        ("patient != 'MRN1001'", 6),
        ("patient in ('MRN1001', 'MRN1003')", 4),
        ("patient not in ('MRN1001', 'MRN1003')", 4),
        ("not patient = 'MRN1001' and study is not null", 6),
        ("study = '1.2.1' or series = '1.2.2.1'", 2),
        ("patient in ('MRN1001', null)", 2),
        ("patient not in ('MRN1001', null)", 0),
        ("patient = null", 0),
        ("patient is null", 0),
    ],
)
def test_conditions_know_the_raw_identifier(index, where, rows):
    assert index.count(where=where) == rows


@pytest.mark.parametrize(
    "where", ["patient like 'MRN%'", "patient not like 'MRN%'", "patient > 'MRN1'", "patient between 'A' and 'Z'"]
)
def test_what_hashes_cannot_answer_is_refused(index, where):
    with pytest.raises(FilterError, match=r"'patient' holds keyed hashes.*patient in \('MRN1003', 'MRN1004'\)"):
        index.count(where=where)


@pytest.mark.parametrize("where", ["patient = MRN1001", 'patient != "MRN1001"'])
def test_an_identifier_without_quotes_is_named_as_such(index, where):
    with pytest.raises(FilterError, match=r"no column 'MRN1001'.*single quotes"):
        index.count(where=where)


def test_purging_a_patient_by_the_raw_identifier(index):
    assert index.delete(where="patient = 'MRN1001'", purge=True) == 2
    assert index.count(where="patient = 'MRN1001'") == 0
    # the note of the key outlives the purge
    assert index.store.identity.fingerprint is not None


@pytest.mark.parametrize("preamble", [True, False], ids=["preamble", "no preamble"])
def test_a_dicom_file_names_its_own_patient(index, tmp_path, preamble):
    file = tmp_path / "new picture"
    file.write_bytes(dicom("MRN1001", 77, preamble=preamble))
    for image in (file, str(file), file.read_bytes()):
        hits = index.search(image=image, k=8, exclude_same="patient")
        assert left(hits) & MRN1001 == set()
        assert len(hits) == 6
    mixed = Query.image(file) + Query.image(dicom("MRN1003", 78)) + Query.id("0.dcm")
    assert left(index.search(mixed, k=8, exclude_same="patient")) == {"4.dcm", "5.dcm"}
    file.write_bytes(dicom("MRN7777", 79))
    hits = index.search(image=file, k=8, exclude_same="patient")
    assert "that the picture states" not in hits.note
    assert "no row has the patient of the query" in hits.note
    assert "MRN7777" not in hits.note
    with pytest.raises(UsageError, match="no row has the patient"):
        index.search(image=file, exclude_same="patient", strict_exclude=True)
    file.write_bytes(dicom(None, 80))
    with pytest.raises(UsageError, match="has no known 'patient'"):
        index.search(image=file, exclude_same="patient")


def test_a_frame_of_a_file_names_its_patient(index, tmp_path):
    file = tmp_path / "cine.dcm"
    file.write_bytes(dicom("MRN1001", 50, frames=3))
    third = index.search(image=f"{file}#3", k=8, exclude_same="patient")
    assert left(third) & MRN1001 == set()
    first = index.search(image=file, k=8, exclude_same="patient")
    assert third.scores.tolist() != first.scores.tolist()
    with pytest.raises(ImageReadError, match="no picture '#4'"):
        index.search(image=f"{file}#4")
    file.write_bytes(dicom("MRN1001", 50))
    with pytest.raises(ImageReadError, match="it holds one picture: leave '#1' out"):
        index.search(image=f"{file}#1", exclude_same="patient")


def test_padding_and_accents_make_no_second_patient(tmp_path, fake_encoder):
    folder = tmp_path / "padded"
    folder.mkdir()
    for number, patient in enumerate(["M\u00fcller 7", " M\u00fcller 7 ", "Mu\u0308ller 7", "m\u00fcller 7", "A\\B"]):
        data = pydicom.dcmread(io.BytesIO(dicom(None, number)))
        data.SpecificCharacterSet = "ISO_IR 192"
        data.PatientID = patient
        data.save_as(folder / f"{number}.dcm")
    index = Index.build(folder, tmp_path / "p.retr", encoder=fake_encoder)
    values = index.table(["patient"])["patient"].to_pylist()
    assert len(set(values[:3])) == 1
    assert values[3] != values[0], "case is part of an identifier"
    assert values[4] == keyed_hash(load_hash_key(), "A\\B")
    assert index.count(where="patient = 'M\u00fcller 7'") == 3


@pytest.fixture
def mixed(index, tmp_path, make_picture):
    """An index whose patients are hashes from DICOM, and raw identifiers from a table."""
    more = tmp_path / "more"
    more.mkdir()
    lines = ["path,patient"]
    for number, patient in enumerate(["MRN1001", "MRN1001", "X1", ""]):
        make_picture(100 + number).save(more / f"{number}.png")
        lines.append(f"{number}.png,{patient}")
    (tmp_path / "more.csv").write_text("\n".join(lines) + "\n")
    index.add(more, metadata=tmp_path / "more.csv")
    return index


def test_a_column_of_hashes_and_raw_identifiers(mixed):
    assert mixed.row("more/0.png")["patient"] == "MRN1001", "a person's own table stays as it is"
    both = {*MRN1001, "more/0.png", "more/1.png"}
    for value in ("MRN1001", keyed_hash(load_hash_key(), "MRN1001")):
        assert left(mixed.search(vector=np.ones(56), k=20, exclude_same={"patient": value})) & both == set()
        assert mixed.count(where=f"patient = '{value}'") == 4
        assert mixed.count(where=f"patient != '{value}'") == 7
    assert left(mixed.search(id="2.dcm", k=20, exclude_same="patient")) & both == set()
    assert left(mixed.search(id="more/0.png", k=20, exclude_same="patient")) & both == set()
    one_each = mixed.search(vector=np.ones(56), k=20, one_per="patient")
    assert len(one_each) == 6
    assert len(both & left(one_each)) == 1
    ids = mixed.table(["id"])["id"].to_pylist()
    with mixed.store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "site": [one.partition("/")[0][:4] == "more" for one in ids]}))
        writer.commit()
    mixed.refresh()
    leaks = mixed.leaks("site", group="patient", exact_only=True)
    assert list(leaks.groups.values()) == [{"False": 2, "True": 2}]
    mixed.set_group("patient")
    assert len(set(row_groups(mixed.store, mixed.store.rows_of(sorted(both))))) == 1


def test_a_table_that_lets_a_picture_go_gives_it_back_to_its_header(folder, tmp_path, fake_encoder):
    """Neither a cell that is cleared nor a renamed file makes a patient's picture nobody's."""
    (tmp_path / "t.csv").write_text("path,patient\n0.dcm,RAW0\n1.dcm,RAW1\n")
    index = Index.build(folder, tmp_path / "t.retr", encoder=fake_encoder, group="patient", metadata=tmp_path / "t.csv")
    cells = dict(zip(*index.table().select(["id", "patient"]).to_pydict().values(), strict=True))
    assert (cells["0.dcm"], cells["1.dcm"]) == ("RAW0", "RAW1")
    digest = keyed_hash(load_hash_key(), "MRN1000")
    (tmp_path / "t.csv").write_text("path,patient\n1.dcm,RAW1\n2.dcm,RAW2\n")
    (folder / "1.dcm").rename(folder / "moved.dcm")
    index = Index.build(folder, tmp_path / "t.retr", encoder=fake_encoder, metadata=tmp_path / "t.csv", prune=True)
    cells = dict(zip(*index.table().select(["id", "patient"]).to_pydict().values(), strict=True))
    assert (cells["0.dcm"], cells["moved.dcm"]) == (digest, digest)
    assert index.report.embedded == 0
    again = Index.build(folder, tmp_path / "t.retr", encoder=fake_encoder, metadata=tmp_path / "t.csv", prune=True)
    assert (again.report.unchanged, again.report.changed) == (8, 0)


def test_another_key_is_refused_where_a_value_must_be_hashed(mixed, monkeypatch, tmp_path):
    (tmp_path / "other.key").write_text("another key of another user")
    monkeypatch.setenv("RETR_KEY_FILE", str(tmp_path / "other.key"))
    again = Index.open(mixed.path, encoder=mixed.encoder)
    with pytest.raises(UsageError, match=r"hashed with the key '[0-9a-f]{16}', and the key in .*RETR_KEY_FILE"):
        again.search(vector=np.ones(56), exclude_same={"patient": "MRN1001"})
    with pytest.raises(UsageError, match="RETR_KEY_FILE"):
        again.count(where="patient != 'MRN1001'")
    with pytest.raises(UsageError, match="RETR_KEY_FILE"):
        again.search(vector=np.ones(56), k=12, one_per="patient")
    assert len(again.search(vector=np.ones(56), k=12)) == 12
    assert len(again) == 12


def test_a_batch_line_leaves_its_own_patient_out(index, retr_batch):
    lines = [
        {"id": "0.dcm"},
        {"id": "0.dcm", "exclude_same": {"patient": "MRN1001"}},
        {"id": "0.dcm", "exclude_same": "patient"},
    ]
    answers = retr_batch(index, lines)
    assert [len(MRN1001 & found) for found in answers] == [2, 0, 2]
    assert "1.dcm" not in answers[2]
    # a line adds to what is left out of all of them
    answers = retr_batch(
        index, [*lines, {"id": "0.dcm", "exclude_same": {"patient": ["MRN1003", None]}}], "patient=MRN1002"
    )
    assert [found & {"4.dcm", "5.dcm"} for found in answers] == [set()] * 4
    assert [len(found) for found in answers] == [5, 3, 4, 2]


@pytest.fixture
def retr_batch(capsys, monkeypatch):
    def run(index, lines, *options):
        from retr.cli.main import app

        capsys.readouterr()
        monkeypatch.setattr(Index, "open", lambda *_, **__: index)
        file = index.path.parent / "batch.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        given = [word for option in options for word in ("--exclude-same", option)]
        command = ["query", "--batch", str(file), "--index", str(index.path), "-k", "8", "--json", *given]
        app(command, standalone_mode=False)
        return [{hit["id"] for hit in json.loads(line)["hits"]} for line in capsys.readouterr().out.splitlines()]

    return run


def labelled(index):
    """Label the files and train on them; two files of a patient have one label."""
    ids = index.table(["id"])["id"].to_pylist()
    with index.store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "label": ["ab"[int(one[0]) // 2 % 2] for one in ids]}))
        writer.commit()
    index.refresh()


def voters(answer):
    return set(answer.neighbours.ids)


def test_no_picture_is_named_by_its_own_patient(index, folder, tmp_path):
    labelled(index)
    new = dicom("MRN1001", 60)
    (tmp_path / "cine.dcm").write_bytes(dicom("MRN1001", 61, frames=3))
    blank = dicom(None, 62)
    said, frame, named, unknown = (
        next(iter(index.classify([image], by="label", k=8, **how)))
        for image, how in (
            (new, {}),
            (f"{tmp_path}/cine.dcm#2", {}),
            (blank, {"patient": "MRN1001"}),
            (blank, {}),
        )
    )
    for answer in (said, frame, named):
        assert voters(answer) == {one for one in index.table(["id"])["id"].to_pylist() if one not in MRN1001}
        assert "whose picture" not in answer.note
    assert len(voters(unknown)) == 8
    assert "name it with --patient" in unknown.note
    # the file of a row, whatever it holds by now
    (folder / "2.dcm").write_bytes(dicom(None, 63))
    (again,) = index.classify([folder / "2.dcm"], by="label", k=8)
    assert voters(again) & MRN1001 == set()
    (absent,) = index.classify([blank], by="label", patient="MRN9", where="patient != 'MRN8'")
    assert "no row has the patient 'MRN9': nothing was kept out for it" in absent.note
    assert "no row has the patient 'MRN8' that the condition names" in absent.note
    for empty in ("", " "):
        with pytest.raises(UsageError, match="the patient is empty"):
            index.classify([blank], by="label", patient=empty)
    with pytest.raises(UsageError, match="no row has the patient 'MRN9'"):
        list(index.classify([blank], by="label", patient="MRN9", strict_exclude=True))


def test_a_header_names_a_patient_of_whom_a_head_has_seen_rows_that_are_gone(index, tmp_path, fake_encoder):
    """Whatever column tells patients apart by now."""
    labelled(index)
    store = index.adapt("label", tmp_path / "adapted.retr", refit=True).store
    adapted = Index(store, encoder=AdaptedEncoder(fake_encoder, head_of(store)))
    adapted.delete(ids=sorted(MRN1001))
    for group in ("patient", None, "study"):
        adapted.set_group(group)
        seen, new = adapted.classify([dicom("MRN1001", 64), dicom("MRN7777", 64)], by="label")
        assert SEEN in seen.note
        assert SEEN not in new.note


def test_a_probe_heeds_the_header_and_the_name(index):
    labelled(index)
    blank, new = dicom(None, 62), dicom("MRN1001", 62)
    plain, named, said = (
        next(iter(index.classify([image], probe="label", **how)))
        for image, how in ((blank, {}), (blank, {"patient": "MRN1001"}), (new, {}))
    )
    assert dict(zip(named.classes, named.probabilities, strict=True)) == dict(
        zip(said.classes, said.probabilities, strict=True)
    )
    assert plain.probabilities != named.probabilities


def test_evaluations_say_which_patients_a_condition_does_not_find(index):
    labelled(index)
    found = index.evaluate("retrieval", "label", where="patient != 'MRN9'")
    assert "no row has the patient 'MRN9' that the condition names" in found.notes
    assert found.facts["patients"] == 4
    assert index.evaluate("retrieval", "label", where="patient != 'MRN1001'").facts["patients"] == 3
