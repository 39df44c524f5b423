"""Tuning through the public `Index`: words join the queries, and a large index is tuned by its build."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retr.index import tune
from retr.index.accelerators import faiss_index
from retr.index.encoder import EncoderInfo
from retr.index.errors import WeightsError
from retr.index.store import Store
from retr.retrieval import tuning
from retr.retrieval.index import Index

DIM = 16


class WordEncoder:
    """Embeds words as random directions, each word its own."""

    def __init__(self, info: EncoderInfo) -> None:
        self.info = info

    def encode_texts(self, texts):
        return np.stack([np.random.default_rng(sum(map(ord, text))).standard_normal(DIM) for text in texts])


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    monkeypatch.setattr(faiss_index, "MIN_ROWS", 500)
    monkeypatch.setattr(tune, "MIN_ROWS", 500)
    info = EncoderInfo("words", DIM, "cosine", "none", text=True, weights_sha256="0", preprocessing="none")
    store = Store.create(tmp_path / "index", encoder=info)
    vectors = np.random.default_rng(0).standard_normal((2000, DIM))
    ids = [f"r{i}" for i in range(2000)]
    table = pa.table({"id": ids, "path": ids, "label": [f"finding {i % 40}" for i in range(2000)], "n": ids})
    with store.writer() as writer:
        writer.append(table.drop_columns(["n"]), vectors)
        store = writer.commit()
    return Index(store, encoder=WordEncoder(info))


def test_words_of_the_metadata_join_the_queries(index):
    found = tuning.text_queries(index, lambda _: None)
    assert found["text"].shape == (40, DIM)
    chosen = index.tune(recall=0.8)
    assert set(chosen.recalls) == {"image", "unseen", "text"}
    assert chosen.recall >= 0.8
    assert index.info()["search"]["kind"] == "ivf"
    assert not index.search(vector=np.ones(DIM)).exact


def test_a_text_side_that_cannot_be_loaded_is_said(index, monkeypatch):
    def fail(_):
        raise WeightsError("no weights")

    monkeypatch.setattr(index.encoder, "encode_texts", fail)
    said: list[str] = []
    assert tuning.text_queries(index, said.append) == {}
    assert said == ["recall was not measured on text queries: no weights"]


def test_a_large_index_is_tuned_and_a_small_one_is_not(index, monkeypatch):
    assert tuning.tune_if_large(index) == []
    monkeypatch.setattr(tune, "EXACT_SECONDS", 0.0)
    notes = tuning.tune_if_large(index)
    assert "tuned for approximate search" in notes[0]
    assert tuning.tune_if_large(index) == []
