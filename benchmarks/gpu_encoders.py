"""Encoders and whole builds on a GPU: pictures a second, the cosine to the CPU's embeddings, how long the GPU waits.

Three steps, each encoder for itself; what fails is one line among the figures, and the file is written after each.

``network``: by precision the batch that memory allows, the pictures a second of the network alone (on the GPU already)
and of ``encode_prepared`` (copied there, embedded, copied back: what bounds every build), and the smallest cosine of
eight different pictures' embeddings to the CPU's float32.

``build``: the real build over 512-pixel JPEGs, all different (the shipped photographs with fresh grain), in bf16, of
`lite` in fp32. "GPU waits" is the share of the time from the first batch to the last that the same batches do not take
undisturbed; beside it the share in which no batch is on the GPU (by CUDA events, and by the clock of the network's
thread), and what the decoding threads prepare without a network.

``jpeg``: nvJPEG through torchvision, pictures a second and its difference from Pillow's pixels.

``python tests/parity/standin.py FOLDER`` writes weights of the published sizes; speed does not depend on the values,
but the cosines do. ``--device cpu`` goes through the same motions without a GPU.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retr.benchmarks.gpu_pictures import eight, make_archive
from retr.benchmarks.record import record
from retr.retrieval.encoders.registry import load_encoder
from retr.retrieval.encoders.sample_picture import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "lite": ("lite", {}),
    "lite layers": ("lite", {"feature": "layers"}),
    "flair": ("flair", {}),
    "retizero": ("retizero", {}),
    "rad-dino": ("rad-dino", {}),
    "kad": ("kad", {}),
    "lvm-med resnet50": ("lvm-med", {"arch": "resnet50"}),
    "lvm-med vit-b": ("lvm-med", {"arch": "vit-b"}),
}
PRECISIONS = ("fp32", "bf16", "fp16")
# Also built with the interpreter switching between threads ten times as often, where the GPU waits.
SWITCHED = ("lite", "flair")
STEPS = ("network", "build", "jpeg")
_JPEGS_AT_ONCE = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result file after every step; without the device, say so and exit with 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, help="the folder that RETR_WEIGHTS names; by default the variable's")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoders", default=",".join(VARIANTS), help="some of them, with commas")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--seconds", type=float, default=0.4, help="of a measurement; a build: eight times")
    parser.add_argument("--images", type=int, default=8192, help="of the archive, at most")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="decoding threads")
    parser.add_argument("--batch", type=int, help="instead of the batch that memory allows")
    parser.add_argument("--out", type=Path, help="a folder for the result file (RETR_RESULTS)")
    args = parser.parse_args(arguments)
    if args.weights is not None:
        os.environ["RETR_WEIGHTS"] = str(args.weights)
    if args.out is not None:
        os.environ["RETR_RESULTS"] = str(args.out)
    import torch

    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU")
    steps, labels = args.steps.split(","), args.encoders.split(",")
    figures: dict[str, Any] = {"device": args.device, "decoding threads": args.workers}
    start = time.perf_counter()

    def attempt(*place: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        found = None
        began = time.perf_counter()
        try:
            found = work()
            result: Any = found
        except Exception as error:  # noqa: BLE001 - one step's fault must not cost the others
            result = f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        inner = figures
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = result
        now = time.perf_counter()
        print(f"{now - start:6.1f} s, {now - began:5.1f} s for {', '.join(place)}: {result}", flush=True)
        record("gpu_encoders", figures, command=_command(args), note=_NOTE, quiet=True)
        return found

    with tempfile.TemporaryDirectory() as folder, _own_state(Path(folder)):
        archive = Path(folder) / "archive"
        if {"build", "jpeg"} & set(steps):
            attempt("archive", work=lambda: make_archive(archive, args.images, args.workers))
        if "jpeg" in steps:
            attempt("jpeg", work=lambda: jpeg(archive, args))
        for label in labels:
            measure(label, steps, archive, args, attempt)


_NOTE = "stand-in weights of the published sizes, but for lite"


def _command(args: argparse.Namespace) -> str:
    return (
        f"python -m retr.benchmarks.gpu_encoders --weights FOLDER --device {args.device} --images {args.images} "
        f"--workers {args.workers} --seconds {args.seconds:g}"
    )


@contextmanager
def _own_state(folder: Path) -> Iterator[None]:
    """Keep what builds remember out of the user's folders."""
    before = {name: os.environ.get(name) for name in ("RETR_STATE_DIR", "XDG_CONFIG_HOME")}
    os.environ.update(dict.fromkeys(before, str(folder / "state")))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def measure(
    label: str,
    steps: Sequence[str],
    archive: Path,
    args: argparse.Namespace,
    attempt: Callable[..., dict[str, Any] | None],
) -> None:
    """Take one encoder through its steps."""
    name, options = VARIANTS[label]
    held: dict[str, Any] = {}

    def load() -> dict[str, Any]:
        held["cpu"] = load_encoder(name, device="cpu", precision="fp32", **options)
        held["exact"] = held["cpu"].encode_images(eight())
        return {"CPU's embeddings": list(held["exact"].shape)}

    if attempt(label, "loaded", work=load) is None:
        return
    if "network" in steps:
        for precision in PRECISIONS[: 1 if label == "lite layers" else None]:
            attempt(label, precision, work=lambda precision=precision: network(precision, held, args))
    if "build" in steps and label != "lite layers":

        def build() -> dict[str, Any]:
            held["built with"] = moved(held["cpu"], "fp32" if name == "lite" else "bf16", args)[0]
            return whole_build(held["built with"], archive, args)

        first = attempt(label, "build", work=build)
        if first is not None and first["GPU waits"] > 0.2 and label in SWITCHED:
            # for so long a thread that decodes may keep the interpreter from the one that runs the network
            before = sys.getswitchinterval()
            sys.setswitchinterval(before / 10)
            attempt(label, "build, switching oftener", work=lambda: whole_build(held["built with"], archive, args))
            sys.setswitchinterval(before)
    held.clear()
    gc.collect()
    if args.device != "cpu":
        import torch

        torch.cuda.empty_cache()


def moved(encoder: Any, precision: str, args: argparse.Namespace) -> tuple[Any, str | None]:
    """Put a loaded encoder on the device; also why it gave up the precision, in which it is measured all the same."""
    import torch

    from retr.retrieval.encoders.networks.lite import LiteTorchEncoder
    from retr.retrieval.encoders.runtime.torch_encoder import _DTYPES, TorchEncoder
    from retr.retrieval.encoders.systems import lite

    if isinstance(encoder, lite.LiteEncoder):
        on_device: Any = LiteTorchEncoder(encoder.info, lite._find(None), device=args.device, precision=precision)
    else:
        on_device = copy.copy(encoder)
        network = copy.deepcopy(encoder.network)
        TorchEncoder.__init__(on_device, encoder.info, network, device=args.device, precision=precision)
    reason = next((note for note in on_device.notes if "running in fp32" in note), None)
    if reason is not None and precision != "auto":
        on_device.dtype = _DTYPES[precision]
        on_device.network = on_device.network.to(on_device.dtype)
        if on_device.device.type == "cuda":
            on_device.batch_size = on_device._measure_batch()
    if args.batch:
        on_device.batch_size = args.batch
    if on_device.device.type == "cuda":
        torch.cuda.empty_cache()
    return on_device, reason


def network(precision: str, held: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Measure one encoder in one precision."""
    import torch

    encoder, reason = moved(held["cpu"], precision, args)
    vectors, exact = encoder.encode_images(eight()), held["exact"]
    cosines = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    prepared = [encoder.compact(image) for image in eight()]
    some = encoder.stack([prepared[number % 8] for number in range(min(32, encoder.batch_size))])
    # of a slow one fewer: the rate is the same, and a batch of hundreds would take seconds
    encoder.encode_prepared(some)
    start = time.perf_counter()
    encoder.encode_prepared(some)
    wanted = max(len(some), int(len(some) * args.seconds / 4 / (time.perf_counter() - start)))
    batch = encoder.stack([prepared[number % 8] for number in range(min(wanted, encoder.batch_size))])
    figures: dict[str, Any] = {
        "smallest cosine to the CPU's fp32": round(float(cosines.min()), 6),
        "batch that memory allows": encoder.batch_size,
        "batch timed": len(batch),
    }
    if reason is not None:
        figures["not what auto takes"] = reason

    def rate(work: Callable[[], object]) -> float:
        return round(len(batch) / _median_seconds(work, args), 1)

    figures["images/s, copies included"] = rate(lambda: encoder.encode_prepared(batch))
    with torch.inference_mode(), encoder.in_full():
        pixels = encoder.pixels(batch)
        figures["images/s, network alone"] = rate(lambda: encoder.forward(pixels))
    return figures


def _median_seconds(work: Callable[[], object], args: argparse.Namespace) -> float:
    """Return the median time of a call, after two to warm up, over about ``args.seconds``, the device waited for."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        if args.device != "cpu":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    rounds = min(30, max(3, int(args.seconds / max(timed(), 1e-6))))
    return statistics.median(timed() for _ in range(rounds))


class Watch:
    """Wraps one encoder's calls for a build: when batches were on the device, and what stacking took.

    Attributes
    ----------
    encoder
        The encoder to build with.
    """

    def __init__(self, encoder: Any) -> None:
        import torch

        event: Any = torch.cuda.Event
        self.encoder = copy.copy(encoder)
        self.calls: list[tuple[float, float]] = []
        self.stacking = 0.0
        self._events: list[tuple[Any, Any]] = []
        on_gpu = encoder.device.type == "cuda"

        def encode_prepared(batch: NDArray[Any]) -> NDArray[np.float32]:
            start = time.perf_counter()
            marks = [event(enable_timing=True) for _ in range(2)] if on_gpu else []
            if on_gpu:
                marks[0].record()
            vectors: NDArray[np.float32] = encoder.encode_prepared(batch)
            if on_gpu:
                marks[1].record()
                self._events.append((marks[0], marks[1]))
            self.calls.append((start, time.perf_counter()))
            return vectors

        def stack(inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
            start = time.perf_counter()
            stacked: NDArray[Any] = encoder.stack(inputs)
            self.stacking += time.perf_counter() - start
            return stacked

        self.encoder.encode_prepared = encode_prepared
        self.encoder.stack = stack

    @property
    def span(self) -> float:
        """Seconds from the beginning of the first batch to the end of the last."""
        return self.calls[-1][1] - self.calls[0][0]

    def idle(self) -> dict[str, float]:
        """Return the shares of the span in which no batch was on the device."""
        busy = sum(end - start for start, end in self.calls)
        shares = {"no batch on the GPU, by the clock": round(1 - busy / self.span, 4)}
        if self._events:
            on_gpu = sum(start.elapsed_time(end) for start, end in self._events) / 1e3
            shares["no batch on the GPU, by its events"] = round(1 - on_gpu / self.span, 4)
        return shares


def whole_build(encoder: Any, archive: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build an index with the code that everyone builds with."""
    import torch

    from retr.retrieval.ingest.build import build

    on_gpu = encoder.device.type == "cuda"
    files = sorted(archive.glob("*.jpg"))
    prepared = _prepared_a_second(encoder, files[: min(len(files), 1024)], args.workers)
    embedded = _embedded_a_second(encoder)
    wanted = max(4 * encoder.batch_size, int(8 * args.seconds * min(prepared, embedded)))
    count = min(len(files), -(-wanted // encoder.batch_size) * encoder.batch_size)
    watch = Watch(encoder)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        chosen = Path(folder) / "archive"
        chosen.mkdir()
        for file in files[:count]:
            os.link(file, chosen / file.name)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(encoder.device)
        start = time.perf_counter()
        report = build(chosen, Path(folder) / "index", watch.encoder, workers=args.workers)
        wall = time.perf_counter() - start
    assert report.embedded == count, report
    peak = torch.cuda.max_memory_allocated(encoder.device) / 2**30 if on_gpu else 0.0
    return {
        "precision": str(encoder.dtype).removeprefix("torch."),
        "batch": encoder.batch_size,
        "images": count,
        "images/s": round(count / wall, 1),
        "images/s, first batch to last": round(count / watch.span, 1),
        "images/s, prepared and in memory": round(embedded, 1),
        "GPU waits": round(1 - count / embedded / watch.span, 4),
        **watch.idle(),
        "stacking, share of the main thread": round(watch.stacking / watch.span, 4),
        "images/s, decoded and prepared alone": round(prepared, 1),
        "images/s, decoded and prepared by one thread": round(_prepared_a_second(encoder, files[:64], 1), 1),
        "GPU memory, peak GiB": round(peak, 2),
    }


def _embedded_a_second(encoder: Any) -> float:
    """Embed two batches to warm up and say how fast a third was."""
    batch = encoder.stack([encoder.compact(picture())] * encoder.batch_size)
    for _ in range(3):
        start = time.perf_counter()
        encoder.encode_prepared(batch)
        taken = time.perf_counter() - start
    return len(batch) / taken


def _prepared_a_second(encoder: Any, files: Sequence[Path], threads: int) -> float:
    """Do with files what a build does before the network."""
    import hashlib

    from retr.retrieval.images import read_image

    def prepare(file: Path) -> None:
        data = file.read_bytes()
        hashlib.sha256(data).hexdigest()
        encoder.compact(read_image(data, draft_size=encoder.info.draft_size).image)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(prepare, files[:threads]))
        start = time.perf_counter()
        list(pool.map(prepare, files))
        return len(files) / (time.perf_counter() - start)


def jpeg(archive: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure nvJPEG and compare its pixels with those of Pillow."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    files = sorted(archive.glob("*.jpg"))[:_JPEGS_AT_ONCE]
    data = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8) for file in files]

    def decode() -> Any:
        return decode_jpeg(data, mode=ImageReadMode.RGB, device=args.device)

    seconds = _median_seconds(decode, args)
    differences = []
    for file, decoded in zip(files[:16], decode(), strict=False):
        pixels = np.asarray(Image.open(file).convert("RGB")).astype(np.int16)
        differences.append(np.abs(decoded.cpu().numpy().transpose(1, 2, 0) - pixels))
    return {
        "images/s": round(len(data) / seconds, 1),
        "largest difference from Pillow": int(max(difference.max() for difference in differences)),
        "mean difference": round(float(np.mean([difference.mean() for difference in differences])), 4),
        "values that differ": round(float(np.mean([(difference > 0).mean() for difference in differences])), 4),
    }


if __name__ == "__main__":
    main()
