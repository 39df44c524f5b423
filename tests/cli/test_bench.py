"""``retr bench`` on the photographs that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_retizero_prints_a_table_and_writes_one_object(retr, tmp_path):
    file = tmp_path / "result.json"
    done = retr("bench", "retizero", "--data", HRF, "--no-clusters", "--out", file)
    assert done.code == 0, done.err
    result = json.loads(file.read_text())
    assert set(result["published_protocol"]) == {"precision", "any_hit", "clustered"}
    assert result["data"]["classes"] == {"diabetic_retinopathy": 15, "glaucoma": 15, "healthy": 15}
    assert f"{result['strict']['precision']['1']:.4f}" in done.out
    assert "This is not the paper's data: 3 classes" in done.out
    assert "no text side" in done.out


def test_too_few_images_for_the_clusters_say_what_to_do(retr):
    assert "--no-clusters" in retr("bench", "retizero", "--data", HRF).err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "measured", "published"),
    [
        ("flair", "linear probe, strict (folds by patient)", "0.6040"),
        ("rad-dino", "glaucoma", "not known here"),
        ("lvm-med", "mean of the runs", "0.6833"),
    ],
)
def test_the_other_protocols_show_published_cells_beside_their_own(retr, protocol, measured, published):
    done = retr("bench", protocol, "--data", HRF, "--encoder", "lite")
    assert done.code == 0, done.err
    own, _, theirs = done.out.partition("published, not measured here")
    assert measured in own
    assert published in theirs
    assert published not in own


def test_findings_need_an_encoder_that_knows_them(retr, tmp_path):
    labels = tmp_path / "findings.yaml"
    labels.write_text("{multilabel: true, classes: [glaucoma, drusen]}")
    done = retr("bench", "kad", "--data", HRF, "--encoder", "lite", "--labels", labels)
    assert "knows neither findings nor words" in done.error(1)
