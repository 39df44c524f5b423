"""The API from outside: answers are those of the index, errors are one kind of object, tokens hold."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from patience import until
from PIL import Image

from retr import Index
from retr.serve.app import create_app
from retr.serve.audit import verify
from retr.serve.settings import Settings
from retr.serve.tokens import make_token

JSON = {"content-type": "application/json"}


def search(client, parts, **options):
    answer = client.post("/v1/indexes/small/search", json={"questions": [{"parts": parts}], **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["answers"][0]


def test_an_index_of_vectors_from_elsewhere_is_ready(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    table = pa.table({"id": [str(number) for number in range(9)]})
    Index.from_vectors(vectors, table, tmp_path / "x", encoder="ours", fingerprint="1").close()
    with TestClient(create_app({"x": tmp_path / "x"}, Settings()), base_url="http://localhost:7860") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        asked = {"questions": [{"parts": [{"vector": vectors[3].tolist()}]}], "k": 1}
        assert client.post("/v1/indexes/x/search", json=asked).json()["answers"][0]["hits"][0]["id"] == "3"
        asked = {"questions": [{"parts": [{"text": "drusen"}]}], "k": 1}
        assert client.post("/v1/indexes/x/search", json=asked).status_code in {422, 503}


def test_it_lives_is_ready_and_counts(serve):
    client = serve()
    assert client.get("/healthz").json() == {"status": "ok"}
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert b'retr_index_rows{index="small"} 12' in client.get("/metrics").content


def test_a_question_is_answered_as_the_index_answers(serve, indexed, png):
    client = serve()
    data = png(3)
    held = client.post("/v1/uploads", content=data).json()
    assert held["width"] > 0
    row = next(iter(indexed))
    for parts, own in [
        ([{"data": base64.b64encode(data).decode()}], {"image": data}),
        ([{"upload": held["upload"]}], {"image": data}),
        ([{"id": row}], {"id": row}),
        ([{"vector": [1.0] * 56}], {"vector": [1.0] * 56}),
    ]:
        for options in ({"k": 5}, {"k": 3, "where": "age > 40"}, {"k": 4, "one_per": "patient"}, {"k": 2, "offset": 2}):
            given, expected = search(client, parts, **options), indexed.search(**own, **options).to_json()
            assert {**given, "query": ""} == json.loads(json.dumps({**expected, "query": ""}))


def test_a_crop_is_another_question(serve, indexed, png):
    client = serve()
    whole = {"data": base64.b64encode(png(3)).decode()}
    assert search(client, [whole]) != search(client, [{**whole, "crop": [0.0, 0.0, 0.4, 0.4]}])
    answer = client.post(
        "/v1/indexes/small/search", json={"questions": [{"parts": [{**whole, "crop": [0.9, 0, 0.4, 0.4]}]}]}
    )
    assert (answer.status_code, "0 to 1" in answer.json()["error"]["message"]) == (422, True)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"questions": []}, 422, "questions"),
        ({"questions": [{"parts": [{"id": "none"}]}]}, 404, "'none'"),
        ({"questions": [{"parts": [{"id": "x"}]}], "wehre": "age > 40"}, 422, "wehre"),
        ({"questions": [{"parts": [{"text": "drusen"}]}]}, 422, "'fake'"),
        ({"questions": [{"parts": [{"vector": [1.0]}]}]}, 422, "length 56"),
        ({"questions": [{"parts": [{"vector": [1.0] * 56}]}], "where": "age >"}, 422, "age >"),
        ({"questions": [{"parts": [{"data": "!"}]}]}, 422, "base64"),
        ({"questions": [{"parts": [{"data": "AAAA"}]}]}, 422, "not an image"),
        ({"questions": [{"parts": [{"upload": "gone"}]}]}, 422, "not held"),
        ({"questions": [{"parts": [{}]}]}, 422, "data or as an upload"),
    ],
)
def test_what_cannot_be_meant_is_one_object_that_says_why(serve, body, status, said):
    answer = serve().post("/v1/indexes/small/search", json=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert said in answer.json()["error"]["message"]
    assert "/" not in answer.json()["error"]["message"].replace("age >", "")


def test_rows_facets_and_pictures(serve, indexed, png):
    client = serve()
    rows = client.get("/v1/indexes/small/rows", params={"where": "label = 'glaucoma'", "limit": 2, "offset": 1}).json()
    assert (rows["total"], len(rows["rows"])) == (6, 2)
    facets = {one["column"]: one for one in client.get("/v1/indexes/small/facets").json()["facets"]}
    assert facets["label"]["values"] == [["glaucoma", 6], ["healthy", 6]]
    assert "sha256" not in facets
    under = client.get("/v1/indexes/small/facets", params={"where": "label = 'healthy'"}).json()
    assert under["total"] == 6
    one = rows["rows"][0]["id"]
    assert client.get("/v1/indexes/small/row", params={"id": one}).json()["id"] == one
    picture = client.get("/v1/indexes/small/picture", params={"id": one, "size": 32})
    assert picture.headers["content-type"] == "image/jpeg"
    assert client.get("/v1/indexes/small/picture", params={"id": "../../etc/passwd"}).status_code == 404
    assert client.get("/v1/indexes/none/rows").status_code == 404


def test_a_picture_is_named(serve, png, tmp_path, monkeypatch):
    asked = {"pictures": [{"data": base64.b64encode(png(3)).decode()}], "by": "label", "k": 3}
    (answer,) = serve().post("/v1/indexes/small/classify", json=asked).json()["answers"]
    assert {one["label"] for one in answer["classes"]} <= {"healthy", "glaucoma"}
    (tmp_path / "own").write_text("- secret of the server")
    monkeypatch.chdir(tmp_path)
    for labels in ("/etc/passwd", "own", "../own", "~"):
        answer = serve().post("/v1/indexes/small/classify", json={**asked, "by": None, "labels": labels})
        assert (answer.status_code, "label set" in answer.json()["error"]["message"]) == (422, True)
        assert "secret" not in answer.text


def test_only_tokens_are_answered_and_only_what_they_may(serve, tmp_path):
    file = tmp_path / "tokens"
    token = make_token(file, "anna", frozenset({"read"}))
    client = serve(token_file=file)
    assert client.get("/v1/indexes").status_code == 401
    assert client.get("/v1/indexes", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/v1/indexes", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert client.get("/").status_code == 200, "the page itself asks for the token"
    wrong = [client.get("/v1/indexes", headers={"authorization": f"Bearer {n}"}).status_code for n in range(300)]
    assert set(wrong) == {401, 429}
    assert wrong.count(401) < 60
    assert client.get("/v1/indexes", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_every_question_is_written_down_without_identifiers(serve, tmp_path, indexed, png):
    client = serve(audit_file=tmp_path / "audit")
    row = next(iter(indexed))
    search(client, [{"id": row}, {"data": base64.b64encode(png(5)).decode(), "weight": 0.5}])
    client.get("/v1/indexes/small/picture", params={"id": row})
    text = (tmp_path / "audit").read_text()
    assert [json.loads(line)["action"] for line in text.splitlines()] == ["search", "picture"]
    assert not any(one in text for one in indexed)
    assert verify(tmp_path / "audit").problem is None


def test_every_part_of_a_case_that_is_shown_is_written_down(serve, tmp_path, indexed):
    client = serve(audit_file=tmp_path / "audit")
    body = {"questions": [{"parts": [{"id": row} for row in list(indexed)[:3]]}], "item": "patient", "k": 3}
    [answer] = client.post("/v1/indexes/small/search", json=body).json()["answers"]
    shown = {hit["id"] for hit in answer["hits"]} | {part["id"] for parts in answer["parts"] for part in parts}
    entry = json.loads((tmp_path / "audit").read_text())
    assert len(shown) > len(answer["hits"])
    assert len(entry["ids"][0]) == len(set(entry["ids"][0])) == len(shown)


def test_what_a_writer_commits_is_served_without_a_new_start(serve, indexed, monkeypatch):
    monkeypatch.setattr("retr.serve.served._LOOK_EVERY", 0.0)
    client = serve()
    assert client.get("/v1/indexes/small").json()["rows"] == 12
    indexed.delete(ids=[next(iter(indexed))])
    assert client.get("/v1/indexes/small").json()["rows"] == 11


def test_the_page_is_a_few_files_under_fixed_names(serve):
    client = serve()
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("main.js", "style.css", "icon.svg"):
        assert client.get(f"/page/{name}").status_code == 200
    for name in ("../app.py", "..%2fapp.py", "app.py", "", "%2e%2e/app.py"):
        assert client.get(f"/page/{name}").status_code in {404, 307}
    again = client.get("/page/main.js", headers={"if-none-match": client.get("/page/main.js").headers["etag"]})
    assert again.status_code == 304


def test_frames_and_windows_of_an_upload_and_of_a_row(serve, indexed, volume, make_encoder, tmp_path):
    archive = tmp_path / "archive"
    (archive / "scan.dcm").write_bytes(volume)
    Index.build(archive, indexed.path, encoder=make_encoder(), metadata=archive / "labels.csv", group="patient")
    client = serve()
    place = f"/v1/uploads/{client.post('/v1/uploads', content=volume).json()['upload']}"

    def seen(url, **asked):
        answer = client.get(url, params=asked)
        assert answer.status_code == 200, answer.text
        return answer, np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))

    first, pixels = seen(place)
    assert first.headers["x-retr-frame"] == "1 3"
    centre, width = (float(one) for one in first.headers["x-retr-window"].split())
    assert (round(centre), round(width)) == (2000, 3999)
    assert pixels[5].mean() == pytest.approx(64, abs=3)
    third, pixels = seen(place, frame=3, center=3000, width=10)
    assert third.headers["x-retr-frame"] == "3 3"
    assert pixels[25].mean() == pytest.approx(127, abs=5)
    assert pixels[5].mean() < 4
    for wrong in ({"frame": 4}, {"center": 5}, {"center": "nan", "width": 1}, {"center": 1, "width": 0}, {"frame": 0}):
        assert client.get(place, params=wrong).status_code == 422
    # the same of a row of the archive, which is one frame of its file
    row = "/v1/indexes/small/picture"
    second, pixels = seen(row, id="scan.dcm#2")
    assert second.headers["x-retr-frame"] == "2 3"
    assert pixels[15].mean() == pytest.approx(127, abs=3)
    assert (
        seen(row, id="scan.dcm#2", frame=3, center=3000, width=10)[1] == seen(place, frame=3, center=3000, width=10)[1]
    ).all()
    tag = {"if-none-match": second.headers["etag"]}
    assert client.get(row, params={"id": "scan.dcm#2"}, headers=tag).status_code == 304
    assert client.get(row, params={"id": "scan.dcm#2", "frame": 3}, headers=tag).status_code == 200
    assert client.get(row, params={"id": "scan.dcm#2", "frame": 4}).status_code == 422
    # colour has no window
    assert "x-retr-window" not in seen(row, id=next(iter(indexed)), center=5, width=1)[0].headers
