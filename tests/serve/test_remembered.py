"""A question is embedded once: with another filter, or another number of hits, it costs a search only."""

from __future__ import annotations

import base64
import hashlib
import threading

import pytest
from patience import LONG

from retr.serve.questions import query_of
from retr.serve.schemas import Question
from retr.serve.tokens import LOCAL

SEARCH = "/v1/indexes/small/search"


@pytest.fixture
def asked(serve, monkeypatch):
    """``asked(part, **options)``: the ids of the hits, and how many pictures were embedded for them."""
    client = serve()
    served = client.app.state.retr.indexes["small"]
    embedded = []
    encoder = served.index.encoder
    real = encoder.encode_images
    monkeypatch.setattr(encoder, "encode_images", lambda pictures: (embedded.extend(pictures), real(pictures))[1])

    def ask(*parts, **options):
        embedded.clear()
        answer = client.post(SEARCH, json={"questions": [{"parts": list(parts)}], "k": 5, **options})
        assert answer.status_code == 200, answer.text
        return [hit["id"] for hit in answer.json()["answers"][0]["hits"]], len(embedded)

    ask.client, ask.served = client, served
    return ask


def test_a_picture_is_embedded_once_however_often_it_is_asked(asked, indexed, png):
    held = asked.client.post("/v1/uploads", content=png(3)).json()["upload"]
    part = {"upload": held}
    assert asked(part) == (indexed.search(image=png(3), k=5).ids, 1)
    for options in ({"k": 2}, {"where": "age >= 40"}, {"exclude_same": {"patient": "P0"}}, {"one_per": "patient"}):
        assert asked(part, **options) == (indexed.search(image=png(3), **{"k": 5, **options}).ids, 0)
    # the same bytes by another way, weighed otherwise
    assert asked({"data": base64.b64encode(png(3)).decode(), "weight": 2})[1] == 0
    # another part of it, and another picture, are other questions
    assert asked(part | {"crop": [0, 0, 0.5, 0.5]})[1] == 1
    assert asked(part, {"data": base64.b64encode(png(4)).decode()})[1] >= 1
    assert asked({"data": base64.b64encode(png(5)).decode()}) == (indexed.search(image=png(5), k=5).ids, 1)


def test_nothing_is_remembered_beyond_a_version(asked, indexed, png):
    part = {"data": base64.b64encode(png(3)).decode()}
    asked(part)
    indexed.delete(ids=[next(iter(indexed))], purge=True)
    asked.served.index.refresh()
    assert asked(part) == (indexed.search(image=png(3), k=5).ids, 1)
    assert len(asked.served._remembered) == 1


def test_the_oldest_questions_are_forgotten(asked, png):
    remembered = asked.served._remembered
    asked({"data": base64.b64encode(png(0)).decode()})
    # as much as two take
    remembered._most = 2 * remembered._bytes
    for seed in range(4):
        asked({"data": base64.b64encode(png(seed)).decode()})
    assert len(remembered) == 2
    assert remembered._bytes == remembered._most
    assert asked({"data": base64.b64encode(png(3)).decode()})[1] == 0
    assert asked({"data": base64.b64encode(png(0)).decode()})[1] == 1


def test_an_upload_that_is_gone_is_known_by_no_hash(asked, png, monkeypatch):
    held = asked.client.post("/v1/uploads", content=png(3)).json()["upload"]
    monkeypatch.setattr(asked.client.app.state.retr.uploads, "digest", lambda _: "")
    other = asked.client.post("/v1/uploads", content=png(4)).json()["upload"]
    assert asked({"upload": held})[1] == 1
    assert asked({"upload": other})[1] == 1


@pytest.mark.parametrize("kind", ["vector", "id", "known picture", "words of a column"])
def test_a_search_does_not_wait_behind_a_network(asked, indexed, png, monkeypatch, kind):
    served, state = asked.served, asked.client.app.state.retr
    known = {"upload": asked.client.post("/v1/uploads", content=png(3)).json()["upload"]}
    asked(known)
    parts = {
        "vector": {"vector": indexed.store.vectors([0])[0].tolist()},
        "id": {"id": next(iter(indexed))},
        "known picture": known,
        "words of a column": {"text": "P1"},
    }
    options = {"k": 2, **({"in_": ["patient"]} if kind == "words of a column" else {})}
    held, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(served.index.encoder, "encode_images", lambda _: (begun.set(), held.wait(LONG)) and 1 / 0)

    def query(part):
        return query_of(Question.model_validate({"parts": [part]}), state, LOCAL)

    # as many as would be embedded side by side, and one more
    slow = [served.search(query({"data": base64.b64encode(png(5 + n)).decode()}), {"k": 2 + n}) for n in range(3)]
    try:
        assert begun.wait(LONG)
        assert served.search(query(parts[kind]), options).result(LONG).version == indexed.version
        assert not any(one.done() for one in slow)
    finally:
        held.set()
    for one in slow:
        with pytest.raises(ZeroDivisionError):
            one.result(LONG)


@pytest.fixture
def decoded(asked, monkeypatch):
    """The pictures that were decoded."""
    decoders, seen = asked.client.app.state.retr.decoders, []
    real = decoders.read
    monkeypatch.setattr(decoders, "read", lambda data, **options: (seen.append(data), real(data, **options))[1])
    return seen


def test_a_picture_whose_vector_is_known_is_not_decoded_again(asked, decoded, indexed, png, tmp_path):
    # a file of the archive: whose it is is known by its bytes
    own = next(tmp_path.rglob("healthy/*.png")).read_bytes()
    part = {"data": base64.b64encode(own).decode()}
    for options in (
        {},
        {"k": 2},
        {"exclude_same": {"patient": None}},
        {"item": "patient"},
        {"where": "age >= 40"},
        {"include_self": True},
    ):
        assert asked(part, **options)[0] == indexed.search(image=own, **{"k": 5, **options}).ids
    assert decoded == [own]
    asked(part | {"crop": [0, 0, 0.5, 0.5]})
    asked({"data": base64.b64encode(png(4)).decode()}, part)
    assert decoded == [own, own, png(4)]


def test_what_is_forgotten_between_two_looks_is_decoded(asked, decoded, indexed, png, monkeypatch):
    part = {"data": base64.b64encode(png(3)).decode()}
    asked(part)
    remembered = asked.served._remembered
    real = asked.served.search

    def search(*given):
        # another writer commits just now
        remembered._held.clear()
        return real(*given)

    monkeypatch.setattr(asked.served, "search", search)
    assert asked(part) == (indexed.search(image=png(3), k=5).ids, 1)
    assert decoded == [png(3)] * 2
    # several questions of one request, of which one is known
    other = {"parts": [{"data": base64.b64encode(png(4)).decode()}]}
    answer = asked.client.post(SEARCH, json={"questions": [{"parts": [part]}, other], "k": 5}).json()["answers"]
    assert [[hit["id"] for hit in one["hits"]] for one in answer] == [
        indexed.search(image=png(seed), k=5).ids for seed in (3, 4)
    ]


def test_nothing_that_is_remembered_of_a_picture_holds_pixels(asked, png):
    asked({"data": base64.b64encode(png(3)).decode()})
    ((_, held),) = asked.served._remembered._held.values()
    assert held.image is None
    assert held.origin.sha256 == hashlib.sha256(png(3)).hexdigest()


def test_words_and_a_known_picture_are_asked_together(asked, indexed, png):
    part = {"data": base64.b64encode(png(3)).decode()}
    asked(part)
    options = {"in": ["label"], "fuse": 0.5}
    assert asked({"text": "glaucoma"}, part, **options)[0]
