"""Answers as one Arrow stream: every type of the metadata arrives as it left, which JSON cannot promise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.index.errors import RetrError
from retr.retrieval.hits import Hits

if TYPE_CHECKING:
    from collections.abc import Sequence

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
_ANSWERS = b"retr.answers"
# what stands beside the metadata; a column of the metadata is marked, so that none is taken for another
_OWN = ("score", "row", "rank", "path")
_MARK = "of row: "


def to_arrow(answers: Sequence[Hits]) -> bytes:
    """Return the answers to several questions of one search as the bytes of an Arrow IPC stream.

    >>> from_arrow(to_arrow([]))
    []
    """
    tables = [_table(hits) for hits in answers]
    said = [
        {
            "rows": len(one),
            "exact": one.exact,
            "note": one.note,
            "query": one.query,
            "highlights": one.highlights,
            "weights": one.weights,
            "cases": one.cases,
            "parts": one.parts,
            "regions": one.regions,
            "searched": one.searched,
        }
        for one in answers
    ]
    table = pa.concat_tables(tables) if tables else pa.table({})
    table = table.replace_schema_metadata({_ANSWERS: json.dumps(said)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole: bytes = sink.getvalue().to_pybytes()
    return whole


def from_arrow(data: bytes) -> list[Hits]:
    """Read what `to_arrow` wrote.

    Raises
    ------
    RetrError
        The bytes are something else.
    """
    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        said = json.loads(table.schema.metadata[_ANSWERS])
        answers, start = [], 0
        for one in said:
            answers.append(_hits(table.slice(start, one["rows"]), one))
            start += one["rows"]
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RetrError("what came back is no answer of retr", hint="check the address") from error
    return answers


def _table(hits: Hits) -> pa.Table:
    own = {
        "score": pa.array(hits.scores, pa.float32()),
        "row": pa.array(hits.rows, pa.int64()),
        "rank": pa.array(hits.ranks, pa.int64()),
        "path": pa.array(hits.paths, pa.string()),
    }
    return pa.table(own | {_MARK + name: hits.metadata[name] for name in hits.metadata.column_names})


def _hits(table: pa.Table, said: dict[str, Any]) -> Hits:
    names = [name for name in table.column_names if name not in _OWN]
    metadata = table.select(names).rename_columns([name.removeprefix(_MARK) for name in names])
    note = said["note"]
    return Hits(
        scores=table["score"].to_numpy().astype(np.float32, copy=False),
        rows=table["row"].to_numpy(),
        ranks=table["rank"].to_numpy(),
        metadata=metadata.replace_schema_metadata(None),
        paths=table["path"].to_pylist(),
        exact=bool(said["exact"]),
        note=None if note is None else str(note),
        query=str(said["query"]),
        highlights=said.get("highlights"),
        weights=said.get("weights"),
        cases=said.get("cases"),
        parts=said.get("parts"),
        regions=None if said.get("regions") is None else [tuple(box) for box in said["regions"]],
        searched=float(said.get("searched", 1.0)),
    )
