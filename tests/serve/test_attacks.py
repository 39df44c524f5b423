"""What strangers try: on every path no internal error, no undocumented answer, no path, no stack, no identifier."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import socket
import threading
import time
from contextlib import suppress

import pytest
import uvicorn
from patience import LONG, cheap, until

from retr.benchmarks import fuzz_readers
from retr.serve import state
from retr.serve.audit import Audit, verify
from retr.serve.limits import Guard
from retr.serve.messages import without_paths
from retr.serve.protocol import TimedProtocol
from retr.serve.tokens import Tokens, make_token

SEARCH = "/v1/indexes/small/search"
JSON = {"content-type": "application/json"}


def assert_refused(answer, known=()):
    """Nothing but an error object that tells nothing of the server."""
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()["error"]) == {"message", "hint", "kind"}
    assert "Traceback" not in answer.text
    assert not any(str(one) in answer.text for one in known)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 100_000,
        b'{"questions": [{"parts": [{"id": "x", "weight": NaN}]}]}',
        b'{"questions": [{"parts": [{"id": "x", "weight": 1e999}]}]}',
        b'{"questions": [{"parts": [{"vector": [Infinity]}]}]}',
        b'{"questions": [{"parts": [{"id": "\\ud800"}]}]}',
        b'{"\\ud800": 1}',
        b'{"questions": [{"parts": [{"id": "x"}]}], "k": ' + b"1" * 4000 + b"}",
        b'{"questions": [{"parts": [{"id": "a\\u0000b"}]}]}',
        b"\xff\xfe\x00",
        b"",
        b"null",
    ],
)
def test_a_body_that_is_no_question_is_refused(serve, body):
    client = serve()
    assert_refused(client.post(SEARCH, content=body, headers=JSON))
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "where",
    [
        "(" * 5000 + "age > 1" + ")" * 5000,
        "not " * 2400 + "age > 1",
        "age > " + "9" * 9000,
        "age > 1e999",
        "age = nan",
        "label = '\x00'",
        "label like '" + "%a" * 4000 + "'",
        "age >",
        "'" * 9999,
        "age in (" + ", ".join(["1"] * 3000) + ")",
        " or ".join(["age > 1"] * 900),
    ],
)
def test_a_costly_condition_is_answered_or_refused_soon(serve, where):
    client = serve()
    with cheap(10):
        answer = client.get("/v1/indexes/small/rows", params={"where": where})
    assert answer.status_code in {200, 422}, answer.text


def test_hostile_pictures_do_no_harm(serve, tmp_path):
    client = serve(decode_seconds=LONG)
    sources = fuzz_readers.seeds()
    statuses = set()
    for number in range(60):
        _, data = fuzz_readers.mutated(number, 5, sources)
        answer = client.post("/v1/uploads", content=data)
        statuses.add(answer.status_code)
        if answer.status_code != 201:
            assert_refused(answer, [tmp_path])
    assert statuses == {201, 422}


def test_an_error_of_the_disk_tells_no_path(serve, indexed, tmp_path):
    client = serve()
    row = next(iter(indexed))
    for picture in tmp_path.rglob(row.rpartition("/")[2]):
        picture.unlink()
    answer = client.get("/v1/indexes/small/picture", params={"id": row})
    assert (answer.status_code, str(tmp_path) in answer.text) == (503, False)


def test_a_fault_of_ours_is_told_and_logged_without_its_message(caplog):
    async def faulty(scope, receive, send):
        raise KeyError("patient Müller")

    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(faulty, hosts=frozenset({"localhost"}), origins=frozenset(), max_body=10, body_seconds=LONG)
    with caplog.at_level(logging.DEBUG):
        asyncio.run(guard({"type": "http", "method": "GET", "headers": [(b"host", b"localhost")]}, None, send))
    assert sent[0]["status"] == 500
    assert "Müller" not in caplog.text + repr(sent)
    assert "KeyError" in caplog.text


def test_a_body_beyond_the_limit_is_told_as_such_though_json_was_expected(serve):
    def pieces():
        for _ in range(50):
            yield b" " * 1000

    assert serve(max_body=10_000).post(SEARCH, content=pieces(), headers=JSON).status_code == 413


def test_a_body_of_many_values_is_refused_before_it_is_parsed(serve, monkeypatch):
    client, parsed = serve(), []
    real = state.from_json
    monkeypatch.setattr(state, "from_json", lambda data: parsed.append(len(data)) or real(data))
    for many, status in ((1_500_000, 413), (10, 422)):
        body = b'{"questions": [{"parts": [{"vector": [' + b"0," * many + b"0]}]}]}"
        answer = client.post(SEARCH, content=body, headers=JSON)
        assert (answer.status_code, len(body) in parsed) == (status, status == 422)


def test_large_bodies_at_once_are_refused_before_memory_is_full():
    all_came = asyncio.Event()

    async def reading(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await all_came.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = Guard(
        reading, hosts=frozenset({"localhost"}), origins=frozenset(), max_body=1000, body_seconds=LONG, max_bodies=2500
    )

    refused = []

    async def ask():
        statuses = []

        async def receive():
            return {"type": "http.request", "body": b"x" * 1000, "more_body": False}

        async def send(message):
            statuses.append(message.get("status"))
            refused.extend(status for status in statuses[-1:] if status == 503)
            if len(refused) == 3:
                all_came.set()

        await guard({"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}, receive, send)
        return statuses[0]

    async def several():
        first = await asyncio.gather(*(ask() for _ in range(5)))
        return first, await ask()

    assert asyncio.run(several()) == ([200, 200, 503, 503, 503], 200)


def test_a_probe_is_not_trained_by_one_who_may_only_read(serve, indexed, png, tmp_path):
    file = tmp_path / "tokens"
    token = make_token(file, "anna", frozenset({"read"}))
    client = serve(token_file=file)
    before = {path: path.stat().st_mtime_ns for path in indexed.path.rglob("*")}
    asked = {"pictures": [{"data": base64.b64encode(png(3)).decode()}], "probe": "label"}
    answer = client.post("/v1/indexes/small/classify", json=asked, headers={"authorization": f"Bearer {token}"})
    assert_refused(answer)
    assert "no trained probe" in answer.json()["error"]["message"]
    assert {path: path.stat().st_mtime_ns for path in indexed.path.rglob("*")} == before


def test_conditions_and_patients_are_in_the_audit_as_hashes(serve, tmp_path, indexed, png):
    client = serve(audit_file=tmp_path / "audit")
    row = next(iter(indexed))
    patient = indexed[row]["patient"]
    for where in (f"patient = '{patient}'", f"patient = '{patient}", f'id = "{row}"'):
        client.get("/v1/indexes/small/rows", params={"where": where})
        client.get("/v1/indexes/small/facets", params={"where": where})
    held = client.post("/v1/uploads", content=png(3)).json()["upload"]
    body = {"questions": [{"parts": [{"upload": held}]}], "exclude_same": {"patient": patient}}
    assert client.post(SEARCH, json=body).status_code == 200
    text = (tmp_path / "audit").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert not re.search(rf"['\"]{re.escape(patient)}|{re.escape(row)}", text)
    assert re.fullmatch("[0-9a-f]{64}", entries[-1]["asked"]["questions"][0][0]["picture"])
    assert "facets" in {entry["action"] for entry in entries}


def test_a_full_disk_leaves_the_audit_whole(tmp_path, monkeypatch):
    audit = Audit(tmp_path / "audit")
    audit.write({"who": "anna"})
    real = os.write

    def full(descriptor, data):
        if len(data) > 20:
            return real(descriptor, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retr.serve.audit.os.write", full)
    with pytest.raises(OSError, match="space"):
        audit.write({"who": "ben", "long": "x" * 15})
    monkeypatch.setattr("retr.serve.audit.os.write", real)
    audit.write({"who": "eva"})
    audit.close()
    assert (verify(tmp_path / "audit").lines, verify(tmp_path / "audit").problem) == (2, None)


def test_links_and_pipes_in_place_of_files(tmp_path):
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "audit").symlink_to(other)
    with pytest.raises(Exception, match="audit"):
        Audit(tmp_path / "audit")
    assert other.read_text() == "kept"
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Exception, match="no small text file"):
        Tokens(tmp_path / "pipe")


def test_a_token_file_that_cannot_be_read_refuses_everybody_and_says_nothing(serve, tmp_path):
    file = tmp_path / "tokens"
    token = make_token(file, "anna", frozenset({"read"}))
    client = serve(token_file=file)
    file.write_text("half a li")
    answer = client.get("/v1/indexes", headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, "line" in answer.text) == (503, False)


@pytest.fixture
def listening(monkeypatch):
    """The port of a real server, and the server, whose readers must not stop for 0.2 seconds."""
    monkeypatch.setattr(TimedProtocol, "head_seconds", 10 * LONG)
    monkeypatch.setattr(TimedProtocol, "stalled_seconds", 0.2)

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        size = 64 << 20 if scope["path"] == "/large" else 2
        await send({"type": "http.response.body", "body": b"x" * size})

    config = uvicorn.Config(app, port=0, http=TimedProtocol, ws="none", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1], server
    server.should_exit = True
    thread.join()


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=LONG)


def answered(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n0\r\n\r\n"):
        part = connection.recv(100)
        assert part, answer
        answer += part
    return answer.startswith(b"HTTP/1.1 200")


def closed(connection):
    """Wait until the server closes a connection."""
    with suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass


def cut(connection):
    """Return whether what is sent a byte at a time goes nowhere."""
    try:
        connection.sendall(b"G")
    except OSError:
        return True
    return False


def test_slow_heads_are_cut_off_and_others_answered_meanwhile(listening, monkeypatch):
    port, server = listening
    again, other = connected(port), connected(port)
    assert answered(again) and answered(other)
    # from here on a head must come soon
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.2)
    silent, trickling = [connected(port) for _ in range(50)], connected(port)
    again.sendall(b"GET / HT")
    assert answered(other)
    other.close()
    until(lambda: cut(trickling), every=0.05)
    for one in (*silent, again):
        closed(one)
    until(lambda: not server.server_state.connections)
    for one in (*silent, trickling, again):
        one.close()


def test_a_reader_that_stops_is_cut_off(listening):
    port, server = listening
    stopped = connected(port)
    stopped.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: server.server_state.total_requests)
    until(lambda: not server.server_state.connections)
    stopped.close()


@pytest.mark.parametrize(
    "text",
    [
        "cannot read /srv/archive/Meier/1.dcm",
        "cannot read '/srv/my archive/Meier, A/1.dcm': missing",
        'no such folder: "/srv/archive/Meier"',
        "see file:///srv/Meier",
        "(/srv/Meier)",
    ],
)
def test_paths_are_taken_out_of_messages(text):
    assert not re.search("srv|Meier", without_paths(text))


def test_what_is_no_path_stays():
    for text in ("an id: 'healthy/1.png'", "age > 3 / 2", "scores from 0 to 1", "and/or"):
        assert without_paths(text) == text
