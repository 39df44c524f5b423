"""Queries that carry their vectors: asked again without the encoder, and embedded anew by another."""

from __future__ import annotations

import numpy as np
import pytest

from retr import Index, Query
from retr.retrieval.encoders.callables import from_callable
from retr.sample import sample_index


@pytest.fixture
def picture():
    index = sample_index()
    return index.path.parent / "healthy/P01-left.png"


def test_embedded_queries_find_the_same_without_the_encoder(picture, monkeypatch):
    index = sample_index()
    queries = [Query.image(picture) * 2 - Query.id("glaucoma/P00-left.png"), Query.image(picture), Query.id("x") * 2]
    before = [index.search(query, k=4, exclude_same="patient") for query in queries[:2]]
    known = index.embed(queries[:2])
    monkeypatch.setattr(index.encoder, "encode_images", lambda _: pytest.fail("embedded again"))
    for query, hits in zip(known, before, strict=True):
        again = index.search(query, k=4, exclude_same="patient")
        assert (again.ids, again.scores.tolist()) == (hits.ids, hits.scores.tolist())
        assert again.query == hits.query
    assert index.embed(known)[0].parts[0].embedded is not None


def test_the_vector_of_another_encoder_is_not_taken(picture, tmp_path):
    index = sample_index()
    other = from_callable(
        lambda pictures: np.stack([np.eye(48, dtype=np.float32)[len(pictures)] for _ in pictures]),
        dim=48,
        name="other",
        fingerprint="1",
    )
    second = Index.from_vectors(
        np.eye(48, dtype=np.float32)[:3], {"id": ["a", "b", "c"]}, tmp_path / "i", encoder=other
    )
    [query] = index.embed([Query.image(picture)])
    assert second.search(query, k=1).ids == second.search(image=picture, k=1).ids == ["b"]
