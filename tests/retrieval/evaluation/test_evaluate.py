"""Evaluations on small indexes whose right answers can be counted by hand or by brute force."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import FilterError, UsageError
from retr.index.store import Store
from retr.retrieval.evaluation import page
from retr.retrieval.evaluation.classification import neighbours, probe, zero_shot
from retr.retrieval.evaluation.evaluation import EvaluationOptions
from retr.retrieval.evaluation.retrieval import draw_gallery, retrieval
from retr.retrieval.index import Index
from retr.retrieval.labels.cases import find_cases, subgroups
from retr.retrieval.labels.label_set import load_labels
from retr.retrieval.labels.labelled import row_groups

INFO = EncoderInfo(
    name="fake", dim=8, similarity="cosine", modality="none", text=True, weights_sha256="0" * 64, preprocessing="none"
)
QUICK = EvaluationOptions()


def make_store(path, vectors, *, group="patient", **columns):
    store = Store.create(path, encoder=INFO, group=group)
    with store.writer() as writer:
        ids = [f"r{i:03}" for i in range(len(vectors))]
        writer.append(pa.table({"id": ids, **columns}), np.asarray(vectors, np.float32))
        return writer.commit()


@pytest.fixture
def archive_store(tmp_path):
    """120 rows of 40 patients in three classes, two rows of each patient nearly equal."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 3)
    label = patient % 3
    centres = rng.normal(size=(3, 8))
    own = rng.normal(size=(40, 8))
    vectors = centres[label] + 1.5 * own[patient] + 0.3 * rng.normal(size=(120, 8))
    return make_store(
        tmp_path / "x.retr",
        vectors,
        patient=[f"P{p:02}" for p in patient],
        label=[("normal", "glaucoma", "drusen")[c] for c in label],
        sex=[("F", "M")[p % 2] for p in patient],
        age=(40 + patient).tolist(),
        both=[
            "normal" if c == 0 else "glaucoma|drusen" if p % 2 else "glaucoma"
            for c, p in zip(label, patient, strict=True)
        ],
    )


def brute(store, cases, k):
    vectors = store.vectors()[cases.rows]
    scores = vectors @ vectors.T
    scores[cases.groups[:, None] == cases.groups] = -np.inf
    found = np.argsort(-scores, axis=1)[:, :k]
    return np.array([[bool((cases.member[q] & cases.member[j]).any()) for j in row] for q, row in enumerate(found)])


@pytest.mark.parametrize(("label", "separator"), [("label", None), ("both", "|")])
def test_retrieval_is_what_brute_force_finds_without_the_patient(archive_store, label, separator):
    cases = find_cases(archive_store, label, separator=separator)
    got = retrieval(archive_store, cases, ks=(1, 4), options=QUICK)
    hits = brute(archive_store, cases, 4)
    assert got.metrics["precision@1"].value == pytest.approx(hits[:, 0].mean())
    assert got.metrics["precision@4"].value == pytest.approx(hits.mean())
    assert got.metrics["any_hit@4"].value == pytest.approx(hits.any(axis=1).mean())
    share = (cases.member.astype(int) @ cases.member.T.astype(int)) > 0
    relevant = (share & (cases.groups[:, None] != cases.groups)).sum(axis=1)
    np.testing.assert_array_equal(cases.relevant(), relevant)
    assert got.metrics["recall@4"].value == pytest.approx((hits.sum(axis=1) / relevant).mean())
    for name in ("recall@4", "map@4"):  # four neighbours are at most four of the relevant rows
        assert got.metrics[name].high <= (np.minimum(relevant, 4) / relevant).mean() + 1e-9
    assert got.metrics["precision@1"].groups == 40


def test_an_index_of_fewer_rows_than_k_is_measured(tmp_path):
    store = make_store(tmp_path / "few.retr", np.eye(8)[:4], patient=list("abcd"), label=["x", "y", "x", "y"])
    found = Index(store).evaluate("retrieval", "label")
    assert found.metrics["recall@10"].value == 1
    assert found.metrics["precision@10"].value == pytest.approx(0.1)
    assert Index(store).evaluate("neighbours", "label", k=9).facts["queries"] == 4


def test_an_index_of_one_patient_has_nothing_to_find(tmp_path):
    """No neighbour is anyone else's: that is said, and counts as nothing found."""
    store = make_store(tmp_path / "one.retr", np.eye(8)[:4], patient=list("aaaa"), label=["x", "y", "x", "y"])
    found = Index(store).evaluate("retrieval", "label")
    assert found.metrics["precision@1"].value == 0
    assert np.isnan(found.metrics["recall@1"].value)
    assert found.curves["confusion"]["counts"] == [[0, 0], [0, 0]]
    assert any("no other picture of their class" in note for note in found.notes)


def test_a_depth_of_any_size_costs_what_the_rows_cost(tmp_path):
    store = make_store(tmp_path / "few.retr", np.eye(8)[:4], patient=list("abcd"), label=["x", "y", "x", "y"])
    index, deep = Index(store), 10**23
    found = index.evaluate("retrieval", "label", k=[3, deep])
    for name in ("any_hit", "recall", "map", "ndcg"):
        assert found.metrics[f"{name}@{deep}"] == found.metrics[f"{name}@3"]
    assert found.metrics[f"precision@{deep}"].value == pytest.approx(1e-23)
    assert any("there are 4 labelled rows" in note for note in found.notes)
    few, all_ = (index.evaluate("neighbours", "label", k=k).to_json()["metrics"] for k in (3, deep))
    assert few == all_


def test_too_few_folds_are_an_error_of_their_own(archive_store):
    with pytest.raises(UsageError, match="at least 2 folds, got: 1"):
        probe(archive_store, find_cases(archive_store, "label"), folds=1, options=QUICK)


def test_the_same_patient_helps_when_allowed(archive_store):
    apart = retrieval(archive_store, find_cases(archive_store, "label"), ks=(1, 5, 10), options=QUICK)
    together = retrieval(
        archive_store, find_cases(archive_store, "label", same_patient=True), ks=(1, 5, 10), options=QUICK
    )
    assert together.metrics["precision@1"].value > apart.metrics["precision@1"].value + 0.1
    assert together.metrics["precision@1"].groups == 120


def test_a_missing_group_is_an_error_when_asked_and_a_note_when_not(tmp_path):
    store = make_store(tmp_path / "y.retr", np.eye(8), group=None, label=list("aabbaabb"), empty=[None] * 8)
    with pytest.raises(UsageError, match=r"cannot be excluded: there is no column 'patient'"):
        find_cases(store, "label", group="patient")
    with pytest.raises(UsageError, match=r"the column 'empty' is empty"):
        find_cases(store, "label", group="empty")
    assert "no group key" in find_cases(store, "label").notes[0]


def test_a_row_without_patient_is_of_the_patient_whose_file_it_is(tmp_path):
    """The patient may be known from a copy that has no label; what is unknown is a patient for each file."""
    store = make_store(
        tmp_path / "copies.retr",
        np.repeat(np.eye(8)[:3], [3, 3, 2], axis=0),
        patient=["P1", None, "P1", "P2", None, " ", "P3", None],
        label=["a", "a", None, "b", "b", "b", "c", None],
        sha256=["1", "2", "2", "3", "4", "4", None, None],
    )
    cases = find_cases(store, "label")
    assert cases.rows.tolist() == [0, 1, 3, 4, 5, 6]
    assert cases.groups.tolist() == [0, 0, 1, 2, 2, 3]
    assert "2 rows have no 'patient': each file counts as a patient of its own" in cases.notes
    assert cases.groups.tolist() == row_groups(store, cases.rows).tolist(), "folds keep apart what evaluations do"
    # without a group each row asks all the others
    assert find_cases(store, "label", same_patient=True).groups.tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_without_a_label_neither_ask_nor_answer(tmp_path):
    vectors = np.eye(8)
    vectors[1] = vectors[0]
    store = make_store(tmp_path / "z.retr", vectors, patient=list("abcdefgh"), label=["x", None, *"yyxxyy"])
    cases = find_cases(store, "label")
    assert cases.rows.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert "1 rows have no 'label'" in cases.notes[0]


def test_queries_ask_and_the_others_still_answer(archive_store):
    cases = find_cases(archive_store, "label", queries="sex = 'F'")
    got = retrieval(archive_store, cases, ks=(1, 5, 10), options=QUICK)
    assert (got.facts["queries"], got.facts["gallery"]) == (60, 120)
    every = brute(archive_store, find_cases(archive_store, "label"), 1)[cases.queries]
    assert got.metrics["precision@1"].value == pytest.approx(every.mean())
    with pytest.raises(FilterError):
        find_cases(archive_store, "label", queries="sex = ")


def test_subgroups_divide_the_queries_and_small_cells_are_marked(archive_store):
    cases = find_cases(archive_store, "label")
    got = retrieval(archive_store, cases, ks=(1, 5, 10), options=EvaluationOptions(subgroups=("sex", "age")))
    rows = {(row["column"], row["value"]): row for row in got.per_subgroup}
    assert {name for name, _ in rows} == {"sex", "age"}
    assert rows["sex", "F"]["n"] + rows["sex", "M"]["n"] == 120
    ages = [row for row in got.per_subgroup if row["column"] == "age"]
    assert len(ages) == 4
    assert sum(row["n"] for row in ages) == 120
    assert not rows["sex", "F"]["small"]
    assert all(row["small"] == (row["patients"] < 10) for row in got.per_subgroup)
    with pytest.raises(UsageError, match="device"):
        subgroups(archive_store, cases, "device")


def test_neighbours_and_probe_answer_better_than_chance_and_never_see_the_patient(archive_store):
    cases = find_cases(archive_store, "label")
    for found in (
        neighbours(archive_store, cases, k=5, options=QUICK),
        probe(archive_store, cases, folds=5, options=QUICK),
    ):
        assert 0.4 < found.metrics["top1"].value < 1
        assert found.metrics["top1"].low <= found.metrics["top1"].value <= found.metrics["top1"].high
        counts = np.array(found.curves["confusion"]["counts"])
        assert counts.sum() == 120
        assert np.trace(counts) / 120 == pytest.approx(found.metrics["top1"].value)


def test_a_probe_on_labels_that_belong_to_the_patient_alone_is_at_chance(tmp_path):
    """Vectors hold nothing but who the patient is: a split by row would look perfect."""
    rng = np.random.default_rng(2)
    patient = np.repeat(np.arange(60), 3)
    own = rng.normal(size=(60, 8))
    label = rng.integers(0, 2, 60)
    store = make_store(
        tmp_path / "p.retr",
        own[patient] + 0.01 * rng.normal(size=(180, 8)),
        patient=[str(p) for p in patient],
        label=[str(label[p]) for p in patient],
    )
    found = probe(store, find_cases(store, "label"), folds=5, options=QUICK)
    assert found.metrics["balanced_accuracy"].value < 0.65


def test_several_labels_a_row_give_areas_under_curves(archive_store):
    cases = find_cases(archive_store, "both", separator="|")
    assert cases.several
    for found in (
        neighbours(archive_store, cases, k=5, options=QUICK),
        probe(archive_store, cases, folds=5, options=QUICK),
    ):
        assert set(found.metrics) == {"auroc", "auprc"}
        assert found.metrics["auroc"].value > 0.6


class Words:
    """A text side whose class vectors are given."""

    def __init__(self, vectors, scale=10.0):
        self.vectors, self.scale = vectors, scale

    def class_embedding(self, prompts):
        return np.asarray(self.vectors[prompts[0]], np.float32)

    def similarity_logits(self, images, texts):
        return images @ texts.T * self.scale


def test_zero_shot_scores_the_classes_that_the_label_set_knows(tmp_path):
    vectors = np.eye(8)[[0, 0, 1, 1, 2, 3]]
    store = make_store(tmp_path / "w.retr", vectors, patient=list("abcdef"), label=["a", "a", "b", "b", "c", "zz"])
    words = Words({"a": np.eye(8)[0], "b": np.eye(8)[1], "c": np.eye(8)[4]})
    cases = find_cases(store, "label")
    found = zero_shot(store, cases, words, load_labels(["a", "b", "c"]), options=QUICK)
    assert found.metrics["top1"].n == 5
    # c's vector is orthogonal to every picture: its one row goes to a, the first of three equals
    assert found.metrics["top1"].value == pytest.approx(4 / 5)
    assert "'zz'" in found.notes[-1]
    with pytest.raises(UsageError, match="names a class of the label set"):
        zero_shot(store, cases, Words({"q": np.eye(8)[0], "r": np.eye(8)[0]}), load_labels(["q", "r"]), options=QUICK)


@pytest.mark.parametrize(("label", "separator"), [("label", None), ("both", "|")])
def test_no_scale_of_the_logits_changes_what_only_their_order_decides(archive_store, label, separator):
    """At 10,000 nearly every probability is 0 or 1: as ties they would have the AUROC of a coin."""
    cases = find_cases(archive_store, label, separator=separator)
    kind = np.repeat(np.arange(40), 3) % 3
    names = ("normal", "glaucoma", "drusen")
    vectors = {name: archive_store.vectors()[kind == c].mean(axis=0) for c, name in enumerate(names)}
    found = [
        zero_shot(archive_store, cases, Words(vectors, scale), load_labels(list(vectors)), options=QUICK).metrics
        for scale in (0.1, 10_000.0)
    ]
    ordered = ("auroc", "auprc") if separator else ("top1", "balanced_accuracy", "macro_f1", "kappa")
    for name in ordered:
        assert found[0][name].value == pytest.approx(found[1][name].value, abs=1e-6), name
    assert 0.55 < found[1]["auroc"].value < 0.99
    if not separator:  # against the rest of the classes log-odds at one scale order rows as at another, but for little
        assert found[0]["auroc"].value == pytest.approx(found[1]["auroc"].value, abs=0.05)


def test_only_a_group_column_makes_patients(tmp_path, archive_store):
    """Without one no number, table or page speaks of them; byte-identical files stand together all the same."""
    pytest.importorskip("matplotlib")
    vectors = np.random.default_rng(0).normal(size=(12, 8))
    store = make_store(
        tmp_path / "none.retr",
        vectors[[*range(12), 0]],
        group=None,
        label=[*"xyxyxyxyxyxy", "x"],
        sha256=[*(str(i) for i in range(12)), "0"],
    )
    index = Index(store)
    for task, more in (("retrieval", {"subgroups": ["label"]}), ("neighbours", {})):
        found = index.evaluate(task, "label", **more)
        assert found.facts["images"] == 12, "the copy is of the file it copies"
        found = replace(found, notes=())
        said = str(found.to_json()) + page.render(found)
        assert "patient" not in said
    grouped = Index(archive_store).evaluate("retrieval", "label")
    assert grouped.facts["patients"] == 40
    assert all("patients" in row for row in grouped.per_class)


def test_the_reciprocal_rank_says_how_deep_it_looks(archive_store):
    found = Index(archive_store).evaluate("retrieval", "label", k=[1, 3]).metrics
    assert "mrr" not in found
    hits = brute(archive_store, find_cases(archive_store, "label"), 3)
    assert found["mrr@3"].value == pytest.approx((hits.any(axis=1) / (hits.argmax(axis=1) + 1)).mean())


def test_where_there_is_no_interval_the_reason_is_said(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(12, 8))
    two = Index(make_store(tmp_path / "two.retr", vectors, patient=["P", "Q"] * 6, label=[*"xxyy"] * 3))
    for task in ("retrieval", "neighbours"):
        found = two.evaluate(task, "label")
        assert all(np.isnan(one.low) for one in found.metrics.values())
        assert any("fewer than 3 patients ask" in note for note in found.notes)
    one = Index(make_store(tmp_path / "one.retr", vectors, patient=[*"AABCDEFGHIJK"], label=["x"] * 2 + ["y"] * 10))
    found = one.evaluate("neighbours", "label")
    assert np.isnan(found.metrics["auroc"].low)
    assert not np.isnan(found.metrics["top1"].low)
    assert any(note.startswith("no interval of kappa, auroc: without one of the patients") for note in found.notes)


def test_the_calibration_error_has_no_interval_but_what_chance_gives(archive_store):
    found = Index(archive_store).evaluate("neighbours", "label").metrics
    assert np.isnan(found["ece"].low)
    assert 0 < found["ece_by_chance"].value < 1
    assert found["top1"].low < found["top1"].value < found["top1"].high


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_an_error(archive_store, k):
    cases = find_cases(archive_store, "label")
    with pytest.raises(UsageError, match=f"{k}"):
        retrieval(archive_store, cases, ks=(k,), options=QUICK)
    with pytest.raises(UsageError, match=f"{k}"):
        neighbours(archive_store, cases, k=k, options=QUICK)


def test_the_page_stands_alone_and_holds_every_number(archive_store):
    pytest.importorskip("matplotlib")
    cases = find_cases(archive_store, "label")
    options = EvaluationOptions(subgroups=("sex",))
    for found in (
        retrieval(archive_store, cases, ks=(1, 5, 10), options=options),
        probe(archive_store, cases, folds=5, options=options),
    ):
        text = page.render(found)
        # whoever sees no picture is told what it is of, and has every number in tables
        assert text.count("<svg") == text.count('<svg role="img" aria-label="') >= 2
        assert not re.search("#0[1-4]0[1-4]0[1-4]", text)
        for counts in found.curves.get("confusion", {}).get("counts", []):
            assert all(f">{count}</td>" in text for count in counts)
        assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http""", text)
        assert f"{next(iter(found.metrics.values())).value:.3f}" in text
        assert page.render(found) == text


def test_class_names_are_neither_markup_nor_formulas_on_a_page(archive_store):
    pytest.importorskip("matplotlib")
    found = probe(archive_store, find_cases(archive_store, "label"), folds=5, options=EvaluationOptions())
    names = ["<script>x</script>", "$\\frac{", "\u202egnp\x1b", "日本"]
    curves = {"confusion": {"classes": names, "counts": np.eye(4).tolist()}}
    rows = [{**found.per_class[0], "class": name, "patients": [name]} for name in names]
    text = page.render(replace(found, curves={**found.curves, **curves}, per_class=rows))
    assert "<script>" not in text
    assert not set("\u202e\x1b") & set(text)
    assert "\\u202egnp\\x1b" in text
    assert text.count("日本") >= 2


def test_an_index_is_evaluated_in_the_command_lines_words(archive_store):
    index = Index(archive_store)
    cases = find_cases(archive_store, "label", where="age > 45")
    quick = {"where": "age > 45"}
    assert index.evaluate("retrieval", "label", k=3, **quick).metrics == (
        retrieval(archive_store, cases, ks=(3,), options=QUICK).metrics
    )
    assert index.evaluate("neighbours", "label", **quick).facts["k"] == 5
    assert index.evaluate("probe", "label", folds=3, subgroups=["sex"], **quick).per_subgroup
    with pytest.raises(UsageError, match="one number"):
        index.evaluate("neighbours", "label", k=[1, 5])
    with pytest.raises(UsageError, match="zero-shot needs classes"):
        index.evaluate("zero-shot", "label")
    with pytest.raises(UsageError, match="unknown task 'rank'"):
        index.evaluate("rank", "label")
    with pytest.raises(UsageError, match="exclude each other"):
        index.evaluate("retrieval", "label", group="patient", same_patient=True)


def test_quadratic_kappa_is_measured_where_an_order_is_declared(archive_store, tmp_path):
    from sklearn.metrics import cohen_kappa_score

    index = Index(archive_store)
    plain = index.evaluate("neighbours", "label")
    assert "kappa_quadratic" not in plain.metrics
    assert plain.facts["order_of_classes"] == "by name, which means nothing"
    order = ["normal", "mild", "glaucoma", "drusen"]
    graded = index.evaluate("neighbours", "label", order=order)
    assert [row["class"] for row in graded.per_class] == ["normal", "glaucoma", "drusen"]
    assert graded.curves["confusion"]["classes"] == ["normal", "glaucoma", "drusen"]
    for name in ("top1", "kappa", "auroc", "macro_f1", "balanced_accuracy"):
        assert graded.metrics[name].value == pytest.approx(plain.metrics[name].value), "no number depends on the order"
    counts = np.array(graded.curves["confusion"]["counts"])
    truth, answer = np.nonzero(counts)
    weights = counts[truth, answer]
    grade = np.array([0, 2, 3])
    expected = cohen_kappa_score(
        grade[truth], grade[answer], weights="quadratic", labels=range(4), sample_weight=weights
    )
    assert graded.metrics["kappa_quadratic"].value == pytest.approx(expected)
    assert "no row holds 'mild', which the order names" in graded.notes
    assert plain.metrics.keys().isdisjoint({"top3", "top5"}), "of three classes they would be 1"
    unweighted = cohen_kappa_score(truth, answer, sample_weight=weights)
    assert graded.metrics["kappa"].value == pytest.approx(unweighted)


def test_an_order_that_cannot_be_meant_is_an_error(archive_store):
    index = Index(archive_store)
    with pytest.raises(UsageError, match="lacks 'normal', which 'label' holds"):
        index.evaluate("probe", "label", order=["drusen", "glaucoma"])
    with pytest.raises(UsageError, match="names a class twice"):
        index.evaluate("probe", "label", order=["drusen", "glaucoma", "normal", "normal"])
    with pytest.raises(UsageError, match="an order is a list of classes, got: 'drusen,glaucoma,normal'"):
        index.evaluate("probe", "label", order="drusen,glaucoma,normal")
    with pytest.raises(UsageError, match="rows carry several"):
        index.evaluate("probe", "both", separator="|", order=["normal", "glaucoma", "drusen"])
    with pytest.raises(UsageError, match="retrieval names no classes"):
        index.evaluate("retrieval", "label", order=["normal", "glaucoma", "drusen"])


def test_a_label_set_declares_the_order_of_zero_shot(tmp_path):
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 60)
    vectors = np.eye(8)[truth] + 0.8 * rng.normal(size=(60, 8))
    store = make_store(
        tmp_path / "z.retr", vectors, patient=[f"P{i}" for i in range(60)], label=[("c", "a", "b")[t] for t in truth]
    )
    words = Words({name: np.eye(8)[i] for i, name in enumerate(("c", "a", "b"))})
    (tmp_path / "set.yaml").write_text("ordered: true\nclasses: [c, a, b]\n")
    ordered = zero_shot(
        store, find_cases(store, "label"), words, load_labels(tmp_path / "set.yaml"), options=QUICK
    ).metrics
    given = find_cases(store, "label", order=["c", "a", "b"])
    found = zero_shot(store, given, words, load_labels(["a", "b", "c"]), options=QUICK)
    assert found.facts["order_of_classes"] == "c, a, b"
    told = found.metrics
    other = zero_shot(
        store, find_cases(store, "label", order=["a", "b", "c"]), words, load_labels(["a", "b", "c"]), options=QUICK
    ).metrics
    assert told["kappa_quadratic"].value == pytest.approx(ordered["kappa_quadratic"].value)
    assert told["kappa"].value == pytest.approx(other["kappa"].value)
    assert abs(told["kappa_quadratic"].value - other["kappa_quadratic"].value) > 0.01
    with pytest.raises(UsageError, match="does not place 'd' of the label set"):
        zero_shot(store, given, Words({n: np.eye(8)[0] for n in "abcd"}), load_labels(list("abcd")), options=QUICK)


class TestGallerySize:
    def test_smaller_galleries_are_what_brute_force_finds_among_them(self, archive_store):
        cases = find_cases(archive_store, "label")
        got = retrieval(archive_store, cases, ks=(1, 4), options=QUICK, sizes=(30, 60, None))
        assert [row["gallery"] for row in got.per_gallery] == [30, 60, 120]
        for row in got.per_gallery:
            answers = draw_gallery(archive_store, cases, row["gallery"], QUICK.seed)
            assert answers.sum() == row["gallery"]
            vectors = archive_store.vectors()
            scores = vectors @ vectors.T
            scores[(cases.groups[:, None] == cases.groups) | ~answers] = -np.inf
            found = np.argsort(-scores, axis=1)[:, :4]
            hits = cases.truth[found] == cases.truth[:, None]
            assert row["precision@4"].value == pytest.approx(hits.mean())
            assert row["precision@4"].low < row["precision@4"].value < row["precision@4"].high
            other = cases.groups[:, None] != cases.groups
            relevant = (other & (cases.truth[:, None] == cases.truth) & answers).sum(axis=1)
            assert row["recall@4"].value == pytest.approx(
                (hits.sum(axis=1)[relevant > 0] / relevant[relevant > 0]).mean()
            )
            assert row["no_relevant"] == (relevant == 0).sum()
        assert got.per_gallery[-1]["precision@1"] == got.metrics["precision@1"]

    def test_they_are_nested_whole_patients_and_the_same_in_any_order_of_rows(self, archive_store, tmp_path):
        cases = find_cases(archive_store, "label")
        drawn = [draw_gallery(archive_store, cases, size, 0) for size in (20, 50, 90)]
        assert all((one <= other).all() for one, other in pairwise(drawn))
        for answers in drawn:
            shares = [answers[cases.groups == group].mean() for group in np.unique(cases.groups)]
            assert sum(0 < share < 1 for share in shares) <= 1
        names = {name for name, keep in zip(archive_store.ids(cases.rows), drawn[1], strict=True) if keep}
        table = archive_store.table(["id", "patient", "label"])
        turned = Store.create(tmp_path / "turned", encoder=INFO, group="patient")
        with turned.writer() as writer:
            writer.append(table.take(np.arange(len(table))[::-1]), archive_store.vectors()[::-1])
            turned = writer.commit()
        again = find_cases(turned, "label")
        chosen = draw_gallery(turned, again, 50, 0)
        assert names == {name for name, keep in zip(turned.ids(again.rows), chosen, strict=True) if keep}
        assert (draw_gallery(archive_store, cases, 50, 1) != drawn[1]).any()

    def test_through_the_index(self, archive_store):
        index = Index.open(archive_store.path)
        got = index.evaluate("retrieval", "label", gallery_size=[1000, "all", 60])
        assert [row["gallery"] for row in got.per_gallery] == [120, 60]
        assert "no gallery of 1000: there are 120 labelled rows" in got.notes
        assert got.to_json()["per_gallery"][1]["precision@1"]["value"] is not None
        assert index.evaluate("retrieval", "label", gallery_size=60).per_gallery == got.per_gallery[1:]
        assert index.evaluate("retrieval", "label").per_gallery == []

    @pytest.mark.parametrize("size", [0, -3, "some", 2.5, True, [10, "ALL "]])
    def test_what_is_no_size(self, archive_store, size):
        with pytest.raises(UsageError, match="whole number of at least 1, or 'all'"):
            Index.open(archive_store.path).evaluate("retrieval", "label", gallery_size=size)

    def test_other_tasks_have_none(self, archive_store):
        with pytest.raises(UsageError, match="of retrieval, not of probe"):
            Index.open(archive_store.path).evaluate("probe", "label", gallery_size=10)
