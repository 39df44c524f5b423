"""Sets over the API: made, labelled, asked again and handed on, with the scope ``label``, also during a build."""

from __future__ import annotations

import base64
import io
import shutil
import zipfile

import pytest

from retr.serve.tokens import make_token

SETS = "/v1/indexes/small/sets"


def test_a_set_is_made_labelled_asked_again_and_handed_on(serve, indexed, png, tmp_path):
    client = serve(audit_file=tmp_path / "audit", hash_words=True)
    question = {"questions": [{"parts": [{"data": base64.b64encode(png(3)).decode()}]}], "k": 4, "where": "age > 0"}
    ids = [hit["id"] for hit in client.post("/v1/indexes/small/search", json=question).json()["answers"][0]["hits"]]
    with indexed.store.writer():
        made = client.put(f"{SETS}/to discuss", json={"ids": ids, "question": question, "note": "Monday"})
        assert made.status_code == 200, made.text
        labelled = client.post(f"{SETS}/to discuss/labels", json={"ids": ids[:1], "label": "glaucoma?"})
    assert labelled.json()["labels"][0] | {"time": ""} == {
        "id": ids[0],
        "label": "glaucoma?",
        "author": "local",
        "time": "",
    }
    assert made.json()["ids"] == ids
    assert "vector" not in made.json()["question"]
    (one,) = client.get(SETS).json()
    assert (one["name"], one["rows"], one["labelled"], one["note"]) == ("to discuss", 4, 1, "Monday")
    again = client.get(f"{SETS}/to discuss/answer").json()
    assert [hit["id"] for hit in again["answer"]["hits"]] == ids
    assert again["new"] == []
    assert client.get(f"{SETS}/to discuss/rows").json()["total"] == 4
    file = client.get(f"{SETS}/to discuss/file")
    assert file.headers["content-disposition"].endswith("to%20discuss.csv")
    assert "glaucoma?" in file.text
    assert client.get(f"{SETS}/to discuss/file?form=parquet").content[:4] == b"PAR1"
    with zipfile.ZipFile(io.BytesIO(client.get(f"{SETS}/to discuss/file?form=zip").content)) as copies:
        assert copies.testzip() is None
        assert [copies.read(f"{n}-{row.rpartition('/')[2]}") for n, row in enumerate(ids, 1)] == [
            (tmp_path / "archive" / row).read_bytes() for row in ids
        ]
        assert copies.read("set.csv").decode().splitlines()[0].endswith("copy")
    of_label = client.get(f"{SETS}/to discuss/rows", params={"where": "label = 'healthy'"}).json()
    assert [row["id"] for row in of_label["rows"]] == [row for row in ids if row.startswith("healthy")]
    shutil.rmtree(tmp_path / "archive")
    assert client.get(f"{SETS}/to discuss/file?form=zip").status_code == 503
    client.post(f"{SETS}/to discuss/labels", json={"ids": ids[:1], "label": "glaucoma?", "remove": True})
    assert client.post(f"{SETS}/to discuss/remove", json={"ids": ids[:1]}).json()["ids"] == ids[1:]
    assert client.delete(f"{SETS}/to discuss").status_code == 204
    assert client.get(SETS).json() == []
    told = (tmp_path / "audit").read_text()
    assert '"reopen"' in told
    assert "discuss" not in told
    assert ids[0] not in told


def test_what_is_not_there_is_404_and_what_cannot_be_meant_422(serve, indexed):
    client = serve()
    row = next(iter(indexed))
    for method, path, body in (
        ("GET", "x", None),
        ("GET", "x/answer", None),
        ("GET", "x/file", None),
        ("GET", "x/rows", None),
        ("POST", "x/remove", {"ids": [row]}),
        ("POST", "x/labels", {"ids": [row], "label": "a", "remove": True}),
        ("DELETE", "x", None),
        ("PUT", "x", {"ids": ["no such"]}),
        ("PUT", "a%2Fb", {"ids": [row]}),
    ):
        assert client.request(method, f"{SETS}/{path}", json=body).status_code in {404, 405}, path
    for name, body in (
        (".x", {"ids": [row]}),
        ("x", {"ids": []}),
        ("x", {"ids": [row], "question": {"questions": []}}),
    ):
        assert client.put(f"{SETS}/{name}", json=body).status_code == 422
    assert client.get(SETS).json() == []


@pytest.mark.parametrize(
    ("scopes", "settings", "status"),
    [("read", {}, 403), ("read label", {}, 200), ("read label", {"read_only": True}, 403)],
)
def test_only_who_may_label_labels(serve, indexed, tmp_path, scopes, settings, status):
    file = tmp_path / "tokens"
    head = {"authorization": f"Bearer {make_token(file, 'anna', frozenset(scopes.split()))}"}
    client = serve(token_file=file, **settings)
    row = next(iter(indexed))
    # said before anything is tried
    assert ("label" in client.get("/v1/token", headers=head).json()["may"]) == (status == 200)
    assert client.put(f"{SETS}/s", json={"ids": [row]}, headers=head).status_code == status
    assert client.post(f"{SETS}/s/labels", json={"ids": [row], "label": "x"}, headers=head).status_code == status
    found = client.get(SETS, headers=head)
    assert found.status_code == 200
    assert [one["author"] for one in found.json()] == ["anna"] * (status == 200)
