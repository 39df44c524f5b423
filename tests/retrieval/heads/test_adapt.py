"""Adapting from Python: any encoder, several classes a row, everything fitted on."""

import numpy as np
import pyarrow as pa
import pytest

from retr.index.errors import UsageError
from retr.index.store import Store
from retr.retrieval.classify.answers import SEEN, answer_pictures
from retr.retrieval.classify.methods import ByNeighbours
from retr.retrieval.heads.adapted import head_of, load_for
from retr.retrieval.heads.measuring import Measured, said_of
from retr.retrieval.index import Index
from retr.retrieval.labels.labelled import others
from retr.retrieval.labels.trained_rows import FITTED, HELD_OUT, SPLIT, VIEWS_FILE, seen_by_head


def test_an_encoder_without_a_registered_name_uses_the_stored_vectors(archive, tmp_path, fake_encoder):
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    index.set_item("patient")
    done = index.adapt("label", tmp_path / "y.retr")
    assert done.facts["split_by"] == "patient"
    assert (done.store.manifest.group, done.store.manifest.item) == ("patient", "patient")
    table = done.store.table(["patient", SPLIT]).to_pylist()
    sides = {}
    for row in table:
        sides.setdefault(row["patient"], set()).add(row[SPLIT])
    assert all(len(side) == 1 for side in sides.values())
    assert {side for found in sides.values() for side in found} == {FITTED, HELD_OUT}
    adapted = load_for(done.store, fake_encoder, {})
    picture = archive / "healthy/000.png"
    row = done.store.rows_of(["healthy/000.png"])
    moved = adapted.encode_images([picture])[0]
    np.testing.assert_allclose(moved / np.linalg.norm(moved), done.store.vectors(row)[0], atol=1e-5)


def test_rows_with_several_classes_or_none_are_moved_but_not_fitted_on(archive, tmp_path, fake_encoder):
    index = Index.build(archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv")
    ids = index.store.table(["id"])["id"].to_pylist()
    findings = ["a|b", None, *("a" if i % 2 else "b" for i in range(len(ids) - 2))]
    with index.store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "findings": findings}))
        writer.commit()
    index.refresh()
    done = index.adapt("findings", tmp_path / "y.retr", separator="|", refit=True)
    assert len(done.store) == len(ids)
    assert done.facts["fitted_rows"] == len(ids) - 2
    assert any("several classes" in note for note in done.notes)
    assert head_of(Store.open(tmp_path / "y.retr")).about["label"] == "findings"


def test_patients_that_the_head_has_seen_measure_nothing(make_archive, tmp_path, fake_encoder):
    archive = make_archive(count=36)
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    done = index.adapt("label", tmp_path / "y.retr")
    adapted = Index(done.store)
    held_out = done.facts["held_out_rows"]
    found = adapted.evaluate("retrieval", "label")
    assert found.facts["queries"] == 36
    assert any("fitted without them" in note for note in found.notes)
    found = adapted.evaluate("probe", "label")
    assert found.facts["queries"] == held_out
    assert any("they do not ask" in note for note in found.notes)
    inside = adapted.evaluate("retrieval", "label", queries=f"{SPLIT} = '{FITTED}'")
    assert inside.facts["queries"] == 36 - held_out
    with pytest.raises(UsageError, match="nothing is held out to measure"):
        adapted.evaluate("probe", "label", queries=f"{SPLIT} = '{FITTED}'")
    outside = adapted.evaluate("retrieval", "label", queries=f"{SPLIT} = '{HELD_OUT}'")
    assert not any("head" in note for note in outside.notes)
    # a picture that came later, of a patient that was fitted on
    rows = adapted.table(["id", SPLIT])
    first = rows[SPLIT].to_pylist().index(FITTED)
    sides = [None if at == first else side for at, side in enumerate(rows[SPLIT].to_pylist())]
    with done.store.writer() as writer:
        writer.replace_columns(pa.table({"id": rows["id"], SPLIT: sides}))
        late = writer.preview()
    assert late.table([SPLIT])[SPLIT].null_count == 1
    np.testing.assert_array_equal(seen_by_head(late), seen_by_head(done.store))
    # before anything is calibrated, too
    said: list[str] = []
    adapted.classify_rows(by="label", say=said.append)
    assert said == [f"{36 - held_out} rows: {SEEN}", "not calibrated; see `retr calibrate`"]
    store = adapted.store
    method, ids = ByNeighbours(store, "label", 5), rows["id"].to_pylist()
    for side, note in ((FITTED, SEEN), (HELD_OUT, "not calibrated; see `retr calibrate`")):
        at = store.rows_of([ids[rows[SPLIT].to_pylist().index(side)]])
        assert answer_pictures(store, method, store.vectors(at), ["x"], others(store, at))[0].note == note
    measured, novelty = adapted.calibrate("label")
    assert {one.rows for one in measured} == {36}
    assert novelty.rows == held_out


def test_without_views_only_held_out_rows_measure(make_archive, tmp_path, fake_encoder):
    """As in an index of an older version, or of very many rows."""
    archive = make_archive(count=36)
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    half, everything = (Index(index.adapt("label", tmp_path / f"{refit}.retr", refit=refit).store) for refit in (0, 1))
    for one in (half, everything):
        with one.store.writer() as writer:
            writer.remove_file(VIEWS_FILE)
            writer.commit()
        one.refresh()
    held_out = half.store.manifest.extra["adapted"]["held_out_rows"]
    with pytest.raises(UsageError, match=r"alpha 0\.1 needs 9 patients, and 'label' has 6 to measure"):
        half.calibrate("label")
    assert {one.rows for one in half.calibrate("label", alpha=0.2)[0]} == {held_out}
    assert half.evaluate("retrieval", "label").facts["queries"] == held_out
    with pytest.raises(UsageError, match="nothing is held out to measure"):
        everything.evaluate("retrieval", "label")
    with pytest.raises(UsageError, match="nothing is left to measure"):
        everything.calibrate("label")
    said: list[str] = []
    everything.classify_rows(probe="label", say=said.append)
    assert any("not measured: the head of this index has seen all of them" in one for one in said)


def measured(first, any_hit):
    rows = np.arange(20)
    values = {"precision@1": rows < first, "precision@5": rows < first, "any_hit@5": rows < any_hit}
    return Measured(
        {name + of: one.astype(float) for of in (" among held-out rows", "") for name, one in values.items()}, rows
    )


def test_what_a_head_gains_and_loses_is_said():
    before = measured(8, 18)
    (said,) = said_of(before, measured(12, 18), 0.25, 0.25, "patients")
    assert "precision@1 0.400 to 0.600 (+0.200 [" in said
    assert "any_hit@5 0.900 to 0.900 (+0.000 [" in said
    assert "25% of the space" in said
    assert said_of(before, measured(12, 16), 0.0, 0.75, "patients")[1].startswith("--mix 0.75 lowers any_hit@5 nowhere")
    assert "--mix 1 is the space" in said_of(before, measured(12, 16), 0.5, 1.0, "patients")[1]
    assert said_of(before, measured(6, 18), 0.0, 0.0, "patients")[1].startswith("the head measured worse than none")
    (said,) = said_of(before, before, 1.0, 1.0, "patients")
    assert said.startswith("what is written is the space that was there")
    assert not measured(12, 16).keeps_any_hit(before)
    assert measured(0, 18).keeps_any_hit(before)


def test_a_patient_whose_rows_were_deleted_is_known_to_the_head(make_archive, tmp_path, fake_encoder):
    archive = make_archive(count=36)
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    done = index.adapt("label", tmp_path / "y.retr")
    adapted = Index(done.store, encoder=load_for(done.store, fake_encoder, {}))
    table = adapted.table(["id", "patient", SPLIT]).to_pylist()
    first = {side: next(row for row in table if row[SPLIT] == side) for side in (FITTED, HELD_OUT)}
    for row in first.values():
        adapted.delete(where=f"patient = '{row['patient']}'")
    picture, other = (archive / first[side]["id"] for side in (FITTED, HELD_OUT))
    for image, patient, known in (
        (picture, None, True),  # the file itself
        (other, first[FITTED]["patient"], True),  # another picture of the patient, as far as anyone can tell
        (other, first[HELD_OUT]["patient"], False),
        (other, None, False),
    ):
        (one,) = adapted.classify([image], by="label", patient=patient)
        assert (SEEN in one.note) == known


@pytest.mark.parametrize("fit", [None, "age < 58"])
def test_another_group_never_parts_a_patient(make_archive, tmp_path, fake_encoder, fit):
    archive = make_archive(count=36)
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    ids = index.table(["id"])["id"].to_pylist()
    with index.store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "eye": [f"E{i}" for i in range(36)]}))
        writer.commit()
    index.refresh()
    done = index.adapt("label", tmp_path / "y.retr", group="eye", fit=fit)
    sides = {}
    for row in done.store.table(["patient", SPLIT]).to_pylist():
        sides.setdefault(row["patient"], set()).add(row[SPLIT])
    assert all(len(side) == 1 for side in sides.values())
    with pytest.raises(UsageError, match="on both sides of --fit"):
        index.adapt("label", tmp_path / "z.retr", group="eye", fit="age < 57")
