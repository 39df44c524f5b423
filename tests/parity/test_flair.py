"""FLAIR against its authors' own code, and where the stored values matter."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import standin
import torch
from expected_arrays import Expected, softmax
from PIL import Image

from retr.index.errors import NoTextSideError, UsageError, WeightsError
from retr.retrieval.encoders.registry import find_spec, load_encoder
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXPECTED = Expected("flair")


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("flair")


@pytest.fixture(scope="module")
def load(folder: Path) -> Callable[..., Any]:
    def load(**options: Any) -> Any:
        given = {"weights": str(folder / "flair_resnet.pth"), "text_model": str(folder / "Bio_ClinicalBERT")}
        return load_encoder("flair", device="cpu", **({"precision": "fp32"} | given | options))

    return load


@pytest.fixture(scope="module")
def flair(load: Callable[..., Any]) -> Iterator[Any]:
    yield load()
    gc.collect()


@pytest.fixture(scope="module")
def images(flair: Any) -> np.ndarray:
    return flair.encode_images(EXPECTED.images)


@pytest.fixture(scope="module")
def reference(load: Callable[..., Any]) -> Any:
    return load(text_batching="reference")


def test_the_card_says_its_size(flair: Any) -> None:
    assert flair.size()[0] == find_spec("flair")[0].card.parameters


def test_pixels(flair: Any) -> None:
    pixels = [flair.prepare(Image.open(path).convert("RGB")) for path in EXPECTED.images]
    EXPECTED.check_pixels("pixels", np.stack(pixels))


def test_tokens(folder: Path) -> None:
    from retr.retrieval.encoders.towers.bert import Tokenizer

    tokenizer = Tokenizer(folder / "Bio_ClinicalBERT", 77)
    ids, mask = tokenizer([f"A fundus photograph of {prompt}" for prompt in EXPECTED.prompts])
    EXPECTED.check("input_ids", ids)
    EXPECTED.check("attention_mask", mask)


def test_image_vectors(images: np.ndarray) -> None:
    EXPECTED.check("image_embeds", images)


def test_texts_alone(flair: Any, images: np.ndarray) -> None:
    texts = flair.encode_texts(EXPECTED.prompts)
    EXPECTED.check("text_embeds_single", texts)
    logits = flair.similarity_logits(images, texts)
    EXPECTED.check("logits_single", logits)
    EXPECTED.check("probs_single", softmax(logits))


def test_texts_together(reference: Any, images: np.ndarray) -> None:
    texts = reference.encode_texts(EXPECTED.prompts)
    EXPECTED.check("text_embeds_batched", texts)
    EXPECTED.check("text_embeds_first3", reference.encode_texts(EXPECTED.prompts[:3]))
    logits = reference.similarity_logits(images, texts)
    EXPECTED.check("logits", logits)
    EXPECTED.check("probs", softmax(logits))


def test_class_prototype(flair: Any, reference: Any) -> None:
    prompts = [*EXPECTED.ensemble["descriptors"], EXPECTED.ensemble["name"]]
    for encoder in (flair, reference):
        EXPECTED.check("text_ensemble", encoder.class_embedding(prompts)[None])


def test_hub_form_is_the_same(load: Callable[..., Any], folder: Path, images: np.ndarray) -> None:
    by_folder = load(weights=str(folder / "hf"))
    assert np.array_equal(by_folder.encode_images(EXPECTED.images), images)
    EXPECTED.check("text_embeds_single", by_folder.encode_texts(EXPECTED.prompts))


def test_backbone(load: Callable[..., Any], flair: Any) -> None:
    backbone = load(feature="backbone", text_model=None)
    EXPECTED.check("image_feature_2048", backbone.encode_images(EXPECTED.images))
    assert backbone.info.identity != flair.info.identity
    with pytest.raises(NoTextSideError, match="backbone"):
        backbone.encode_texts(["glaucoma"])


def test_a_text_in_the_caption_stays(flair: Any) -> None:
    bare, captioned = flair.encode_texts(["glaucoma", "A fundus photograph of glaucoma"])
    assert np.array_equal(bare, captioned)
    assert flair.encode_texts([]).shape == (0, 512)


def test_odd_pictures(flair: Any, check_odd_pictures: Callable[..., None]) -> None:
    check_odd_pictures(flair)


def test_patches_average_to_the_backbone(load: Callable[..., Any]) -> None:
    backbone = load(feature="backbone", text_model=None)
    picture = Image.open(EXPECTED.images[0]).convert("RGB")
    patches = backbone.patch_embeddings(picture)
    assert patches.shape == (16, 16, 2048)
    np.testing.assert_allclose(patches.mean((0, 1)), EXPECTED.array("image_feature_2048")[0], atol=2e-5)


def test_bfloat16_keeps_the_vectors(load: Callable[..., Any], images: np.ndarray) -> None:
    lowered = load(precision="bf16")
    cosines = (lowered.encode_images(EXPECTED.images[:2]) * images[:2]).sum(1)
    assert cosines.min() > 0.999
    assert lowered.info.precision == "bf16" or lowered.notes


@pytest.mark.parametrize(
    ("stored", "factor"),
    [(0.0, 1.0), (-3.0, 1.0), (3.3, math.exp(3.3)), (4.6052, math.exp(4.6052)), (7.0, math.exp(4.6052))],
)
def test_stored_scale_and_a_smaller_text_tower(tmp_path: Path, stored: float, factor: float) -> None:
    """The scale is read and clamped, and every size comes from the files: here another projection and BERT."""
    path, text = _small(tmp_path, logit_scale=torch.tensor(stored))
    encoder = load_encoder("flair", weights=path, text_model=text, device="cpu", precision="fp32")
    assert encoder.info.logit_scale == pytest.approx(factor, rel=1e-6)
    texts = encoder.encode_texts(["glaucoma", "normal"])
    assert texts.shape == (2, 32)
    logits = encoder.similarity_logits(texts, texts)
    np.testing.assert_allclose(logits, texts @ texts.T * factor, rtol=1e-5)


def test_another_configuration(tmp_path: Path) -> None:
    path, text = _small(tmp_path)
    state = torch.load(path, weights_only=True)
    standin.save_flair_hub(state, tmp_path / "hub", image_size=128, caption="an eye with [CLS] in it")
    encoder = load_encoder("flair", weights=tmp_path / "hub", text_model=text, device="cpu", precision="fp32")
    plain = load_encoder("flair", weights=path, text_model=text, template="[CLS]", device="cpu", precision="fp32")
    assert encoder.prepare(Image.new("RGB", (50, 100))).shape == (3, 128, 128)
    assert np.array_equal(encoder.encode_texts(["drusen"]), plain.encode_texts(["an eye with drusen in it"]))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path, _ = _small(tmp_path)
    state = torch.load(path, weights_only=True)

    def saved(name: str, changed: dict[str, torch.Tensor]) -> Path:
        torch.save(changed, tmp_path / name)
        return tmp_path / name

    gone = saved("gone.pth", {k: v for k, v in state.items() if k != "vision_model.model.bn1.bias"})
    with pytest.raises(WeightsError, match=r"1 missing \(bn1.bias\)"):
        load_encoder("flair", weights=gone)
    extra = saved("extra.pth", state | {"classifier.weight": torch.zeros(2)})
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        load_encoder("flair", weights=extra)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(WeightsError, match=r"no config\.json and no vocab\.txt"):
        load_encoder("flair", weights=path, text_model=nothing)
    standin.save_flair_hub(state, tmp_path / "hub", vision_type="efficientnet")
    with pytest.raises(WeightsError, match="efficientnet"):
        load_encoder("flair", weights=tmp_path / "hub")
    (tmp_path / "hub" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json beside"):
        load_encoder("flair", weights=tmp_path / "hub")
    with pytest.raises(UsageError, match="unknown feature 'raw'"):
        load_encoder("flair", weights=path, feature="raw")


def _small(folder: Path, **changes: torch.Tensor) -> tuple[Path, Path]:
    """Write a FLAIR file with the real image half, 32-d heads and a text tower of three narrow layers."""
    ensure_torchvision()
    from transformers import BertConfig, BertModel

    text = standin.save_text(
        "cased", folder / "text", hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=3
    )
    torch.manual_seed(1)
    bert = BertModel(BertConfig.from_json_file(text / "config.json"))
    resnet = {f"vision_model.model.{k}": v for k, v in standin.part("lvm_med_resnet", 3).items()}
    state = resnet | {f"text_model.model.{k}": v for k, v in bert.state_dict().items()}
    state["vision_model.projection_head_vision.projection.weight"] = torch.randn(32, 2048)
    state["text_model.projection_head_text.projection.weight"] = torch.randn(32, 16)
    state["logit_scale"] = torch.tensor(2.0)
    torch.save(state | changes, folder / "flair_resnet.pth")
    return folder / "flair_resnet.pth", text


def test_a_long_text_is_counted_with_its_caption(flair: Any) -> None:
    (short, read), (tokens, kept) = flair.text_lengths(["drusen", "drusen " * 200])
    bare = flair.text_lengths(["A fundus photograph of drusen"])
    assert bare == [(short, read)]
    assert short == read < 77
    assert tokens >= 202
    assert kept == 77
