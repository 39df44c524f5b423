"""The base class of encoders with a torch network: device, precision and batch size.

``precision="auto"`` takes bfloat16 or float16 *weights* where the processor multiplies them fast (autocast
would cast the weights again at every call), and keeps them only if the built-in picture's embedding stays
within cosine 0.999 of float32; else float32 stays and a note says so. Texts always run in float32: they are few.

On a GPU the batch size follows from the memory one picture was measured to take; a batch that does not fit all the
same is halved.
"""

from __future__ import annotations

import copy
import math
import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from retr.index.errors import RetrError, UsageError, WeightsError
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.runtime.preprocess import look_up, to_bytes
from retr.retrieval.encoders.sample_picture import picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.runtime.onnx_graph import Graph

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLOSE_ENOUGH = 0.999
# Values put through a table at a time.
_LOOKED_UP = 1 << 24


def choose_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a device that exists.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in {"cpu", "cuda"} or (number and not number.isdigit()):
        raise UsageError(f"unknown device {device!r}", hint="use auto, cpu, cuda, cuda:N or cuda:all")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"no device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices",
            hint="use auto or cpu",
        )
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn ``"auto"`` into the fastest precision worth trying on a device."""
    if precision not in get_args(Precision):
        raise UsageError(f"unknown precision {precision!r}", hint="use auto, fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision 'fp16' is for GPUs", hint="use bf16 or fp32 on a CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # AVX-512's bf16 without AMX is slower than float32 (0.6 to 0.7 of its rate for ViT-B and ResNet-50)
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def choose_batch(memory: float, each: float, *, most: int = 512) -> int:
    """Return the largest power of two of pictures that `memory` holds at `each` bytes, at least 1.

    >>> choose_batch(1e9, 3e6), choose_batch(1e9, 1.0), choose_batch(1e9, 2e9)
    (256, 512, 1)
    """
    fitting = max(1, min(most, int(memory / max(each, 1))))
    return 1 << (fitting.bit_length() - 1)


# How the first to enter `_no_tf32` found the settings, which are the process's, and how many threads are within it.
_LOCK = threading.Lock()
_FOUND: list[str] = []
_inside = 0


def _finite(network: torch.nn.Module) -> bool:
    """Return whether all that a network has learnt is numbers."""
    values = network.state_dict().values()
    # the sum tells it in one pass; it may be too large for a float where no value is
    return all(bool(one.sum().isfinite() or one.isfinite().all()) for one in values if one.is_floating_point())


@contextmanager
def _no_tf32() -> Iterator[None]:
    global _inside  # noqa: PLW0603
    # the newer of torch's two ways to say so: the older warns in some versions, and the two must not be mixed
    settings: Any = torch.backends
    kinds = settings.cudnn.conv, settings.cuda.matmul
    with _LOCK:
        if not _inside:
            _FOUND[:] = [kind.fp32_precision for kind in kinds]
            for kind in kinds:
                kind.fp32_precision = "ieee"
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside:
                for kind, precision in zip(kinds, _FOUND, strict=True):
                    kind.fp32_precision = precision


class TorchEncoder(BaseEncoder):
    """Base of encoders whose image side is a torch module.

    A subclass sets whatever `prepare` and `forward` need and then calls ``super().__init__``, which moves the
    network to the device, settles the precision and completes `info`.

    Parameters
    ----------
    info
        Everything but ``device`` and ``precision``, which are filled in here.
    network
        The image side, float32 on the CPU. Kept as `network`, in eval mode.
    device, precision
        As in ``load_encoder``.

    Attributes
    ----------
    device
        Where the network is; put text inputs and text modules there too.
    dtype
        What `forward` gets its pictures in.
    table
        float32 ``(3, 256)``: what becomes of each 8-bit value of a channel once the picture has the network's size.
        None where preparing ends otherwise; then a subclass has a `prepare` of its own.
    graph
        What embeds pictures of its shape in place of `forward` (`onnx_graph`); None: torch embeds all.
    """

    table: NDArray[np.float32] | None = None
    graph: Graph | None = None

    def __init__(self, info: EncoderInfo, network: torch.nn.Module, *, device: str, precision: str) -> None:
        if info.logit_scale is not None and not math.isfinite(info.logit_scale):
            raise WeightsError(f"the weights of {info.name!r} hold a scale that is no number", hint="get them again")
        self.notes = []
        self.device = choose_device(device)
        wanted = choose_precision(precision, self.device)
        self.network = network.eval().requires_grad_(requires_grad=False).to(self.device)
        self.dtype = torch.float32
        self.info = info
        self._require_numbers()
        if wanted != "fp32":
            wanted = self._lower(wanted, forced=precision != "auto")
        self.info = replace(info, precision=wanted, device=str(self.device))
        if self.device.type == "cuda":
            self.batch_size = self._measure_batch()

    def _require_numbers(self) -> None:
        """Raise `WeightsError` where weights or prepared pictures hold NaN or infinity, of which no vector comes."""
        # one that a subclass adds may be the network itself
        for part in {id(one): one for one in (self.network, *self.image_side())}.values():
            if not _finite(part):
                raise WeightsError(
                    f"the weights of {self.info.name!r} hold what is no number (NaN or infinity)", hint="get them again"
                )
        if not np.isfinite(self.prepare(picture())).all():
            raise WeightsError(
                f"the pictures of {self.info.name!r} are prepared to what is no number (NaN or infinity)",
                hint="are mean and std, of which none may be 0, as its authors state them?",
            )

    def image_side(self) -> list[torch.nn.Module]:
        """Return what embeds a picture: the network, and what runs behind it."""
        return [self.network]

    def size(self) -> tuple[int | None, int | None]:
        """Return how many parameters the image side has, and how many bytes they take in its precision."""
        parameters = [one for part in self.image_side() for one in part.parameters()]
        return sum(one.numel() for one in parameters), sum(one.numel() * one.element_size() for one in parameters)

    def survives_fork(self) -> bool:
        """Return whether torch runs without threads of its own and without a GPU, neither of which a child has."""
        return self.device.type == "cpu" and torch.get_num_threads() == 1

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, c, h, w)`` of `dtype` on `device` with `network`: ``(n, dim)``, any float."""

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Bring one RGB picture to the network's size, by default its own: uint8 ``(3, h, w)``; see `table`."""
        return to_bytes(image)

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Bring one RGB picture to the network's size and put its values through `table`: float32 ``(3, h, w)``."""
        assert self.table is not None
        return look_up(self.to_bytes(image), self.table)

    def compact(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one RGB picture but for `table`, which the device looks up: a quarter of the bytes."""
        return self.prepare(image) if self.table is None else self.to_bytes(image)

    def patch_features(self, pixels: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """Embed the patches of one picture ``(1, c, h, w)``: ``(h, w, dim)``, any float, or None; see `BaseEncoder`."""
        return None

    @torch.inference_mode()
    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Embed the patches of one RGB picture: float32 ``(h, w, dim)``, or None; see `BaseEncoder`."""
        with self.in_full():
            found = self.patch_features(self.pixels(self.prepare(image)[None]))
        return None if found is None else found.float().cpu().numpy()

    @torch.inference_mode()
    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures ``(n, c, h, w)``: float32 ``(n, dim)``."""
        graph = self.graph
        if graph is not None and len(batch) and batch.shape[1:] == graph.shape:
            return self.run(lambda pixels: (graph(pixels),), batch)[0]
        return self.run(lambda pixels: (self.forward(pixels),), batch)[0]

    def run(
        self, network: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], batch: NDArray[Any]
    ) -> tuple[NDArray[np.float32], ...]:
        """Put prepared pictures on the device and through a network, in halves where they do not fit together.

        Parameters
        ----------
        network
            Gives tensors ``(n, ...)`` for pixels of `dtype` on `device`.
        batch
            Prepared pictures ``(n, c, h, w)``.

        Returns
        -------
        tuple
            The tensors as float32 arrays.
        """
        pixels = self.pixels(batch)
        try:
            with self.in_full():
                return tuple(found.float().cpu().numpy() for found in network(pixels))
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise RetrError(
                    f"one picture does not fit into the memory of {self.device}",
                    hint="free some of it, or use --device cpu",
                ) from error
        del pixels
        torch.cuda.empty_cache()
        half = len(batch) // 2
        parts = zip(self.run(network, batch[:half]), self.run(network, batch[half:]), strict=True)
        return tuple(np.concatenate(part) for part in parts)

    def stack(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Stack prepared pictures; for a GPU in locked memory, which it reads itself, several times as fast."""
        if self.device.type == "cuda":
            dtype = torch.from_numpy(np.empty(0, inputs[0].dtype)).dtype
            with suppress(RuntimeError):  # there is no more memory that may be locked
                locked = torch.empty((len(inputs), *inputs[0].shape), dtype=dtype, pin_memory=True)
                return np.stack(inputs, out=locked.numpy())
        return np.stack(inputs)

    def pixels(self, batch: NDArray[Any]) -> torch.Tensor:
        """Put prepared pictures on `device`, then into `dtype`: they travel as what they are."""
        there = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device, non_blocking=True)
        if self.table is None or there.dtype is not torch.uint8:
            return there.to(self.dtype)
        table = torch.from_numpy(self.table).to(self.device, self.dtype)
        pixels = torch.empty(there.shape, dtype=self.dtype, device=self.device)
        # some pictures at a time: the entries in the table take four times the bytes of the values
        some = max(1, _LOOKED_UP // there[0, 0].numel())
        for start in range(0, len(there), some):
            for channel in range(len(table)):
                entries = there[start : start + some, channel].int()
                pixels[start : start + some, channel] = (
                    table[channel].index_select(0, entries.flatten()).view_as(entries)
                )
        return pixels

    def in_full(self) -> AbstractContextManager[None]:
        """Hold a GPU's convolutions and products to float32: cuDNN would take TF32, but fp32 means fp32 here."""
        return _no_tf32() if self.device.type == "cuda" and self.dtype is torch.float32 else nullcontext()

    def _measure_batch(self) -> int:
        """Run 16 pictures and let so many into a batch as take two fifths of the device's memory."""
        batch = self.stack([self.compact(picture())] * 16)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.encode_prepared(batch)
        each = (torch.cuda.max_memory_allocated(self.device) - before) / len(batch)
        return choose_batch(0.4 * torch.cuda.mem_get_info(self.device)[1], each)

    def _lower(self, wanted: str, *, forced: bool) -> str:
        """Try lower-precision weights on the built-in picture; keep them if the embedding stays."""
        pixels = self.prepare(picture())[None]
        exact = self.encode_prepared(pixels)[0]
        full = self.network
        self.network = copy.deepcopy(full).to(_DTYPES[wanted])
        self.dtype = _DTYPES[wanted]
        lowered = self.encode_prepared(pixels)[0]
        lengths = max(float(np.linalg.norm(exact) * np.linalg.norm(lowered)), 1e-30)
        cosine = float(exact @ lowered) / lengths
        if cosine >= _CLOSE_ENOUGH:
            return wanted
        self.network, self.dtype = full, torch.float32
        asked = "asked for" if forced else "tried"
        self.notes.append(
            f"{wanted} was {asked} but changes the built-in picture's embedding (cosine {cosine:.4f} to "
            f"fp32, {_CLOSE_ENOUGH} wanted): running in fp32"
        )
        return "fp32"
