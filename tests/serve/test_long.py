"""What takes longer than a search: what a hit rests on, and evaluations as jobs."""

from __future__ import annotations

import io
import threading

import pytest
from patience import LONG, until
from PIL import Image

from retr import Query, UsageError
from retr.serve.batching import Busy
from retr.serve.jobs import Jobs
from retr.serve.tokens import make_token


def finished(client, job, **options):
    def asked():
        return client.get(f"/v1/jobs/{job}", **options).json()

    until(lambda: asked()["status"] in {"done", "failed"}, every=0.02)
    return asked()


def test_what_a_hit_rests_on_is_a_picture_of_it(serve, indexed, png):
    client = serve()
    held = client.post("/v1/uploads", content=png(3)).json()["upload"]
    row = next(iter(indexed))
    asked = {"question": {"parts": [{"upload": held}]}, "id": row, "size": 32}
    answer = client.post("/v1/indexes/small/explain", json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    shown = Image.open(io.BytesIO(answer.content))
    found = indexed.explain(Query.image(png(3)), row)
    assert shown.tobytes() == found.overlay(32).tobytes()
    assert (answer.headers["x-retr-way"], answer.headers["x-retr-peak"]) == (found.way, f"{found.peak:.3f}")
    # laid over the picture it gives the same
    layer = Image.open(io.BytesIO(client.post("/v1/indexes/small/explain", json={**asked, "layer": True}).content))
    assert layer.size == shown.size
    picture = found.picture.resize(layer.size)
    picture.paste(layer, mask=layer)
    assert picture.tobytes() == shown.tobytes()
    assert client.post("/v1/indexes/small/explain", json={**asked, "id": "none"}).status_code == 404
    client.app.state.retr.indexes["small"].explaining.acquire()
    assert client.post("/v1/indexes/small/explain", json=asked).status_code == 503


def test_what_a_hit_of_a_sets_question_rests_on(serve, indexed, png):
    client = serve()
    rows = list(indexed)
    indexed.sets.save("by a picture", rows[:1], question=Query.image(png(30)), author="anna")
    indexed.sets.save("by a row", rows[:1], question=Query.id(rows[2]), author="anna")
    indexed.sets.save("by none", rows[:1], author="anna")
    for name, meant in (("by a picture", Query.image(png(30))), ("by a row", Query.id(rows[2]))):
        answer = client.post("/v1/indexes/small/explain", json={"set": name, "id": rows[1], "size": 32})
        shown = Image.open(io.BytesIO(answer.content))
        assert shown.tobytes() == indexed.explain(meant, rows[1]).overlay(32).tobytes()
    for wrong in ({"set": "by none"}, {"set": "nobody's"}, {}, {"set": "x", "question": {"parts": [{"id": rows[0]}]}}):
        assert client.post("/v1/indexes/small/explain", json={"id": rows[1], **wrong}).status_code in {404, 422}


def test_an_evaluation_is_a_job_whose_result_is_the_command_lines(serve, indexed):
    client = serve()
    begun = client.post("/v1/indexes/small/evaluations", json={"task": "retrieval", "label": "label"})
    assert begun.status_code == 202
    told = finished(client, begun.json()["job"])
    assert told["status"] == "done"
    assert told["result"]["metrics"] == indexed.evaluate("retrieval", "label").to_json()["metrics"]
    begun = client.post("/v1/indexes/small/evaluations", json={"task": "retrieval", "label": "none"})
    told = finished(client, begun.json()["job"])
    assert (told["status"], told["result"]) == ("failed", None)
    assert "none" in told["error"]


def test_findings_are_a_job_too(serve, indexed):
    client = serve()
    begun = client.post("/v1/indexes/small/findings", json={"kind": "outliers", "n": 3}).json()
    found = indexed.outliers(3)
    assert finished(client, begun["job"])["result"] == {
        "title": found.title,
        "version": indexed.version,
        "rows": list(found),
        "notes": list(found.notes),
    }
    for wrong in ({"kind": "suspects"}, {"kind": "outliers", "label": "label"}, {"kind": "leaks"}):
        assert client.post("/v1/indexes/small/findings", json=wrong).status_code == 422


def test_a_job_is_told_to_whom_it_belongs(serve, tmp_path):
    file = tmp_path / "tokens"
    anna, ben = ({"authorization": f"Bearer {make_token(file, name, frozenset({'read'}))}"} for name in ("anna", "ben"))
    client = serve(token_file=file)
    asked = {"task": "retrieval", "label": "label"}
    job = client.post("/v1/indexes/small/evaluations", json=asked, headers=anna).json()["job"]
    assert client.get(f"/v1/jobs/{job}", headers=ben).status_code == 422
    assert finished(client, job, headers=anna)["status"] == "done"


def test_jobs_are_few_one_at_a_time_and_forgotten():
    jobs, go = Jobs(waiting=2, kept=3), threading.Event()

    def work():
        go.wait(LONG)
        return {"done": True}

    names = [jobs.begin("anna", work) for _ in range(2)]
    with pytest.raises(Busy):
        jobs.begin("anna", work)
    assert [jobs.of(name, "anna", str).status for name in names][1] == "waiting"
    go.set()
    for _ in range(5):
        until(lambda: jobs.of(names[-1], "anna", str).status == "done")
        names.append(jobs.begin("anna", dict))
    until(lambda: jobs.of(names[-1], "anna", str).status == "done")
    with pytest.raises(UsageError, match="no job"):
        jobs.of(names[0], "anna", str)
    assert jobs.of(names[-1], "anna", str).result == {}

    def fault():
        raise KeyError("patient Müller")

    name = jobs.begin("anna", fault)
    until(lambda: jobs.of(name, "anna", str).status == "failed")
    assert jobs.of(name, "anna", str).error == "internal error (KeyError)"
    jobs.close()
