"""Making and opening an index."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.errors import IndexNotFoundError, RetrError, UsageError
from retr.index.store import Store

FAKE = EncoderInfo("fake", 8, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")


def test_a_new_index_is_empty(make):
    store = make()
    assert (len(store), store.n_total, store.version, store.schema.names) == (0, 0, 1, ["id"])
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(store.manifest.created)
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=5)
    found = store.search(np.ones((2, 8), np.float32), 3)
    assert (found.rows == -1).all()
    assert np.isneginf(found.scores).all()
    assert store.table().num_rows == 0
    assert store.skipped().schema == pa.schema([("path", pa.string()), ("reason", pa.string())])
    assert store.vectors().shape == (0, 8)
    assert store.rows_of(["a"]).tolist() == [-1]
    assert store.where("id = 'a'").shape == (0,)
    assert store.check() == []


def test_creating_over_an_index_is_refused(make):
    store = make(3)
    with pytest.raises(RetrError, match=r"^there is an index at .*index' already; add to it, or choose another place$"):
        Store.create(store.path, encoder=store.manifest.encoder)
    assert len(Store.open(store.path)) == 3


def test_an_index_is_made_where_no_folder_is_yet(tmp_path):
    path = tmp_path / "wards" / "eye" / "index"
    assert not Store.exists(path)
    store = Store.create(str(path), encoder=FAKE, group="patient", dtype="float16")
    assert Store.exists(path)
    assert (store.path, store.manifest.group, store.manifest.dtype) == (path, "patient", "float16")
    assert store.vectors().dtype == np.float16
    assert Store.open(str(path)).uuid == store.uuid == str(uuid.UUID(store.uuid))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "^vectors are stored as 'float32' or 'float16', got 'float64'"),
        ({"encoder": replace(FAKE, dim=0)}, "^an embedding needs at least one dimension, got 0"),
    ],
)
def test_an_index_of_no_use_is_not_made(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        Store.create(tmp_path / "index", **{"encoder": FAKE, **options})
    assert not (tmp_path / "index").exists()


def test_an_index_of_one_dimension_is_one(tmp_path):
    assert Store.create(tmp_path / "index", encoder=replace(FAKE, dim=1)).vectors().shape == (0, 1)


def test_a_store_says_what_it_is(make):
    store = make(3, similarity="dot")
    assert repr(store) == f"Store({str(store.path)!r}, version 2, 3 rows x 8 float32, dot, fake)"


@pytest.mark.parametrize("where", ["nowhere", "index/lock"])
def test_no_index_says_how_to_make_one(make, tmp_path, where):
    make(1)
    with pytest.raises(IndexNotFoundError, match="retr index build"):
        Store.open(tmp_path / where)


def test_opening_loads_neither_faiss_nor_torch(make):
    store = make(30)
    code = (
        "import sys, numpy as np; from retr.index.store import Store; s = Store.open(sys.argv[1]);"
        "s.search(s.vectors()[:1], 3, where='age > 3');"
        "assert not {'faiss', 'torch', 'onnxruntime', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)
