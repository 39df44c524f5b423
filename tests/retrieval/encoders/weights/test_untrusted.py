"""Model folders that others made: no code of theirs runs, nothing leads elsewhere, what is damaged is one line."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import socket
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import retr
from retr.index.errors import RetrError, WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights.checkpoints import load_state_dict
from retr.retrieval.encoders.weights.untrusted import check_folder, read_json, read_processor, sealed

ensure_torchvision()
import transformers  # noqa: E402
from small_models import tokenizer  # noqa: E402

HERE = {"device": "cpu", "precision": "fp32"}
FOLDERS = ("index", "retrieval", "cli", "benchmarks")
CODE = """
import pathlib
pathlib.Path("{trace}").write_text("code of the folder ran")
from transformers import CLIPModel, CLIPConfig, BertTokenizer, CLIPImageProcessor
class Mine(CLIPModel): pass
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Whoever asks on the terminal hears yes; whoever looks a name up is stopped."""

    def lookup(*_, **__):
        raise AssertionError("a name was looked up")

    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", lookup)


def change(path, **values):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def hf(folder, **options):
    return load_encoder("hf:me/mine", weights=folder, **HERE, **options)


def clip(folder, made, **options):
    return load_encoder("open_clip:mine", weights=folder, text_model=made / "bert", **HERE, **options)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("family", ["clip", "mine"])
def test_code_in_a_folder_is_refused_and_never_runs(copy, tmp_path, file, family):
    folder, trace = copy("hf"), tmp_path / "trace"
    (folder / "mine.py").write_text(CODE.format(trace=trace))
    classes = dict.fromkeys(("AutoModel", "AutoConfig", "AutoImageProcessor"), "mine.Mine")
    change(folder / file, auto_map=classes | {"AutoTokenizer": ["mine.Mine", None]})
    change(folder / "config.json", model_type=family)
    with pytest.raises(WeightsError, match=rf"{file} in 'hf' names code of its own \(auto_map\)"):
        hf(folder).encode_texts(["a red disc"])
    assert not trace.exists()


@pytest.mark.parametrize("place", ["model", "text_model", "beside"])
def test_code_in_an_open_clip_folder_is_refused_and_never_runs(made, copy, tmp_path, place):
    folder, text, trace = copy("clip"), copy("bert"), tmp_path / "trace"
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True, "clean": "lower"}
    spoiled = {"model": folder, "text_model": text, "beside": folder}[place]
    (spoiled / "mine.py").write_text(CODE.format(trace=trace))
    classes = {"AutoModel": "mine.Mine", "AutoConfig": "mine.Mine", "AutoTokenizer": ["mine.Mine", None]}
    if place == "model":
        config["model_cfg"]["auto_map"] = classes
    elif place == "text_model":
        change(text / "config.json", auto_map=classes)
    else:
        tokenizer(folder)
        change(folder / "tokenizer_config.json", auto_map=classes)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="auto_map"):
        load_encoder("open_clip:mine", weights=folder, text_model=text, **HERE)
    assert not trace.exists()


def test_a_tokenizer_is_told_nothing_but_what_is_known(made, copy, monkeypatch):
    folder, told = copy("clip"), []
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True, "clean": "lower"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    real = transformers.AutoTokenizer.from_pretrained

    def watched(*args, **kwargs):
        told.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", watched)
    encoder = clip(folder, made)
    assert encoder.notes == ["its configuration gives the tokenizer 'trust_remote_code': not passed on"]
    assert encoder.encode_texts(["a RED disc"]).shape == (1, 16)
    assert [one["trust_remote_code"] for one in told] == [False]


def test_every_call_into_transformers_refuses_code():
    """By the source, for calls that no test reaches."""
    calls = 0
    for file in (file for folder in FOLDERS for file in (Path(retr.__file__).parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(getattr(node, "func", None), "attr", None)
            if isinstance(node, ast.Call) and name in {"from_pretrained", "HFTokenizer", "pipeline"}:
                calls += 1
                given = {
                    word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg == "trust_remote_code"
                }
                assert given == {"trust_remote_code": False}, f"{file.name}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load", "numpy.load"}:
                kept = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert kept.get("weights_only") == "True" or kept.get("allow_pickle", "False") == "False", file
    assert calls >= 4


def test_sealed_neither_asks_nor_connects(copy, tmp_path):
    folder, trace = copy("hf"), tmp_path / "trace"
    (folder / "mine.py").write_text(CODE.format(trace=trace))
    change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    with sealed():
        with pytest.raises(ValueError, match="custom code"):
            transformers.AutoConfig.from_pretrained(folder)
        with pytest.raises(OSError, match=r"offline|cached"):
            transformers.AutoConfig.from_pretrained("org/what-is-nowhere")
    assert not trace.exists()


@pytest.mark.parametrize(
    "names",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:org/evil"}},
        {"vision_cfg": {"timm_model_name": "local-dir:/etc"}},
        {"text_cfg": {"hf_model_name": "/etc", "hf_tokenizer_name": "org/bert"}},
        {"text_cfg": {"hf_model_name": "../up", "hf_tokenizer_name": "org/bert"}},
        {"text_cfg": {"hf_model_name": "org/bert", "hf_tokenizer_name": ["org/bert"]}},
    ],
)
def test_a_configuration_names_models_only(made, copy, names):
    folder = copy("clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"] |= names
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(
        WeightsError, match=r"open_clip_config.json in 'clip' (names .*, which is no model's name|is not)"
    ):
        clip(folder, made)


def test_a_local_folder_never_asks_the_hub(made, copy):
    folder = copy("clip")
    with pytest.raises(WeightsError, match=r"needs 'org/bert', which is not on this machine"):
        load_encoder("open_clip:mine", weights=folder, **HERE)
    mute = copy("hf")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (mute / name).unlink()
    with pytest.raises(WeightsError, match="the tokenizer of 'hf:me/mine' is not on this machine"):
        hf(mute).encode_texts(["a red disc"])


@pytest.mark.parametrize(
    "adapter", ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors", "mine/adapter_config.json"]
)
def test_an_adapter_beside_the_weights_is_refused(made, copy, adapter):
    for name, load in (("hf", hf), ("clip", lambda folder: clip(folder, made))):
        folder = copy(name)
        (folder / adapter).parent.mkdir(exist_ok=True)
        (folder / adapter).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "me/base"}))
        with pytest.raises(WeightsError, match=r"an adapter \(LoRA\) lies beside the weights .*merge_and_unload"):
            load(folder)
    only = made / "only an adapter"
    only.mkdir(exist_ok=True)
    (only / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="merge_and_unload"):
        hf(only)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("flair", "flair_resnet.pth"),
        ("retizero", "RetiZero.pth"),
        ("kad", "best_valid.pt"),
        ("lvm-med", "lvmmed_resnet.torch"),
        ("open_clip:ViT-B-32/openai", "mine.pt"),
    ],
)
def test_an_adapter_beside_a_published_checkpoint_is_refused(tmp_path, name, file):
    torch.save({"x": torch.ones(1)}, tmp_path / file)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="merge_and_unload"):
        load_encoder(name, weights=tmp_path / file, **HERE)


def test_an_adapter_beside_rad_dino_is_refused(copy):
    folder = copy("hf")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="merge_and_unload"):
        load_encoder("rad-dino", weights=folder, **HERE)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("config.json", {"transformers_weights": "adapter_model.bin"}),
        ("config.json", {"vision_config": {"_attn_implementation": "org/kernels"}}),
        ("config.json", {"attn_implementation": {"": "flash_attention_2"}}),
    ],
)
def test_what_changes_the_model_behind_its_hash_is_refused(copy, file, values):
    folder = copy("hf")
    change(folder / file, **values)
    with pytest.raises(WeightsError, match=f"{file} in 'hf'"):
        hf(folder)


def test_the_image_processor_within_the_newer_file_counts(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 1}')
    assert read_processor(tmp_path) == {"size": 1}
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert read_processor(tmp_path) == {"size": 1}
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"size": 2}}')
    assert read_processor(tmp_path) == {"size": 2}


def test_json_beside_a_checkpoint(tmp_path):
    file = tmp_path / "config.json"
    assert read_json(file) is None
    file.write_text('{"size": 224}')
    assert read_json(file) == {"size": 224}
    for damaged, said in (('{"size": 22', "is not JSON"), ("[224]", "is no JSON object"), ("[" * 10**5, "is not JSON")):
        file.write_text(damaged)
        with pytest.raises(WeightsError, match=f"config.json in '{tmp_path.name}' {said}"):
            read_json(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(WeightsError, match="is no file"):
        check_folder(tmp_path)


def lying_header(path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def compressed(path):
    torch.save({"x": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as old:
        members = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members:
            new.writestr(name, data)


def legacy_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


class Script(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("cut.safetensors", lambda path: path.write_bytes(struct.pack("<Q", 10**12) + b"{")),
        ("lies.safetensors", lying_header),
        ("empty.safetensors", lambda path: path.write_bytes(b"")),
        ("bomb.pt", compressed),
        ("tar.pt", legacy_tar),
        ("objects.pt", lambda path: torch.save({"x": np.array([{}], dtype=object)}, path)),
        ("scripted.pt", lambda path: torch.jit.save(torch.jit.trace(Script(), torch.ones(1)), path)),
        ("nothing.pt", lambda path: path.write_bytes(b"")),
        ("deep.pt", lambda path: path.write_bytes(b"\x80\x02" + b"(" * 10**5 + b".")),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_checkpoint_is_one_line(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=f"'{name}'") as caught:
        load_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def whole():
    """A small checkpoint in each form, as bytes."""
    state = {"a.weight": torch.ones(20, 30), "b": torch.arange(7)}
    zipped, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state}, zipped)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return {"zip.pt": zipped.getvalue(), "old.pt": old.getvalue(), "x.safetensors": safetensors.torch.save(state)}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_torn_and_altered_checkpoints_end_in_one_line(whole, tmp_path_factory, data):
    name = data.draw(st.sampled_from(sorted(whole)))
    altered = bytearray(whole[name])
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(altered[: data.draw(st.sampled_from([None, None, len(altered) // 2, len(altered) - 30]))])
    try:
        load_state_dict(path)
    except WeightsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "model.gguf"])
def test_weights_of_another_kind_are_named(copy, name):
    folder = copy("hf")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(WeightsError, match=f"no weights in the folder 'hf'; '{name}' .* is not read"):
        hf(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_of_a_folder_are_one_line(copy, name):
    folder = copy("hf")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError) as caught:
        hf(folder)
    assert "\n" not in str(caught.value)
    assert str(folder.parent) not in str(caught.value)


def test_a_damaged_sentencepiece_model_is_one_line(copy):
    folder = copy("hf")
    (folder / "vocab.txt").unlink()
    (folder / "spiece.model").write_bytes(b"\x0a\x05torn")
    change(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    with pytest.raises(WeightsError) as caught:
        hf(folder).encode_texts(["a red disc"])
    assert "\n" not in str(caught.value)


VALUES = st.sampled_from([None, "abc", -1, 0, 1.5, 1e308, True, [], [1, 2], {}, {"a": 1}, "../../x", 10**9])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_made_up_configurations_end_in_one_line(made, copy, pictures, data):
    shutil.rmtree(made / "made up", ignore_errors=True)
    folder = Path(shutil.copytree(made / "hf", made / "made up"))
    name = data.draw(st.sampled_from(["config.json", "preprocessor_config.json", "tokenizer_config.json"]))
    config = json.loads((folder / name).read_text())
    inner = data.draw(
        st.sampled_from([config, *(value for value in config.values() if isinstance(value, dict) and value)])
    )
    key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(VALUES)
    if inner[key] == 10**9 and "layers" in key:
        return
    (folder / name).write_text(json.dumps(config))
    try:
        encoder = hf(folder)
        encoder.encode_images(pictures[:1])
        encoder.encode_texts(["a red disc"])
    except RetrError as error:
        assert "\n" not in str(error)


def test_a_pipe_given_as_weights_is_not_opened(tmp_path):
    pipe = tmp_path / "pipe.pt"
    os.mkfifo(pipe)
    for name in ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32", "flair", "hf:me/mine", "lvm-med"):
        with pytest.raises(WeightsError, match=r"no (file|folder)"):
            load_encoder(name, weights=pipe, **HERE)


def test_sealed_is_left_as_it_was_found_whoever_leaves_last():
    from huggingface_hub import constants

    found = constants.HF_HUB_OFFLINE
    first, second = sealed(), sealed()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert constants.HF_HUB_OFFLINE
    second.__exit__(None, None, None)
    assert found == constants.HF_HUB_OFFLINE
