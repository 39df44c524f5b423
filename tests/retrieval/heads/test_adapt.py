"""Adapting from Python: any encoder, several classes a row, everything fitted on."""

import numpy as np
import pyarrow as pa

from retr.index.store import Store
from retr.retrieval.engine import Index
from retr.retrieval.heads.adapt import FITTED, HELD_OUT, SPLIT
from retr.retrieval.heads.adapted import head_of, load_for


def test_an_encoder_without_a_registered_name_uses_the_stored_vectors(archive, tmp_path, fake_encoder):
    index = Index.build(
        archive, tmp_path / "x.retr", encoder=fake_encoder, metadata=archive / "labels.csv", group="patient"
    )
    done = index.adapt("label", tmp_path / "y.retr")
    assert done.facts["split_by"] == "patient"
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
