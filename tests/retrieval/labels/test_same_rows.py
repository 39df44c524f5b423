"""Who evaluates, calibrates and adapts reads the same labels and keeps the same rows together."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_standin import IndexStandIn

from retr.index.encoder import EncoderInfo
from retr.index.errors import UsageError
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.classify.answers import row_exclusions
from retr.retrieval.classify.calibrate import calibrate
from retr.retrieval.labels.cases import find_cases
from retr.retrieval.labels.labelled import classes_of, grouped, labelled_rows, others, sharing

INFO = EncoderInfo(
    name="fake", dim=4, similarity="cosine", modality="none", text=False, weights_sha256="0" * 64, preprocessing="none"
)
LABELS = st.sampled_from([None, "", " ", "a", " a", "a ", "b", "\tb", "a|b", "A"])
ROWS = st.tuples(LABELS, st.sampled_from([None, "P1", " P1 ", "P2", " "]), st.sampled_from([None, "x", "y", "z"]))


def make(path, rows, group, vectors=None):
    store = Store.create(path, encoder=INFO, group=group)
    label, patient, sha = (list(part) for part in zip(*rows, strict=True))
    columns = {"label": pa.array(label, pa.string()), "patient": pa.array(patient, pa.string())}
    table = pa.table({"id": [f"r{i:03}" for i in range(len(rows))], **columns, "sha256": pa.array(sha, pa.string())})
    with store.writer() as writer:
        writer.append(table, np.ones((len(rows), 4), np.float32) if vectors is None else vectors)
        return writer.commit()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=2, max_size=12), st.sampled_from([None, "patient"]))
def test_evaluating_and_calibrating_see_the_same_rows_classes_and_groups(tmp_path_factory, rows, group):
    store = make(tmp_path_factory.mktemp("same") / "x.retr", rows, group)
    try:
        cases = find_cases(store, "label")
    except UsageError as refused:
        if "cannot be excluded" not in str(refused):
            with pytest.raises(UsageError):
                labelled_rows(store, "label")
        return
    labelled = labelled_rows(store, "label")
    assert cases.rows.tolist() == labelled.rows.tolist()
    assert cases.classes == labelled.classes
    assert cases.truth.tolist() == labelled.codes.tolist()
    assert cases.groups.tolist() == labelled.groups.tolist()


def test_a_list_is_its_classes_and_several_of_them_are_no_answer(tmp_path):
    assert classes_of(["a ", "b", "a"]) == ("a", "b")
    store = Store.create(tmp_path / "x.retr", encoder=INFO)
    with store.writer() as writer:
        table = pa.table({"id": ["r", "s", "t"], "one": [["a"], ["b"], None], "more": [["a"], ["b"], ["a", "b"]]})
        writer.append(table, np.ones((3, 4), np.float32))
        store = writer.commit()
    assert labelled_rows(store, "one").classes == find_cases(store, "one").classes == ("a", "b")
    with pytest.raises(UsageError, match="1 rows of 'more' hold several classes"):
        labelled_rows(store, "more")
    assert find_cases(store, "more").several


def test_patients_who_share_a_file_are_one_group(tmp_path):
    """One person registered three times, once without a label; ten who share a blank picture, and eleven."""
    person = [
        ("a", "P1", "x"),
        ("b", "P1", "1"),
        (None, "P2", "x"),
        (None, "P2", "y"),
        ("a", "P3", "y"),
        ("b", "P4", "4"),
    ]
    blanks = [("a", f"T{i}", "ten") for i in range(10)] + [("b", f"E{i}", "eleven") for i in range(11)]
    store = make(tmp_path / "x.retr", person + blanks, "patient")
    assert sharing(store) == 3 + 10
    groups = labelled_rows(store, "label").groups
    assert len(set(groups[:3])) == 1 != len(set(groups[:4]))  # P1, P1, P3; and P4
    assert len(set(groups[4:14])) == 1
    assert len(set(groups[14:])) == 11
    # whoever is asked about keeps the same rows out, named or found
    of_p1 = [np.flatnonzero(np.array([row[1] in {"P1", "P2", "P3"} for row in person]))]
    for kept_out in (
        others(store, np.array([0])),
        row_exclusions(store, [np.array([4])]),
        row_exclusions(store, [np.empty(0, np.int64)], "P2"),
    ):
        np.testing.assert_array_equal(kept_out, of_p1)
    # another column says nothing of persons
    assert len(set(grouped(store, "label", np.arange(len(store)))[0])) == 2


def test_a_measurement_is_not_of_copies_under_another_patient(tmp_path):
    """Half of the pictures are registered twice: neighbours of the other registration would always be right."""
    rng = np.random.default_rng(0)
    vectors, truth = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 2, 60)
    rows = [(f"c{truth[i]}", f"{side}{i}", f"{i}") for side in "PQ" for i in range(60)]
    store = make(tmp_path / "x.retr", rows, "patient", unit(np.concatenate([vectors, vectors])))
    index = IndexStandIn(store=store, text_side=None)
    measured, _ = calibrate(index, "label", alpha=0.3)
    assert {one.groups for one in measured} == {60}
    assert max(one.accuracy for one in measured) < 0.75  # labels without meaning


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.just("a"), st.sampled_from([None, "P1", " P1 ", "P2", "P3", " "]), st.sampled_from([None, "", *"xyzw"])
        ),
        min_size=1,
        max_size=14,
    ),
    st.data(),
)
def test_groups_are_those_of_patients_and_files_compared_one_by_one(tmp_path_factory, rows, data):
    store = make(tmp_path_factory.mktemp("same") / "x.retr", rows, "patient")
    asked = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True)), np.int64)
    patients = [who if who and who.strip() else None for _, who, _ in rows]
    files = [sha or None for _, _, sha in rows]
    known = [
        who
        or next(
            (p for p, sha in reversed(list(zip(patients, files, strict=True))) if p and sha and sha == files[i]), None
        )
        for i, who in enumerate(patients)
    ]
    together = {(p, p) for p in known}
    together |= {
        (p, q)
        for p, one in zip(patients, files, strict=True)
        for q, other in zip(patients, files, strict=True)
        if p and q and one and one == other
    }
    together |= {(p, r) for p, q in together for s, r in together if q == s}
    want = {}
    for i in asked.tolist():
        for j in asked.tolist():
            same = (
                (known[i], known[j]) in together
                if known[i] and known[j]
                else files[i] is not None and files[i] == files[j]
            )
            want[i, j] = i == j or (same and (known[i] is None) == (known[j] is None))
    groups, are_known = grouped(store, "patient", asked)
    at = dict(zip(asked.tolist(), groups.tolist(), strict=True))
    assert {(i, j): at[i] == at[j] for i, j in want} == want
    assert are_known.tolist() == [known[i] is not None for i in asked.tolist()]
    # numbered as they come
    assert list(dict.fromkeys(groups.tolist())) == list(range(len(set(groups.tolist()))))
