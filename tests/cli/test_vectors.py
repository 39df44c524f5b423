"""``retr index import`` and ``retr index export``."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((6, 4)))
    lines = [f"scan{number},{'ab'[number % 2]},{number:03d}" for number in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["id,label,patient", *lines]))
    return ("--vectors", tmp_path / "v.npy", "--metadata", tmp_path / "t.csv")


def test_in_asked_and_out_and_in_again(retr, files, tmp_path):
    own = ("--encoder", "my-net", "--fingerprint", "run-7", "--group", "patient")
    done = retr("index", "import", *files, *own, "--index", tmp_path / "i", "--json")
    assert done.code == 0, done.err
    held = done.json[0]
    assert (held["rows"], held["dim"], held["encoder"], held["group"]) == (6, 4, "my-net", "patient")
    answer = retr("query", "--id", "scan2", "-k", 3, "--index", tmp_path / "i", "--exclude-same", "patient", "--json")
    assert [hit["path"] for hit in answer.json[0]["hits"]] == [hit["id"] for hit in answer.json[0]["hits"]]
    done = retr("query", "--image", "examples/hrf45/glaucoma/05_g.jpg", "--index", tmp_path / "i")
    assert done.code == 1
    assert "the index holds vectors of 'my-net', which is no encoder that can be loaded here" in done.err

    out = tmp_path / "out"
    assert retr("index", "export", out, "--index", tmp_path / "i", "--json").json == [{"rows": 6, "folder": str(out)}]
    again = ("--vectors", out / "vectors.npy", "--metadata", out / "metadata.parquet", "--index", tmp_path / "j")
    assert retr("index", "import", *again).code == 0
    same = retr("query", "--id", "scan2", "-k", 3, "--index", tmp_path / "j", "--exclude-same", "patient", "--json")
    assert same.out == answer.out
    done = retr("index", "export", out, "--index", tmp_path / "i")
    assert (done.code, done.out) == (2, "")
    assert "there is something at" in done.err


def test_what_is_missing_is_said(retr, files, tmp_path):
    done = retr("index", "import", *files, "--index", tmp_path / "i")
    assert done.code == 2
    assert done.err.startswith("error: nothing says which model the vectors are of; name an encoder")
    done = retr("index", "import", *files, "--encoder", "my-net", "--index", tmp_path / "i")
    assert done.code == 2
    assert "'my-net' needs a fingerprint" in done.err
    assert not (tmp_path / "i").exists()


def test_a_batch_of_vectors(retr, files, tmp_path):
    retr("index", "import", *files, "--encoder", "my-net", "--fingerprint", "1", "--index", tmp_path / "i")
    vector = np.load(tmp_path / "v.npy")[3].tolist()
    asked = json.dumps({"vector": vector}).encode()
    done = retr("query", "--batch", "-", "--index", tmp_path / "i", "-k", 1, "--json", stdin=asked)
    assert done.json[0]["hits"][0]["id"] == "scan3"
