"""One name never means two models: whatever changes vectors, weights or what lies beside them, is another encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retr import Index
from retr.index.errors import EncoderMismatchError, WeightsError
from retr.retrieval.encoders.index_encoder import require_same
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
import transformers  # noqa: E402
from small_models import PROCESSOR, SMALL, WORDS  # noqa: E402

HERE = {"device": "cpu", "precision": "fp32"}


def change(path, **values):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def hf(folder, **options):
    return load_encoder("hf:me/mine", weights=folder, **HERE, **options)


def edited(folder, name, **values):
    file = folder / name
    if name.endswith(".json"):
        change(file, **values)
    else:
        file.write_text(file.read_text().replace("red", "blue"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"vision_config": SMALL | {"image_size": 32, "patch_size": 16, "hidden_act": "relu"}}),
        ("config.json", {"vision_config": SMALL | {"image_size": 32, "patch_size": 16, "layer_norm_eps": 0.1}}),
        ("config.json", {"dtype": "float16"}),
        ("preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.60000001]}),
        ("preprocessor_config.json", {"resample": 2}),
        ("preprocessor_config.json", {"size": {"shortest_edge": 40}}),
        ("processor_config.json", {"image_processor": PROCESSOR | {"image_std": [0.2] * 3}}),
        ("vocab.txt", {}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("special_tokens_map.json", {"unk_token": "[MASK]"}),
    ],
)
def test_whatever_changes_vectors_is_another_encoder(copy, name, values):
    folder = copy("hf")
    before = hf(folder).info
    assert before.agrees_with(hf(folder).info)
    edited(folder, name, **values)
    after = hf(folder).info
    assert not before.agrees_with(after)
    with pytest.raises(EncoderMismatchError, match="'hf:me/mine'"):
        require_same(before, after)


def test_who_saved_a_folder_and_how_it_is_spaced_changes_nothing(copy):
    folder = copy("hf")
    before = hf(folder).info
    config = json.loads((folder / "config.json").read_text()) | {"transformers_version": "9.9", "_name_or_path": "x"}
    (folder / "config.json").write_text(json.dumps(config, indent=7, sort_keys=True))
    assert hf(folder).info.agrees_with(before)


def test_an_index_of_before_opens_with_what_is_recorded_now(copy):
    info = hf(copy("hf")).info
    old = {key: value for key, value in info.to_json().items() if key not in {"config_sha256", "text_sha256"}}
    require_same(type(info).from_json(old), info)


@pytest.mark.parametrize("what", ["activation", "mean", "tokenizer", "text side"])
def test_whatever_changes_vectors_of_open_clip_is_another_encoder(made, copy, what):
    folder, text = copy("clip"), copy("bert")
    before = load_encoder("open_clip:mine", weights=folder, text_model=text, **HERE).info
    config = json.loads((folder / "open_clip_config.json").read_text())
    if what == "activation":
        config["model_cfg"]["quick_gelu"] = True
    elif what == "mean":
        config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.50000001]
    elif what == "tokenizer":
        (text / "vocab.txt").write_text("\n".join(WORDS[::-1]))
    else:
        change(text / "config.json", hidden_act="relu")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    after = load_encoder("open_clip:mine", weights=folder, text_model=text, **HERE).info
    assert not before.agrees_with(after)
    with pytest.raises(EncoderMismatchError):
        require_same(before, after)


def test_the_hash_is_of_the_file_that_is_loaded(made, copy, pictures):
    """A pickle beside the safetensors is not read, so it does not count; shards are read and count, each of them."""
    folder = copy("hf")
    plain = hf(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert hf(folder).info == plain.info
    (folder / "pytorch_model.bin").unlink()
    model = transformers.CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    sharded = hf(folder)
    np.testing.assert_allclose(sharded.encode_images(pictures[:1]), plain.encode_images(pictures[:1]), atol=1e-6)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards[0].rename(folder / "elsewhere.safetensors")
    index["weight_map"] = {
        key: "elsewhere.safetensors" if file == shards[0].name else file for key, file in index["weight_map"].items()
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hf(folder).info == sharded.info
    from safetensors.torch import load_file, save_file

    moved = load_file(folder / "elsewhere.safetensors")
    save_file({key: value + 1 for key, value in moved.items()}, folder / "elsewhere.safetensors")
    assert not hf(folder).info.agrees_with(sharded.info)
    for file in ("../hf/elsewhere.safetensors", "gone.safetensors"):
        index["weight_map"] = dict.fromkeys(index["weight_map"], file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(WeightsError, match="lists files that are not there"):
            hf(folder)


def test_a_folder_saved_by_transformers_5_loads(made, copy, pictures):
    folder = copy("hf")
    old = hf(folder)
    (folder / "preprocessor_config.json").unlink()
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessor(**{key: value for key, value in PROCESSOR.items() if "type" not in key}),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    encoder = hf(folder)
    np.testing.assert_array_equal(encoder.encode_images(pictures[:3]), old.encode_images(pictures[:3]))
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = theirs(images=pictures[0], return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(encoder.prepare(pictures[0]), pixels)
    change(folder / "processor_config.json", image_processor=None, video_processor=PROCESSOR)
    with pytest.raises(WeightsError, match="nothing states how its pictures are prepared"):
        hf(folder)


def test_an_index_keeps_what_decided_its_vectors(copy, tmp_path, pictures):
    folder = copy("hf")
    (tmp_path / "archive").mkdir()
    for number, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / "archive" / f"{number}.png")
    Index.build(tmp_path / "archive", tmp_path / "x.retr", encoder="hf:me/mine", weights=folder, **HERE)
    assert len(Index.open(tmp_path / "x.retr", weights=folder, **HERE).search(text="a red disc", k=2)) == 2
    edited(folder, "vocab.txt")
    with pytest.raises(EncoderMismatchError, match=r"the text side \(tokenizer\) of 'hf:me/mine' is another"):
        Index.open(tmp_path / "x.retr", weights=folder, **HERE).search(text="a red disc", k=2)
