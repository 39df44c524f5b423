"""What an encoder costs is remembered by name, and nothing of where it lies."""

from __future__ import annotations

import numpy as np

from retr.encoders import compare, from_callable
from retr.retrieval.encoders import costs


def test_a_build_tells_how_fast_it_was(archive, tmp_path, lite):
    from retr import Index

    assert costs.recall("lite") is None
    Index.build(archive, tmp_path / "x.retr", encoder=lite)
    seen = costs.recall("lite")
    assert (seen.dim, seen.device, seen.options) == (lite.info.dim, "cpu", lite.info.options)
    assert seen.images_per_second > 0
    assert seen.weight_bytes == 4 * seen.parameters


def test_nothing_is_remembered_of_what_a_name_does_not_stand_for(archive, lite, make_encoder):
    compare([lite, make_encoder(draft_size=lite.info.draft_size)], archive)
    assert costs.recall("fake") is None
    assert costs.recall("lite").what == "prepared and embedded, one at a time"
    assert costs.recall("lite").dim == lite.info.dim


def test_no_path_is_remembered(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path))
    encoder = from_callable(torch.nn.Flatten(), dim=12, name="flat", prepare=lambda _: np.ones((3, 2, 2)))
    assert encoder.size() == (0, 0)
    costs._note(costs._cost(encoder, 2.0, "x", None), "hf:some/model")
    (file,) = (tmp_path / "costs").iterdir()
    assert "model" not in file.name
    assert costs.recall("hf:some/model").images_per_second == 2
    file.write_text("{")
    assert costs.recall("hf:some/model") is None


def test_the_size_of_lite_is_that_of_its_network(lite):
    from retr.retrieval.encoders.networks import lite_files

    parameters = (lite_files.FOLDER / lite_files.WEIGHTS).stat().st_size / 4
    # its norms are folded into what they follow
    assert abs(parameters / lite.size()[0] - 1) < 0.01
