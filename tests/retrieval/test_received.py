"""Notes and fitted parts of an index that others handed over: used, or refused in one line."""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.index.accelerators.config import IVF
from retr.index.errors import IndexCorruptError, RetrError
from retr.index.plan import describe, tuned
from retr.index.tune import Point, Tuning
from retr.retrieval import novelty
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.classify import calibration, probe, staleness
from retr.retrieval.heads.adapted import head_of
from retr.retrieval.labels.trained_rows import HEAD_FILE, noted_head
from retr.retrieval.text import align

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retr.index.store import Store

ODD = [None, "x", 10**30, [[]]]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Store, Store]:
    """A store with every kind of side data, and one that was adapted from it."""
    folder = tmp_path_factory.mktemp("made") / "archive"
    folder.mkdir()
    lines = ["path,label,patient,report"]
    for number in range(24):
        picture(number).save(folder / f"{number}.png")
        label = ("healthy", "glaucoma")[number % 2]
        lines.append(f"{number}.png,{label},P{number // 2},a {label} disc")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_STATE_DIR", str(folder.parent / "state"))
        options = {"metadata": folder / "labels.csv", "group": "patient"}
        index = Index.build(folder, folder.parent / "x.retr", encoder=FakeEncoder(), **options)
        adapted = index.adapt("label", folder.parent / "y.retr").store
        index.calibrate("label")
        index.align("report")
        with index.store.writer() as writer:
            curve = [Point(IVF(), {"image": 0.9}, 0.001)]
            writer.note("tuning", Tuning(IVF(), 0.9, {"image": 0.9}, 0.001, 10, curve).to_json())
            return writer.commit(), adapted


def changed(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(data)
    inner = data
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return data


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def read_notes(store: Store) -> None:
    describe(store.manifest)
    tuned(store.manifest)
    noted_head(store)
    BuildNotes.of(store)
    for method in ("probe", "neighbours:5"):
        found, _ = calibration.find_calibration(store, method, "label")
        if found is not None:
            assert found.scale is not None
    novelty.find_novelty(store)
    calibration.default_neighbours(store, "label")


def test_no_value_in_a_note_makes_more_than_one_line(stores, monkeypatch):
    monkeypatch.setattr(staleness, "data_version", lambda *_: "the same")
    refused = 0
    for store in stores:
        read_notes(store)
        extra = dict(store.manifest.extra)
        for at in places(extra):
            for value in ODD:
                noted = changed(extra, at, value)
                received = copy.copy(store)
                received.manifest = dataclasses.replace(store.manifest, extra=noted)
                try:
                    read_notes(received)
                except RetrError:
                    refused += 1
    assert refused > 80


def variants(data: bytes) -> Iterator[bytes]:
    """Return the arrays of an npz with one of them missing, of another shape, type or value; and broken bytes."""
    yield data[: len(data) // 2]
    yield b""
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    for name, array in arrays.items():
        odd = array.copy()
        if odd.dtype.kind == "f" and odd.size:
            odd.flat[0] = np.nan
        for other in (None, array[..., :-1], array[None], array.astype(complex), odd, np.zeros(0), np.array("x")):
            sink = io.BytesIO()
            np.savez(
                sink, **{**arrays, name: other} if other is not None else {n: a for n, a in arrays.items() if n != name}
            )
            yield sink.getvalue()


@pytest.mark.parametrize(
    ("which", "file", "find"),
    [
        (0, align.FILE, align.find_bridge),
        (0, probe.file_name("label"), lambda store: probe.find_probe(store, "label")),
        (1, HEAD_FILE, head_of),
    ],
)
def test_a_fitted_part_is_whole_or_refused(stores, monkeypatch, which, file, find):
    monkeypatch.setattr(probe, "data_version", lambda *_: found.data_version)
    store = stores[which]
    if which == 0 and file.startswith("probe"):
        found = probe.Probe.from_bytes(store.file(file))
    assert find(store) is not None
    refused = tried = 0
    for data in variants(store.file(file)):
        received = copy.copy(store)
        received._files = {**store._files, file: data}
        monkeypatch.setattr(received, "file", received._files.__getitem__)
        tried += 1
        try:
            find(received)
        except IndexCorruptError:
            refused += 1
    # an array that changed nothing is whole
    assert refused > 0.7 * tried
