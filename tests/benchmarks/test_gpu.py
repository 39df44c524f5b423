"""The GPU benchmark, dry: on stand-ins for faiss's GPU classes, and on a machine without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_standin import Gpus

from retr.benchmarks import gpu
from retr.index import measuring

pytest.importorskip("faiss")


@pytest.fixture
def recorded(monkeypatch):
    found = {}
    monkeypatch.setattr(gpu, "record", lambda name, figures, **options: found.update(name=name, **figures, **options))
    monkeypatch.setattr(gpu, "BATCHES", (1, 16))
    monkeypatch.setattr(gpu, "_CHUNK", 3000)
    monkeypatch.setattr(measuring, "_QUERIES", 60)
    return found


def run(rows: int, ann_rows: int) -> None:
    arguments = ("--rows", rows, "--dim", 32, "--ann-rows", ann_rows, "--device", "cuda:all")
    gpu.main([str(argument) for argument in arguments])


def test_all_figures_come_out(monkeypatch, recorded):
    monkeypatch.setattr(gpu, "rates", lambda: (1e9, 1e12))
    gpus = Gpus(monkeypatch, 2, cuvs=True)
    run(7000, 10_000)
    assert set(gpus.placed) == {0, 1}
    assert recorded["name"] == "gpu_7000x32"
    assert recorded["exact"]["queries with the CPU's ids, up to ties"] == "16 of 16"
    one = recorded["exact"]["batch 1"]
    assert one["floor, ms"] == pytest.approx(2 * 7000 * 32 / 1e9 / 2 * 1e3)
    assert one["scan, ms"] > 0 < one["search, ms"]
    assert one["scan, times the floor"] == pytest.approx(one["scan, ms"] / one["floor, ms"], abs=0.01)
    assert recorded["exact"]["batch 16"]["queries/s"] > 0
    assert recorded["faiss GpuIndexFlatIP, ms"]["batch 16"] > 0
    approximate = recorded["approximate"]
    assert approximate["rows"] == 10_000
    for kind in ("Cagra", "IVF sq8", "IVF fp16"):
        assert approximate[kind]["batch 16, queries/s"] > 0


def test_what_was_measured_is_kept_when_a_later_step_fails(monkeypatch, recorded):
    monkeypatch.setattr(gpu, "rates", lambda: (1e9, 1e12))
    monkeypatch.setattr(gpu, "faiss_alone", lambda *_: 1 / 0)
    Gpus(monkeypatch, 1)
    with pytest.raises(ZeroDivisionError):
        run(3500, 0)
    assert recorded["exact"]["batch 16"]["queries/s"] > 0
    assert "approximate" not in recorded


def test_made_up_rows_are_alike_and_no_query_is_one():
    means = np.random.default_rng(0).standard_normal((50, 64), np.float32)
    rows = gpu.chunk(0, 300, means)
    np.testing.assert_array_equal(rows, gpu.chunk(0, 300, means))
    assert not np.array_equal(rows, gpu.chunk(300, 300, means))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert 0.15 < np.median(rows @ rows.T) < 0.4


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, recorded):
    Gpus(monkeypatch, 0)
    with pytest.raises(SystemExit) as stopped:
        run(1000, 0)
    assert stopped.value.code.startswith("error: neither torch nor faiss sees a GPU")
    assert "\n" not in stopped.value.code
    assert not recorded
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--device", "cpu"])
    assert stopped.value.code == 2
