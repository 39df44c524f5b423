"""Numbers of requests that no float32, no int64 or no picture holds: answered or refused, without a warning."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retr import Query, UsageError

SEARCH = "/v1/indexes/small/search"
FLOATS = [3.5e38, -3.5e38, 1.7e308, -1.7e308, 1e-46, 5e-324, 0.0, -0.0]
WHOLE = [2**31, 2**63, 2**64, 10**30, 10**400]


def row(indexed):
    return next(iter(indexed))


def test_every_number_of_a_question(serve, indexed):
    client = serve()
    part = {"id": row(indexed)}
    for number in (*FLOATS, *WHOLE):
        bodies = [
            {"questions": [{"parts": [part]}], name: number}
            for name in ("min_score", "effort", "k", "offset", "diverse")
        ]
        bodies += [
            {"questions": [{"parts": parts}]}
            for parts in (
                [{**part, "weight": number}],
                [{**part, "weight": number}, {"vector": [1.0] * 56, "weight": -number}],
                [{"vector": [number] * 56}],
                [{"vector": [number] + [1.0] * 55}],
            )
        ]
        bodies.append({"questions": [{"parts": [part]}], "where": f"age > {number!r}"})
        for body in bodies:
            answer = client.post(SEARCH, json=body)
            assert answer.status_code in {200, 422}, (body, answer.text)
            if answer.status_code == 200:
                assert all(math.isfinite(hit["score"]) for hit in answer.json()["answers"][0]["hits"])


def test_every_number_of_a_view_or_a_page(serve, indexed, volume):
    client = serve()
    held = client.post("/v1/uploads", content=volume).json()["upload"]
    picture = f"/v1/indexes/small/picture?id={row(indexed)}&"
    for number in (3.5e38, -1.7e308, 5e-324, 2**63, 10**400):
        views = [f"{name}={number}" for name in ("frame", "size")]
        views += [f"center={number}&width=1", f"center=1&width={number}", f"center={number}&width={number}"]
        views += [f"region={number},0,1,1", f"region=0,0,{number},1"]
        asked = [f"{place}{view}" for place in (picture, f"/v1/uploads/{held}?") for view in views]
        asked += [f"/v1/indexes/small/rows?{name}={number}" for name in ("offset", "limit")]
        for path in asked:
            assert client.get(path).status_code in {200, 422}, path


def test_every_number_of_a_classification(serve, png):
    client = serve()
    held = client.post("/v1/uploads", content=png(1)).json()["upload"]
    for number in (*FLOATS[:2], *WHOLE):
        for name in ("k", "top", "max_set"):
            asked = {"pictures": [{"upload": held}], "by": "label", name: number}
            assert client.post("/v1/indexes/small/classify", json=asked).status_code in {200, 422}, asked
        asked = {"pictures": [{"upload": held, "crop": [number, 0, 1, 1]}], "by": "label"}
        assert client.post("/v1/indexes/small/classify", json=asked).status_code == 422


@pytest.mark.parametrize("least", [3.5e38, 1e308, math.inf, 10**400, np.float64(1e300)])
def test_no_row_is_so_similar_and_every_row_is_so_unlike(indexed, least):
    assert indexed.search(id=row(indexed), min_score=least).ids == []
    assert len(indexed.search(id=row(indexed), k=20, min_score=-least)) == 11


def test_no_score_is_no_number(indexed):
    with pytest.raises(UsageError, match="must be a number"):
        indexed.search(id=row(indexed), min_score=math.nan)
    with pytest.raises(UsageError, match="weight"):
        indexed.search(Query.id(row(indexed)) * 10**400)
