"""Accelerators on GPUs: what they propose is checked as everywhere. Stand-ins for faiss's classes, and a real GPU."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest
from gpu_standin import CUVS_SIGNATURES, MAX_K, Gpus

from retr.index import tune
from retr.index.accelerators.config import HNSW, IVF, Cagra, Flat, to_json
from retr.index.accelerators.faiss_index import train
from retr.index.disk.manifest import TUNING
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.gpu import accelerators, devices
from retr.index.store import Store

faiss = pytest.importorskip("faiss")
IS_GPU_BUILD = hasattr(faiss, "StandardGpuResources")
N_GPUS = faiss.get_num_gpus() if IS_GPU_BUILD else 0
HAS_CAGRA = hasattr(faiss, "GpuIndexCagra")
N = 12_000
KINDS = [IVF(codec="sq8", lists=32, probes=16), IVF(codec="fp16", lists=32, probes=16), Cagra()]


def give(store: Store, config) -> Store:
    """Give a store the accelerator that ``tune`` would have chosen."""
    with store.writer() as writer:
        for position, segment in enumerate(writer.store.segments):
            large = len(segment) >= N and isinstance(config, IVF | HNSW)
            build = (lambda path, s=segment: train(s.vectors, config, path, budget=1 << 28)) if large else None
            writer.accelerate(position, build)
        writer.note(TUNING, {"index": to_json(config), "recall": 0.97})
        return writer.commit()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A large segment, and a small fresh one."""
    info = EncoderInfo("fake", 24, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
    path = tmp_path_factory.mktemp("gpu") / "index"
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 24))
    vectors = centres[rng.integers(0, 60, N + 500)] + 0.6 * rng.standard_normal((N + 500, 24))
    table = pa.table({"id": [f"{i:05d}" for i in range(N + 500)], "patient": [f"p{i // 4}" for i in range(N + 500)]})
    with Store.create(path, encoder=info).writer() as writer:
        writer.append(table.slice(0, N), vectors[:N])
        writer.commit()
        writer.append(table.slice(N), vectors[N:])
        writer.commit()
    return path


def recall(found, truth) -> float:
    return float(np.mean(found.scores >= truth.scores[:, -1:]))


def compare(path, config, device: str, count: int) -> None:
    store = give(Store.open(path), config)
    placed = Store.open(path)
    placed.place(device)
    queries = np.random.default_rng(1).standard_normal((40, 24)).astype(np.float32)
    exclude = [np.array([i * 7]) for i in range(40)]
    for options in ({"k": 10}, {"k": 10, "exclude": exclude}):
        truth = store.search(queries, **options, exact=True)
        fast = placed.search(queries, **options)
        assert not fast.exact
        assert fast.note == "approximate: recall 0.970 when tuned"
        assert recall(fast, truth) > 0.93, options
        assert all(len(set(row)) == len(row) for row in fast.rows.tolist())
        assert not any(np.isin(fast.rows[i], options["exclude"][i]).any() for i in range(40) if "exclude" in options)
        # every score is that of the exact search, whatever the accelerator's own was
        for number in range(40):
            both = np.isin(fast.rows[number], truth.rows[number])
            at = [truth.rows[number].tolist().index(row) for row in fast.rows[number, both].tolist()]
            np.testing.assert_array_equal(fast.scores[number, both], truth.scores[number, at])


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"k": 10, "mask": np.random.default_rng(2).random(N + 500) < 0.3},
        {"k": 10, "exclude": [np.arange(i * 7, i * 7 + 60) for i in range(3)]},
        {"k": 5, "one_per": "patient"},
        {"k": 5, "where": "patient < 'p4'"},
        {"k": 40},
        {"k": 3, "deleted": True},
    ],
    ids=" ".join,
)
def test_what_was_not_measured_is_searched_exactly_on_the_same_gpus(path, tmp_path, monkeypatch, config, options):
    gpus = Gpus(monkeypatch, 1, cuvs=True)
    options = dict(options)
    if options.pop("deleted", False):
        path = shutil.copytree(path, tmp_path / "index")
        with Store.open(path).writer() as writer:
            writer.delete(np.arange(0, N, 11))
            writer.commit()
    store = give(Store.open(path), config)
    placed = Store.open(path)
    placed.place("cuda")
    queries = np.random.default_rng(1).standard_normal((3, 24)).astype(np.float32)
    if len(placed) == placed.n_total:
        assert not placed.search(queries, 10).exact
    gpus.asked.clear()
    found = placed.search(queries, **options)
    assert gpus.asked
    assert found.exact
    assert found.note is None
    np.testing.assert_array_equal(found.rows, store.search(queries, **options, exact=True).rows)


def test_where_vectors_do_not_fit_beside_accelerators_the_cpu_searches_exactly(path, monkeypatch):
    Gpus(monkeypatch, 1, cuvs=True)
    store = give(Store.open(path), KINDS[0])
    store.place("cuda")
    queries = np.ones((2, 24), np.float32)
    assert not store.search(queries, 5).exact

    def refuse(*given):
        raise RetrError("the vectors do not fit")

    monkeypatch.setattr("retr.index.gpu.placement._place_vectors", refuse)
    found = store.search(queries, 40)
    assert found.exact
    assert "searched exactly on the CPU: the vectors do not fit" in found.note
    np.testing.assert_array_equal(found.rows, store.search(queries, 40, exact=True).rows)
    assert not store.search(queries, 5).exact


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("config", KINDS, ids=str)
def test_what_gpus_propose_is_checked(path, monkeypatch, config, count):
    gpus = Gpus(monkeypatch, count, cuvs=True)
    compare(path, config, "cuda:all", count)
    assert set(gpus.placed) == set(range(count))
    assert max(gpus.asked) <= MAX_K


def test_a_row_that_is_proposed_twice_is_given_once(path, monkeypatch):
    gpus = Gpus(monkeypatch, 1, cuvs=True)
    gpus.repeats = True
    compare(path, Cagra(), "cuda", 1)


def test_a_batch_that_does_not_fit_is_halved(path, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    gpus.batch = 6
    compare(path, KINDS[1], "cuda", 1)


@pytest.mark.parametrize("config", [IVF(codec="rabitq", lists=32), HNSW()], ids=str)
def test_what_has_no_form_on_gpus_is_searched_exactly_there(path, monkeypatch, config):
    gpus = Gpus(monkeypatch, 1)
    placed = give(Store.open(path), config)
    placed.place("cuda")
    found = placed.search(np.ones((2, 24), np.float32), 5)
    assert gpus.asked
    assert found.exact
    monkeypatch.setattr("retr.index.gpu.devices.worthwhile", lambda *_: True)
    placed.place("auto")
    gpus.asked.clear()
    assert not placed.search(np.ones((2, 24), np.float32), 5).exact
    assert not gpus.asked


def test_cagra_without_cuvs_and_without_a_gpu_is_exact_and_says_so(path, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    store = give(Store.open(path), Cagra())
    plain = store.search(np.ones((2, 24), np.float32), 5)
    assert plain.exact
    assert plain.note == "searched exactly: CAGRA runs on a GPU, for a few hundred rows"
    store.place("cuda")
    found = store.search(np.ones((2, 24), np.float32), 5)
    assert gpus.asked
    assert "needs faiss with cuVS" in found.note
    np.testing.assert_array_equal(found.rows, plain.rows)


def test_a_damaged_accelerator_leaves_exact_search_on_the_gpu(path, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    store = give(Store.open(path), KINDS[0])
    (store.path / store.manifest.segments[0].accelerator.file).write_bytes(b"gone")
    damaged = Store.open(path)
    damaged.place("cuda")
    found = damaged.search(np.ones((2, 24), np.float32), 5)
    assert gpus.asked
    assert found.exact
    assert "run `retr index tune` again" in found.note


@pytest.mark.parametrize("config", KINDS[1:], ids=str)
def test_accelerators_that_do_not_fit(path, monkeypatch, config):
    Gpus(monkeypatch, 2, free=1 << 20, cuvs=True)
    store = give(Store.open(path), config)
    store.place("cuda")
    with pytest.raises(RetrError, match=f"the {type(config).__name__} accelerators of 12500 rows need .* GB of cuda:0"):
        store.search(np.ones((2, 24), np.float32), 5)


def test_where_a_search_ran_is_said_beside_how(path, monkeypatch):
    Gpus(monkeypatch, 1, free=1 << 20)
    monkeypatch.setattr(devices, "worthwhile", lambda *_: True)
    store = give(Store.open(path), KINDS[0])
    store.place("auto")
    found = store.search(np.ones((2, 24), np.float32), 5)
    assert not found.exact
    assert found.note.startswith("approximate: recall 0.970 when tuned; searched on the CPU: the IVF accelerators of")


def test_what_lies_on_gpus_follows_the_kind_that_is_searched(path, monkeypatch):
    gpus = Gpus(monkeypatch, 1, cuvs=True)
    store = give(Store.open(path), Cagra())
    store.place("cuda")
    for _ in range(2):
        store.search(np.ones((2, 24), np.float32), 5)
        assert len(gpus.placed) == 1
    with store.writer() as writer:
        writer.store.place("cuda")
        for effort in (32, 64):
            writer.note(TUNING, {"index": to_json(Cagra(search_effort=effort)), "recall": 0.9})
            writer.preview().search(np.ones((2, 24), np.float32), 5)
    assert len(gpus.placed) == 2, "the effort of a search needs no other graph"


@pytest.mark.parametrize(("cuvs", "kind"), [(True, Cagra), (False, IVF)])
def test_tuning_on_a_gpu_tries_what_gpus_search(path, monkeypatch, cuvs, kind):
    gpus = Gpus(monkeypatch, 1, cuvs=cuvs)
    with give(Store.open(path), Flat()).writer() as writer:
        tuning = tune.tune(writer, recall=0.9, device="cuda")
    assert isinstance(tuning.config, kind)
    assert tuning.recall >= 0.9
    assert {type(point.config) for point in tuning.curve} == {kind}
    codecs = {getattr(point.config, "codec", None) for point in tuning.curve}
    assert len(gpus.placed) == 1 + len(codecs), "once for the truth, and once for what was tried"
    placed = Store.open(path)
    placed.place("cuda")
    assert f"approximate: recall {round(tuning.recall, 4):.3f}" in placed.search(np.ones((2, 24), np.float32), 5).note
    with Store.open(path).writer() as writer:
        assert tune.tune(writer, recall=0.9, device="auto").config.codec.startswith("rabitq")


@pytest.mark.skipif(not HAS_CAGRA, reason="faiss was built without cuVS")
@pytest.mark.parametrize("name", CUVS_SIGNATURES)
def test_the_stand_ins_of_cuvs_have_the_names_of_the_real_ones(name):
    for field in CUVS_SIGNATURES[name]:
        assert hasattr(getattr(faiss, name), field), field


@pytest.mark.skipif(not IS_GPU_BUILD or N_GPUS > 0, reason="needs faiss-gpu on a machine without a GPU")
@pytest.mark.parametrize("config", KINDS, ids=str)
def test_faiss_itself_takes_the_arguments_and_misses_only_the_gpu(path, config):
    if isinstance(config, Cagra) and not accelerators.has_cagra():
        pytest.skip("faiss was built without cuVS")
    store = give(Store.open(path), config)
    with pytest.raises(RetrError, match=r"taking the accelerators: .*Invalid GPU device 0"):
        accelerators.GpuAccelerators(store.segments, config, [0])


@pytest.mark.gpu
@pytest.mark.skipif(N_GPUS == 0, reason="faiss sees no GPU")
@pytest.mark.parametrize("config", KINDS, ids=str)
def test_a_real_gpu(path, config):
    if isinstance(config, Cagra) and not accelerators.has_cagra():
        pytest.skip("faiss was built without cuVS")
    compare(path, config, "cuda:all", N_GPUS)
