"""``retr classify``, ``calibrate`` and ``align`` on real photographs, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HRF = Path(__file__).parents[2] / "examples/hrf45"
IMAGE = HRF / "glaucoma/05_g.jpg"


@pytest.fixture(scope="module")
def calibrated(hrf_index, tmp_path_factory):
    """A copy of the index with a calibration, a probe and a bridge; read-only."""
    import shutil

    from retr.retrieval.index import Index

    path = shutil.copytree(hrf_index, tmp_path_factory.mktemp("calibrated") / "x.retr")
    Index.open(path).calibrate("label")
    Index.open(path).align("label")
    return path


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    """A picture that is no fundus: coloured stripes."""
    x = np.linspace(0, 40, 300)
    stripes = np.stack([np.sin(x), np.cos(x * 1.7), np.sin(x * 0.3)], axis=1) * 127 + 128
    path = tmp_path_factory.mktemp("other") / "stripes.png"
    Image.fromarray(np.broadcast_to(stripes.astype(np.uint8), (300, 300, 3)).copy()).save(path)
    return path


def test_examples_name_pictures(retr, hrf_index, tmp_path):
    shots = tmp_path / "shots.csv"
    pictures = [(name, f"{name}/{n:02}_{name[0]}.jpg") for name in ("healthy", "glaucoma") for n in (1, 2, 3)]
    shots.write_text("\n".join(["id,label", *(f"{path},{name}" for name, path in pictures)]))
    asked = ("classify", "--image", HRF / "healthy/09_h.jpg", "--shots", shots, "--index", hrf_index, "--json")
    answer = retr(*asked).json[0]
    assert {one["label"] for one in answer["classes"]} == {"healthy", "glaucoma"}
    assert (answer["method"], answer["calibrated"]) == ("few-shot", False)
    for wrong in (("--by", "label"), ("-k", 3), ("--where", "age > 3"), ("--encoder", "lite")):
        assert retr(*asked, *wrong).code == 2


def test_neighbours_vote_without_the_picture_itself(retr, hrf_index):
    done = retr("classify", "--image", IMAGE, "--by", "label", "-k", 5, "--json", "--index", hrf_index)
    assert done.code == 0
    (answer,) = done.json
    assert len(answer["neighbours"]) == 5
    assert all(hit["id"] != "glaucoma/05_g.jpg" for hit in answer["neighbours"])
    assert {one["label"] for one in answer["classes"]} == {hit["label"] for hit in answer["neighbours"]}
    assert sum(one["probability"] for one in answer["classes"]) == pytest.approx(1, abs=1e-4)
    assert answer["calibrated"] is False
    assert answer["set"] is None
    assert "retr calibrate" in answer["note"]


def test_a_person_sees_classes_and_evidence(retr, hrf_index):
    done = retr("classify", "--image", IMAGE, "--by", "label", "-k", 3, "--index", hrf_index)
    assert done.code == 0
    assert "nearest 3 of 3 that voted" in done.out
    assert "glaucoma/" in done.out or "healthy/" in done.out


def test_calibrated_answers_have_a_set(retr, calibrated):
    done = retr("classify", "--folder", HRF, "--by", "label", "--json", "--index", calibrated)
    assert done.code == 0
    assert len(done.json) == 45
    assert all(answer["calibrated"] and answer["alpha"] == 0.1 for answer in done.json)
    truth = [answer["query"].split("/")[-2] for answer in done.json]
    covered = np.mean([name in answer["set"] for name, answer in zip(truth, done.json, strict=True)])
    assert covered >= 0.8
    named = [(name, answer["label"]) for name, answer in zip(truth, done.json, strict=True) if answer["label"]]
    assert np.mean([name == label for name, label in named]) > 0.5


def test_it_abstains_on_what_is_unlike_the_archive(retr, calibrated, flower):
    done = retr("classify", "--image", flower, "--probe", "label", "--json", "--index", calibrated)
    assert done.code == 3
    assert done.json[0]["label"] is None
    assert done.json[0]["abstain"].startswith("unlike anything in this archive")
    query = retr("query", "--image", flower, "--json", "--index", calibrated)
    assert "unlike anything in this archive" in query.json[0]["note"]
    assert retr("query", "--image", IMAGE, "--json", "--index", calibrated).json[0]["note"] is None


def test_a_probe_is_trained_once_and_refused_when_stale(retr, hrf_copy):
    first = retr("classify", "--image", IMAGE, "--probe", "label", "--json", "--index", hrf_copy)
    assert first.code == 0
    assert "trained a probe for 'label' on 45 rows of 45 images" in first.err
    again = retr("classify", "--image", IMAGE, "--probe", "label", "--json", "--index", hrf_copy)
    assert again.err == ""
    assert again.json == first.json
    assert retr("index", "delete", "glaucoma/01_g.jpg", "--yes", "--index", hrf_copy).code == 0
    stale = retr("classify", "--image", IMAGE, "--probe", "label", "--index", hrf_copy)
    assert "stale" in stale.error(1)
    done = retr("classify", "--image", IMAGE, "--probe", "label", "--retrain", "--json", "--index", hrf_copy)
    assert done.code == 0


def test_the_whole_index_gets_columns(retr, hrf_copy):
    done = retr("classify", "--all", "--by", "label", "--into", "knn", "--json", "--index", hrf_copy)
    assert done.json == [{"rows": 45, "answered": 45, "columns": "knn_label, knn_probability"}]
    row = retr("show", "glaucoma/05_g.jpg", "--json", "--index", hrf_copy).json[0]
    assert row["knn_label"] in {"glaucoma", "healthy", "diabetic_retinopathy"}
    assert 1 / 3 <= row["knn_probability"] <= 1
    found = retr(
        "query", "--id", "glaucoma/05_g.jpg", "--where", f"knn_label = '{row['knn_label']}'", "--index", hrf_copy
    )
    assert found.code == 0


def test_calibrate_says_what_it_measured(retr, hrf_copy):
    done = retr("calibrate", "--label", "label", "--alpha", 0.2, "--json", "--index", hrf_copy)
    assert done.code == 0
    assert "retr index group" in done.err
    (figures,) = done.json
    methods = {one["method"]: one for one in figures["methods"]}
    assert {"neighbours:5", "probe"} <= set(methods)
    for one in methods.values():
        assert one["rows"] == 45
        assert one["alpha"] == 0.2
        assert 0.6 <= one["coverage"] <= 1
        assert len(one["risk_coverage"]) == 20
        assert 0 <= one["abstained"] <= 1
        assert (one["unit"], one["groups"], one["class_conditional"]) == ("image", 45, False)
        assert [(of["label"], of["rows"]) for of in one["by_class"]] == [
            ("diabetic_retinopathy", 15), ("glaucoma", 15), ("healthy", 15)
        ]  # fmt: skip
        assert np.mean([of["coverage"] for of in one["by_class"]]) == pytest.approx(one["coverage"], abs=1e-3)
    assert 0 < figures["novelty"]["threshold"] < 1
    assert "alpha" in retr("calibrate", "--label", "label", "--alpha", 1, "--index", hrf_copy).error(2)
    assert "no column" in retr("calibrate", "--label", "lable", "--index", hrf_copy).error(2)


def test_an_alpha_that_the_archive_is_too_small_for_is_refused(retr, hrf_index):
    refused = retr("calibrate", "--label", "label", "--alpha", 0.01, "--index", hrf_index).error(2)
    assert "alpha 0.01 needs 99 images, and 'label' has 45 to measure" in refused
    by_class = retr("calibrate", "--label", "label", "--alpha", 0.05, "--class-conditional", "--index", hrf_index)
    assert "alpha 0.05 needs 19 images, and no class of 'label' has more than 15 to measure" in by_class.error(2)


def test_a_person_sees_the_coverage_of_each_class(retr, hrf_copy):
    done = retr("calibrate", "--label", "label", "--class-conditional", "--index", hrf_copy)
    assert done.code == 0
    assert "coverage of each class" in done.out and "abstained" in done.out and "answered" in done.out
    assert "patient" not in done.out
    shown = retr("classify", "--image", IMAGE, "--by", "label", "--index", hrf_copy)
    assert "90 % of new images, each class by itself; measured" in shown.err or "abstains" in shown.err
    assert "90 % of new images" in retr("classify", "--folder", HRF, "--by", "label", "--index", hrf_copy).err


def test_words_go_over_a_bridge_and_say_so(retr, hrf_index, calibrated):
    refused = retr("query", "--text", "glaucoma", "--index", hrf_index)
    assert "retr align" in refused.error(1)
    done = retr("query", "--text", "glaucoma", "-k", 5, "--json", "--index", calibrated)
    assert done.code == 0
    assert [hit["label"] for hit in done.json[0]["hits"]] == ["glaucoma"] * 5
    assert "bridge" in done.json[0]["note"]
    assert "R@10" in done.json[0]["note"]
    odd = retr("query", "--text", "glaucoma of zebras", "--json", "--index", calibrated)
    assert "'zebras'" in odd.json[0]["note"]
    assert "none of the words" in retr("query", "--text", "qqq", "--index", calibrated).error(2)


def test_align_states_its_recall(retr, hrf_copy):
    done = retr("align", "--text-column", "label", "--json", "--index", hrf_copy)
    assert done.code == 0
    assert {"recall_at_1", "recall_at_10", "pool", "text_encoder"} <= set(done.json[0])
    assert retr("align", "--text-column", "labels", "--index", hrf_copy).error(2)


def test_zero_shot_over_the_bridge(retr, calibrated, tmp_path):
    labels = tmp_path / "labels.yaml"
    labels.write_text("[glaucoma, healthy, diabetic retinopathy]")
    done = retr("classify", "--folder", HRF, "--labels", labels, "--json", "--index", calibrated)
    assert "bridge" in done.err
    right = [answer["query"].split("/")[-2].replace("_", " ") == answer["classes"][0]["label"] for answer in done.json]
    assert np.mean(right) > 0.6


def test_what_cannot_be_meant(retr, hrf_index, tmp_path):
    asked = ["classify", "--index", hrf_index]
    assert "one of --labels" in retr(*asked, "--image", IMAGE).error(2)
    assert "one of --labels" in retr(*asked, "--image", IMAGE, "--by", "label", "--probe", "label").error(2)
    assert "with --by; --top" in retr(*asked, "--image", IMAGE, "--probe", "label", "-k", 3).error(2)
    assert "--image or --folder" in retr(*asked, "--by", "label").error(2)
    assert "no column" in retr(*asked, "--image", IMAGE, "--by", "lable").error(2)
    assert "fundus-39" in retr(*asked, "--image", IMAGE, "--labels", "nothing").error(2)
    assert "no folder" in retr(*asked, "--folder", tmp_path / "absent", "--by", "label").error(2)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert retr(*asked, "--image", broken, "--by", "label").error(1)
    both = retr(*asked, "--image", broken, "--image", IMAGE, "--by", "label", "--json")
    assert both.code == 0
    assert len(both.json) == 1
    assert "not read" in both.err
