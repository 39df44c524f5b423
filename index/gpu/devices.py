"""Names of devices, the memory of GPUs, and when ``auto`` takes one.

``--device`` says where the computing is done, for encoders and for searches alike: ``cpu``; ``cuda`` (the first GPU) or
``cuda:1``; ``cuda:0,cuda:1`` or ``cuda:all`` for several; ``auto``. A search on ``auto`` runs on the CPU until the
queries of an open index, those of the present call included, cost the CPU more than copying the vectors to the GPUs
would: a few queries never wait for a probe of the GPUs nor for a copy, and at worst twice the better choice is paid.
What lies on the GPUs once serves every later call.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retr.index.accelerators.faiss_library import load_faiss
from retr.index.errors import MissingExtraError, RetrError, UsageError
from retr.index.machine.imported import imported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Wanted: TypeAlias = Literal["auto", "cpu", "all"] | tuple[int, ...]

# Copying a vector to a GPU takes about as long as a CPU takes to multiply it with 250 queries; and starting CUDA takes
# a second or two, in which a CPU makes about so many multiplications.
_AUTO_QUERIES = 256
_AUTO_PRODUCTS = 3e11
# What faiss takes beside the vectors: 1.5 GiB for temporary results, the CUDA context, the pages being added.
SPARE_BYTES = 3 << 30
# Names under which the CUDA runtime that faiss was linked with can be found.
_RUNTIMES = (None, "libcudart.so.13", "libcudart.so.12", "libcudart.so")


def parse_device(device: str) -> Wanted:
    """Read the name of a device.

    >>> [parse_device(name) for name in ("cuda", "cuda:1", "cuda:0,cuda:2", "cuda:all", "auto")]
    [(0,), (1,), (0, 2), 'all', 'auto']

    Raises
    ------
    UsageError
        There is no such name.
    """
    if not isinstance(device, str):
        raise UsageError(f"a device is a text, got: {device!r}", hint="use auto, cpu, cuda, cuda:N or cuda:all")
    words: dict[str, Wanted] = {"auto": "auto", "cpu": "cpu", "cuda:all": "all"}
    if device in words:
        return words[device]
    parts = [re.fullmatch(r"cuda(?::(\d+))?", part.strip()) for part in device.split(",")]
    if not all(parts):
        raise UsageError(f"unknown device {device!r}", hint="use auto, cpu, cuda, cuda:N or cuda:all")
    return tuple(dict.fromkeys(int(part[1] or 0) for part in parts if part))


def worthwhile(n_queries: int, rows: int, dim: int) -> bool:
    """Return whether ``auto`` puts ``rows`` vectors on the GPUs for so many queries, past and present ones."""
    return n_queries >= _AUTO_QUERIES and float(n_queries) * rows * dim >= _AUTO_PRODUCTS


def torch_gpus() -> int:
    """Return how many GPUs torch can use; 0 where it is not installed."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def faiss_gpus() -> int:
    """Return how many GPUs faiss can use; 0 where it was built without them, or is not installed."""
    try:
        faiss = load_faiss()
    except MissingExtraError:
        return 0
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def count() -> int:
    """Return the number of GPUs that can be searched on."""
    return torch_gpus() or faiss_gpus()


def gpu_numbers(wanted: Wanted) -> list[int]:
    """Return the numbers of the GPUs that are wanted; ``auto`` wants all.

    Raises
    ------
    UsageError
        They are not there.
    """
    found = count()
    if found == 0:
        raise UsageError(
            "neither torch nor faiss sees a GPU",
            hint="`nvidia-smi` lists those there are, and torch must be a build for CUDA; or compute with --device cpu",
        )
    chosen = list(range(found)) if isinstance(wanted, str) else list(wanted)
    absent = [number for number in chosen if number >= found]
    if absent:
        raise UsageError(f"no device 'cuda:{absent[0]}'", hint=f"there are {found}: cuda:0 to cuda:{found - 1}")
    return chosen


def free_bytes(number: int) -> int | None:
    """Return the free memory of a GPU, or ``None`` where neither torch nor the CUDA runtime can be asked."""
    torch = imported("torch")
    if torch is not None and torch.cuda.is_available():
        # what torch keeps for itself it gives to its own next tensors; faiss would not get it
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(number)[0])
    for name in _RUNTIMES:
        try:
            runtime = ctypes.CDLL(name)
            runtime.cudaMemGetInfo  # noqa: B018 - raises where the library is another one
        except (OSError, AttributeError):
            continue
        before, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
        runtime.cudaGetDevice(ctypes.byref(before))
        if runtime.cudaSetDevice(number):
            return None
        failed = runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        runtime.cudaSetDevice(before)
        return None if failed else free.value
    return None


def require_memory(chosen: Sequence[int], needed: Sequence[int], what: str) -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    chosen
        Numbers of GPUs.
    needed
        Bytes that each is to hold.
    what
        What it is, for the message.

    Raises
    ------
    RetrError
        A GPU has less memory free than that and `SPARE_BYTES`.
    """
    for number, bytes_ in zip(chosen, needed, strict=True):
        free = free_bytes(number)
        if free is not None and bytes_ + SPARE_BYTES > free:
            raise RetrError(
                f"{what} need {(bytes_ + SPARE_BYTES) / 1e9:.1f} GB of cuda:{number}, "
                f"which has {free / 1e9:.1f} GB free",
                hint="spread them with --device cuda:all, or compute with --device cpu",
            )


def is_memory(error: RuntimeError) -> bool:
    """Return whether faiss failed for lack of GPU memory."""
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "alloc fail", "out_of_memory", "bad_alloc"))


@contextmanager
def gpu_errors(doing: str) -> Iterator[None]:
    """Turn a failure inside faiss's GPU code into one line.

    Raises
    ------
    RetrError
        faiss raised.
    """
    try:
        yield
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = "it is out of memory" if is_memory(error) else lines[-1].split("Error: ")[-1]
        raise RetrError(f"the GPU failed while {doing}: {why}", hint="compute with --device cpu") from error


def in_batches(search: Any, queries: Any, size: int) -> list[Any]:
    """Call ``search`` on batches of at most ``size`` queries, halved for as long as memory does not suffice.

    Returns
    -------
    list
        What ``search`` gave for each batch, in order.
    """
    at, found = 0, []
    while at < len(queries):
        try:
            part = search(queries[at : at + size])
        except RuntimeError as error:
            if size == 1 or not is_memory(error):
                raise
            size = max(1, min(size, len(queries) - at) // 2)
            continue
        found.append(part)
        at += size
    return found
