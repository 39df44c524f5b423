"""The word bag and the bridge, on a store whose vectors are drawn from its words."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexCorruptError, UsageError
from retr.index.store import Store
from retr.retrieval.index import Index
from retr.retrieval.text import align
from retr.retrieval.text.bag_of_words import WordBag

DIM = 24
WORDS = ("disc", "macula", "vessel", "drusen", "haemorrhage", "scar", "tear", "cup", "exudate", "pigment")
INFO = EncoderInfo(
    name="drawn", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)


def write(path, n=300, seed=0):
    """Rows of three words; the vector is the sum of the words' directions, a common offset and noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(len(WORDS), DIM))
    offset = np.random.default_rng(98).normal(size=DIM) * 3
    texts, vectors = [], []
    for _ in range(n):
        chosen = rng.choice(len(WORDS), 3, replace=False)
        names = [WORDS[i] for i in chosen]
        texts.append(f"{names[0]} and {names[1]} || a {names[2]}, {names[0]}" if rng.random() < 0.9 else None)
        vectors.append(directions[chosen].sum(axis=0) + offset + rng.normal(size=DIM) * 0.3)
    store = Store.create(path, encoder=INFO)
    with store.writer() as writer:
        ids = [f"{i:04d}" for i in range(n)]
        part = ["fit" if i < n // 2 else "held" for i in range(n)]
        patient = [f"P{i // 2}" for i in range(n)]
        writer.append(pa.table({"id": ids, "finding": texts, "part": part, "patient": patient}), np.array(vectors))
        writer.set_group("patient")
        return writer.commit()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bridge") / "x.retr")


@pytest.fixture(scope="module")
def bridge(store):
    return align.fit_bridge(store, "finding", where="part = 'fit'")


def test_texts_are_split_and_owned(store):
    texts = align.collect_texts(store, "finding")
    values = store.table(["finding"])["finding"].to_pylist()
    assert len(texts.rows) == sum(value is not None for value in values)
    assert texts.texts[:2] == tuple(part.strip() for part in values[texts.rows[0]].split("||"))
    assert texts.owner[:4].tolist() == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="at least 10"):
        align.collect_texts(store, "finding", where="id = '0000'")
    with pytest.raises(UsageError, match="no column"):
        align.collect_texts(store, "findings")


def test_words_find_rows_never_seen(store, bridge):
    held = align.collect_texts(store, "finding", where="part = 'held'")
    vectors = store.vectors(held.rows)
    _, at_10 = align.text_recall(bridge.encode_texts(held.texts), held, vectors, (1, 10))
    chance = 10 / len(held.rows)
    assert at_10 > 5 * chance
    assert at_10 == pytest.approx(bridge.figures["recall_at_10"], abs=0.35)
    assert bridge.figures["rows"] == sum(store.table(["part"])["part"].to_pylist()[row] == "fit" for row in
                                         align.collect_texts(store, "finding", where="part = 'fit'").rows)  # fmt: skip


def test_recall_by_hand():
    texts = align.Texts(np.arange(3), np.arange(3), ("a", "b", "a"), np.array([0, 1, 2]))
    rows = np.eye(3, dtype=np.float32)
    predicted = np.array([[0.0, 0.5, 1.0], [1.0, 0.9, 0.0], [0.0, 0.5, 1.0]])
    # "a" is written of rows 0 and 2 and finds 2 first; "b" finds its row second
    assert align.text_recall(predicted, texts, rows, (1, 2)) == [pytest.approx(2 / 3), 1.0]


def test_a_bridge_is_stored_without_pickles_and_read_back(store, bridge):
    data = bridge.to_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for name in file.namelist():
            np.load(io.BytesIO(file.read(name)), allow_pickle=False)
    back = align.Bridge.from_bytes(data)
    asked = ["a disc and a tear", "drusen"]
    np.testing.assert_allclose(back.encode_texts(asked), bridge.encode_texts(asked), atol=1e-6)
    assert back.figures == bridge.figures
    with pytest.raises(IndexCorruptError):
        align.Bridge.from_bytes(data[:100])


def test_the_fitted_bridge_is_committed(tmp_path):
    store = write(tmp_path / "y.retr", n=100)
    assert align.find_bridge(store) is None
    fitted = Index(store).align("finding")
    opened = Store.open(store.path)
    np.testing.assert_allclose(
        align.find_bridge(opened).encode_texts(["a scar"]), fitted.encode_texts(["a scar"]), atol=1e-6
    )
    assert opened.manifest.extra["bridge"]["column"] == "finding"


def test_unknown_words_lower_the_confidence_and_are_named(bridge):
    known, part = bridge.confidence("disc and tear"), bridge.confidence("disc and zeppelin")
    assert known == pytest.approx(bridge.figures["recall_at_10"], abs=1e-3)
    assert 0 < part < known
    assert "'zeppelin'" in bridge.note(["disc and zeppelin"])
    assert "unknown" not in bridge.note(["disc and tear"])
    with pytest.raises(UsageError, match="none of the words"):
        bridge.encode_texts(["qqq"])


def test_a_misspelt_word_still_points_the_right_way(bridge):
    right, wrong, other = bridge.encode_texts(["haemorrhage", "haemorrhages", "cup"])
    assert right @ wrong / np.linalg.norm(right) / np.linalg.norm(wrong) > 0.8
    assert right @ wrong > right @ other


def test_a_bag_with_a_reduction_survives_the_disk():
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    texts = [" ".join("".join(rng.choice(letters, 5)) for _ in range(8)) for _ in range(600)]
    bag = WordBag.fit(texts)
    assert bag.components is not None
    back = WordBag.from_arrays(bag.to_arrays())
    np.testing.assert_array_equal(back.encode_texts(texts[:5]), bag.encode_texts(texts[:5]))
    near = bag.encode_texts(texts) @ bag.encode_texts(texts[:1])[0]
    assert near.argmax() == 0


def test_another_encoder_can_embed_the_words(store):
    class Sentences:
        info = EncoderInfo.from_json({**INFO.to_json(), "name": "sentences", "text": True, "dim": len(WORDS)})

        def encode_texts(self, texts):
            return np.array([[float(word in text) for word in WORDS] for text in texts], dtype=np.float32) + 0.01

    fitted = align.fit_bridge(store, "finding", text_encoder=Sentences())
    assert fitted.figures["text_encoder"] == "sentences"
    assert fitted.encoder["name"] == "sentences"
    assert fitted.figures["recall_at_10"] > 0.5
    assert fitted.confidence("zeppelin") == 0
