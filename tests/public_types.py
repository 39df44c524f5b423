"""What a type checker must see of the public names: read by mypy in `make check`, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import retr
import retr.encoders
from retr.index import Snapshot, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def answers(index: retr.Index, vectors: NDArray[np.float32]) -> None:
    """One question gives `Hits`, several a list."""
    query = retr.Query.id("a") * 2 + retr.Query.text("drusen") - retr.Query.vector(vectors[0])
    assert_type(query, retr.Query)
    assert_type(index.search(query), retr.Hits)
    assert_type(index.search(image="x.png", k=3, exclude_same="patient"), retr.Hits)
    assert_type(index.search(text="drusen"), retr.Hits)
    assert_type(index.search(id="a", where="age > 60"), retr.Hits)
    assert_type(index.search(vector=vectors[0], exact=True, offset=5, columns=["label"]), retr.Hits)
    assert_type(index.search([query]), list[retr.Hits])
    assert_type(index.search(vectors=vectors, k=3), list[retr.Hits])
    for hit in index.search(query):
        assert_type(hit, retr.Hit)
        assert_type(hit.id, str)
        assert_type(hit.score, float)
        assert_type(hit.metadata, dict[str, Any])
    hits = index.search(query)
    assert_type(hits[0], retr.Hit)
    assert_type(hits[:3], retr.Hits)
    assert_type(hits.ids, list[str])


def indexes() -> None:
    """What makes and opens an index gives an `Index`."""
    built = retr.Index.build("archive", "x.retr", encoder=retr.load_encoder("lite"))
    assert_type(built, retr.Index)
    assert_type(retr.Index.build("archive", "x.retr", frames=2, prune=True, group="patient", device="cpu"), retr.Index)
    assert_type(built.add("more", name="more", axis="coronal", types={"acc": "text"}), retr.BuildReport)
    assert_type(built.report, retr.BuildReport | None)
    assert_type(retr.Index.open("x.retr"), retr.Index)
    assert_type(built.picture("a"), retr.Picture)
    assert_type(retr.load_encoder("lite"), retr.encoders.BaseEncoder)
    assert_type(retr.Index.from_vectors([[1.0]], {"id": ["a"]}, encoder="mine", fingerprint="1"), retr.Index)
    assert_type(built.export("out"), int)
    with retr.Index.open("x.retr") as opened:
        assert_type(opened, retr.Index)
        assert_type(opened["a"], dict[str, Any])
        assert_type(list(opened), list[str])
    assert_type(built.encoder.info, retr.encoders.EncoderInfo)


def errors(error: retr.RetrError) -> None:
    """Errors have two halves."""
    assert_type(error.message, str)
    assert_type(error.hint, str | None)
    assert_type(retr.FilterError("", expression="", position=0).position, int)


def stores(path: str, vectors: NDArray[np.float32]) -> None:
    """A store is a snapshot that is searched; its writer commits stores."""
    store = Store.open(path)
    assert_type(store, Store)
    assert_type(store.newest(), Store)
    assert_type(store.search(vectors, 3).exact, bool)
    assert_type(Snapshot.open(path), Snapshot)
    with store.writer() as writer:
        assert_type(writer.store, Store)
        assert_type(writer.commit(), Store)
