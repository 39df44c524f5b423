"""A configuration that does not fit its checkpoint is refused before a network of that size is made."""

from __future__ import annotations

import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from retr.index.errors import WeightsError
from retr.retrieval.encoders.registry import load_encoder

HERE = {"device": "cpu", "precision": "fp32"}


def hf(folder):
    return load_encoder("hf:me/mine", weights=folder, **HERE)


def change(path, *at, value):
    config = json.loads(path.read_text())
    inner = config
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    path.write_text(json.dumps(config))


def refused_within(load, match):
    """Refused in a line, and nothing of the size was taken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=match) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


@pytest.mark.parametrize(
    ("part", "key", "value", "match"),
    [
        ("vision_config", "num_hidden_layers", 10**9, "states num_hidden_layers 1000000000, but the weights hold"),
        ("text_config", "num_hidden_layers", 10**9, "states num_hidden_layers 1000000000, but the weights hold"),
        ("vision_config", "intermediate_size", 10**9, "which is larger"),
        ("text_config", "vocab_size", 10**9, "which is larger"),
        ("text_config", "hidden_size", 36, "of another shape"),
        ("vision_config", "num_hidden_layers", 0, "unknown"),
        ("vision_config", "num_hidden_layers", 2, "missing"),
    ],
)
def test_a_folder_describes_the_weights_that_it_holds(copy, part, key, value, match):
    folder = copy("hf")
    change(folder / "config.json", part, key, value=value)
    refused_within(lambda: hf(folder), match)


@pytest.mark.parametrize(
    ("file", "at", "value", "match"),
    [
        ("clip", ("vision_cfg", "layers"), 10**9, "states layers"),
        ("clip", ("vision_cfg", "layers"), [10**9] * 4, "states layers"),
        ("clip", ("vision_cfg", "image_size"), 10**6, "which is larger"),
        ("clip", ("embed_dim",), 10**8, "which is larger"),
        ("clip", ("text_cfg", "context_length"), 10**9, "texts of more than 8192 tokens"),
        ("bert", ("num_hidden_layers",), 10**9, "states num_hidden_layers"),
        ("bert", ("vocab_size",), 3 * 10**7, "which is larger"),
    ],
)
def test_an_open_clip_configuration_describes_its_checkpoint(copy, file, at, value, match):
    folder, text = copy("clip"), copy("bert")
    if file == "bert":
        change(text / "config.json", *at, value=value)
    else:
        change(folder / "open_clip_config.json", "model_cfg", *at, value=value)
    refused_within(lambda: load_encoder("open_clip:mine", weights=folder, text_model=text, **HERE), match)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.complex64])
def test_weights_that_are_no_floating_numbers_are_refused(copy, kind):
    folder = copy("hf")
    state = load_file(folder / "model.safetensors")
    save_file({key: value.to(kind) for key, value in state.items()}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="as numbers that are no floating ones"):
        hf(folder)
    clip = copy("clip")
    state = torch.load(clip / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save({key: value.to(kind) for key, value in state.items()}, clip / "open_clip_pytorch_model.bin")
    with pytest.raises(WeightsError, match="as numbers that are no floating ones"):
        load_encoder("open_clip:mine", weights=clip, text_model=copy("bert"), **HERE)


def test_a_scale_that_is_no_number_is_refused(copy):
    folder = copy("hf")
    state = load_file(folder / "model.safetensors")
    save_file(state | {"logit_scale": torch.tensor(float("nan"))}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="scale"):
        hf(folder)


def test_a_pickled_payload_of_a_folder_is_named_and_never_run(copy, tmp_path):
    folder = copy("hf")
    (folder / "model.safetensors").unlink()

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "trace"), "w"))

    torch.save({"a": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"'pytorch_model\.bin' is damaged or holds more than tensors"):
        hf(folder)
    assert not (tmp_path / "trace").exists()


def test_a_configuration_longer_than_any_is_not_read(copy):
    folder = copy("hf")
    with (folder / "preprocessor_config.json").open("ab") as file:
        file.truncate(1 << 32)
    refused_within(lambda: hf(folder), "longer than any configuration")
