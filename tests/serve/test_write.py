"""Adding and deleting over the API: only with the scope, never with --read-only, nothing left of what fails."""

from __future__ import annotations

import pytest

from retr.serve.tokens import make_token

ROWS = "/v1/indexes/small/rows"


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_picture_is_added_found_and_deleted(serve, tmp_path, png):
    client = serve(additions=tmp_path / "kept", audit_file=tmp_path / "audit")
    added = client.post(ROWS, params={"name": "one.png"}, content=png(99))
    assert added.status_code == 201, added.text
    assert added.json()["id"] == "added/one.png"
    body = {"questions": [{"parts": [{"id": "added/one.png"}]}], "include_self": True, "k": 1}
    (answer,) = client.post("/v1/indexes/small/search", json=body).json()["answers"]
    assert answer["hits"][0]["id"] == "added/one.png"
    picture = client.get("/v1/indexes/small/picture", params={"id": "added/one.png"})
    assert picture.headers["content-type"] == "image/jpeg"
    assert client.post(ROWS, params={"name": "one.png"}, content=png(98)).status_code == 422
    deleted = client.request("DELETE", ROWS, json={"ids": ["added/one.png"]})
    assert deleted.json()["rows"] == 1
    assert names(tmp_path / "kept") == []
    assert client.post(ROWS, params={"name": "two.png"}, content=png(97)).status_code == 201
    assert client.get("/v1/indexes/small/row", params={"id": "added/one.png"}).status_code == 404
    assert '"add"' in (tmp_path / "audit").read_text()


@pytest.mark.parametrize("name", ["../x.png", "a/b.png", ".x.png", "x", "x.png\n", "x.p g", "", "x..png", "é.png"])
def test_a_name_that_may_be_a_path_is_refused(serve, tmp_path, png, name):
    client = serve(additions=tmp_path / "kept")
    assert client.post(ROWS, params={"name": name}, content=png(1)).status_code == 422
    assert not (tmp_path / "kept").exists()


def test_what_is_no_picture_leaves_nothing(serve, tmp_path, indexed):
    client = serve(additions=tmp_path / "kept")
    assert client.post(ROWS, params={"name": "x.png"}, content=b"no picture").status_code == 422
    assert not (tmp_path / "kept").exists()
    assert client.request("DELETE", ROWS, json={"ids": [next(iter(indexed)), "none"]}).status_code == 404
    assert client.get("/v1/indexes/small").json()["rows"] == 12


def test_a_picture_is_not_kept_while_another_process_writes(serve, tmp_path, indexed, png):
    client = serve(additions=tmp_path / "kept")
    with indexed.store.writer():
        answer = client.post(ROWS, params={"name": "x.png"}, content=png(5))
    assert answer.status_code == 409
    assert names(tmp_path / "kept") == []


def test_only_a_writer_writes_and_nobody_on_a_read_only_server(serve, tmp_path, indexed, png):
    file = tmp_path / "tokens"
    heads = {
        name: {"authorization": f"Bearer {make_token(file, name, frozenset(scopes))}"}
        for name, scopes in {"anna": ["read", "label"], "ben": ["read", "write"]}.items()
    }
    body = {"ids": [next(iter(indexed))]}
    for head, settings, status in (("anna", {}, 403), ("ben", {"read_only": True}, 403), ("ben", {}, 200)):
        client = serve(token_file=file, additions=tmp_path / "kept", **settings)
        assert client.request("DELETE", ROWS, json=body, headers=heads[head]).status_code == status
        added = client.post(ROWS, params={"name": "x.png"}, content=png(5), headers=heads[head])
        assert added.status_code == (201 if status == 200 else 403)
    assert serve().post(ROWS, params={"name": "y.png"}, content=png(5)).status_code == 403, "without --additions"
