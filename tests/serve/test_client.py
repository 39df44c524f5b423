"""A client gives what the index gives: hits equal in every value and type, errors of the same class."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn
from patience import LONG

from retr import AsyncClient, Client, Query, RetrError, UnknownIdError, UsageError
from retr.answers import to_plain
from retr.serve.app import create_app
from retr.serve.settings import Settings
from retr.serve.tokens import make_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr import Hits


@pytest.fixture
def address(indexed, make_encoder, tmp_path) -> Iterator[tuple[str, str]]:
    """The address of a running server, and a token of it."""
    token = make_token(tmp_path / "tokens", "anna", frozenset({"read", "label", "write"}))
    settings = Settings(token_file=tmp_path / "tokens", additions=tmp_path / "added", rate=1e6, burst=10**6)
    app = create_app({"small": indexed.path}, settings, {"encoder": make_encoder()})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", token
    server.should_exit = True
    thread.join(LONG)


def said(hits: Hits) -> Hits:
    """The hits but for the words of the question: a picture sent is bytes there, whatever it was here."""
    return replace(hits, query="")


def test_words_of_a_column_need_no_text_side_there_either(address, indexed):
    url, token = address
    query = Query.id(next(iter(indexed))) + Query.text("glaucoma")
    with Client(url, token=token) as client:
        for asked, options in ((Query.text("glaucoma"), {}), (query, {"fuse": 0.25})):
            here = indexed.search(asked, in_="label", k=4, **options)
            there = client.search(asked, in_=["label"], k=4, **options)
            assert said(there) == said(here)
            assert (there.highlights, there.weights) == (here.highlights, here.weights)
            assert here.highlights
        with pytest.raises(UsageError, match="there is no column 'nowhere'"):
            client.search(text="glaucoma", in_="nowhere")


def test_cases_answer_there_as_here(address, indexed, tmp_path):
    url, token = address
    pictures = sorted((tmp_path / "archive").rglob("*.png"))[:2]
    several = Query(tuple(part for file in pictures for part in Query.image(file).parts))
    with Client(url, token=token) as client:
        for query, options in (
            (Query.id("P01"), {}),
            (Query.id(next(iter(indexed))), {"item_score": "best", "exclude_same": "patient"}),
            (several, {"where": "age > 41", "k": 2}),
            (Query.id("P01"), {"item_score": "mean", "offset": 1}),
        ):
            here = indexed.search(query, item="patient", **options)
            there = client.search(query, item="patient", **options)
            assert said(there) == said(here)
            assert (there.cases, there.parts) == (here.cases, here.parts)
            assert here.cases
        with pytest.raises(UsageError, match="no cases by 'visit'"):
            client.search(id="P01", item="visit")
        with pytest.raises(UsageError, match="does not say what a case is"):
            client.search(id="P01", item=True)
        measured = client.evaluate("retrieval", "label", item="age")
        assert (measured["item"], measured["queries"]) == ("age", 12)


def test_any_words_and_cases_answer_there_as_here(address, indexed):
    url, token = address
    rng, ids = random.Random(5), list(indexed)

    async def asked_async(query: Query, options: dict[str, object]) -> Hits:
        async with AsyncClient(url, token=token) as client:
            return await client.search(query, **options)

    def outcome(search, query, options):
        try:
            return search(query, **options)
        except RetrError as error:
            return type(error), error.message, error.hint

    answered = 0
    with Client(url, token=token) as client:
        for number in range(40):
            query = Query.id(rng.choice(ids))
            options = {
                "k": rng.randint(1, 12),
                "where": rng.choice([None, "age > 43", "label = 'healthy'"]),
                "exclude_same": rng.choice([None, "patient"]),
                "offset": rng.choice([None, 0, 2]),
                "min_score": rng.choice([None, 0.01]),
                "include_self": rng.random() < 0.3,
            }
            if number % 2:
                words = [
                    rng.choice(["healthy", "no glaucoma", "glaucoma png", "the"]) for _ in range(rng.randint(1, 2))
                ]
                texts = reduce(add, (Query.text(one) * rng.choice([1, 2, -1]) for one in words))
                query = rng.choice([texts, texts + query])
                columns = rng.choice(["label", ["label", "path"]])
                share = rng.choice([None, 0.0, 0.3, 1.0])
                options |= {"in_": columns, "fuse": share, "one_per": rng.choice([None, "patient"])}
            else:
                query = rng.choice([query, query + Query.id(rng.choice(ids)), Query.id("P01")])
                score = rng.choice(["maxsim", "mean", "best"])
                options |= {"item": rng.choice(["patient", "label", "age"]), "item_score": score}
            here = outcome(indexed.search, query, options)
            there = outcome(client.search, query, options)
            if isinstance(here, tuple):
                assert there == here
                continue
            answered += 1
            assert said(there) == said(here)
            if number % 10 < 2:
                assert said(asyncio.run(asked_async(query, options))) == said(here)
    assert answered > 20


def test_judged_relevance_is_measured_there_as_here(address, indexed):
    url, token = address
    ids = list(indexed)
    judged = {"q1": {ids[0]: 2, ids[5]: 1, ids[8]: 1}, "q2": {ids[3]: 1}}
    texts = {"q1": "healthy", "q2": "glaucoma"}
    with Client(url, token=token) as client:
        for questions, grades, options in (
            (texts, judged, {"in_": ["label"], "k": [1, 5]}),
            (None, {ids[0]: {ids[4]: 1, ids[7]: 3}}, {"where": "age > 40"}),
        ):
            here = indexed.evaluate_graded(grades, questions=questions, **options)
            assert client.evaluate_graded(grades, questions, **options) == to_plain(here.to_json())
        with pytest.raises(RetrError, match="'q2' is judged, and has no text"):
            client.evaluate_graded(judged, {"q1": "healthy"}, in_="label")


def test_local_and_remote_agree(address, indexed, make_archive, tmp_path, png):
    url, token = address
    rng = random.Random(0)
    ids = list(indexed)
    pictures = sorted(file for file in (tmp_path / "archive").rglob("*") if file.suffix in {".png", ".jpg", ".tif"})
    both = AsyncClient(url, token=token)
    with Client(url, token=token) as client, asyncio.Runner() as loop:
        assert client.index == "small"
        for _ in range(60):
            query = Query.id(rng.choice(ids)) * rng.choice([1, 0.5, -1])
            if rng.random() < 0.5:
                query += Query.image(rng.choice([rng.choice(pictures), png(rng.randrange(9))])) * 2
            if rng.random() < 0.3:
                query += Query.vector(np.random.default_rng(rng.randrange(99)).standard_normal(56))
            options = {
                "k": rng.randrange(1, 14),
                "where": rng.choice([None, "age > 40", "label = 'glaucoma' or age is null", "patient != 'p1'"]),
                "one_per": rng.choice([None, "patient", "label"]),
                "include_self": rng.random() < 0.3,
                "min_score": rng.choice([None, 0.2]),
                "columns": rng.choice([None, ["label"], []]),
                "offset": rng.choice([None, 0, 2]),
                "diverse": rng.choice([None, 0.4]),
            }
            query = query.refine(
                like=rng.sample(ids[:6], rng.randrange(3)), unlike=rng.sample(ids[6:], rng.randrange(3))
            )
            here = said(indexed.search(query, **options))
            assert said(client.search(query, **options)) == here
            assert said(loop.run(both.search(query, **options))) == here
        one, two = client.search([Query.id(ids[0]), Query.id(ids[1])], exclude_same=["patient", "label"])
        assert [said(one), said(two)] == [
            said(hits)
            for hits in indexed.search([Query.id(ids[0]), Query.id(ids[1])], exclude_same=["patient", "label"])
        ]
        alone = Query(()).refine(like=ids[:2])
        assert said(client.search(alone, exclude_same="patient")) == said(indexed.search(alone, exclude_same="patient"))
        vectors = np.eye(2, 56, dtype=np.float32)
        assert [h.ids for h in client.search(vectors=vectors)] == [h.ids for h in indexed.search(vectors=vectors)]
        assert client.row(ids[0])["label"] == indexed[ids[0]]["label"]
        assert client.info()["rows"] == 12
        assert client.picture(ids[0], size=32).startswith(b"\xff\xd8")
        loop.run(both.close())


def test_errors_are_those_of_the_index(address, indexed):
    url, token = address
    with Client(url, token=token) as client:
        for asked in (
            {"id": "none"},
            {"id": next(iter(indexed)), "where": "age >"},
            {"vector": [1.0]},
            {"text": "haze"},
            {"query": Query.id(next(iter(indexed))).refine(unlike=["none"])},
        ):
            with pytest.raises(RetrError) as here:
                indexed.search(**asked)
            with pytest.raises(type(here.value)) as there:
                client.search(**asked)
            assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)
        with pytest.raises(UsageError, match="takes one of"):
            client.search(id="a", text="b")
        with pytest.raises(UnknownIdError):
            client.row("none")
    with Client(url, token="wrong") as stranger, pytest.raises(RetrError, match="a token is needed"):
        stranger.info()
    with Client("http://127.0.0.1:9", token="x") as lost, pytest.raises(RetrError, match="does not answer"):
        lost.info()


def test_many_ask_at_once(address, indexed):
    url, token = address
    ids = list(indexed)

    async def ask() -> list[Hits]:
        async with AsyncClient(url, token=token) as client:
            assert (await client.info())["rows"] == 12
            return await asyncio.gather(*(client.search(id=ids[n % 12], k=3) for n in range(50)))

    assert [hits.ids for hits in asyncio.run(ask())] == [indexed.search(id=ids[n % 12], k=3).ids for n in range(50)]


def test_what_else_the_api_has(address, indexed, png):
    url, token = address
    ids = list(indexed)
    with Client(url, token=token) as client:
        assert [one["index"] for one in client.indexes()] == ["small"]
        assert [row["id"] for row in client.rows("age > 40", offset=1, limit=2)["rows"]] == [
            row["id"] for row in indexed.table(where="age > 40").slice(1, 2).to_pylist()
        ]
        assert client.facets("age > 40")["total"] == indexed.table(where="age > 40").num_rows
        named = client.classify(png(1), png(2), by="label", k=3)["answers"]
        expected = [one.to_json() for one in indexed.classify([png(1), png(2)], by="label", k=3)]
        assert [one | {"query": ""} for one in named] == [one | {"query": ""} for one in expected]
        with pytest.raises(RetrError, match="map"):
            client.map_column()

        kept = client.save_set("odd 1 ü", ids[:2], question=Query.id(ids[2]), k=3, exclude_same="patient", note="look")
        assert (kept["ids"], kept["note"], kept["author"]) == (ids[:2], "look", "anna")
        assert client.label("odd 1 ü", ids[:1], "haze")["labels"][0]["label"] == "haze"
        assert [one["name"] for one in client.sets()] == ["odd 1 ü"]
        assert client.set_contents("odd 1 ü")["ids"] == list(indexed.sets["odd 1 ü"].ids) == ids[:2]
        answer = client.reopen_set("odd 1 ü")
        assert [hit["id"] for hit in answer["answer"]["hits"]] == indexed.search(
            id=ids[2], k=3, exclude_same="patient"
        ).ids
        assert client.export_set("odd 1 ü").startswith(b"id,")
        assert client.remove_from_set("odd 1 ü", ids[:1])["ids"] == ids[1:2]
        client.drop_set("odd 1 ü")
        assert client.sets() == []

        row = client.add(png(77), "new.png")
        indexed.refresh()
        assert client.search(id=row, k=1).ids == indexed.search(id=row, k=1).ids
        assert client.delete([row]) == 1
        with pytest.raises(UnknownIdError):
            client.row(row)


def test_both_clients_have_the_same_functions():
    def functions(client: type) -> dict[str, str]:
        found = {name: thing for name, thing in vars(client).items() if name[0] != "_" and inspect.isfunction(thing)}
        return {name: str(inspect.signature(thing)) for name, thing in found.items()}

    assert functions(Client) == functions(AsyncClient)
    assert all(inspect.iscoroutinefunction(vars(AsyncClient)[name]) for name in functions(AsyncClient))
