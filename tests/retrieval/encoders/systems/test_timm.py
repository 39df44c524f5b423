"""Models of timm from local folders and files: what is loaded, what is refused, and how it is handed over."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.registry import find_spec, load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402

HERE = {"device": "cpu", "precision": "fp32"}
SMALL = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
STATED = {"input_size": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "interpolation": "bicubic"} | {
    "crop_pct": 0.9
}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((50, 40)) for _ in range(2)]


def make(folder, architecture="vit_tiny_patch16_224", *, pretrained=STATED, drop=(), **arguments):
    """Write a folder as timm saves one for the hub; return it and its network."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(3)
    model = timm.create_model(architecture, **arguments).eval()
    config = {"architecture": architecture, "num_classes": 1000, "model_args": arguments}
    config["pretrained_cfg"] = {key: value for key, value in pretrained.items() if key not in drop}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder, model


def theirs(model, pictures, **changes):
    transform = timm.data.create_transform(**(STATED | changes), is_training=False)
    with torch.no_grad():
        pixels = torch.stack([transform(picture) for picture in pictures])
        return model.forward_head(model.forward_features(pixels), pre_logits=True).numpy()


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("vit_tiny_patch16_224", SMALL),
        ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg", "class_token": False}),
        ("vit_base_patch16_siglip_224", SMALL),
        ("resnet18", {}),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 2, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2]},
        ),
        ("eva02_tiny_patch14_224", {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 1, "num_heads": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_gives_timms_own_features(architecture, arguments, tmp_path, pictures):
    side = arguments.get("img_size", 32)
    folder, model = make(tmp_path, architecture, pretrained=STATED | {"input_size": [3, side, side]}, **arguments)
    encoder = load_encoder("timm:org/x", weights=folder, **HERE)
    want = theirs(model, pictures, input_size=(3, side, side))
    np.testing.assert_allclose(encoder.encode_images(pictures), want, atol=2e-6)
    assert encoder.info.dim == want.shape[1]
    assert not encoder.info.text


def test_a_configuration_of_before_2023_is_read(tmp_path, pictures):
    """What is ``pretrained_cfg`` today lay beside the architecture, with no arguments."""
    folder, model = make(tmp_path, "resnet18")
    flat = STATED | {"architecture": "resnet18", "num_classes": 1000, "classifier": "fc", "first_conv": "conv1"}
    (folder / "config.json").write_text(json.dumps(flat))
    encoder = load_encoder("timm:org/x", weights=folder, **HERE)
    np.testing.assert_allclose(encoder.encode_images(pictures), theirs(model, pictures), atol=1e-5)


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_a_picture_that_is_not_cropped_keeps_its_ends(mode, tmp_path, pictures):
    folder, model = make(tmp_path, pretrained=STATED | {"crop_mode": mode, "crop_pct": 1.0}, **SMALL)
    long = [picture.resize((1200, 30)) for picture in pictures]
    encoder = load_encoder("timm:org/x", weights=folder, **HERE)
    want = theirs(model, long, crop_mode=mode, crop_pct=1.0)
    np.testing.assert_allclose(encoder.encode_images(long), want, atol=2e-6)


def test_a_folder_may_be_the_name_and_is_found_again(tmp_path, pictures, monkeypatch):
    from retr.retrieval.encoders.index_encoder import load_recorded

    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "state"))
    folder, _ = make(tmp_path / "mine", **SMALL)
    encoder = load_encoder(f"timm:{folder}", pooling="cls+mean", **HERE)
    assert encoder.info.name == "timm:mine"
    assert encoder.info.dim == 64
    again = load_recorded(None, encoder.info, HERE)
    np.testing.assert_array_equal(again.encode_images(pictures), encoder.encode_images(pictures))


def test_what_timm_changes_or_leaves_unread_is_said(tmp_path):
    folder, _ = make(tmp_path, **SMALL)
    config = json.loads((folder / "config.json").read_text())

    def notes(**changes):
        (folder / "config.json").write_text(json.dumps(config | changes))
        return load_encoder(f"timm:{folder}", **HERE).notes

    assert notes() == []
    assert notes(global_pool="token", num_features=32) == []
    (said,) = notes(global_pool="avg")
    assert "says global_pool 'avg'" in said
    assert "what is embedded is 'token'" in said
    larger = {"model_args": SMALL | {"img_size": 64}, "pretrained_cfg": STATED | {"input_size": [3, 64, 64]}}
    (said,) = notes(**larger)
    assert "pos_embed was resampled from [1, 5, 32] to [1, 17, 32]" in said


def test_shards_and_what_a_newer_timm_writes_are_read(tmp_path, pictures):
    folder, model = make(tmp_path, pretrained=STATED | {"of_tomorrow": 1}, **SMALL)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    keys = sorted(state)
    where = {key: f"model-0000{1 + (place > 7)}-of-00002.safetensors" for place, key in enumerate(keys)}
    for shard in set(where.values()):
        save_file({key: state[key] for key in keys if where[key] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    encoder = load_encoder(f"timm:{folder}", **HERE)
    np.testing.assert_allclose(encoder.encode_images(pictures), theirs(model, pictures), atol=2e-6)
    (folder / where[keys[0]]).unlink()
    with pytest.raises(WeightsError, match="lists files that are not there"):
        load_encoder(f"timm:{folder}", **HERE)


@pytest.mark.parametrize("family", ["hf", "timm"])
def test_a_folder_that_transformers_wrote_of_a_timm_model_is_read(family, tmp_path, pictures):
    folder, model = make(tmp_path, **SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "timm_wrapper", "do_pooling": True}))
    state = {f"timm_model.{key}": value for key, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(f"{family}:{folder}", **HERE)
    np.testing.assert_allclose(encoder.encode_images(pictures), theirs(model, pictures), atol=2e-6)
    assert encoder.notes == ["'model.safetensors': took 'timm_model.' off the names in it"]


def test_a_training_program_may_keep_more_than_the_network(tmp_path, pictures):
    folder, model = make(tmp_path, **SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    kept = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "loss": torch.tensor(0.5), "epoch": 3}
    (folder / "model.safetensors").unlink()
    torch.save({"model": model.state_dict()} | kept, folder / "pytorch_model.bin")
    encoder = load_encoder(f"timm:{folder}", **HERE)
    np.testing.assert_allclose(encoder.encode_images(pictures), theirs(model, pictures), atol=2e-6)


def test_the_name_may_be_as_a_card_hands_it_to_timm(tmp_path):
    folder, _ = make(tmp_path, **SMALL)
    encoder = load_encoder("timm:hf-hub:org/x", weights=folder, **HERE)
    assert encoder.info.name == "timm:org/x"


def test_a_timm_folder_given_to_hf_is_handed_over(tmp_path, pictures):
    folder, model = make(tmp_path, **SMALL)
    encoder = load_encoder("hf:org/x", weights=folder, **HERE)
    assert encoder.info.name == "timm:org/x"
    np.testing.assert_allclose(encoder.encode_images(pictures), theirs(model, pictures), atol=2e-6)
    named = load_encoder(f"hf:{folder}", pooling="mean", **HERE)
    assert named.info.name == f"timm:{folder.name}"


def test_a_file_of_an_architecture_needs_its_preprocessing_stated(tmp_path, pictures):
    _, model = make(tmp_path, "resnet18")
    file = tmp_path / "finetuned.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 3}, file)
    with pytest.raises(
        UsageError, match="nothing states how pictures are prepared for 'timm:resnet18': mean, std, int"
    ):
        load_encoder("timm:resnet18", weights=file, **HERE)
    stated = {"mean": "0.4,0.5,0.6", "std": 0.2, "interpolation": "bicubic", "crop_pct": "0.9"}
    encoder = load_encoder("timm:resnet18", weights=file, **stated, **HERE)
    np.testing.assert_allclose(
        encoder.encode_images(pictures), theirs(model, pictures, input_size=(3, 224, 224)), atol=1e-5
    )
    assert encoder.notes == ["'finetuned.pth': took 'state_dict', 'module.' off the names in it"]
    # the tag's preprocessing, of a file that was fine-tuned from it
    tagged = load_encoder("timm:resnet18.tv_in1k", weights=file, **HERE)
    cfg = timm.get_pretrained_cfg("resnet18.tv_in1k").to_dict()
    own = {key: cfg[key] for key in ("mean", "std", "interpolation", "crop_pct", "input_size")}
    np.testing.assert_allclose(tagged.encode_images(pictures), theirs(model, pictures, **own), atol=1e-5)


@pytest.mark.parametrize("left_out", ["mean", "std", "interpolation", "crop_pct"])
def test_a_folder_that_states_no_preprocessing_is_refused(left_out, tmp_path):
    folder, _ = make(tmp_path, drop=(left_out,), **SMALL)
    with pytest.raises(UsageError, match=f"prepared for 'timm:org/x': {left_out}; .*--set {left_out}"):
        load_encoder("timm:org/x", weights=folder, **HERE)


def test_poolings_that_a_network_has_not_are_refused(tmp_path):
    vit, _ = make(tmp_path / "vit", **SMALL)
    with pytest.raises(UsageError, match="has no attention pooling"):
        load_encoder("timm:org/x", weights=vit, pooling="map", **HERE)
    with pytest.raises(UsageError, match="unknown pooling 'max'"):
        load_encoder("timm:org/x", weights=vit, pooling="max", **HERE)
    siglip, _ = make(tmp_path / "siglip", "vit_base_patch16_siglip_224", **SMALL)
    with pytest.raises(UsageError, match="has no CLS token"):
        load_encoder("timm:org/x", weights=siglip, pooling="cls+mean", **HERE)
    assert load_encoder("timm:org/x", weights=siglip, pooling="map", **HERE).info.dim == 32
    resnet, _ = make(tmp_path / "resnet", "resnet18")
    with pytest.raises(UsageError, match="no tokens to pool"):
        load_encoder("timm:org/x", weights=resnet, pooling="mean", **HERE)
    none, _ = make(tmp_path / "none", **SMALL, global_pool="")
    with pytest.raises(UsageError, match="pools nothing of its own; say --set pooling=cls, mean"):
        load_encoder("timm:org/x", weights=none, **HERE)


def test_layers_that_json_cannot_name_come_as_model_args(tmp_path, pictures):
    own = {"init_values": 1e-5, "reg_tokens": 2, "mlp_ratio": 4}
    layers = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, **own, **layers).eval()
    torch.save(model.state_dict(), tmp_path / "x.bin")
    stated = {"mean": 0.5, "std": 0.5, "interpolation": "bicubic", "crop_pct": 1}
    with pytest.raises(WeightsError, match=r"'x.bin' does not fit 'vit_tiny_patch16_224': .*model_args"):
        load_encoder("timm:vit_tiny_patch16_224", weights=tmp_path / "x.bin", **stated, **HERE)
    said = SMALL | own | {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    encoder = load_encoder(
        "timm:vit_tiny_patch16_224", weights=tmp_path / "x.bin", model_args=json.dumps(said), **stated, **HERE
    )
    want = theirs(model, pictures, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    np.testing.assert_allclose(encoder.encode_images(pictures), want, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "hf-hub:org/other"}, "names no architecture of timm"),
        ({"architecture": "vit_of_tomorrow"}, "timm has no architecture 'vit_of_tomorrow'"),
        ({"model_args": SMALL | {"checkpoint_path": "/etc/passwd"}}, "states 'checkpoint_path'"),
        ({"model_args": SMALL | {"mlp_layer": "Sequential"}}, "unknown layer 'Sequential'"),
        ({"model_args": SMALL | {"depth": 10**9}}, "states depth 1000000000"),
        ({"model_args": SMALL | {"embed_dim": 10**6}}, "does not"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg that is no object"),
        ({"pretrained_cfg": STATED | {"input_size": [3, 10**6, 10**6]}}, "asks for pictures of the size"),
        ({"auto_map": {"AutoModel": "x.y"}}, "names code of its own"),
        ({"model_args": SMALL | {"mlp_layer": ["Mlp"]}}, "unknown layer"),
        ({"model_args": SMALL | {"act_layer": "tomorrow"}}, "unknown act_layer 'tomorrow'"),
        ({"model_args": SMALL | {"norm_layer": 3}}, "unknown norm_layer 3"),
        ({"model_args": SMALL | {"of_tomorrow": 1}}, "unexpected keyword argument 'of_tomorrow'"),
        ({"model_args": SMALL | {"features_only": True}}, "states 'features_only'"),
        ({"architecture": None}, "config.json in the folder .* names no architecture"),
        ({"pretrained_cfg": STATED | {"std": [0.2, 0, 0.2]}}, "normalised by .* a std of 0.2,0,0.2"),
        ({"pretrained_cfg": STATED | {"mean": [0.4, 0.5]}}, "states mean .* one number or three"),
        ({"pretrained_cfg": STATED | {"mean": [float("nan")] * 3}}, "normalised by a mean of nan"),
        ({"pretrained_cfg": STATED | {"crop_pct": 1e-6}}, "a crop of 1e-06 of a picture"),
        ({"pretrained_cfg": STATED | {"crop_pct": 1.5}}, "states crop_pct 1.5"),
        ({"pretrained_cfg": STATED | {"crop_mode": "middle"}}, "states crop_mode 'middle'"),
        ({"pretrained_cfg": STATED | {"interpolation": "random"}}, "states interpolation 'random'"),
        ({"pretrained_cfg": STATED | {"input_size": [3, 32.5, 32]}}, "states input_size"),
    ],
)
def test_configurations_that_are_made_up_are_refused(change, says, tmp_path):
    folder, _ = make(tmp_path, **SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(WeightsError, match=says) as refused:
        load_encoder(f"timm:{folder}", **HERE)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="timm knows no architecture 'vit_bse_patch16_224'; did you mean"):
        load_encoder("timm:vit_bse_patch16_224", weights=_empty(tmp_path / "x.bin"), **HERE)
    with pytest.raises(UsageError, match=r"timm knows no tag 'dnio' of 'vit_small_patch16_224'; known: .*dino"):
        load_encoder("timm:vit_small_patch16_224.dnio", weights=tmp_path / "x.bin", **HERE)
    with pytest.raises(WeightsError, match="nothing names the architecture of 'timm:org/x'"):
        load_encoder("timm:org/x", weights=tmp_path / "x.bin", **HERE)
    with pytest.raises(WeightsError, match="no weights in the folder"):
        (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
        load_encoder("timm:org/x", weights=tmp_path, **HERE)
    with pytest.raises(WeightsError, match="'timm' needs 'org/nothing', which is not on this machine"):
        load_encoder("timm:org/nothing", **HERE)
    with pytest.raises(UsageError, match="crop_pct is a share"):
        load_encoder("timm:resnet18", weights=tmp_path / "x.bin", crop_pct=3, **HERE)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(WeightsError, match="a folder of transformers, not of timm; name it hf:"):
        load_encoder("timm:org/x", weights=tmp_path, **HERE)


def test_known_models_have_cards():
    spec, _ = find_spec("timm:x")
    assert len(spec.members) > 10
    for card in spec.members:
        assert card.licence
        assert card.source.startswith("https://")
        assert spec.card_of(card.name.partition(":")[2].upper()) is card
    assert spec.card_of("org/unknown") is spec.card


def _empty(path):
    torch.save({}, path)
    return path
