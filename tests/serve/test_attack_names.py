"""Paths in place of names, on every route that takes one, names without end, and a thousand wrong tokens."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from patience import cheap

from retr.serve.tokens import Tokens, make_token

SECRET = "secret-7f3a"
# a path to the secret by every way of writing one: `{up}` leads to the folder that holds it, `{all}` is absolute
WAYS = [
    "{up}secret.txt",
    "{all}",
    "file://{all}",
    "{up}secret.txt\x00.png",
    "....//....//....//....//secret.txt",
    "..;/..;/..;/secret.txt",
    "..\\..\\..\\secret.txt",
    "archive.tar::{up}secret.txt",
]


def encodings(text: str) -> list[str]:
    """A text in a URL: as it is as far as a URL can be, encoded, encoded twice, and by UTF-8 that is too long."""
    once = quote(text, safe="")
    return [
        quote(text, safe="/.\\~:;"),
        once,
        quote(once, safe=""),
        once.replace(".", "%c0%ae"),
    ]


@pytest.fixture
def attacked(serve, indexed, tmp_path):
    """``attacked(method, path, body)``: the answer to a URL that goes out as it is written."""
    (tmp_path / "secret.txt").write_text(SECRET)
    client = serve(additions=tmp_path / "added", audit_file=tmp_path / "audit")
    indexed.sets.save("mine", [next(iter(indexed))], author="anna")

    def ask(method, path, **options):
        return client.request(method, client.base_url.copy_with(raw_path=path.encode("latin-1")), **options)

    ask.app = client.app
    return ask


def harmless(answer, tmp_path) -> None:
    assert answer.status_code < 500, answer.text
    assert SECRET not in answer.text
    assert "root:" not in answer.text
    assert str(tmp_path) not in answer.text
    assert "Traceback" not in answer.text


def routes(app) -> list[tuple[str, str, list[str]]]:
    """Method, path and names of the query of each operation of the API, and the page's files."""
    found = [("GET", "/page/{name}", [])]
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            texts = [
                one["name"]
                for one in operation.get("parameters", [])
                if one["in"] == "query" and "string" in json.dumps(one["schema"])
            ]
            found.append((method.upper(), path, texts))
    return found


def test_a_path_in_place_of_a_name_leads_nowhere(attacked, indexed, tmp_path, png):
    ways = [one.format(up="../" * (3 + number % 3), all=tmp_path / "secret.txt") for number, one in enumerate(WAYS)]
    ways += ["../" * 12 + "etc/passwd", "/etc/passwd", "..", ".", "%", "\x00"]
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(indexed.path)}
    tried = Counter()
    for method, path, texts in routes(attacked.app):
        named = path.replace("{index}", "small")
        places = [part for part in ("{index}", "{name}", "{upload}", "{job}") if part in path]
        for way in ways:
            for written in encodings(way):
                urls = [
                    (path if place == "{index}" else named)
                    .replace(place, written)
                    .replace("{name}", "mine")
                    .replace("{upload}", "x")
                    .replace("{job}", "x")
                    for place in places
                ]
                filled = named.replace("{name}", "mine").replace("{upload}", "x").replace("{job}", "x")
                urls += [f"{filled}?{name}={written}" for name in texts]
                for url in urls:
                    # nothing is deleted by a name that there is
                    if method == "DELETE" and url == filled:
                        continue
                    body = {"content": png(3)} if method == "POST" and path.endswith(("/rows", "/uploads")) else {}
                    if method in {"GET", "DELETE"} or body or way == ways[0]:
                        harmless(attacked(method, url, **body), tmp_path)
                        tried[method] += 1
    assert min(tried["GET"], tried["POST"], tried["DELETE"]) > 20
    made = {path for path in tmp_path.rglob("*") if not path.is_relative_to(indexed.path)} - before
    assert {str(path.relative_to(tmp_path)).partition("/")[0] for path in made} <= {"added", "audit.head"}
    assert (tmp_path / "secret.txt").read_text() == SECRET


def test_a_path_in_place_of_an_id_in_a_body_leads_nowhere(attacked, tmp_path):
    for way in WAYS:
        text = way.format(up="../" * 4, all=tmp_path / "secret.txt")
        question = {"parts": [{"id": text}]}
        for path, body in (
            ("search", {"questions": [question], "k": 3}),
            ("search", {"questions": [{"parts": [{"upload": text}]}], "k": 3}),
            ("explain", {"question": question, "id": text}),
            ("explain", {"set": text, "id": text}),
            ("classify", {"pictures": [{"upload": text}], "by": text}),
        ):
            answer = attacked("POST", f"/v1/indexes/small/{path}", json=body)
            harmless(answer, tmp_path)
            assert answer.status_code in {404, 422}
        harmless(attacked("PUT", "/v1/indexes/small/sets/one", json={"ids": [text]}), tmp_path)


def test_a_name_without_end_is_refused_soon(attacked, tmp_path):
    long = "a" * 60_000
    for method, path, texts in routes(attacked.app):
        filled = path.replace("{index}", "small").replace("{name}", "mine")
        for place in ("{index}", "{name}", "{upload}", "{job}"):
            if place in path:
                url = path.replace(place, long).replace("{index}", "small").replace("{name}", "mine")
                with cheap(10):
                    answer = attacked(method, url)
                harmless(answer, tmp_path)
                assert answer.status_code >= 400, url[:40]
        for name in texts:
            with cheap(10):
                answer = attacked(method, f"{filled}?{name}={long}")
            harmless(answer, tmp_path)


def test_a_thousand_wrong_tokens_are_slowed_down_and_hinder_nobody(serve, tmp_path):
    token = make_token(tmp_path / "tokens", "anna", frozenset({"read"}))
    client = serve(token_file=tmp_path / "tokens")
    statuses = Counter()
    for number in range(1000):
        wrong = f"{token[:-4]}{number:04}" if number % 2 else "x" * (number % 90)
        kind = ("Bearer", "bearer", "Basic", "")[number % 4]
        statuses[client.get("/v1/indexes", headers={"authorization": f"{kind} {wrong}"}).status_code] += 1
        if number % 100 == 50:
            # whoever holds one is answered, from the same address too
            assert client.get("/v1/indexes", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert set(statuses) == {401, 429}
    assert 20 <= statuses[401] <= 60
    elsewhere = TestClient(client.app, base_url="http://localhost:7860", client=("192.0.2.9", 1))
    assert elsewhere.get("/v1/indexes", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_token_is_compared_with_every_line_whether_it_is_known_or_not(tmp_path, monkeypatch):
    known = [make_token(tmp_path / "tokens", name, frozenset({"read"})) for name in ("anna", "ben", "carl")]
    tokens, compared = Tokens(tmp_path / "tokens"), []
    real = hmac.compare_digest
    monkeypatch.setattr("retr.serve.tokens.hmac.compare_digest", lambda a, b: (compared.append(len(a)), real(a, b))[1])
    for presented in (known[0], known[2], "", "x" * 10_000):
        compared.clear()
        tokens.of(presented)
        assert compared == [32, 32, 32]
