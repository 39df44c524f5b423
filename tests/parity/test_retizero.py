"""RetiZero against its authors' own code."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import standin
import torch
from expected_arrays import Expected, softmax
from PIL import Image

from retr.index.errors import NoTextSideError, UsageError, WeightsError
from retr.retrieval.encoders.registry import find_spec, load_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXPECTED = Expected("retizero")


@pytest.fixture(scope="module")
def load(checkpoints: Callable[..., Path]) -> Callable[..., Any]:
    folder = checkpoints("retizero")

    def load(**options: Any) -> Any:
        given = {"weights": str(folder / "RetiZero.pth"), "text_model": str(folder / "Bio_ClinicalBERT")}
        return load_encoder("retizero", device="cpu", **({"precision": "fp32"} | given | options))

    return load


@pytest.fixture(scope="module")
def retizero(load: Callable[..., Any]) -> Iterator[Any]:
    yield load()
    gc.collect()


@pytest.fixture(scope="module")
def images(retizero: Any) -> np.ndarray:
    return retizero.encode_images(EXPECTED.images)


def _pixels(encoder: Any) -> np.ndarray:
    return np.stack([encoder.prepare(Image.open(path).convert("RGB")) for path in EXPECTED.images])


def test_the_card_says_its_size(retizero: Any) -> None:
    assert retizero.size()[0] == find_spec("retizero")[0].card.parameters


def test_pixels(retizero: Any) -> None:
    assert EXPECTED.check_pixels("zs_pixels", _pixels(retizero)) == 4


def test_image_vectors(images: np.ndarray) -> None:
    EXPECTED.check("image_embeds", images)


def test_texts_alone(retizero: Any, images: np.ndarray) -> None:
    texts = retizero.encode_texts(EXPECTED.prompts)
    EXPECTED.check("text_embeds_single", texts)
    logits = retizero.similarity_logits(images, texts)
    EXPECTED.check("logits_single", logits)
    EXPECTED.check("probs_single", softmax(logits))


def test_class_prototype(retizero: Any) -> None:
    prompts = [*EXPECTED.ensemble["descriptors"], EXPECTED.ensemble["name"]]
    EXPECTED.check("text_ensemble", retizero.class_embedding(prompts)[None])


def test_texts_together(load: Callable[..., Any], images: np.ndarray) -> None:
    reference = load(text_batching="reference")
    texts = reference.encode_texts(EXPECTED.prompts)
    EXPECTED.check("text_embeds_batched", texts)
    EXPECTED.check("text_embeds_first3", reference.encode_texts(EXPECTED.prompts[:3]))
    logits = reference.similarity_logits(images, texts)
    EXPECTED.check("logits", logits)
    EXPECTED.check("probs", softmax(logits))


def test_retrieval(load: Callable[..., Any]) -> None:
    retrieval = load(feature="retrieval", text_model=None)
    assert EXPECTED.check_pixels("ir_pixels", _pixels(retrieval)) == 4
    vectors = retrieval.encode_images(EXPECTED.images)
    EXPECTED.check("retrieval_1024", vectors)
    # the authors' similarity, for which the vectors must keep their length
    half = np.linalg.norm(vectors, axis=1) / 2
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    EXPECTED.check("retrieval_similarity", half / (half + apart))
    patches = retrieval.patch_embeddings(Image.open(EXPECTED.images[0]).convert("RGB"))
    assert patches.shape == (14, 14, 1024)
    np.testing.assert_allclose(patches.mean((0, 1)), vectors[0], atol=1e-4)
    with pytest.raises(NoTextSideError, match="retrieval"):
        retrieval.encode_texts(["glaucoma"])


def test_retrieval_with_imagenet_pixels(load: Callable[..., Any]) -> None:
    encoder = load(feature="retrieval", normalisation="imagenet", text_model=None)
    EXPECTED.check("retrieval_1024_imagenet", encoder.encode_images(EXPECTED.images))


def test_backbone(load: Callable[..., Any]) -> None:
    EXPECTED.check("image_cls_1024", load(feature="backbone", text_model=None).encode_images(EXPECTED.images))


def test_odd_pictures(retizero: Any, check_odd_pictures: Callable[..., None]) -> None:
    check_odd_pictures(retizero)


def test_bfloat16_keeps_the_vectors(load: Callable[..., Any], images: np.ndarray) -> None:
    lowered = load(precision="bf16", text_model=None)
    assert (lowered.encode_images(EXPECTED.images[:2]) * images[:2]).sum(1).min() > 0.999
    assert lowered.info.precision == "bf16" or lowered.notes


@pytest.mark.parametrize("rank", [8, 16, 3])
def test_folding_is_what_the_branches_add(rank: int) -> None:
    from retr.retrieval.encoders.towers.vision import fold_lora

    width = 12
    torch.manual_seed(rank)
    state = {"blocks.0.attn.qkv.qkv.weight": torch.randn(3 * width, width), "norm.weight": torch.ones(width)}
    for part in "qv":
        state[f"blocks.0.attn.qkv.linear_a_{part}.weight"] = torch.randn(rank, width)
        state[f"blocks.0.attn.qkv.linear_b_{part}.weight"] = torch.randn(width, rank)
    x = torch.randn(5, width)
    want = x @ state["blocks.0.attn.qkv.qkv.weight"].T
    for part, third in (("q", slice(0, width)), ("v", slice(2 * width, None))):
        down = x @ state[f"blocks.0.attn.qkv.linear_a_{part}.weight"].T
        want[:, third] += down @ state[f"blocks.0.attn.qkv.linear_b_{part}.weight"].T
    folded = fold_lora(state)
    assert folded.keys() == {"blocks.0.attn.qkv.weight", "norm.weight"}
    torch.testing.assert_close(x @ folded["blocks.0.attn.qkv.weight"].T, want, rtol=1e-5, atol=1e-5)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "RetiZero.pth"
    torch.save(standin.part("lvm_med_resnet", 0), file)
    with pytest.raises(WeightsError, match="holds no ViT under timm's names"):
        load_encoder("retizero", weights=file)
    file.write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(WeightsError, match=r"'RetiZero\.pth' is"):
        load_encoder("retizero", weights=file)
    with pytest.raises(UsageError, match="unknown normalisation 'half'"):
        load_encoder("retizero", weights=file, normalisation="half")
