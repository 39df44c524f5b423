"""What crosses a split: through copies of copies, rows in no part and patients of two names; against brute force."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval.audit import duplicates as finding
from retr.retrieval.audit.copies import Copies
from retr.retrieval.index import Index

INFO = EncoderInfo(
    name="drawn", dim=2, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)


def build(path, rows, group="patient"):
    """An index of ``(sha256, patient, split)`` rows."""
    store = Store.create(path, encoder=INFO)
    ids = [f"{at}.png" for at in range(len(rows))]
    columns = {
        name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(("sha256", "patient", "split"))
    }
    with store.writer() as writer:
        writer.append(pa.table({"id": ids, "path": ids, **columns}), np.ones((len(rows), 2), np.float32))
        writer.set_group(group)
        return Index(writer.commit())


def closure(n, linked):
    reach = np.array([[a == b or linked(a, b) for b in range(n)] for a in range(n)])
    for k in range(n):
        reach |= np.outer(reach[:, k], reach[k])
    return reach


ROW = st.tuples(
    st.sampled_from([None, "a", "b", "c"]),
    st.sampled_from([None, "P", "Q", "R"]),
    st.sampled_from([None, "train", "test", " "]),
)
NEAR = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4)


@given(st.lists(ROW, min_size=1, max_size=9), NEAR)
@settings(max_examples=60, deadline=None)
def test_all_that_crosses_is_found(tmp_path_factory, rows, near):
    n = len(rows)
    sha, patient, split = (list(column) for column in zip(*rows, strict=True))
    part = [value if value and value.strip() else None for value in split]

    def exact(a, b):
        return sha[a] is not None and sha[a] == sha[b]

    # rows of one file stand for each other: near pairs are found between the first of each
    first = [min([b for b in range(n) if exact(a, b)] or [a]) for a in range(n)]
    edges = {tuple(sorted((first[a], first[b]))) for a, b in near if a < n and b < n and first[a] != first[b]}
    index = build(tmp_path_factory.mktemp("leaks") / "x.retr", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "measure_threshold", lambda *_: 0.9)
        patch.setattr(finding, "find_copies", lambda *_: Copies(0.9, edges=dict.fromkeys(edges, (0.95, 0.999))))
        patch.setattr(Index, "encoder", object())
        found = index.leaks("split")
    picture = closure(n, lambda a, b: exact(a, b) or (min(a, b), max(a, b)) in edges)

    def crosses(a, b):
        return part[a] is not None and part[b] is not None and part[a] != part[b]

    pairs = [(a, b) for a, b in combinations(range(n), 2) if picture[a, b] and crosses(a, b)]
    assert [(pair.a, pair.b) for pair, *_ in found.pairs] == [(f"{a}.png", f"{b}.png") for a, b in pairs]
    assert found.n_pairs == len(pairs)
    for (pair, one, other), (a, b) in zip(found.pairs, pairs, strict=True):
        assert (one, other) == (part[a], part[b])
        assert (pair.kind == "exact") == exact(a, b)

    def mine(a, b):
        return patient[a] is not None and patient[a] == patient[b]

    assert set(found.groups) == {patient[a] for a, b in combinations(range(n), 2) if mine(a, b) and crosses(a, b)}
    person = closure(n, lambda a, b: picture[a, b] or mine(a, b))
    linked = {
        frozenset(patient[c] for c in np.flatnonzero(person[a]) if patient[c] is not None)
        for a, b in combinations(range(n), 2)
        if person[a, b] and crosses(a, b) and not picture[a, b] and not mine(a, b)
    }
    assert {frozenset(one) for one in found.linked} == {names for names in linked if len(names) > 1}
    assert found.without_part == part.count(None)
    assert found.without_group == sum(p is None and q is not None for p, q in zip(patient, part, strict=True))
    assert bool(found) == bool(found.groups or pairs or found.linked)


def test_a_third_copy_in_no_part_hides_nothing(tmp_path):
    rows = [("a", "P1", None), ("a", "P2", "train"), ("a", "P3", "test"), ("b", "P4", "train")]
    found = build(tmp_path / "x.retr", rows).leaks("split", exact_only=True)
    assert [(pair.a, pair.b, pair.kind) for pair, *_ in found.pairs] == [("1.png", "2.png", "exact")]
    assert found.parts == {"train": 2, "test": 1}
    assert found.without_part == 1


def test_patients_who_share_a_picture_may_be_one(tmp_path):
    rows = [("a", "P1", "train"), ("a", "P2", None), ("c", "P2", "test"), ("d", "P3", "test")]
    found = build(tmp_path / "x.retr", rows).leaks("split", exact_only=True)
    assert (found.groups, found.n_pairs) == ({}, 0)
    assert found.linked == ({"P1": {"train": 1}, "P2": {"test": 1}},)
    assert found


def test_rows_without_a_hash_are_no_copies(tmp_path):
    rows = [(None, "P1", "train"), (None, "P2", "test")]
    assert not build(tmp_path / "x.retr", rows).leaks("split", exact_only=True)


def test_two_spellings_are_said_and_not_merged(tmp_path):
    rows = [("a", None, "train"), ("a", None, "Train "), ("b", None, "TRAIN"), ("c", None, "test"), ("d", None, "  ")]
    found = build(tmp_path / "x.retr", rows, group=None).leaks("split", exact_only=True)
    (said,) = found.warnings
    assert "'TRAIN', 'Train ', 'train' are taken as different parts" in said
    assert [(one, other) for _, one, other in found.pairs] == [("train", "Train ")]
    assert found.without_part == 1


def test_what_is_listed_is_bounded_and_what_is_there_is_counted(tmp_path):
    rows = [("a", f"P{at}", ("train", "test")[at % 2]) for at in range(60)]
    index = build(tmp_path / "x.retr", rows)
    found = index.leaks("split", exact_only=True, limit=7)
    assert (len(found.pairs), found.n_pairs) == (7, 900)
    doubled = index.duplicates(exact_only=True, limit=7)
    assert (len(doubled.pairs), len(doubled.crossing), doubled.n_crossing) == (59, 7, 60 * 59 // 2)
    assert doubled.clusters == (tuple(f"{at}.png" for at in range(60)),)


def test_rows_without_a_hash_are_not_copies_of_each_other(tmp_path):
    rows = [("", "P", "train"), ("", "Q", "test"), (None, "R", "train"), (None, "S", "test")]
    assert not build(tmp_path / "x", rows).leaks("split", exact_only=True)


def test_patients_in_different_parts_who_differ_in_spelling_only_are_said(tmp_path):
    rows = [("a", "P1", "train"), ("b", "p1 ", "test"), ("c", "Q", "train"), ("d", "q", "train"), ("e", "P01", "test")]
    found = build(tmp_path / "x", rows).leaks("split", exact_only=True)
    assert not found
    assert found.warnings == ("'P1', 'p1 ' are taken as different patients: they differ in spelling only",)
    many = [(f"{at}", f"{'Pp'[at % 2]}{at // 2}", ("train", "test")[at % 2]) for at in range(26)]
    said = build(tmp_path / "y", many).leaks("split", exact_only=True).warnings
    assert len(said) == 11
    assert said[-1] == "so are 3 more sets of patients who are in different parts"


@pytest.mark.parametrize("columns", [(), ("path",), ("sha256",), ("path", "sha256")])
def test_an_index_that_was_not_built_from_files(tmp_path, columns):
    """Vectors of elsewhere may come without paths or hashes: what cannot be compared is counted."""
    rows = {"path": ["x.png", "y.png", "z.tif"], "sha256": ["a", "a", "a"]}
    table = {"id": ["one", "two", "three#1"], "split": ["train", "test", "test"]}
    store = Store.create(tmp_path / "x", encoder=INFO)
    with store.writer() as writer:
        writer.append(pa.table(table | {name: rows[name] for name in columns}), np.ones((3, 2), np.float32))
        index = Index(writer.commit())
    found = index.leaks("split", exact_only=True)
    hashed = "sha256" in columns
    # the third is another picture of its file
    assert [(pair.a, pair.b) for pair, _, _ in found.pairs] == ([("one", "two")] if hashed else [])
    assert found.duplicates.unhashed == (0 if hashed else 3)
