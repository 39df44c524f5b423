"""The query algebra against direct numpy."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import ImageReadError, NoTextSideError, UsageError
from retr.retrieval.query import Query
from retr.retrieval.query_identity import own_rows
from retr.retrieval.query_vectors import resolve

DIM = 6


def embed(value: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "little")
    return np.random.default_rng(seed).normal(size=DIM).astype(np.float32) * 7


class FakeEncoder:
    def __init__(self, similarity: str = "cosine", text: bool = True) -> None:
        self.info = EncoderInfo(
            name="fake",
            dim=DIM,
            similarity=similarity,
            modality="many",
            text=text,
            weights_sha256="0",
            preprocessing="none",
        )

    def encode_images(self, items):
        return np.stack([embed(str(item)) for item in items])

    def encode_texts(self, texts):
        if not self.info.text:
            raise NoTextSideError("images only")
        return np.stack([embed(text) for text in texts])


class FakeStore:
    """Five rows; ``b`` was deleted, ``d`` is a copy of ``a``, ``s#0`` and ``s#1`` share a file."""

    ids = ("a", "b", "c", "d", "s#0", "s#1")
    hashes = ("1", "1", "2", "1", "3", "3")
    schema = pa.schema([("id", pa.string()), ("sha256", pa.string())])

    segments = ()
    manifest = SimpleNamespace(extra={}, encoder=SimpleNamespace(transform=None), row_arrays={})

    def alive(self):
        return np.array([True, False, True, True, True, True])

    def rows_of(self, ids):
        return np.array([self.ids.index(i) if i in self.ids and i != "b" else -1 for i in ids])

    def vectors(self, rows):
        return np.stack([embed(self.ids[row]) for row in rows])

    def table(self, columns, rows=None):
        rows = np.flatnonzero(self.alive()) if rows is None else rows
        data = {"id": [self.ids[r] for r in rows], "sha256": [self.hashes[r] for r in rows]}
        return pa.table(data).select(columns)

    def text(self, column, row):
        assert column == "sha256"
        return self.hashes[row]

    def rows_with_text(self, column, text):
        assert column == "sha256"
        return np.array([row for row in np.flatnonzero(self.alive()) if self.hashes[row] == text], np.int64)


def unit(v):
    return v / np.linalg.norm(v)


def test_a_mix_is_the_weighted_sum_of_unit_vectors():
    vector = np.arange(1, DIM + 1)
    query = Query.image("x.png") * 2 + 0.5 * Query.id("c") - Query.text("laser scars") * 3 + Query.vector(vector)
    want = unit(2 * unit(embed("x.png")) + 0.5 * unit(embed("c")) - 3 * unit(embed("laser scars")) + unit(vector))
    (got,) = resolve([query], FakeEncoder(), FakeStore()).vectors
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_dot_product_keeps_lengths():
    query = Query.image("x.png") * 2 - Query.text("laser scars")
    (got,) = resolve([query], FakeEncoder("dot"), FakeStore()).vectors
    np.testing.assert_allclose(got, 2 * embed("x.png") - embed("laser scars"), rtol=1e-5)


def test_several_queries_equal_one_at_a_time():
    queries = [
        Query.text("a") + Query.image("x"),
        Query.id("c"),
        -Query.text("b"),
        Query.image("y") - Query.id("a"),
    ]
    got = resolve(queries, FakeEncoder(), FakeStore()).vectors
    np.testing.assert_array_equal(got, [resolve([q], FakeEncoder(), FakeStore()).vectors[0] for q in queries])


def test_words_go_through_a_given_text_encoder():
    class Bridge:
        def encode_texts(self, texts):
            return np.stack([embed("bridge " + text) for text in texts])

    (got,) = resolve([Query.text("drusen")], FakeEncoder(text=False), FakeStore(), text_encoder=Bridge()).vectors
    np.testing.assert_allclose(got, unit(embed("bridge drusen")), atol=1e-6)
    with pytest.raises(NoTextSideError):
        resolve([Query.text("drusen")], FakeEncoder(text=False), FakeStore())


@pytest.mark.parametrize(
    ("argument", "weight", "value"),
    [
        ("drusen", 1, "drusen"),
        ("2:drusen", 2, "drusen"),
        (".5:drusen: many", 0.5, "drusen: many"),
        ("2:日本", 2, "日本"),
        ("2:1 AV block", 1, "2:1 AV block"),
        ("12:30 scan", 1, "12:30 scan"),
        ("2: mild", 1, "2: mild"),
        ("1:-1", 1, "1:-1"),
        ("C:\\x", 1, "C:\\x"),
        ("٣:drusen", 1, "٣:drusen"),
        ("2:", 1, "2:"),
        ("-1.5:drusen", -1.5, "drusen"),
        ("cup: disc 0.7", 1, "cup: disc 0.7"),
    ],
)
def test_weights_on_the_command_line(argument, weight, value):
    part = Query.weighted("text", argument).parts[0]
    assert (part.weight, part.value) == (weight, value)
    assert Query.weighted("not", argument).parts[0].weight == -weight


def test_a_file_whose_name_looks_weighted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2:a.png").touch()
    assert Query.weighted("image", "2:a.png").parts[0].weight == 1
    assert Query.weighted("image", "2:b.png").parts[0].weight == 2


def test_a_string_of_json_is_taken_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, value in [("id", "12:34.png"), ("id", "-1:foo"), ("text", "2:drusen"), ("image", "2:a.png")]:
        (part,) = Query.from_json({kind: value}).parts
        assert (part.kind, str(part.value), part.weight) == (kind, value, 1)
    (part,) = Query.from_json({"not": "2:drusen"}).parts
    assert (part.kind, part.value, part.weight) == ("text", "2:drusen", -1)
    with pytest.raises(UsageError, match=r'no row has the id \'2:a\'.*a field of its own: {"id": "a", "weight": 2.0}'):
        resolve([Query.from_json({"id": "2:a"})], FakeEncoder(), FakeStore())


def test_a_line_of_one_part_may_hold_its_weight():
    assert Query.from_json({"text": "a", "weight": -0.5}).parts[0].weight == -0.5
    assert Query.from_json({"not": {"not": "a", "weight": 3}}).parts[0].weight == -3


def test_json_lines():
    record = {
        "image": "x.png",
        "text": [{"text": "drusen", "weight": 2}, "b"],
        "not": "c",
        "id": "a",
        "vector": [1] * DIM,
        "k": 3,
    }
    parts = Query.from_json(record).parts
    assert [(p.kind, p.weight) for p in parts] == [
        ("image", 1),
        ("text", 2),
        ("text", 1),
        ("text", -1),
        ("id", 1),
        ("vector", 1),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query.text("  "),
        lambda: Query.from_json({}),
        lambda: Query.from_json({"text": 3}),
        lambda: Query.from_json({"text": {"id": "a"}}),
        lambda: Query.from_json({"text": {"text": "a", "weigth": 2}}),
        lambda: Query.from_json({"text": "a", "weight": "2"}),
        lambda: Query.from_json({"text": "a", "weight": True}),
        lambda: Query.from_json({"text": "a", "weight": 10**400}),
        lambda: Query.from_json({"text": "a", "weight": 0}),
        lambda: Query.from_json({"text": "a", "id": "b", "weight": 2}),
        lambda: Query.from_json({"text": "\ud800"}),
        lambda: Query.from_json({"vector": "abc"}),
        lambda: Query.from_json({"vector": [10**400]}),
        lambda: Query.from_json({"vector": [[1], [1, 2]]}),
        lambda: Query.weighted("text", "0:drusen"),
        lambda: Query.text("a") * float("nan"),
        lambda: Query.vector([[1, 2]]),
        lambda: Query.vector([1, np.inf]),
        lambda: resolve([Query.vector([1, 2])], FakeEncoder(), FakeStore()),
        lambda: resolve([Query.id("b")], FakeEncoder(), FakeStore()),
        lambda: resolve([Query.text("a") - Query.text("a")], FakeEncoder(), FakeStore()),
    ],
)
def test_mistakes_are_usage_errors(make):
    with pytest.raises(UsageError):
        make()


def test_own_rows_are_ids_files_and_copies(tmp_path):
    store = FakeStore()
    assert own_rows([Query.id("a")], store)[0].tolist() == [0, 3]
    assert own_rows([Query.id("c") + Query.id("s#1")], store)[0].tolist() == [2, 5]
    assert own_rows([Query.vector(np.ones(DIM)) + Query.text("a")], store)[0].tolist() == []
    path = tmp_path / "x.png"
    path.write_bytes(b"pixels")
    store.hashes = (hashlib.sha256(b"pixels").hexdigest(), *store.hashes[1:])
    assert own_rows([Query.image(path)], store)[0].tolist() == [0]
    assert own_rows([Query.image(b"pixels")], store)[0].tolist() == [0]
    with pytest.raises(ImageReadError):
        own_rows([Query.image(tmp_path / "absent.png")], store)
