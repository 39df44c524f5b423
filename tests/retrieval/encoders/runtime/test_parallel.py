"""Several devices: here two processes on the CPU, which is the same code."""

from __future__ import annotations

import numpy as np
import pytest

from retr.index.errors import RetrError, UsageError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime import parallel


@pytest.fixture(scope="module")
def both():
    return load_encoder("lite", device="cpu,cpu", quality="fast")


def test_two_processes_give_what_one_gives(both, pictures):
    lite = load_encoder("lite", quality="fast")
    for count in (12, 1, 2, 7):
        np.testing.assert_array_equal(both.encode_images(pictures[:count]), lite.encode_images(pictures[:count]))
    assert both.info.device == "cpu,cpu"
    assert both.info.identity == lite.info.identity
    assert both.batch_size == 2 * lite.batch_size
    np.testing.assert_array_equal(both.patch_embeddings(pictures[0]), lite.patch_embeddings(pictures[0]))


def test_an_error_of_a_worker_is_the_callers():
    with pytest.raises(UsageError, match="no device 'cuda:77'"):
        load_encoder("lite", device="cuda:77,cpu")
    with pytest.raises(RetrError, match=r"no device 'cuda:77': .* \(on cuda:77\)"):
        load_encoder("lite", device="cpu,cuda:77")


def test_a_worker_that_dies_is_named(pictures):
    import multiprocessing

    before = set(multiprocessing.active_children())
    encoder = load_encoder("lite", device="cpu,cpu")
    (mine,) = set(multiprocessing.active_children()) - before
    mine.kill()
    mine.join()
    with pytest.raises(RetrError, match="the worker on cpu ended"):
        encoder.encode_images(pictures)


def test_all_devices_of_a_machine_without_any_is_one(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert parallel.split_devices("cuda:all") == ["cuda"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parallel.split_devices("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
