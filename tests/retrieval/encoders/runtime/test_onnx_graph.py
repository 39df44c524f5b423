"""Torch networks on ONNX Runtime: torch's vectors, or a refusal."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import retr
from retr.index.encoder import EncoderInfo
from retr.index.errors import MissingExtraError, UsageError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.runtime import onnx_graph
from retr.retrieval.encoders.runtime.onnx_graph import run_on_onnx
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder

INFO = EncoderInfo("toy", 8, "cosine", "anything", text=False, weights_sha256="0" * 64, preprocessing="none")


class Toy(TorchEncoder):
    """A network over the 8 x 8 pixels of a picture, each a token of 24 numbers."""

    def __init__(self, network, precision="fp32", info=INFO):
        super().__init__(info, network, device="cpu", precision=precision)

    def prepare(self, image):
        return np.asarray(image.resize((8, 24)), dtype=np.float32).transpose(2, 0, 1) / 255

    def forward(self, pixels):
        return self.network(pixels.flatten(1, 2).transpose(1, 2)).mean(1)


def attention():
    torch.manual_seed(0)
    return torch.nn.TransformerEncoderLayer(72, 4, 32, batch_first=True)


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(72, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache/graphs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ViT of timm's, as a folder of the hub."""
    from retr.retrieval.encoders.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("vit")
    small = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", **small)
    stated = {"input_size": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "interpolation": "bicubic"}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 1000, "model_args": small}
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": stated | {"crop_pct": 0.9}}))
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder, **options):
    return load_encoder("timm:org/x", weights=folder, device="cpu", **options)


def test_vectors_are_torchs_and_the_encoder_is_the_same(folder, pictures):
    plain, fast = load(folder), load(folder, runtime="onnx")
    expected, found = plain.encode_images(pictures), fast.encode_images(pictures)
    assert not np.array_equal(found, expected)  # another arithmetic did run
    np.testing.assert_allclose(found, expected, atol=5e-5)
    assert fast.info.agrees_with(plain.info)
    assert fast.info.options == plain.info.options
    assert (plain.info.device, fast.info.device) == ("cpu", "cpu, ONNX Runtime")
    assert any("within" in note and "of torch's (cosine 1.0" in note for note in fast.notes)
    np.testing.assert_array_equal(fast.patch_embeddings(pictures[0]), plain.patch_embeddings(pictures[0]))


def test_a_vector_does_not_depend_on_what_is_beside_it(folder, pictures):
    encoder = load(folder, runtime="onnx")
    alone = np.concatenate([encoder.encode_images([one]) for one in pictures])
    np.testing.assert_array_equal(encoder.encode_images(pictures), alone)
    assert encoder.batch_invariant
    assert encoder.encode_prepared(np.zeros((0, 3, 32, 32), np.float32)).shape == (0, 32)


def test_a_graph_is_traced_once_and_holds_no_weights(folder, pictures, cache, monkeypatch):
    first = load(folder, runtime="onnx").encode_images(pictures)
    (file,) = cache.iterdir()
    assert file.stat().st_size < (folder / "model.safetensors").stat().st_size
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        np.testing.assert_array_equal(load(folder, runtime="onnx").encode_images(pictures), first)
        whole = file.read_bytes()
        file.write_bytes(whole[:-20])
        with pytest.raises(MissingExtraError, match="onnx is not installed"):
            load(folder, runtime="onnx")
    np.testing.assert_array_equal(load(folder, runtime="onnx").encode_images(pictures), first)
    assert file.read_bytes() == whole


def test_other_settings_and_weights_have_another_graph(folder, cache):
    load(folder, runtime="onnx")
    load(folder, runtime="onnx", pooling="mean")
    run_on_onnx(Toy(linear()))
    run_on_onnx(Toy(linear(), info=replace(INFO, weights_sha256="1" * 64)))
    assert len(list(cache.iterdir())) == 4


def test_a_graph_of_another_network_is_refused_or_traced_anew(folder, cache, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_key", lambda *_: "one")
    load(folder, runtime="onnx", pooling="mean")
    with pytest.raises(UsageError, match="its vectors are off from torch's by") as caught:
        load(folder, runtime="onnx")
    assert "leave out runtime=onnx" in str(caught.value)
    run_on_onnx(Toy(attention()))  # which has none of its weights
    run_on_onnx(Toy(attention()))


def test_nothing_need_be_kept(folder, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    load(folder, runtime="onnx")


def test_fused_attention_is_traced_as_its_parts_and_torchs_network_stays_as_it_was(pictures):
    info = replace(INFO, dim=72)
    plain, fast = Toy(attention(), info=info), Toy(attention(), info=info)
    run_on_onnx(fast)
    assert not any(part.training for part in fast.network.modules())
    batch = plain.pixels(np.stack([plain.prepare(pictures[0])]))
    assert torch.equal(fast.forward(batch), plain.forward(batch))
    np.testing.assert_allclose(fast.encode_images(pictures), plain.encode_images(pictures), atol=5e-5)


class Sized(Toy):
    def prepare(self, image):
        return np.asarray(image.resize((image.width // 8, 24)), dtype=np.float32).transpose(2, 0, 1)


class Turning(torch.nn.Linear):
    """What it does depends on a number of the picture, which a trace takes for a constant."""

    def forward(self, tokens):
        return super().forward(tokens).roll(int(1000 * tokens.sum()) % 7, -1)


class Untraceable(torch.nn.Linear):
    def forward(self, tokens):
        return torch.linalg.lstsq(tokens, super().forward(tokens)).solution


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        (lambda: load_encoder("lite"), "it is no torch network"),
        (lambda: Toy(linear(), precision="bf16"), "it runs in bf16 on cpu"),
        (lambda: Sized(linear()), "it keeps the aspect of pictures"),
        (lambda: Toy(Untraceable(72, 8)), "its network cannot be exported"),
        (lambda: Toy(Turning(72, 8)), "its vectors are off from torch's"),
    ],
    ids=["lite", "precision", "aspect", "operator", "constant"],
)
def test_what_does_not_run_is_refused(encoder, why, capfd):
    made = encoder()
    with pytest.raises(UsageError, match=why):
        run_on_onnx(made)
    assert capfd.readouterr().out == ""
    assert made.info.device == "cpu"


@pytest.mark.parametrize("where", [{"device": "cuda"}, {"precision": "bf16"}, {"device": "cpu,cpu"}])
def test_it_is_of_one_cpu_in_float32(where):
    with pytest.raises(UsageError, match="runtime 'onnx' runs in fp32 on a CPU"):
        load_encoder("timm:org/x", runtime="onnx", **where)


def test_an_unknown_runtime_is_refused():
    with pytest.raises(UsageError, match="unknown runtime 'openvino'"):
        load_encoder("lite", runtime="openvino")


def test_an_index_of_one_runtime_is_searched_with_the_other(folder, tmp_path, pictures):
    archive = tmp_path / "archive"
    archive.mkdir()
    for number, picture in enumerate(pictures[:4]):
        picture.save(archive / f"{number}.png")
    options = {"encoder": "timm:org/x", "weights": folder, "device": "cpu"}
    retr.Index.build(archive, path=tmp_path / "i.retr", **options, runtime="onnx")
    with retr.Index.open(tmp_path / "i.retr", weights=folder, device="cpu") as opened:
        hits = opened.search(image=pictures[3], k=1)
        assert list(hits.ids) == ["3.png"]
        assert hits.scores[0] == pytest.approx(1, abs=1e-5)
