"""Vectors that were made elsewhere: what an index of them answers, what is refused, and the way out and in again."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr import EncoderNotFoundError, Index, MissingExtraError, Query, RetrError, UsageError
from retr.encoders import from_callable
from retr.index.encoder import EncoderInfo
from retr.index.store import Store
from retr.retrieval import importing

N, DIM = 60, 8
OWN = {"encoder": "mine", "fingerprint": "run 7"}


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)


@pytest.fixture
def table():
    return pa.table(
        {
            "id": [f"r{number:02d}" for number in range(N)],
            "label": ["ab"[number % 2] for number in range(N)],
            "patient": pa.array([number // 4 for number in range(N)], pa.int64()),
            "age": pa.array([None if number == 3 else number for number in range(N)], pa.int64()),
        }
    )


@pytest.fixture(autouse=True)
def _pieces(monkeypatch):
    monkeypatch.setattr(importing, "_PIECE", 25)


class TestAnswers:
    def test_by_vector_by_id_and_mixed(self, tmp_path, vectors, table):
        index = Index.from_vectors(vectors, table, tmp_path / "i", group="patient", **OWN)
        scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        hits = index.search(vector=vectors[7], k=5)
        best = np.argsort(-(scaled @ scaled[7]))[:5]
        assert hits.ids == [f"r{row:02d}" for row in best]
        assert hits.scores == pytest.approx((scaled @ scaled[7])[best], abs=1e-6)
        assert index.search(id="r07", k=5).ids[:4] == hits.ids[1:]
        assert "r07" in index.search(Query.vector(vectors[7]) * 2 + Query.id("r08"), k=1).ids
        patients = index.search(id="r07", k=N, exclude_same="patient", where="label = 'b'").table["patient"].to_pylist()
        assert "1" not in patients
        assert index.store.schema.field("patient").type == pa.string()
        assert index.search(id="r07", columns=["label"])[0].path.startswith("r")
        assert (len(index), index.info()["encoder"], index.check()) == (N, "mine", [])

    def test_with_pictures_it_says_why_not(self, tmp_path, vectors, table):
        index = Index.from_vectors(vectors, table, tmp_path / "i", **OWN)
        for opened in (index, Index.open(index.path)):
            with pytest.raises(EncoderNotFoundError, match=r"vectors of 'mine'.*ask by id or by vector"):
                opened.search(image=np.zeros((8, 8, 3), np.uint8))
            with pytest.raises(RetrError, match="embeds images only"):
                opened.search(text="drusen")
        with pytest.raises(RetrError, match="does not know where the archive"):
            index.picture("r00")
        assert index.search(id="r00")._repr_html_().count("not on this machine") == 5

    def test_the_encoder_itself_asks_with_pictures(self, tmp_path, vectors, table):
        index = Index.from_vectors(vectors, table, tmp_path / "i", **OWN)

        def encoder(**changed):
            given = {"dim": DIM, "name": "mine", "fingerprint": "run 7", **changed}
            return from_callable(lambda pictures: np.tile(vectors[7], (len(pictures), 1)), **given)

        opened = Index.open(index.path, encoder=encoder())
        assert opened.search(image=np.zeros((8, 8, 3), np.uint8), k=1).ids == ["r07"]
        again = Index.from_vectors(vectors, table, tmp_path / "j", encoder=encoder())
        assert again.search(image=np.zeros((8, 8, 3), np.uint8), k=1).ids == ["r07"]
        with pytest.raises(RetrError, match="the weights of 'mine' changed"):
            Index.open(index.path, encoder=encoder(fingerprint="run 8"))

    def test_by_dot_product_nothing_is_rescaled(self, tmp_path, vectors, table):
        index = Index.from_vectors(vectors, table, tmp_path / "i", similarity="dot", **OWN)
        assert np.array_equal(index.store.vectors(), vectors)
        assert index.search(vector=vectors[0], k=1).scores[0] == pytest.approx(float((vectors @ vectors[0]).max()))

    def test_what_else_hangs_on_an_index(self, tmp_path, vectors, table):
        index = Index.from_vectors(vectors, table, tmp_path / "i", group="patient", **OWN)
        assert index.evaluate("retrieval", "label").metrics
        assert index.leaks("label", exact_only=True) is not None
        assert index.duplicates(exact_only=True) is not None
        assert index.delete(where="age < 10", purge=True) == 9
        index.compact()
        assert len(index) == N - 9
        assert index.check() == []


class TestTables:
    def columns(self, index):
        return {name: index.table()[name].to_pylist() for name in ("id", "label", "patient", "age")}

    def test_all_kinds_hold_the_same(self, tmp_path, vectors, table):
        pandas = pytest.importorskip("pandas")
        polars = pytest.importorskip("polars")
        whole = table.to_pandas(types_mapper={pa.int64(): pandas.Int64Dtype()}.get)
        pq.write_table(table, tmp_path / "t.parquet")
        whole.to_csv(tmp_path / "t.csv", index=False)
        np.save(tmp_path / "v.npy", vectors)
        tables = {
            "arrow": table,
            "pandas": whole,
            "pandas, filtered and indexed": whole.set_index("id"),
            "polars": polars.from_arrow(table),
            "columns": table.to_pydict(),
            "records": table.to_pylist(),
            "parquet": tmp_path / "t.parquet",
            "csv": str(tmp_path / "t.csv"),
        }
        expected = None
        for number, (kind, given) in enumerate(tables.items()):
            index = Index.from_vectors(tmp_path / "v.npy", given, tmp_path / f"i{number}", **OWN)
            expected = expected or self.columns(index)
            assert self.columns(index) == expected, kind
            assert index.store.schema.names == ["id", "label", "patient", "age", "path"], kind
        assert expected["patient"][4] == "1"
        assert expected["age"][:5] == [0, 1, 2, None, 4]

    @pytest.mark.parametrize(
        "kind", ["list", "float64", "float16", "big-endian", "columns first", "tensor", "bfloat16"]
    )
    def test_all_kinds_of_arrays(self, tmp_path, vectors, table, kind):
        given = {
            "list": vectors.tolist,
            "float64": lambda: vectors.astype(np.float64),
            "float16": lambda: vectors.astype(np.float16),
            "big-endian": lambda: vectors.astype(">f4"),
            "columns first": lambda: np.asfortranarray(vectors),
            "tensor": lambda: pytest.importorskip("torch").tensor(vectors, requires_grad=True),
            "bfloat16": lambda: pytest.importorskip("torch").tensor(vectors).bfloat16(),
        }[kind]()
        index = Index.from_vectors(given, table, tmp_path / "i", similarity="dot", **OWN)
        close = 1e-2 if kind in {"float16", "bfloat16"} else 0
        assert index.store.vectors() == pytest.approx(vectors, abs=close, rel=close)

    def test_ids_that_are_numbers_are_text(self, tmp_path, vectors):
        index = Index.from_vectors(vectors[:3], {"number": [7, 12, 9]}, tmp_path / "i", id_column="number", **OWN)
        assert list(index) == ["7", "12", "9"]
        assert index["7"] == {"id": "7", "path": "7"}

    def test_names_that_an_answer_needs_are_stored_as_a_build_stores_them(self, tmp_path, vectors):
        table = {"id": ["a", "b"], "score": [1, 2], "score_meta": [3, 4], "rank": ["x", "y"]}
        index = Index.from_vectors(vectors[:2], table, tmp_path / "i", **OWN)
        assert index["b"] == {"id": "b", "score_meta_": 2, "score_meta": 4, "rank_meta": "y", "path": "b"}
        assert index.report.notes[0] == "the column 'score' is stored as 'score_meta_'"
        hit = index.search(id="a", k=1, columns=["score_meta_"])[0]
        assert (hit.to_json()["score_meta_"], hit.rank) == (2, 1)

    def test_types_and_the_group_are_as_in_a_build(self, tmp_path, vectors, table):
        csv = tmp_path / "t.csv"
        csv.write_text("id,acc,patient\n" + "".join(f"r{number},{number:03d},{number:04d}\n" for number in range(N)))
        index = Index.from_vectors(vectors, csv, tmp_path / "i", group="patient", types={"acc": "number"}, **OWN)
        assert (index["r7"]["acc"], index["r7"]["patient"]) == (7, "0007")
        plain = Index.from_vectors(vectors, csv, tmp_path / "k", **OWN)
        assert plain["r7"]["acc"] == "007"
        assert "column 'acc' stays text" in plain.report.notes[0]
        large = table.append_column("acc", pa.array(np.full(N, 2.0**60)))
        with pytest.raises(UsageError, match="numbers beyond 2\\^53"):
            Index.from_vectors(vectors, large, tmp_path / "j", group="acc", **OWN)
        assert not (tmp_path / "j").exists()


def changed(table, column, values):
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def spoilt(vectors, row, value):
    out = vectors.copy()
    out[row] = value
    return out


BAD = {
    "no floats": (lambda v, t: (v.astype(int), t), {}, "must be floats, got int64"),
    "complex": (lambda v, t: (v.astype(complex), t), {}, "must be floats, got complex128"),
    "text": (lambda v, t: ([["a"]], t), {}, "must be floats"),
    "ragged": (lambda v, t: ([[1.0], [1.0, 2.0]], t), {}, "the vectors are no array"),
    "one axis": (lambda v, t: (v[0], t), {}, r"must have the shape \(n, dim\), got \(8,\)"),
    "none": (lambda v, t: (v[:0], t.slice(0, 0)), {}, r"got \(0, 8\)"),
    "another count": (lambda v, t: (v[1:], t), {}, "there are 59 vectors for 60 rows"),
    "nan": (lambda v, t: (spoilt(v, 40, np.nan), t), {}, "the vector of 'r40' holds a value that is not finite"),
    "infinite": (lambda v, t: (spoilt(v, 0, -np.inf), t), {}, "the vector of 'r00' holds"),
    "beyond float32": (lambda v, t: (spoilt(v.astype(float), 59, 1e300), t), {}, "the vector of 'r59' holds"),
    "beyond float16": (
        lambda v, t: (spoilt(v, 30, 1e6), t),
        {"dtype": "float16", "similarity": "dot"},
        "the vector of 'r30' holds",
    ),
    "zero": (lambda v, t: (spoilt(v, 26, 0), t), {}, "the vector of 'r26' is zero and has no direction"),
    "no id": (lambda v, t: (v, t.drop_columns(["id"])), {}, "the table has no column 'id'; the columns are label"),
    "an id twice": (lambda v, t: (v, changed(t, "id", ["x"] * N)), {}, "the id 'x' stands twice"),
    "an empty id": (lambda v, t: (v, changed(t, "id", [*t["id"].to_pylist()[:-1], " "])), {}, "row 59 has no id"),
    "a missing id": (lambda v, t: (v, changed(t, "id", [None, *t["id"].to_pylist()[1:]])), {}, "row 0 has no id"),
    "floats as ids": (lambda v, t: (v, changed(t, "id", np.arange(N) / 2)), {}, "floats, which are no ids"),
    "a column twice": (lambda v, t: (v, t.append_column("age", t["age"])), {}, "has the column 'age' twice"),
    "no table": (lambda v, t: (v, 7), {}, "the metadata cannot be read as a table, got int"),
    "a column of the index's own": (
        lambda v, t: (v, t.append_column("size", t["label"])),
        {},
        "'size' is the index's own and holds int64, got string",
    ),
    "no such group": (lambda v, t: (v, t), {"group": "eye"}, "there is no column 'eye'"),
    "no model": (lambda v, t: (v, t), {"encoder": None, "fingerprint": None}, "which model the vectors are of"),
    "no fingerprint": (lambda v, t: (v, t), {"fingerprint": None}, "'mine' needs a fingerprint"),
    "a name that is taken": (lambda v, t: (v, t), {"encoder": "lite"}, "'lite' is an encoder of"),
    "no encoder": (lambda v, t: (v, t), {"encoder": 7, "fingerprint": None}, "or an EncoderInfo, got int"),
    "a misspelt option": (lambda v, t: (v, t), {"simliarity": "dot"}, "there is no option 'simliarity'"),
    "a column of two types": (lambda v, t: (v, {"id": t["id"], "o": [1, "a"] * 30}), {}, "cannot be read as a table"),
    "another measure": (lambda v, t: (v, t), {"similarity": "l2"}, "'cosine' or 'dot'"),
    "another type": (lambda v, t: (v, t), {"dtype": "int8"}, "stored as 'float32' or 'float16'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(tmp_path, vectors, table, case):
    change, asked, said = BAD[case]
    given, metadata = change(vectors, table)
    with pytest.raises(UsageError, match=said):
        Index.from_vectors(given, metadata, tmp_path / "i", **{**OWN, **asked})
    assert not (tmp_path / "i").exists()


def test_a_registered_encoder_must_fit(tmp_path, vectors, table, monkeypatch, make_encoder):
    loaded = make_encoder(name="lite")
    monkeypatch.setattr(importing, "load_encoder", lambda name, **options: loaded)
    with pytest.raises(UsageError, match="vectors of 'lite' have 56 numbers, got 8"):
        Index.from_vectors(vectors, table, tmp_path / "i", encoder="lite")
    wide = np.tile(vectors, 7)
    with pytest.raises(UsageError, match="'lite' are compared by 'cosine', got: 'dot'"):
        Index.from_vectors(wide, table, tmp_path / "i", encoder="lite", similarity="dot")
    index = Index.from_vectors(wide, table, tmp_path / "i", encoder="lite")
    assert len(index.search(image=np.zeros((8, 8, 3), np.uint8), k=3)) == 3


def test_files_that_are_none(tmp_path, vectors, table):
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY no more")
    np.savez(tmp_path / "v.npz", vectors)
    np.save(tmp_path / "o.npy", np.array([object()]), allow_pickle=True)
    for name, said in (
        ("none.npy", "there is no file"),
        (".", "there is no file"),
        ("v.npy", r"cannot be read as \.npy"),
    ):
        with pytest.raises(UsageError, match=said):
            Index.from_vectors(tmp_path / name, table, tmp_path / "i", **OWN)
    for name in ("v.npz", "o.npy"):
        with pytest.raises(UsageError, match=r"cannot be read as \.npy"):
            Index.from_vectors(tmp_path / name, table, tmp_path / "i", **OWN)
    (tmp_path / "t.csv").write_text("name,label\na,b\n")
    with pytest.raises(UsageError, match="has no column 'id'"):
        Index.from_vectors(vectors, tmp_path / "t.csv", tmp_path / "i", **OWN)


def test_an_index_that_is_there_stays(tmp_path, vectors, table):
    Index.from_vectors(vectors, table, tmp_path / "i", **OWN)
    with pytest.raises(RetrError, match=r"there is an index at .* already"):
        Index.from_vectors(vectors[:3], table.slice(0, 3), tmp_path / "i", **OWN)
    assert len(Index.open(tmp_path / "i")) == N


def test_a_folder_that_is_there_stays_when_the_disk_fails(tmp_path, vectors, table, monkeypatch):
    (tmp_path / "i").mkdir()
    (tmp_path / "i/notes.txt").write_text("mine")

    def refuse(self):
        raise RetrError("the disk is full")

    monkeypatch.setattr("retr.index.rows.writer.Writer.commit", refuse)
    for name in ("i", "j"):
        with pytest.raises(RetrError, match="the disk is full"):
            Index.from_vectors(vectors, table, tmp_path / name, **OWN)
    assert (tmp_path / "i/notes.txt").read_text() == "mine"
    assert not (tmp_path / "j").exists()


class TestExport:
    @pytest.fixture(params=[("float32", "cosine"), ("float16", "cosine"), ("float32", "dot"), ("float16", "dot")])
    def index(self, tmp_path, vectors, request) -> Index:
        dtype, similarity = request.param
        info = EncoderInfo("other", DIM, similarity, "", text=False, weights_sha256="1" * 64, preprocessing="p")
        store = Store.create(tmp_path / "i", encoder=info, dtype=dtype, group="patient")
        table = pa.table(
            {
                "id": [f"e\u0301/{number}.png" for number in range(N)],
                "path": [f"e\u0301/{number}.png" for number in range(N)],
                "patient": [f"{number // 4:03d}" for number in range(N)],
                "note": ["", "nan", " x ", None] * (N // 4),
                "tags": [["a"], None, [], ["b", "c"]] * (N // 4),
                "score": pa.array([float("nan"), -0.0, 1.5, None] * (N // 4)),
                "seen": pa.array([0, None, -5, 10**15] * (N // 4), pa.timestamp("us", "UTC")),
                "raw": [b"\0\1", None, b"", b"x"] * (N // 4),
            }
        )
        with store.writer() as writer:
            for start in (0, 17, 40):
                stop = {0: 17, 17: 40, 40: N}[start]
                writer.append(table.slice(start, stop - start), vectors[start:stop])
                writer.commit()
            writer.delete(np.array([2, 30, 59]))
            writer.commit()
        return Index.open(tmp_path / "i")

    def test_out_and_in_again_is_the_same_to_the_last_bit(self, index, tmp_path, vectors):
        assert index.export(tmp_path / "out") == N - 3
        again = Index.from_vectors(tmp_path / "out/vectors.npy", tmp_path / "out/metadata.parquet", tmp_path / "j")
        live = index.store.live_rows()
        assert again.store.vectors().tobytes() == index.store.vectors(live).tobytes()
        assert again.store.manifest.encoder == index.store.manifest.encoder
        assert again.store.manifest.group == "patient"
        assert again.store.schema == index.store.schema
        assert list(again) == list(index)
        for question in ({"vectors": vectors[:9]}, {"vectors": vectors[9:12], "where": "patient != '003'"}):
            for one, other in zip(index.search(k=40, **question), again.search(k=40, **question), strict=True):
                assert one == dataclasses.replace(other, rows=live[other.rows])
        assert again.check() == []

    def test_what_was_changed_in_between_is_not_taken_for_the_same(self, index, tmp_path):
        index.export(tmp_path / "out")
        vectors, table = np.load(tmp_path / "out/vectors.npy"), pq.read_table(tmp_path / "out/metadata.parquet")
        with pytest.raises(UsageError, match="not in the order of the vectors"):
            Index.from_vectors(vectors, table.take(np.arange(len(table))[::-1].copy()), tmp_path / "j")
        for fewer in ((vectors[1:], table.slice(1)), (vectors[::-1], table)):
            with pytest.raises(UsageError, match="which model the vectors are of"):
                Index.from_vectors(*fewer, tmp_path / "j")
        with pytest.raises(UsageError, match="exported from an index of 'other', got: 'mine'"):
            Index.from_vectors(vectors, table, tmp_path / "j", **OWN)
        assert len(Index.from_vectors(vectors[1:], table.slice(1), tmp_path / "j", **OWN)) == N - 4

    def test_some_rows(self, index, tmp_path):
        assert index.export(tmp_path / "out", where="patient = '005'") == 4
        assert np.load(tmp_path / "out/vectors.npy").dtype == index.store.manifest.dtype
        with pytest.raises(UsageError, match="there is no row to write"):
            index.export(tmp_path / "none", where="patient = 'x'")
        assert not (tmp_path / "none").exists()

    def test_nothing_is_overwritten_and_nothing_left(self, index, tmp_path, monkeypatch):
        (tmp_path / "out").mkdir()
        index.export(tmp_path / "out")
        with pytest.raises(UsageError, match="there is something at"):
            index.export(tmp_path / "out")
        with pytest.raises(UsageError, match="'webdataset', 'fiftyone', got: 'csv'"):
            index.export(tmp_path / "other", form="csv")
        monkeypatch.setattr(pq, "ParquetWriter", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(RetrError):
            index.export(tmp_path / "other")
        assert sorted(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(("form", "package"), [("lance", "pylance"), ("datasets", "datasets")])
    def test_a_missing_package_is_named(self, index, tmp_path, monkeypatch, form, package):
        monkeypatch.setitem(sys.modules, form, None)
        with pytest.raises(MissingExtraError, match=f"install it with `pip install {package}`"):
            index.export(tmp_path / "out", form=form)
        assert not (tmp_path / "out").exists()

    def test_lance_and_datasets_get_vectors_beside_the_metadata(self, index, tmp_path):
        from retr.retrieval.interop.written import with_vectors

        rows = np.array([5, 1])
        table = with_vectors(index.store, rows)
        assert table["vector"].to_pylist() == index.store.vectors(rows).tolist()
        assert table.drop_columns(["vector"]).equals(index.store.table(rows=rows)) or table["id"].to_pylist() == [
            "e\u0301/5.png",
            "e\u0301/1.png",
        ]


def test_the_key_of_hashed_patients_is_kept(tmp_path, vectors):
    digest = "ab" * 32
    info = EncoderInfo("other", DIM, "cosine", "", text=False, weights_sha256="1" * 64, preprocessing="p")
    store = Store.create(tmp_path / "i", encoder=info)
    with store.writer() as writer:
        writer.append(pa.table({"id": ["a", "b"], "path": ["a", "b"], "patient": [digest, None]}), vectors[:2])
        writer.note("identifiers", {"key": "0123456789abcdef", "columns": ["patient"]})
        writer.commit()
    Index.open(tmp_path / "i").export(tmp_path / "out")
    again = Index.from_vectors(tmp_path / "out/vectors.npy", tmp_path / "out/metadata.parquet", tmp_path / "j")
    assert again.store.identity.fingerprint == "0123456789abcdef"
    assert again.store.identity.hashed_columns == ["patient"]


class TestWrongTypes:
    def test_a_file_that_is_open(self, tmp_path):
        np.save(tmp_path / "v.npy", np.eye(2))
        with (tmp_path / "v.npy").open("rb") as file, pytest.raises(UsageError, match="shape"):
            Index.from_vectors(file, {"id": ["a", "b"]}, tmp_path / "i", encoder="mine", fingerprint="1")

    @pytest.mark.parametrize(("asked", "said"), [
        ({"types": "x"}, "types are columns with their types"),
        ({"types": ["x"]}, "types are columns with their types"),
        ({"fingerprint": "\ud800"}, "is not Unicode"),
        ({"vectors": "x" * 5000}, "there is no file"),
        ({"path": "a\0b"}, "no file is called"),
    ])  # fmt: skip
    def test_what_cannot_be_meant(self, tmp_path, asked, said):
        given = {"vectors": np.eye(2), "path": tmp_path / "i", "encoder": "mine", "fingerprint": "1", **asked}
        with pytest.raises(UsageError, match=said):
            Index.from_vectors(table={"id": ["a", "b"]}, **given)
        assert not (tmp_path / "i").exists()

    @pytest.mark.parametrize(("key", "wrong"), [
        ("dtype", "x"), ("dtype", 1), ("dtype", None), ("group", 1), ("group", ["patient"]), ("identifiers", "x"),
        ("vectors", 3), ("ids", []),
    ])  # fmt: skip
    def test_a_note_of_an_export_that_was_damaged(self, tmp_path, key, wrong):
        given = {"encoder": "mine", "fingerprint": "1"}
        index = Index.from_vectors(np.eye(2), {"id": ["a", "b"]}, tmp_path / "i", **given)
        index.export(tmp_path / "out")
        table = pq.read_table(tmp_path / "out" / "metadata.parquet")
        note = json.loads(table.schema.metadata[b"retr"])
        spoilt = table.replace_schema_metadata({"retr": json.dumps({**note, key: wrong})})
        with pytest.raises(UsageError, match="its export cannot be read"):
            Index.from_vectors(tmp_path / "out" / "vectors.npy", spoilt, tmp_path / "again")
        assert not (tmp_path / "again").exists()
