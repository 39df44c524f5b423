"""Text, picture and mixed queries over a random-weight open_clip model, against direct numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from retr import Index
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.query import Query

ensure_torchvision()
open_clip = pytest.importorskip("open_clip")

HRF = Path(__file__).parents[2] / "examples/hrf45"
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
FILES = sorted(HRF.glob("*/0[1-5]*.jpg"))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """An index of fifteen photographs, the model, and what open_clip itself makes of the photographs."""
    torch.manual_seed(1)
    model = open_clip.CLIP(**TINY).eval()
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    folder = tmp_path_factory.mktemp("tiny")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    torch.save(model.state_dict(), folder / "tiny.pt")
    archive = folder / "archive"
    archive.mkdir()
    for file in FILES:
        (archive / file.name).write_bytes(file.read_bytes())
    here = {"weights": folder / "tiny.pt", "device": "cpu", "precision": "fp32"}
    index = Index.build(archive, folder / "x.retr", encoder="open_clip:tiny", **here)
    ids = index.table(["id"])["id"].to_pylist()
    vectors = unit(index.encoder.encode_images([archive / name for name in ids]).astype(np.float64))
    return index, model, ids, vectors


def words(model, text):
    with torch.inference_mode():
        return unit(model.encode_text(open_clip.tokenize([text])).numpy()[0].astype(np.float64))


MIXES = ["text", "image", "id", "mixed", "against"]


@pytest.mark.parametrize("kind", MIXES)
def test_queries_agree_with_numpy(indexed, kind):
    index, model, ids, vectors = indexed
    archive = index.path.parent / "archive"
    picture, drusen, scars = vectors[4], words(model, "drusen"), words(model, "laser scars")
    image = Query.image(archive / ids[4])
    query, wanted = {
        "text": (Query.text("drusen"), drusen),
        "image": (image, picture),
        "id": (Query.id(ids[4]), picture),
        "mixed": (image + Query.text("drusen") * 2, picture + 2 * drusen),
        "against": (
            Query.from_json(
                {
                    "image": str(archive / ids[4]),
                    "text": {"text": "drusen", "weight": 2},
                    "not": {"not": "laser scars", "weight": 0.5},
                }
            ),
            picture + 2 * drusen - 0.5 * scars,
        ),
    }[kind]
    hits = index.search(query, k=len(ids), include_self=True)
    scores = vectors @ unit(wanted)
    assert sorted(hits.ids) == sorted(ids)
    np.testing.assert_allclose(hits.scores, [scores[ids.index(name)] for name in hits.ids], atol=1e-5)
    np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1], atol=1e-5)


def test_several_queries_in_one_call(indexed):
    index, _, ids, _ = indexed
    queries = [Query.text("drusen"), Query.id(ids[0]) - Query.text("scars"), Query.id(ids[1])]
    together = index.search(queries, k=4)
    for query, hits in zip(queries, together, strict=True):
        alone = index.search(query, k=4)
        assert hits.ids == alone.ids
        np.testing.assert_allclose(hits.scores, alone.scores, atol=1e-6)


def test_zero_shot_is_the_encoders_own_softmax(indexed, tmp_path):
    index, model, ids, vectors = indexed
    labels = tmp_path / "labels.yaml"
    labels.write_text(
        "templates: ['a photo of {}']\nclasses:\n  - name: a\n    prompts: [drusen, yellow spots]\n  - glaucoma\n"
    )
    prototypes = [
        unit((words(model, "a photo of drusen") + words(model, "a photo of yellow spots")) / 2),
        words(model, "a photo of glaucoma"),
    ]
    logits = np.exp(2.0) * vectors @ np.stack(prototypes).T
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    archive = index.path.parent / "archive"
    said = []
    found = list(index.classify([archive / name for name in ids], labels=labels, say=said.append))
    assert said == []
    for one, row in zip(found, want, strict=True):
        got = dict(zip(one.classes, one.probabilities, strict=True))
        assert [got["a"], got["glaucoma"]] == pytest.approx(row, abs=1e-5)
        assert not one.calibrated


def test_another_encoders_words_can_be_bridged(indexed, tmp_path):
    """The text side of one encoder, loaded again by its record, for the pictures of another."""
    from retr.index.store import Store
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.text import align

    here = {"weights": indexed[0].path.parent / "tiny.pt", "device": "cpu", "precision": "fp32"}
    texts = load_encoder("open_clip:tiny", **here)
    index = Index.build(HRF, tmp_path / "x.retr", metadata=HRF / "labels.csv")
    fitted = index.align("label", text_encoder=texts)
    found = align.find_bridge(Store.open(index.path))
    assert found.encoder["name"] == "open_clip:tiny"
    np.testing.assert_allclose(found.encode_texts(["glaucoma"]), fitted.encode_texts(["glaucoma"]), atol=1e-4)
    hits = index.search(text="diabetic retinopathy", k=3)
    assert "bridge" in hits.note
