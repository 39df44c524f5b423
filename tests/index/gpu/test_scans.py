"""Searches on GPUs: the answers of the CPU. The logic is tested everywhere, with stand-ins for faiss's GPU classes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from gpu_standin import MAX_K, SIGNATURES, Gpus

from retr.benchmarks.gpu import agree
from retr.index.accelerators.config import Flat
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError, UsageError
from retr.index.gpu import devices, faiss_scan, loops, torch_scan
from retr.index.store import Store
from retr.index.vectors import unit

faiss = pytest.importorskip("faiss")
IS_GPU_BUILD = hasattr(faiss, "StandardGpuResources")
N_GPUS = faiss.get_num_gpus() if IS_GPU_BUILD else 0
ENCODER = EncoderInfo("fake", 32, "cosine", "none", text=False, weights_sha256="0", preprocessing="none")
needs_gpu = pytest.mark.skipif(N_GPUS == 0, reason="faiss sees no GPU")


def make(path, similarity="cosine", dtype="float32", scale=1.0) -> Store:
    created = Store.create(path, encoder=replace(ENCODER, similarity=similarity), dtype=dtype)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 32))
    vectors = scale * (centres[rng.integers(0, 40, 5000)] + 0.5 * rng.standard_normal((5000, 32)))
    vectors[100:300] = vectors[100]
    table = pa.table({"id": [f"{i:05d}" for i in range(5000)], "patient": [f"p{i // 4}" for i in range(5000)]})
    with created.writer() as writer:
        writer.append(table.slice(0, 3000), vectors[:3000])
        writer.commit()
        writer.append(table.slice(3000), vectors[3000:])
        writer.delete(np.arange(0, 3000, 9))
        return writer.commit()


@pytest.fixture
def store(tmp_path, unmerged) -> Store:
    return make(tmp_path / "index")


def questions(store: Store) -> np.ndarray:
    queries = np.random.default_rng(1).standard_normal((30, 32)).astype(np.float32)
    queries[:5] = store.vectors(np.array([100, 101, 1, 4000, 2]))
    return queries


@pytest.fixture
def torch_on_the_cpu(monkeypatch):
    """``torch_on_the_cpu(count)``: torch sees so many GPUs, whose memory and arithmetic are the CPU's."""

    def pretend(count: int) -> None:
        Gpus(monkeypatch, 0)
        monkeypatch.setattr(devices, "torch_gpus", lambda: count)
        monkeypatch.setattr(torch_scan, "_device", lambda number: torch.device("cpu"))

    return pretend


def compare(store: Store, device: str) -> None:
    placed = Store.open(store.path)
    placed.place(device)
    queries = questions(store)
    mask = np.random.default_rng(2).random(store.n_total) < 0.6
    exclude = [np.random.default_rng(i).integers(0, store.n_total, 50) for i in range(30)]
    for options in (
        {"k": 10},
        {"k": 70},
        {"k": 3000},
        {"k": 10, "mask": mask, "exclude": exclude},
        {"k": 10, "where": "patient < 'p11'"},
        {"k": 10, "one_per": "patient", "min_score": 0.1},
    ):
        plain, fast = store.search(queries, **options), placed.search(queries, **options)
        assert all(map(agree, plain.rows, plain.scores, fast.rows, fast.scores))
        # ties are settled by id on either device, so the rows are the very same
        np.testing.assert_array_equal(fast.rows, plain.rows)
        assert fast.exact
        assert fast.note is None
    assert placed.placement.take(placed, Flat(), 1).scan is not None


@pytest.mark.parametrize(
    ("count", "device", "used"), [(1, "cuda", {0}), (3, "cuda:all", {0, 1, 2}), (2, "cuda:1", {1})]
)
def test_the_answers_are_those_of_the_cpu(store, monkeypatch, count, device, used):
    monkeypatch.setattr(faiss_scan, "_BATCH", 7)
    monkeypatch.setattr(faiss_scan, "_PART_BYTES", 900 * 32 * 4)
    gpus = Gpus(monkeypatch, count)
    compare(store, device)
    assert set(gpus.placed) == used
    assert len(gpus.placed) > len(used)
    assert gpus.asked
    assert max(gpus.asked) <= MAX_K


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("count", "device"), [(1, "cuda"), (3, "cuda:all")])
def test_torch_gives_the_answers_of_the_cpu(tmp_path, monkeypatch, torch_on_the_cpu, dtype, count, device):
    monkeypatch.setattr(torch_scan, "_TEMPORARY_BYTES", 300_000)
    monkeypatch.setattr(loops, "_TEMPORARY_BYTES", 300_000)
    monkeypatch.setattr(torch_scan, "_PIECE_BYTES", 70_000)
    torch_on_the_cpu(count)
    store = make(tmp_path / "index", dtype=dtype)
    compare(store, device)
    placed = Store.open(store.path)
    placed.place(device)
    # what is stored in float16 is scored on the GPU; what is not is scored again from what is stored
    queries = questions(store)
    none = [np.empty(0, np.int64)] * len(queries)
    scans = placed.placement.take(placed, Flat(), 1).scan(queries, None, none, 10)
    assert (scans.scores is None) == (dtype == "float32")


@pytest.mark.parametrize("number", [1, 3, 10, 100])
def test_the_best_groups_lie_in_the_best_runs(number):
    maxima = torch.from_numpy(np.random.default_rng(0).standard_normal((12 * torch_scan._RUN, 7)).astype(np.float32))
    values, groups = torch_scan._choose(maxima, number)
    truth = torch.topk(maxima.t(), number)
    torch.testing.assert_close(values, truth.values, rtol=0, atol=0)
    torch.testing.assert_close(groups, truth.indices)


@pytest.mark.parametrize("k", [1, 16, 64, 2048])
def test_no_dropped_row_is_above_the_bound(tmp_path, monkeypatch, torch_on_the_cpu, k):
    torch_on_the_cpu(1)
    monkeypatch.setattr(torch_scan, "_RUN", 2)
    store = make(tmp_path / "index")
    scan = torch_scan.TorchScan(store.blocks(), 32, 1.0, [0])
    queries = questions(store)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    allowed = np.random.default_rng(5).random(store.n_total) < 0.8
    found = scan(queries, allowed, [np.arange(3)] * len(queries), k)
    scores = queries.astype(np.float64) @ store.vectors(np.arange(store.n_total)).astype(np.float64).T
    scores[:, ~allowed] = -np.inf
    scores[:, :3] = -np.inf
    for number in range(len(queries)):
        assert found.rows[number].min() >= 0
        scores[number, found.rows[number]] = -np.inf
        assert scores[number].max() <= found.bound[number] + 1e-9


@pytest.mark.parametrize("by", ["faiss", "torch"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dot_products_that_float16_cannot_hold(tmp_path, monkeypatch, torch_on_the_cpu, scale, dtype, by):
    if dtype == "float16":
        scale = {1e-6: 1e-3, 1e6: 1e3}[scale]
    store = make(tmp_path / "index", "dot", dtype, scale)
    placed = Store.open(store.path)
    Gpus(monkeypatch, 1) if by == "faiss" else torch_on_the_cpu(1)
    placed.place("cuda")
    queries = questions(store) * np.float32(scale)
    plain, fast = store.search(queries, 10), placed.search(queries, 10)
    np.testing.assert_array_equal(fast.rows, plain.rows)


def test_a_second_look_stays_on_the_gpu(store, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    placed = Store.open(store.path)
    placed.place("cuda")
    # two hundred rows that tie leave no gap below the tenth
    query = store.vectors(np.array([100])).astype(np.float32)
    np.testing.assert_array_equal(placed.search(query, 10).rows, store.search(query, 10).rows)
    assert len(gpus.asked) == 2
    assert gpus.asked[0] < gpus.asked[1] <= MAX_K


def test_a_narrow_filter_is_scanned_on_the_gpu_as_far_as_it_reaches(store, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    placed = Store.open(store.path)
    placed.place("cuda")
    for share, reached in ((0.1, True), (0.02, False)):
        gpus.asked.clear()
        mask = np.random.default_rng(0).random(5000) < share
        plain, fast = (each.search(questions(store), 10, mask=mask) for each in (store, placed))
        np.testing.assert_array_equal(fast.rows, plain.rows)
        assert bool(gpus.asked) == reached


def test_a_batch_that_does_not_fit_is_halved(store, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    gpus.batch = 4
    compare(store, "cuda")


def test_no_memory_for_one_query_is_said_in_one_line(store, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    gpus.batch = 0
    store.place("cuda")
    with pytest.raises(RetrError, match="searching: it is out of memory") as caught:
        store.search(questions(store), 5)
    assert "\n" not in str(caught.value)


def test_vectors_that_do_not_fit_are_refused_or_stay_on_the_cpu(store, monkeypatch):
    Gpus(monkeypatch, 2, free=devices.SPARE_BYTES + 1000)
    store.place("cuda:1")
    with pytest.raises(RetrError, match=r"cuda:1, which has 3\.2 GB free; spread"):
        store.search(questions(store), 5)
    monkeypatch.setattr(devices, "worthwhile", lambda *_: True)
    store.place("auto")
    found = store.search(questions(store), 5)
    assert found.exact
    assert found.note is not None
    assert found.note.startswith("searched on the CPU: ")


def test_auto_counts_what_the_cpu_has_been_asked(store, monkeypatch):
    gpus = Gpus(monkeypatch, 1)
    monkeypatch.setattr(devices, "_AUTO_PRODUCTS", 300 * 5000 * 32)
    store.place("auto")
    for n, there in ((30, False), (257, False), (30, True), (1, True)):
        store.search(np.ones((n, 32), np.float32), 3)
        assert bool(gpus.placed) == there


def test_auto_leaves_small_calls_alone():
    assert not devices.worthwhile(1, 10**9, 1024)
    assert not devices.worthwhile(4096, 100_000, 512)
    assert devices.worthwhile(4096, 1_000_000, 512)


def test_without_a_gpu_the_choice_is_said_or_quietly_the_cpu(store, monkeypatch):
    Gpus(monkeypatch, 0)
    store.place("cuda")
    with pytest.raises(UsageError, match="sees a GPU"):
        store.search(questions(store), 5)
    monkeypatch.setattr(devices, "worthwhile", lambda *_: True)
    store.place("auto")
    assert store.search(questions(store), 5).note is None
    with pytest.raises(UsageError, match="'tpu'"):
        store.place("tpu")


def test_a_gpu_that_is_not_there(store, monkeypatch):
    Gpus(monkeypatch, 2)
    store.place("cuda:2")
    with pytest.raises(UsageError, match="'cuda:2'; there are 2"):
        store.search(questions(store), 5)


@pytest.mark.skipif(not IS_GPU_BUILD, reason="faiss-cpu is installed, not faiss-gpu")
@pytest.mark.parametrize("name", SIGNATURES)
def test_the_stand_ins_have_the_names_of_the_real_ones(name):
    real = getattr(faiss, name)
    for field in SIGNATURES[name]:
        assert hasattr(real, field), field


@pytest.mark.skipif(not IS_GPU_BUILD or N_GPUS > 0, reason="needs faiss-gpu on a machine without a GPU")
def test_faiss_itself_takes_the_arguments_and_misses_only_the_gpu(store):
    assert devices.free_bytes(0) is None
    with pytest.raises(RetrError, match=r"taking the vectors: .*Invalid GPU device 0"):
        faiss_scan.FaissScan(store.blocks(), 32, 1.0, [0])


@pytest.fixture(params=["torch", "faiss"])
def by(request, monkeypatch) -> str:
    """Which library scans on the real GPU."""
    if request.param == "torch" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    if request.param == "faiss":
        if N_GPUS == 0:
            pytest.skip("faiss sees no GPU")
        monkeypatch.setattr(devices, "torch_gpus", lambda: 0)
    return request.param


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:all"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_real_gpu_gives_the_answers_of_the_cpu(tmp_path, by, dtype, device):
    compare(make(tmp_path / "index", dtype=dtype), device)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [32, 100, 768])
@pytest.mark.parametrize("n", [1, 2, 16, 17, 33, 100, 256, 300, 4096])
def test_a_real_gpu_in_batches_of_any_size(tmp_path, by, n, dim):
    if by == "faiss" and (dim != 100 or n not in {1, 300}):
        pytest.skip("the scan by faiss knows no tiles")
    rng = np.random.default_rng(n)
    vectors = unit(rng.standard_normal((20_000, dim)) + 0.5)
    store = Store.create(tmp_path / "index", encoder=replace(ENCODER, dim=dim), dtype="float16")
    with store.writer() as writer:
        writer.append(pa.table({"id": [f"{i:05d}" for i in range(20_000)]}), vectors)
        store = writer.commit()
    placed = Store.open(store.path)
    placed.place("cuda")
    queries = rng.standard_normal((n, dim)).astype(np.float32)
    for k in (1, 10, 2048) if n in {1, 33} else (10,):
        plain, fast = store.search(queries, k), placed.search(queries, k)
        assert all(map(agree, plain.rows, plain.scores, fast.rows, fast.scores))
        assert fast.exact


@pytest.mark.gpu
def test_a_real_gpu_scans_with_what_triton_compiled(store):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    scan = torch_scan.TorchScan(store.blocks(), 32, 1.0, [0])
    assert scan._maxima.func is loops.compiled_maxima
    shard = scan._shards[0]
    full = torch.zeros((32, shard.vectors.shape[1]), device="cuda")
    full[:30, :32] = torch.from_numpy(questions(store)).cuda()
    mask = torch.from_numpy((np.random.default_rng(0).random(shard.rows) < 0.5).astype(np.uint8)).cuda()
    groups = torch.arange(30, device="cuda")[:, None].repeat(1, 2).contiguous()
    for allowed in (None, mask):
        ours, theirs = (loop(shard, full.half(), 30, allowed) for loop in (scan._maxima, loops.torch_maxima))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        ours, theirs = (loop(shard, full[:30], groups, allowed) for loop in (scan._scores, loops.torch_scores))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.gpu
def test_two_placements_of_one_index_on_a_real_gpu(store, by):
    both = [Store.open(store.path) for _ in range(2)]
    for placed in both:
        placed.place("cuda")
    queries = questions(store)
    plain = store.search(queries, 10)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: both[number % 2].search(queries, 10), range(20)))
    for fast in found:
        np.testing.assert_array_equal(fast.rows, plain.rows)


@pytest.mark.gpu
def test_a_real_gpu_without_room(store, by, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU to fill")
    free = devices.free_bytes(0)
    assert free is not None
    filling = torch.empty(free - (2 << 30), dtype=torch.uint8, device="cuda")
    try:
        store.place("cuda")
        with pytest.raises(RetrError, match=r"of cuda:0, which has .* GB free; spread"):
            store.search(questions(store), 5)
        monkeypatch.setattr(devices, "worthwhile", lambda *_: True)
        store.place("auto")
        found = store.search(questions(store), 5)
        assert found.note is not None
        assert found.note.startswith("searched on the CPU: ")
    finally:
        del filling
        torch.cuda.empty_cache()


@pytest.mark.gpu
def test_a_real_gpu_that_fills_up_after_the_vectors_are_there(store, by):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU to fill")
    plain = store.search(questions(store), 10)
    store.place("cuda")
    store.search(questions(store)[:1], 10)
    free = devices.free_bytes(0)
    assert free is not None
    filling = torch.empty(free - (24 << 20), dtype=torch.uint8, device="cuda")
    try:
        np.testing.assert_array_equal(store.search(questions(store), 10).rows, plain.rows)
    except RetrError as error:
        assert "out of memory" in str(error)
    finally:
        del filling
        torch.cuda.empty_cache()


@pytest.mark.gpu
@needs_gpu
def test_a_real_gpu_says_how_much_memory_is_free():
    free = devices.free_bytes(0)
    assert free is not None
    assert free > 1 << 20
