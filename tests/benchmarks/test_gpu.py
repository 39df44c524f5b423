"""The GPU benchmark, dry: on stand-ins for faiss's GPU classes, and on a machine without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_standin import Gpus

from retr.benchmarks import gpu
from retr.index import tune

pytest.importorskip("faiss")


@pytest.fixture
def recorded(monkeypatch):
    found = {}
    monkeypatch.setattr(gpu, "record", lambda name, figures, **options: found.update(name=name, **figures, **options))
    monkeypatch.setattr(gpu, "BATCHES", (1, 16))
    monkeypatch.setattr(gpu, "_CHUNK", 3000)
    monkeypatch.setattr(tune, "_QUERIES", 60)
    return found


def run(tmp_path, rows: int, ann_rows: int) -> None:
    arguments = ("--rows", rows, "--dim", 32, "--ann-rows", ann_rows, "--device", "cuda:all", "--index", tmp_path)
    gpu.main([str(argument) for argument in arguments])


def test_all_figures_come_out(tmp_path, monkeypatch, recorded):
    monkeypatch.setattr(gpu, "copy_rate_apart", lambda: 1e9)
    gpus = Gpus(monkeypatch, 2, cuvs=True)
    run(tmp_path, 7000, 10_000)
    assert set(gpus.placed) == {0, 1}
    assert recorded["name"] == "gpu_7000x32"
    assert recorded["floor, ms"] == pytest.approx(2 * 7000 * 32 / 1e9 / 2 * 1e3)
    assert recorded["exact"]["queries with the CPU's ids, up to ties"] == "16 of 16"
    one = recorded["exact"]["batch 1"]
    assert one["scan, ms"] <= one["search, ms"] + 1
    assert one["scan, times the floor"] == pytest.approx(one["scan, ms"] / recorded["floor, ms"], abs=0.01)
    assert recorded["exact"]["batch 16"]["queries/s"] > 0
    approximate = recorded["approximate"]
    assert approximate["rows"] == 10_000
    for kind in ("Cagra", "IVF sq8", "IVF fp16"):
        assert approximate[kind]["batch 16, queries/s"] > 0
    assert recorded["note"] is None


def test_without_torch_the_floor_is_left_out_and_the_index_is_found_again(tmp_path, monkeypatch, recorded):
    monkeypatch.setattr(gpu, "copy_rate_apart", lambda: None)
    Gpus(monkeypatch, 1)
    for _ in range(2):
        run(tmp_path, 3500, 0)
    assert "floor, ms" not in recorded
    assert "approximate" not in recorded
    assert "without the floor" in recorded["note"]
    assert len(list((tmp_path / "3500x32").glob("segments/*.parquet"))) == 1


def test_made_up_rows_are_alike_and_no_query_is_one():
    means = np.random.default_rng(0).standard_normal((50, 64), np.float32)
    rows = gpu.chunk(0, 300, means)
    np.testing.assert_array_equal(rows, gpu.chunk(0, 300, means))
    assert not np.array_equal(rows, gpu.chunk(300, 300, means))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert 0.15 < np.median(rows @ rows.T) < 0.4


def test_without_a_gpu_it_says_so_in_one_line(tmp_path, monkeypatch, recorded):
    Gpus(monkeypatch, 0)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, 1000, 0)
    assert stopped.value.code.startswith("error: faiss sees no GPU")
    assert "\n" not in stopped.value.code
    assert not recorded
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--device", "cpu"])
    assert stopped.value.code == 2
    assert not list(tmp_path.iterdir())


def test_the_copy_rate_is_asked_in_another_process_and_may_be_missing(monkeypatch):
    monkeypatch.setattr(gpu.sys, "executable", "/bin/false")
    assert gpu.copy_rate_apart() is None
