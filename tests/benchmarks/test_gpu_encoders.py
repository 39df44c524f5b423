"""The benchmark of encoders on GPUs, dry: `lite` as a torch module on the CPU, a dozen small pictures."""

from __future__ import annotations

import functools
import json

import pytest

from retr.benchmarks import gpu_encoders, gpu_pictures
from retr.retrieval.encoders.networks import lite as lite_network
from retr.retrieval.encoders.sample_picture import picture


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_RESULTS", "set again by --out")
    monkeypatch.setattr(gpu_encoders, "PRECISIONS", ("fp32", "fp16"))
    monkeypatch.setattr(gpu_pictures, "ORIGINALS", tmp_path / "none")
    monkeypatch.setattr(gpu_encoders, "eight", lambda: [picture().rotate(45 * number) for number in range(8)])
    # nothing here changes it, and to make it takes a second
    monkeypatch.setattr(lite_network, "load_network", functools.lru_cache(lite_network.load_network))
    monkeypatch.setenv("RETR_WEIGHTS", str(tmp_path / "none"))

    def run(*arguments):
        small = ("--images", 9, "--workers", 1, "--batch", 2, "--seconds", 0.001, "--out", tmp_path / "out")
        gpu_encoders.main([str(argument) for argument in (*arguments, *small)])
        return json.loads((tmp_path / "out" / "gpu_encoders.json").read_text())["figures"]

    return run


def test_all_figures_come_out_and_a_fault_costs_no_other_step(run, monkeypatch):
    figures = run("--device", "cpu", "--encoders", "lvm-med vit-b,lite")
    assert figures["archive"]["images"] == 9
    assert figures["lvm-med vit-b"]["loaded"].startswith("failed: WeightsError: ")
    found = figures["lite"]
    assert found["fp32"]["smallest cosine to the CPU's fp32"] > 0.9999
    assert found["fp32"]["images/s, network alone"] > 0
    assert found["fp16"].startswith("failed: UsageError: precision 'fp16' is for GPUs")
    build = found["build"]
    assert build["images"] == 8
    assert build["images/s"] <= build["images/s, first batch to last"]
    assert 0 <= build["no batch on the GPU, by the clock"] < 1
    assert build["GPU waits"] < 1


def test_no_two_pictures_are_alike(tmp_path):
    folder = tmp_path / "archive"
    gpu_pictures.make_archive(folder, 12, 1)
    assert len({file.read_bytes() for file in folder.iterdir()}) == 12


def test_without_a_gpu_it_says_so_in_one_line(run, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == "error: torch sees no GPU"
