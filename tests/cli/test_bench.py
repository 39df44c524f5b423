"""``retr bench`` on the photographs that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_retizero_prints_a_table_and_writes_one_object(retr, tmp_path):
    file = tmp_path / "result.json"
    done = retr("bench", "retizero", "--data", HRF, "--no-clusters", "--work", tmp_path / "work", "--out", file)
    assert done.code == 0, done.err
    result = json.loads(file.read_text())
    assert set(result["published_protocol"]) == {"precision", "any_hit", "clustered"}
    assert result["data"]["classes"] == {"diabetic_retinopathy": 15, "glaucoma": 15, "healthy": 15}
    assert f"{result['strict']['precision']['1']:.4f}" in done.out
    assert "This is not the paper's data: 3 classes" in done.out
    assert "no text side" in done.out
    assert "arXiv 2406.09317" in done.out


def test_an_index_stands_in_for_the_pictures(retr, archive, tmp_path):
    (archive / "healthy" / "note\x1b[31m.png").write_bytes(b"no picture")
    index = tmp_path / "index"
    built = retr(
        "index", "build", archive, "--index", index, "--metadata", archive / "labels.csv", "--group", "patient"
    )
    assert built.code == 0, built.err
    by_rows = retr("bench", "retizero", "--index", index, "--label", "label")
    by_pictures = retr("bench", "retizero", "--index", index, "--data", archive)
    for done in (by_rows, by_pictures):
        assert done.code == 0, done.err
        assert "the published columns are empty: an index keeps unit vectors" in done.out
        assert "left out: 1 (1 not an image): healthy/note" in done.out
        assert "\x1b" not in done.out
    assert "4 patients" in by_rows.out
    assert "built with 'lite', got: 'flair'" in retr("bench", "rad-dino", "--index", index, "--encoder", "flair").error(
        1
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no pictures were named"),
        (["--index", "a", "--work", "b"], "--work keeps what is embedded"),
        (["--index", "a", "--metadata", "b.csv"], "--metadata goes with --data"),
        (["--data", HRF, "--path-column", "where"], "--path-column is of the table"),
        (["--data", HRF, "--labels", ""], "label set ''"),
        (["--data", HRF, "--out", "nowhere/result.json"], "--out cannot be written"),
        (["--data", HRF, "--paper-set", "nowhere.json"], "No such file"),
    ],
)
def test_sources_that_cannot_be_meant(retr, options, words):
    assert words in retr("bench", "retizero", *options).error(2)


@pytest.mark.parametrize(("protocol", "option"), [("flair", "--grades"), ("kad", "--labels")])
def test_an_empty_option_is_not_left_unsaid(retr, protocol, option):
    retr("bench", protocol, "--data", HRF, "--encoder", "lite", option, "").error(2)


def test_too_few_images_for_the_clusters_say_what_to_do(retr):
    assert "--no-clusters" in retr("bench", "retizero", "--data", HRF).err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "measured", "published"),
    [
        ("flair", "linear probe, strict (folds by group)", "0.6040"),
        ("rad-dino", "glaucoma", "not known here"),
        ("lvm-med", "mean of the runs", "0.6833"),
    ],
)
def test_the_other_protocols_show_published_cells_beside_their_own(retr, tmp_path, protocol, measured, published):
    done = retr("bench", protocol, "--data", HRF, "--encoder", "lite", "--work", tmp_path)
    assert done.code == 0, done.err
    own, _, theirs = done.out.partition("published, not measured here")
    assert measured in own
    assert published in theirs
    assert published not in own
    assert "published protocol: " in theirs


def test_findings_need_an_encoder_that_knows_them(retr, tmp_path):
    labels = tmp_path / "findings.yaml"
    labels.write_text("{multilabel: true, classes: [glaucoma, drusen]}")
    done = retr("bench", "kad", "--data", HRF, "--encoder", "lite", "--labels", labels, "--ignore-unknown")
    assert "knows neither findings nor words" in done.error(1)


def test_sets_are_joined_under_one_set_of_names(retr, tmp_path):
    file = tmp_path / "result.json"
    done = retr("bench", "retizero", "--data", f"hrf={HRF}", "--map", "retizero-14", "--no-clusters", "--out", file)
    assert done.code == 0, done.err
    result = json.loads(file.read_text())
    assert result["data"]["classes"] == {"Glaucoma": 15, "Normal": 15}
    assert "hrf, not mapped: 15 images: 'diabetic_retinopathy' 15 (the grade is not said)" in done.out
    assert "strict, other sets: empty, there is one set" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", HRF], "--data is NAME=VALUE"),
        (["--data", f"nowhere={HRF}"], "has no set 'nowhere'; it has aptos"),
        (["--data", f"hrf={HRF}", "--data", f"hrf={HRF}"], "names the set 'hrf' twice"),
        (["--data", f"hrf={HRF}", "--group", "odir=patient"], "--group names the set 'odir', which has no --data"),
        (["--data", f"odir={HRF}"], "does not know these classes of 'odir': 'healthy' (15 images)"),
        (["--index", "a"], "--map joins the pictures of sets"),
    ],
)
def test_sets_that_cannot_be_joined(retr, options, words):
    assert words in retr("bench", "retizero", "--map", "retizero-14", *options).error(2).replace("\n  ", "; ")


def test_several_sets_need_a_map(retr):
    done = retr("bench", "rad-dino", "--data", HRF, "--data", HRF)
    assert "--data was given 2 times" in done.error(2)
