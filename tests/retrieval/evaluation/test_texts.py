"""Pictures and texts that find each other: against ranks counted one by one, ties and copies included."""

import json

import numpy as np
import pyarrow as pa
import pytest

from retr import Index, UsageError
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

N, DIM = 24, 4
INFO = EncoderInfo("none", DIM, "cosine", "", text=True, weights_sha256="0", preprocessing="")


class Side:
    """Embeds a text by the numbers in it."""

    info = INFO

    def encode_texts(self, texts):
        return np.array([[float(part) for part in text.split()] for text in texts], np.float32)


@pytest.fixture
def index(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    vectors = rng.integers(-2, 3, (N, DIM)).astype(np.float32)
    vectors[:, 0] += 3
    captions = []
    for number in range(N):
        mine = [vectors[number] + rng.integers(-1, 2, DIM), vectors[number]]
        captions.append(" || ".join(" ".join(f"{x:g}" for x in one) for one in mine))
    # two rows with the same texts; one without any
    captions[5], captions[7] = captions[4], None
    with Store.create(tmp_path / "x", encoder=INFO, group="patient").writer() as writer:
        ids, patients = [f"r{at:02}" for at in range(N)], [f"P{at // 2}" for at in range(N)]
        writer.append(pa.table({"id": ids, "captions": captions, "patient": patients, "age": list(range(N))}), vectors)
        writer.commit()
    index = Index.open(tmp_path / "x")
    monkeypatch.setattr(Index, "text_side", property(lambda _: Side()))
    return index


def by_definition(index, k):
    rows = [row for row in index.table(["id", "captions"]).to_pylist() if row["captions"]]
    own = [[part.strip() for part in row["captions"].split("||")] for row in rows]
    texts = sorted({text for mine in own for text in mine})
    unit = lambda x: np.asarray(x, np.float32) / np.linalg.norm(x)  # noqa: E731
    pictures = [unit(vector) for vector in index.store.vectors(index.store.rows_of([row["id"] for row in rows]))]
    words = {text: unit([float(part) for part in text.split()]) for text in texts}
    to_text, to_image = [], []
    for picture, mine in zip(pictures, own, strict=True):
        best = max(float(picture @ words[text]) for text in mine)
        before = sum(float(picture @ words[text]) >= best - 1e-6 for text in texts if text not in mine)
        to_text.append(before < k)
        for text in dict.fromkeys(mine):
            right = [one for one, theirs in zip(pictures, own, strict=True) if text in theirs]
            wrong = [one for one, theirs in zip(pictures, own, strict=True) if text not in theirs]
            best = max(float(one @ words[text]) for one in right)
            to_image.append(sum(float(one @ words[text]) >= best - 1e-6 for one in wrong) < k)
    return np.mean(to_text), np.mean(to_image), len(texts)


def test_recall_is_that_of_ranks_counted_one_by_one(index):
    found = index.evaluate_text("captions", separator="||")
    assert (found.rows, found.patients) == (N - 1, N // 2)
    for k in (1, 5, 10):
        to_text, to_image, texts = by_definition(index, k)
        assert found.texts == texts
        assert found.image_to_text[k].value == pytest.approx(to_text)
        assert found.text_to_image[k].value == pytest.approx(to_image)
        assert found.text_to_image[k].low < to_image < found.text_to_image[k].high or to_image in {0, 1}
    assert json.loads(json.dumps(found.to_json()))["rows"] == N - 1
    assert index.evaluate_text("captions", separator="||", where="age < 9", k=[3]).rows == 8
    assert found.image_to_text[1].value < 1


def test_what_cannot_be_measured_is_said(index):
    with pytest.raises(UsageError, match="which holds int64"):
        index.evaluate_text("age")
    with pytest.raises(UsageError, match="a depth is a whole number"):
        index.evaluate_text("captions", k=[0])
    with pytest.raises(UsageError, match="fewer than two different texts"):
        index.evaluate_text("captions", where="age = 1")


def test_rows_that_a_bridge_was_fitted_on_take_no_part():
    from retr.sample import sample_index

    index = sample_index()
    index.align("caption", where="patient < 'P06'")
    found = index.evaluate_text("caption")
    assert (found.rows, found.patients) == (12, 6)
    assert "12 rows take no part" in found.notes[0]
    index.align("caption")
    with pytest.raises(UsageError, match="24 rows take no part"):
        index.evaluate_text("caption")
