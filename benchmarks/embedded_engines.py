"""Engines that hold vectors and metadata in a folder, without a server: how each is filled and how each is asked.

What is asked for is always the numbers of the ten nearest rows, of those where a whole number of a column lies below a
bound or of all, or of one row a patient. Each takes one thread where it can be told to.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

K = 10
# How many times as many rows are asked for where an engine cannot group, until there are ten patients.
_DEEPER = 8


@dataclass(frozen=True)
class Question:
    """What is asked beside a vector: rows where ``column`` is less than ``below``; one a patient; with what effort."""

    column: str | None = None
    below: int = 0
    one_per: bool = False
    effort: int = 0

    @property
    def where(self) -> str | None:
        """The condition, as all of them but Qdrant spell it."""
        return f"{self.column} < {self.below}" if self.column else None


Search: TypeAlias = "Callable[[NDArray[np.float32], Question], Sequence[int]]"


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes
    ----------
    fill
        ``fill(folder, table, vectors (n, d), pieces, finish)`` commits the rows in so many pieces, and builds its index
        for search where ``finish`` says so. The table has ``id``, ``patient``, and whole numbers.
    open
        ``open(folder, d)`` returns what searches.
    efforts
        Settings of growing cost, tried in turn until recall is reached.
    """

    fill: Callable[[Path, pa.Table, NDArray[np.float32], int, bool], None]
    open: Callable[[Path, int], Search]
    efforts: Sequence[int] = (0,)


def _parts(n: int, pieces: int) -> list[slice]:
    edges = np.linspace(0, n, pieces + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _fill_retr(folder: Path, table: pa.Table, vectors: NDArray[np.float32], pieces: int, finish: bool) -> None:
    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store

    info = EncoderInfo("mixture", vectors.shape[1], "cosine", "none", text=False, weights_sha256="0", preprocessing="")
    store = Store.create(folder, encoder=info, dtype="float16")
    for part in _parts(len(vectors), pieces):
        with store.writer() as writer:
            writer.append(table.slice(part.start, part.stop - part.start), vectors[part])
            writer.set_group("patient")
            writer.commit()
    if finish:
        from retr.index.tune import tune

        with store.writer() as writer:
            tune(writer, recall=0.99)


def _open_retr(folder: Path, dim: int) -> Search:  # noqa: ARG001 - one signature for all
    from retr.retrieval.index import Index

    index = Index.open(folder)

    def search(vector: NDArray[np.float32], asked: Question) -> list[int]:
        one_per = "patient" if asked.one_per else None
        return [int(name) for name in index.search(vector=vector, k=K, where=asked.where, one_per=one_per).ids]

    return search


def _fill_zvec(folder: Path, table: pa.Table, vectors: NDArray[np.float32], pieces: int, finish: bool) -> None:
    import zvec

    zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
    numbers = [name for name in table.column_names if pa.types.is_integer(table.schema.field(name).type)]
    inverted = zvec.InvertIndexParam(enable_range_optimization=True)
    graph = zvec.HnswIndexParam(zvec.MetricType.IP, m=16, ef_construction=200)
    schema = zvec.CollectionSchema(
        "rows",
        [zvec.FieldSchema("patient", zvec.DataType.STRING, index_param=zvec.InvertIndexParam())]
        + [zvec.FieldSchema(name, zvec.DataType.INT64, index_param=inverted) for name in numbers],
        zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, vectors.shape[1], index_param=graph),
    )
    collection = zvec.create_and_open(str(folder), schema)
    for part in _parts(len(vectors), pieces):
        rows = table.slice(part.start, part.stop - part.start).to_pylist()
        for start in range(0, len(rows), 1000):
            docs = [
                zvec.Doc(row.pop("id"), vectors={"vector": vector}, fields=row)
                for row, vector in zip(rows[start : start + 1000], vectors[part][start : start + 1000], strict=True)
            ]
            collection.insert(docs)
        collection.flush()
    if finish:
        collection.optimize()


def _open_zvec(folder: Path, dim: int) -> Search:  # noqa: ARG001 - one signature for all
    import zvec

    zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
    collection = zvec.open(str(folder))

    def search(vector: NDArray[np.float32], asked: Question) -> list[int]:
        query = zvec.Query("vector", vector=vector, param=zvec.HnswQueryParam(ef=asked.effort))
        if asked.one_per:
            groups = collection.group_by_query(
                query, "patient", group_count=K, topk_per_group=1, filter=asked.where, output_fields=[]
            )
            return [int(group.docs[0].id) for group in groups]
        found = collection.query(query, topk=K, filter=asked.where, output_fields=[])
        return [int(doc.id) for doc in found]

    return search


def _fill_lancedb(folder: Path, table: pa.Table, vectors: NDArray[np.float32], pieces: int, finish: bool) -> None:
    import lancedb

    dim = vectors.shape[1]
    database = lancedb.connect(str(folder))
    made = None
    for part in _parts(len(vectors), pieces):
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors[part].ravel()), dim)
        rows = table.slice(part.start, part.stop - part.start).append_column("vector", values)
        if made is None:
            made = database.create_table("rows", rows)
        else:
            made.add(rows)
    if finish and made is not None:
        made.create_index(metric="cosine", index_type="IVF_PQ", num_sub_vectors=dim // 8)
        for name in table.column_names[1:]:
            made.create_scalar_index(name)


def _open_lancedb(folder: Path, dim: int) -> Search:  # noqa: ARG001 - one signature for all
    import lancedb

    table = lancedb.connect(str(folder)).open_table("rows")

    def ask(vector: NDArray[np.float32], asked: Question, k: int) -> pa.Table:
        query = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k)
        if asked.where:
            query = query.where(asked.where, prefilter=True)
        if asked.effort:
            query = query.nprobes(asked.effort).refine_factor(10)
        return query.select(["id", "patient", "_distance"]).to_arrow()

    def search(vector: NDArray[np.float32], asked: Question) -> list[int]:
        found = ask(vector, asked, K)
        return [int(name) for name in found["id"].to_pylist()] if not asked.one_per else _grouped(vector, asked)

    def _grouped(vector: NDArray[np.float32], asked: Question) -> list[int]:
        k = K
        first: dict[str, int] = {}
        while len(first) < K and k <= K * _DEEPER**3:
            k *= _DEEPER
            found = ask(vector, asked, k)
            first = {}
            for name, patient in zip(found["id"].to_pylist(), found["patient"].to_pylist(), strict=True):
                first.setdefault(patient, int(name))
        return list(first.values())[:K]

    return search


def _fill_duckdb(folder: Path, table: pa.Table, vectors: NDArray[np.float32], pieces: int, finish: bool) -> None:  # noqa: ARG001
    import duckdb

    dim = vectors.shape[1]
    folder.mkdir()
    base = duckdb.connect(str(folder / "rows.duckdb"), config={"threads": 1})
    for number, part in enumerate(_parts(len(vectors), pieces)):
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors[part].ravel()), dim)
        rows = table.slice(part.start, part.stop - part.start).append_column("vector", values)
        base.register("part", rows)
        columns = f"* replace (vector::FLOAT[{dim}] as vector)"
        verb = "insert into rows" if number else "create table rows as"
        base.execute(f"{verb} select {columns} from part")  # noqa: S608
        base.execute("checkpoint")
        base.unregister("part")
    base.close()


def _open_duckdb(folder: Path, dim: int) -> Search:
    import duckdb

    base = duckdb.connect(str(folder / "rows.duckdb"), read_only=True, config={"threads": 1})

    def search(vector: NDArray[np.float32], asked: Question) -> list[int]:
        where = f"where {asked.where}" if asked.where else ""
        scored = f"select id, patient, array_inner_product(vector, $1::FLOAT[{dim}]) as score from rows {where}"  # noqa: S608
        if asked.one_per:
            scored = f"select arg_max(id, score) as id, max(score) as score from ({scored}) group by patient"  # noqa: S608
        found = base.execute(f"select id from ({scored}) order by score desc limit {K}", [vector.tolist()])  # noqa: S608
        return [int(name) for (name,) in found.fetchall()]

    return search


def _fill_qdrant(folder: Path, table: pa.Table, vectors: NDArray[np.float32], pieces: int, finish: bool) -> None:  # noqa: ARG001
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    client.create_collection(
        "rows", vectors_config=models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
    )
    for part in _parts(len(vectors), pieces):
        rows = table.slice(part.start, part.stop - part.start).to_pylist()
        client.upsert(
            "rows",
            models.Batch(ids=[int(row["id"]) for row in rows], vectors=vectors[part].tolist(), payloads=rows),
        )
    client.close()


def _open_qdrant(folder: Path, dim: int) -> Search:  # noqa: ARG001 - one signature for all
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))

    def search(vector: NDArray[np.float32], asked: Question) -> list[int]:
        where: Any = None
        if asked.column:
            below = models.FieldCondition(key=asked.column, range=models.Range(lt=asked.below))
            where = models.Filter(must=[below])
        options: dict[str, Any] = {"query": vector, "query_filter": where, "limit": K, "with_payload": False}
        if asked.one_per:
            found = client.query_points_groups("rows", group_by="patient", group_size=1, **options)
            return [int(group.hits[0].id) for group in found.groups]
        return [int(point.id) for point in client.query_points("rows", **options).points]

    return search


ENGINES: dict[str, Engine] = {
    "retr": Engine(_fill_retr, _open_retr),
    "zvec": Engine(_fill_zvec, _open_zvec, (16, 32, 64, 96, 128, 192, 256, 512)),
    "lancedb": Engine(_fill_lancedb, _open_lancedb, (10, 20, 40, 80, 160)),
    "duckdb": Engine(_fill_duckdb, _open_duckdb),
    "qdrant": Engine(_fill_qdrant, _open_qdrant),
}
