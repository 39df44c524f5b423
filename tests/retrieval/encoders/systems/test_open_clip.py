"""Random-weight open_clip models from local files: the numbers are open_clip's own, nothing is guessed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from retr.index.errors import UsageError, WeightsError
from retr.index.vectors import unit
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.images import read_image

ensure_torchvision()
open_clip = pytest.importorskip("open_clip")

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
STATED = {"mean": "0.5", "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}
TEXTS = ["a fundus photograph", "mild nonproliferative diabetic retinopathy"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, its folder with configuration, and its checkpoint's path."""
    torch.manual_seed(3)
    model = open_clip.CLIP(**TINY).eval()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    folder = tmp_path_factory.mktemp("tiny")
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, folder / "tiny.pt"
    )
    return model, folder, folder / "tiny.pt"


def test_pictures_and_texts_are_open_clips_own(tiny, pictures):
    model, _, path = tiny
    encoder = load_encoder("open_clip:tiny", weights=path, device="cpu", precision="fp32")
    transform = open_clip.image_transform(
        64, is_train=False, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bilinear", resize_mode="squash"
    )
    with torch.inference_mode():
        pixels = torch.stack([transform(p) for p in pictures])
        expected = model.encode_image(pixels).numpy()
        words = model.encode_text(open_clip.tokenize(TEXTS)).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), words, atol=1e-5)
    assert encoder.info.logit_scale == pytest.approx(np.exp(3.0))
    assert encoder.info.dim == 32
    assert "squash 64 bilinear" in encoder.info.preprocessing
    assert "mean 0.4,0.5,0.6, std 0.2,0.3,0.4" in encoder.info.preprocessing


def test_texts_do_not_depend_on_each_other(tiny):
    encoder = load_encoder("open_clip:tiny", weights=tiny[2], device="cpu", precision="fp32")
    together = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS[:1])[0], together[0], atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, 32)


def test_patches_are_in_the_space_of_the_vectors(tiny, pictures):
    encoder = load_encoder("open_clip:tiny", weights=tiny[2], device="cpu", precision="fp32")
    patches = encoder.patch_embeddings(pictures[0])
    assert patches.shape == (4, 4, 32)
    assert np.isfinite(patches).all()
    model = tiny[0]
    model.visual.output_tokens = True
    with torch.inference_mode():
        _, tokens = model.visual(torch.from_numpy(encoder.prepare(pictures[0]))[None])
        expected = (tokens @ model.visual.proj).numpy()[0].reshape(4, 4, 32)
    model.visual.output_tokens = False
    np.testing.assert_allclose(patches, expected, atol=1e-5)


def test_in_bf16_pictures_stay_near_and_texts_are_the_same(tiny, pictures):
    exact = load_encoder("open_clip:tiny", weights=tiny[2], device="cpu", precision="fp32")
    fast = load_encoder("open_clip:tiny", weights=tiny[2], device="cpu", precision="bf16")
    assert fast.info.precision == "bf16"
    # nothing of a precision that was given up
    assert fast.notes == exact.notes == ["'tiny.pt': took 'state_dict', 'module.' off the names in it"]
    assert fast.network.conv1.weight.dtype == torch.bfloat16
    assert fast.info.identity == exact.info.identity
    a, b = unit(exact.encode_images(pictures)), unit(fast.encode_images(pictures))
    assert not np.array_equal(a, b)
    assert (a * b).sum(-1).min() > 0.999
    np.testing.assert_array_equal(exact.encode_texts(TEXTS), fast.encode_texts(TEXTS))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_every_mode_is_embedded(tiny, odd_pictures, mode):
    encoder = load_encoder("open_clip:tiny", weights=tiny[2], resize_mode=mode, device="cpu", precision="fp32")
    white = encoder.prepare(Image.new("RGB", (64, 64), "white"))
    for kind, image in odd_pictures.items():
        assert np.isfinite(encoder.encode_images([image])).all(), kind
        assert np.abs(encoder.prepare(read_image(image).image) - white).max() > 0.1, kind


@pytest.mark.parametrize("mode", ["longest", "squash"])
def test_pictures_that_are_not_cropped_keep_their_ends(tiny, mode):
    encoder = load_encoder("open_clip:tiny", weights=tiny[2], resize_mode=mode, device="cpu", precision="fp32")
    for size in ((600, 30), (30, 600)):
        image = Image.new("RGB", size, "white")
        image.paste("black", (0, 0, 30, 30))
        image.paste("black", (size[0] - 30, size[1] - 30, *size))
        np.testing.assert_array_equal(encoder.prepare(image), encoder._transform(image).numpy())


def test_a_folder_is_as_good_as_a_file(tiny, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    model, folder, path = tiny
    own = tmp_path / "open_clip" / "tiny"
    own.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, own / "open_clip_model.safetensors")
    (own / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    a = load_encoder("open_clip:tiny", weights=own, device="cpu", precision="fp32")
    b = load_encoder("open_clip:hf-hub:org/tiny", weights=own, device="cpu", precision="fp32")
    c = load_encoder("open_clip:tiny", weights=path, device="cpu", precision="fp32")
    monkeypatch.setenv("RETR_WEIGHTS", str(tmp_path))
    d = load_encoder("open_clip:tiny", device="cpu", precision="fp32")
    words = c.encode_texts(TEXTS)
    np.testing.assert_array_equal(d.encode_texts(TEXTS), words)
    np.testing.assert_array_equal(a.encode_texts(TEXTS), words)
    np.testing.assert_array_equal(b.encode_texts(TEXTS), words)


def test_a_bare_file_is_refused_until_everything_is_stated(tiny, tmp_path):
    bare = tmp_path / "bare.pt"
    torch.save(open_clip.CLIP(**open_clip.get_model_config("ViT-S-32-alt")).state_dict(), bare)
    with pytest.raises(UsageError, match=r"nothing states how .* 'bare.pt'; .* mean, std, interpolation, resize_mode"):
        load_encoder("open_clip:ViT-S-32-alt", weights=bare)
    with pytest.raises(UsageError, match=r"or give std, interpolation, resize_mode$"):
        load_encoder("open_clip:ViT-S-32-alt", weights=bare, mean=0.5)
    encoder = load_encoder("open_clip:ViT-S-32-alt", weights=bare, device="cpu", precision="fp32", **STATED)
    assert encoder.info.options == {
        "mean": "0.5,0.5,0.5",
        "std": "0.25,0.25,0.25",
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    again = load_encoder("open_clip:ViT-S-32-alt", weights=bare, device="cpu", precision="fp32", **encoder.info.options)
    assert again.info == encoder.info


def test_a_configuration_without_mean_states_nothing(tiny, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {"size": 64}}))
    (tmp_path / "tiny.pt").write_bytes(tiny[2].read_bytes())
    with pytest.raises(UsageError, match="nothing states"):
        load_encoder("open_clip:tiny", weights=tmp_path / "tiny.pt")


@pytest.mark.slow
def test_a_file_with_a_tag_gets_the_tags_preprocessing_and_activation(tmp_path):
    config = open_clip.get_model_config("ViT-B-32") | {"quick_gelu": True}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    path = tmp_path / "mine.pt"
    torch.save(model.state_dict(), path)
    encoder = load_encoder("open_clip:ViT-B-32/openai", weights=path, device="cpu", precision="fp32")
    assert "shortest 224 bicubic" in encoder.info.preprocessing
    assert "mean 0.481455,0.457827,0.408211" in encoder.info.preprocessing
    assert encoder.info.source == "https://huggingface.co/timm/vit_base_patch32_clip_224.openai"
    with torch.inference_mode():
        expected = model.encode_text(open_clip.tokenize(TEXTS)).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("open_clip", {}, "names a family"),
        ("open_clip:ViT-B-32", {}, r"names no weights; say open_clip:ViT-B-32/TAG \(openai,"),
        ("open_clip:ViT-B-33/openai", {}, "no architecture 'ViT-B-33'; did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32/none", {}, "no tag 'none' of 'ViT-B-32'; known: openai"),
        ("open_clip:ViT-B-32/openai", {"mean": "a"}, "mean takes one number or three, got 'a'"),
        ("open_clip:ViT-B-32/openai", {"mean": [1, 2]}, "mean takes one number or three"),
        ("open_clip:ViT-B-32/openai", {"resize_mode": "stretch"}, "unknown resize_mode 'stretch'; use shortest or"),
    ],
)
def test_what_cannot_be_meant_is_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        load_encoder(name, **options)


def test_a_missing_file_and_a_wrong_one_are_named(tiny, tmp_path):
    with pytest.raises(WeightsError, match=r"no file or folder at '/nowhere.pt'"):
        load_encoder("open_clip:ViT-B-32", weights="/nowhere.pt", **STATED)
    with pytest.raises(WeightsError, match=r"'tiny.pt' does not fit the network"):
        load_encoder("open_clip:ViT-B-32/openai", weights=tiny[2])


def _search(tmp_path, pictures, name, **options):
    """The whole way: build, query by picture and by text, opened again from what the index recorded."""
    from retr import Index

    archive = tmp_path / "archive"
    archive.mkdir()
    for number, picture in enumerate(pictures[:6]):
        picture.save(archive / f"{number}.png")
    here = {"weights": options.pop("weights"), "device": "cpu", "precision": "fp32"}
    index = Index.build(archive, tmp_path / "x.retr", encoder=name, **here, **options)
    hits = index.search(image=pictures[3], k=2)
    assert hits.ids[0] == "3.png"
    assert hits.scores[0] == pytest.approx(1, abs=1e-5)
    opened = Index.open(tmp_path / "x.retr", **here)
    hits = opened.search(text="a fundus photograph", k=6)
    vectors = unit(opened.encoder.encode_images([archive / f"{n}.png" for n in range(6)]))
    scores = vectors @ unit(opened.encoder.encode_texts(["a fundus photograph"]))[0]
    assert list(hits.ids) == [f"{n}.png" for n in np.argsort(-scores)]
    np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1], atol=1e-5)


def test_a_tiny_model_is_indexed_and_queried(tiny, tmp_path, pictures):
    _search(tmp_path, pictures, "open_clip:tiny", weights=tiny[2])


@pytest.mark.slow
def test_vit_b_32_from_a_file_is_indexed_and_queried(tmp_path, pictures):
    torch.manual_seed(0)
    path = tmp_path / "vit_b_32.pt"
    torch.save(open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).state_dict(), path)
    _search(tmp_path, pictures, "open_clip:ViT-B-32", weights=path, **STATED)
