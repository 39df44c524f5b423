"""KAD against its authors' own code: vectors, probabilities and the three protocols."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import standin
import torch
from expected_arrays import Expected
from PIL import Image

from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXPECTED = Expected("kad")


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("kad")


@pytest.fixture(scope="module")
def load(folder: Path) -> Callable[..., Any]:
    def load(**options: Any) -> Any:
        given = {"weights": str(folder / "KAD_512" / "best_valid.pt"), "text_model": str(folder / "Med-KEBERT")}
        return load_encoder("kad", device="cpu", **({"precision": "fp32"} | given | options))

    return load


@pytest.fixture(scope="module")
def kad(load: Callable[..., Any], folder: Path) -> Iterator[Any]:
    yield load(knowledge_encoder=str(folder / "Knowledge_Encoder" / "epoch_latest.pt"))
    gc.collect()


@pytest.fixture(scope="module")
def images(kad: Any) -> np.ndarray:
    return kad.encode_images(EXPECTED.images)


@pytest.fixture(scope="module")
def pixels(kad: Any) -> np.ndarray:
    return np.stack([kad.prepare(read_image(path).image) for path in EXPECTED.images])


def test_pixels(pixels: np.ndarray) -> None:
    assert EXPECTED.check_pixels("pixels", pixels) == 4


def test_tokens(folder: Path) -> None:
    from retr.retrieval.encoders.towers.bert import Tokenizer

    ids, _ = Tokenizer(folder / "Med-KEBERT", 256)(EXPECTED.prompts, pad_to=256)
    assert ids.shape == (5, 256)
    EXPECTED.check("input_ids", ids[:, :32])


def test_image_vectors(images: np.ndarray) -> None:
    EXPECTED.check("pool_768", images)


def test_texts_and_their_dot_product(kad: Any, images: np.ndarray) -> None:
    texts = kad.encode_texts(EXPECTED.prompts)
    EXPECTED.check("text_features_single", texts)
    EXPECTED.check("text_features", texts)
    EXPECTED.check("dot", kad.similarity_logits(images, texts))
    assert kad.info.similarity == "dot"
    assert kad.encode_texts([]).shape == (0, 768)


def test_findings_together(kad: Any, pixels: np.ndarray, images: np.ndarray) -> None:
    vectors, scores = kad.encode_and_score(pixels, EXPECTED.prompts)
    EXPECTED.check("prob_together", scores)
    np.testing.assert_allclose(vectors, images, atol=1e-6)
    with torch.inference_mode():
        patches = kad.network(torch.from_numpy(pixels)).flatten(1, 2)
        EXPECTED.check("logits", kad.queries(patches, torch.from_numpy(kad.encode_texts(EXPECTED.prompts))))


def test_findings_alone(kad: Any) -> None:
    alone = kad.score(EXPECTED.images, EXPECTED.prompts, together=False)
    EXPECTED.check("prob_alone", alone)
    one = kad.score(EXPECTED.images[:1], EXPECTED.prompts[2:3])
    np.testing.assert_allclose(one[0, 0], alone[0, 2], atol=1e-5)
    assert kad.score(EXPECTED.images[:1], []).shape == (1, 0)


def test_nih_protocol(load: Callable[..., Any]) -> None:
    nih = load(protocol="nih")
    pixels = [nih.prepare(read_image(path).image) for path in EXPECTED.images]
    answers = [nih.encode_and_score(one[None], EXPECTED.prompts) for one in pixels]
    EXPECTED.check("nih_pool_768", np.concatenate([vectors for vectors, _ in answers]))
    EXPECTED.check("nih_prob_together", np.concatenate([scores for _, scores in answers]))
    assert nih.encode_images(EXPECTED.images[1:3]).shape == (2, 768)
    assert nih.prepare(Image.new("RGB", (1, 600))).shape == (3, 2048, 512)


def test_padchest_protocol(load: Callable[..., Any]) -> None:
    padchest = load(protocol="padchest", text_batching="reference")
    files = EXPECTED.images[2:]
    pixels = [padchest.prepare(read_image(path, grey16=padchest.info.grey16).image) for path in files]
    assert EXPECTED.check_pixels("padchest_pixels", np.stack(pixels)) == 2
    vectors, scores = padchest.encode_and_score(np.stack(pixels), EXPECTED.prompts)
    EXPECTED.check("padchest_pool_768", vectors)
    EXPECTED.check("padchest_prob_together", scores)
    np.testing.assert_allclose(padchest.encode_images(files[:1]), vectors[:1], atol=1e-5)
    EXPECTED.check("text_features", padchest.encode_texts(EXPECTED.prompts))
    half = Image.fromarray(np.full((40, 40, 3), 120, np.uint8))
    assert padchest.prepare(half).max() == padchest.prepare(Image.new("RGB", (40, 40), "white")).max()


def test_stored_text_encoder_serves_alone(load: Callable[..., Any], kad: Any) -> None:
    alone = load()
    assert alone.info.identity == kad.info.identity
    assert np.array_equal(alone.encode_texts(["hernia"]), kad.encode_texts(["hernia"]))


def test_another_knowledge_encoder_is_used_and_told(
    load: Callable[..., Any], kad: Any, folder: Path, tmp_path: Path
) -> None:
    stored = torch.load(folder / "Knowledge_Encoder" / "epoch_latest.pt", weights_only=True)
    stored["state_dict"]["mlp_embed.2.bias"] = stored["state_dict"]["mlp_embed.2.bias"] + 1
    torch.save(stored, tmp_path / "epoch_latest.pt")
    other = load(knowledge_encoder=str(tmp_path))
    np.testing.assert_allclose(other.encode_texts(["hernia"]), kad.encode_texts(["hernia"]) + 1, atol=1e-5)
    assert any("differs" in note for note in other.notes)
    assert other.info.identity != kad.info.identity


def test_odd_pictures(kad: Any, check_odd_pictures: Callable[..., None]) -> None:
    check_odd_pictures(kad)


def test_bfloat16_keeps_the_vectors(load: Callable[..., Any], images: np.ndarray) -> None:
    lowered = load(precision="bf16")
    got, exact = lowered.encode_images(EXPECTED.images[:2]), images[:2]
    cosines = (got * exact).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.999 or lowered.notes
    scores = lowered.score(EXPECTED.images[:1], EXPECTED.prompts)
    np.testing.assert_allclose(scores, EXPECTED.array("prob_together")[:1], atol=0.02)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint with the real image half, a narrow text tower and an untrained query network."""
    folder = tmp_path_factory.mktemp("small")
    text = standin.save_text(
        "pubmed", folder / "Med-KEBERT", intermediate_size=32, num_attention_heads=12, num_hidden_layers=1
    )
    from retr.retrieval.encoders.towers.bert import KnowledgeText, new_bert

    knowledge = KnowledgeText(new_bert(text))
    state = {key: torch.zeros_like(value) for key, value in knowledge.state_dict().items()}
    return {
        "text_model": text,
        "folder": folder,
        "checkpoint": {
            "model": standin.part("kad_model", 1),
            "image_encoder": standin.part("kad_image_encoder", 1),
            "text_encoder": state,
            "config": {"image_res": 512},
        },
    }


@pytest.mark.parametrize(("stored", "side", "told"), [(1024, 1024, False), (224, 512, True), (None, 512, False)])
def test_resolution(small: dict[str, Any], tmp_path: Path, stored: int | None, side: int, told: bool) -> None:
    config = {} if stored is None else {"image_res": stored}
    torch.save(small["checkpoint"] | {"config": config}, tmp_path / "best_valid.pt")
    encoder = load_encoder("kad", weights=tmp_path, device="cpu", precision="fp32")
    assert encoder.prepare(Image.new("RGB", (30, 40))).shape == (3, side, side)
    assert bool(encoder.notes) == told
    chosen = load_encoder("kad", weights=tmp_path, resolution=64, device="cpu", precision="fp32")
    assert chosen.encode_images([np.zeros((9, 9), np.uint8)]).shape == (1, 768)
    assert chosen.info.options["resolution"] == 64


def test_three_stage_network(small: dict[str, Any], tmp_path: Path) -> None:
    """``ModelRes`` stops one stage earlier: 14 x 14 places at 224."""
    image = {
        key: value
        for key, value in small["checkpoint"]["image_encoder"].items()
        if not key.startswith(("res_l", "res_features.7"))
    }
    image |= {"res_l1.weight": torch.eye(1024), "res_l1.bias": torch.zeros(1024)}
    image |= {"res_l2.weight": torch.eye(768, 1024), "res_l2.bias": torch.zeros(768)}
    torch.save(small["checkpoint"] | {"image_encoder": image, "config": {"image_res": 224}}, tmp_path / "best_valid.pt")
    encoder = load_encoder("kad", weights=tmp_path, device="cpu", precision="fp32")
    assert encoder.patch_embeddings(Image.new("RGB", (300, 300))).shape == (14, 14, 768)
    assert not encoder.notes


def test_files_that_do_not_fit(small: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "best_valid.pt"
    checkpoint = small["checkpoint"]

    def saved(part: str, **changes: torch.Tensor) -> Path:
        torch.save(checkpoint | {part: checkpoint[part] | changes}, file)
        return file

    with pytest.raises(WeightsError, match=r"stores 'decoder_norm\.bias' twice"):
        load_encoder("kad", weights=saved("model", **{"decoder.norm.bias": torch.ones(768)}))
    with pytest.raises(WeightsError, match=r"stores 'resnet\.bn1\.bias' twice"):
        load_encoder("kad", weights=saved("image_encoder", **{"res_features.1.bias": torch.ones(64)}))
    with pytest.raises(WeightsError, match="1 unknown"):
        load_encoder("kad", weights=saved("image_encoder", spare=torch.ones(1)))
    torch.save(standin.part("lvm_med_resnet", 0), file)
    with pytest.raises(WeightsError, match="has no 'image_encoder'"):
        load_encoder("kad", weights=file)
    with pytest.raises(UsageError, match="unknown resolution 500"):
        load_encoder("kad", weights=file, resolution=500)


def test_a_long_text_is_counted(kad: Any) -> None:
    (short, read), (tokens, kept) = kad.text_lengths(["edema", "edema " * 400])
    assert short == read < 256
    assert tokens >= 402
    assert kept == 256
    assert kad.info.text_sha256 is not None
