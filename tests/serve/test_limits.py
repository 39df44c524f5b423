"""The guard before every path: names, origins, sizes and times; and the pace of one asker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from patience import LONG

from retr import UsageError
from retr.serve.limits import HEADERS, Guard, Rate
from retr.serve.settings import Settings


async def echo(scope, receive, send):
    """Read the body, answer its length."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = [(b"x-content-type-options", b"sniff"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


def guard(**changes):
    settings = {
        "hosts": frozenset({"localhost", "127.0.0.1", "::1"}),
        "origins": frozenset({"https://viewer.example"}),
        "max_body": 1000,
        "body_seconds": LONG,
    }
    return Guard(echo, **(settings | changes))


def ask(app, *, method="POST", url="http://localhost:7860/x", **options):
    async def asking():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.request(method, url, **options)

    return asyncio.run(asking())


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1:1", "[::1]:7860", "LOCALHOST"])
def test_its_own_names_are_answered(host):
    answer = ask(guard(), headers={"host": host})
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["x-own"] == "1"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io", "localhost@evil"])
def test_another_name_is_refused(host):
    answer = ask(guard(), headers={"host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["error"]["message"]
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]


def test_two_names_are_refused():
    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost"), (b"host", b"localhost")]}
    assert run(guard(), scope, [])["status"] == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://localhost:7860"}, 200),
        ({"origin": "https://viewer.example"}, 200),
        ({"origin": "http://localhost:7861"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(headers, status):
    assert ask(guard(), headers=headers).status_code == status


def test_a_body_that_is_too_large_is_refused_told_or_not():
    assert ask(guard(), content=b"x" * 1000).text == "1000"
    assert ask(guard(), content=b"x" * 1001).status_code == 413

    async def untold():
        for _ in range(30):
            yield b"x" * 100

    assert ask(guard(), content=untold()).status_code == 413


def run(app, scope, messages, wait=0.0):
    """Call an application with messages that come slowly; return how it began to answer."""
    sent = []
    waiting = iter(messages)

    async def receive():
        await asyncio.sleep(wait)
        return next(waiting, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return {**sent[0], "json": json.loads(body) if body.startswith(b"{") else None}


def test_a_body_that_trickles_in_is_cut_off():
    scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}
    drops = [{"type": "http.request", "body": b"x", "more_body": True}] * 1000
    answer = run(guard(body_seconds=0.3), scope, drops, wait=0.05)
    assert answer["status"] == 408
    assert "0.3 seconds" in answer["json"]["error"]["message"]


def test_a_websocket_is_closed():
    answer = run(guard(), {"type": "websocket", "headers": []}, [{"type": "websocket.connect"}])
    assert answer["type"] == "websocket.close"


def test_one_asker_who_hurries_does_not_slow_another():
    rate = Rate(1, 3)
    assert [rate.take("anna", 0.0) for _ in range(4)] == [0, 0, 0, 1]
    assert rate.take("ben", 0.0) == 0
    assert rate.take("anna", 2.0) == 0
    for number in range(20_000):
        rate.take(f"stranger {number}", 3.0)
    assert len(rate._left) <= rate._most


def test_a_server_of_every_address_is_asked_by_its_own_machine():
    names = Settings(host="0.0.0.0", token_file=Path("tokens"), hosts=frozenset({"Retr.Hospital.Lan"})).own_names
    assert names == {"localhost", "127.0.0.1", "::1", "retr.hospital.lan"}
    assert Settings(host="192.0.2.7", token_file=Path("tokens")).own_names == {"192.0.2.7"}


@pytest.mark.parametrize("reached", [{"host": "0.0.0.0"}, {"trusted_proxies": ("127.0.0.1",)}])
def test_whoever_is_reached_by_others_needs_tokens(reached):
    with pytest.raises(UsageError, match="a token is needed"):
        Settings(**reached)


def test_a_path_of_a_proxy_is_no_part_of_the_routes(serve):
    client = serve(root_path="/retr")
    assert client.get("/healthz").status_code == 200
