from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retr.index.errors import WeightsError
from retr.retrieval.encoders.weights.checkpoints import load_state_dict
from retr.retrieval.encoders.weights.wrappers import CONTAINERS, PREFIXES, unwrap

PLAIN = {"cls_token": torch.ones(1), "blocks.0.weight": torch.zeros(2)}


@given(st.lists(st.sampled_from(CONTAINERS), max_size=3), st.lists(st.sampled_from(PREFIXES), max_size=3))
def test_any_nest_of_wrappers_comes_off_and_is_said(containers, prefixes):
    held = {"".join(prefixes) + key: value for key, value in PLAIN.items()}
    for name in reversed(containers):
        held = {"epoch": 3, name: held, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}
    found = unwrap(held, file="x.pth")
    assert found.state == PLAIN
    assert found.taken_off == (*containers, *prefixes)
    said = found.notes("x.pth")
    assert bool(said) == bool(containers or prefixes)
    assert all(repr(name) in said[0] for name in (*containers, *prefixes))


def test_what_is_left_out_is_said():
    teacher = {"backbone.w": torch.ones(1), "dino_head.last": torch.ones(1)}
    found = unwrap({"teacher": teacher, "student": {"backbone.w": torch.zeros(1)}}, file="x.pth")
    assert found.state == {"w": torch.ones(1)}
    assert found.left_out == ("student", "dino_head")
    assert found.notes("x.pth") == [
        "'x.pth': took 'teacher', 'backbone.' off the names in it; left out its 'student', 'dino_head'"
    ]


def test_tensors_beside_a_network_are_no_network():
    held = {"state_dict": {"model.w": torch.ones(1)}, "rng": torch.get_rng_state(), "loss": torch.tensor(0.5)}
    found = unwrap(held, file="x.pth")
    assert found.state == {"w": torch.ones(1)}
    assert found.taken_off == ("state_dict", "model.")


def test_a_prefix_that_not_all_keys_have_stays():
    mixed = {"backbone.w": torch.ones(1), "head.w": torch.ones(1)}
    assert unwrap(mixed, file="x.pth").state == mixed
    assert unwrap(mixed, file="x.pth").notes("x.pth") == []


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ({"model": PLAIN, "teacher": PLAIN}, "several networks: 'model', 'teacher'"),
        ({"epoch": 3, "lr": 0.1}, "no state dict, but 'epoch', 'lr'"),
        ({}, "no state dict, but nothing"),
        ({"model": {"w": torch.ones(1), "note": "x"}}, "'note', which is no tensor"),
        ({"student": PLAIN}, "no state dict, but 'student'"),
    ],
)
def test_what_is_no_network_is_refused(held, says):
    with pytest.raises(WeightsError, match=says):
        unwrap(held, file="x.pth")


def test_the_options_and_numbers_of_a_training_program_are_read(tmp_path):
    kept = {
        "args": argparse.Namespace(lr=1e-3, input_size=224),
        "mean_ACC": np.float64(0.5),
        "best": np.int64(3),
        "flag": np.bool_(True),
    }
    torch.save({"model": PLAIN} | kept, tmp_path / "x.pth")
    loaded = load_state_dict(tmp_path / "x.pth")
    assert loaded["args"].input_size == 224
    assert loaded["mean_ACC"] == 0.5
    assert unwrap(loaded, file="x.pth").state.keys() == PLAIN.keys()


def test_code_among_the_options_is_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return (argparse.ArgumentParser, ())

    torch.save({"model": PLAIN, "args": Runs()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        load_state_dict(tmp_path / "x.pth")
