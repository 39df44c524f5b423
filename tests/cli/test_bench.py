"""``retr bench`` on the photographs that ship."""

from __future__ import annotations

import json
from pathlib import Path

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_retizero_prints_a_table_and_writes_one_object(retr, tmp_path):
    file = tmp_path / "result.json"
    done = retr("bench", "retizero", "--data", HRF, "--no-clusters", "--json", file)
    assert done.code == 0, done.err
    result = json.loads(file.read_text())
    assert set(result["published_protocol"]) == {"precision", "any_hit", "clustered"}
    assert result["data"]["classes"] == {"diabetic_retinopathy": 15, "glaucoma": 15, "healthy": 15}
    assert f"{result['strict']['precision']['1']:.4f}" in done.out
    assert "This is not the paper's data: 3 classes" in done.out
    assert "no text side" in done.out


def test_too_few_images_for_the_clusters_say_what_to_do(retr):
    assert "--no-clusters" in retr("bench", "retizero", "--data", HRF).err
