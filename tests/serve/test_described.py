"""The API against its own description, and in what order a request is looked at."""

from __future__ import annotations

import asyncio

import pytest

from retr.benchmarks.attack_api import attack
from retr.serve.app import create_app
from retr.serve.settings import Settings
from retr.serve.tokens import make_token


@pytest.mark.parametrize(("who", "tries"), [("local", 2), ("reader", 1), ("stranger", 1)])
def test_every_route_answers_as_its_description_says(who, tries):
    tally = attack(who, tries)
    assert tally.failures == {}
    assert tally.requests > 20
    assert set(tally.statuses) <= {"200", "201", "202", "400", "401", "403", "404", "422", "429"}


@pytest.mark.parametrize(
    ("method", "path", "token", "settings", "status"),
    [
        ("POST", "/v1/indexes/small/search", None, {}, 401),
        ("POST", "/v1/indexes/small/search", "wrong", {}, 401),
        ("POST", "/v1/uploads", None, {}, 401),
        ("POST", "/v1/indexes/small/rows?name=x.png", "anna", {}, 403),
        ("DELETE", "/v1/indexes/small/rows", "ben", {"read_only": True}, 403),
        ("POST", "/v1/indexes/small/classify", "anna", {"rate": 0.001, "burst": 0}, 429),
    ],
)
def test_no_byte_of_a_body_is_read_before_the_token_is_known(
    indexed, make_encoder, tmp_path, method, path, token, settings, status
):
    file = tmp_path / "tokens"
    tokens = {"anna": make_token(file, "anna", frozenset({"read"}))}
    tokens["ben"] = make_token(file, "ben", frozenset({"read", "write"}))
    app = create_app({"small": indexed.path}, Settings(token_file=file, **settings), {"encoder": make_encoder()})
    headers = [(b"host", b"localhost"), (b"content-length", b"1000000")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {tokens.get(token, token)}".encode()))
    name, _, query = path.partition("?")
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": name, "query_string": query.encode(), "headers": headers}
    asyncio.run(app(scope, receive, send))
    app.state.retr.close()
    assert sent[0]["status"] == status
    # what was announced and not read cannot be the head of a next request
    assert (b"connection", b"close") in sent[0]["headers"]
