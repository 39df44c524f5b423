"""One encoder on several devices, a process each: ``device="cuda:0,cuda:1"``, or ``"cuda:all"``.

This process runs the first device, and prepares all pictures; every other device has a worker process that loads the
same encoder and embeds its share of each batch. Workers are spawned, never forked: neither CUDA nor OpenMP survives a
fork. A worker lives as long as this process.

Protocol over each pipe: the worker sends its `EncoderInfo`, or the error it could not be loaded for; then, for every
prepared batch it receives, the vectors or the error.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import RetrError
from retr.index.machine.extras import needed
from retr.retrieval.encoders.base import BaseEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    import PIL.Image
    from numpy.typing import NDArray


def split_devices(device: str) -> list[str]:
    """Return the devices an option names.

    >>> split_devices("cuda:0, cuda:2"), split_devices("auto")
    (['cuda:0', 'cuda:2'], ['auto'])
    """
    if device == "cuda:all":
        with needed():
            import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda"]
    return [part.strip() for part in device.split(",")]


class ParallelEncoder(BaseEncoder):
    """An encoder whose batches are shared among devices.

    Parameters
    ----------
    load
        ``load(name, *, device, **options)``, a function of a module: the workers import it.
    name, options
        As in ``load_encoder``, without device.
    devices
        Two or more.
    """

    def __init__(
        self, load: Callable[..., BaseEncoder], name: str, devices: Sequence[str], options: dict[str, Any]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[str, Connection]] = []
        for device in devices[1:]:
            mine, theirs = context.Pipe()
            work = (theirs, load, name, device, options)
            context.Process(target=_work, args=work, daemon=True, name=f"retr on {device}").start()
            theirs.close()
            self._workers.append((device, mine))
        self._first = load(name, device=devices[0], **options)
        self.notes = self._first.notes
        for device, pipe in self._workers:
            info = self._receive(device, pipe)
            if (info.identity, info.precision) != (self._first.info.identity, self._first.info.precision):
                raise RetrError(
                    f"{name!r} runs in {info.precision} on {device} and in {self._first.info.precision} on "
                    f"{devices[0]}",
                    hint="name the precision, or use equal devices",
                )
        self.info = replace(self._first.info, device=",".join(devices))
        self.batch_size = self._first.batch_size * len(devices)
        self.batch_invariant = self._first.batch_invariant

    def __getattr__(self, name: str) -> Any:
        # what one encoder offers beyond the common (KAD's score) runs on the first device
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._first, name)

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one picture, in this process."""
        return self._first.prepare(image)

    def compact(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one picture in few bytes, in this process."""
        return self._first.compact(image)

    def stack(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Stack prepared pictures as the first device wants its share."""
        return self._first.stack(inputs)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures, a share on each device: float32 ``(n, dim)``."""
        own, *others = np.array_split(batch, len(self._workers) + 1)
        busy = [worker for worker, share in zip(self._workers, others, strict=True) if len(share)]
        for (device, pipe), share in zip(busy, others, strict=False):
            try:
                pipe.send(share)
            except OSError as error:
                raise _ended(device) from error
        parts = [self._first.encode_prepared(own)]
        parts += [self._receive(device, pipe) for device, pipe in busy]
        return np.concatenate(parts)

    def size(self) -> tuple[int | None, int | None]:
        """Return the size on one device."""
        return self._first.size()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts on the first device."""
        return self._first.encode_texts(texts)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count tokens as the encoder does."""
        return self._first.text_lengths(texts)

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed a class on the first device."""
        return self._first.class_embedding(prompts)

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return what the authors' softmax takes, as the encoder does."""
        return self._first.similarity_logits(image_vectors, text_vectors)

    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Embed a picture's patches on the first device."""
        return self._first.patch_embeddings(image)

    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Describe a picture's places on the first device."""
        return self._first.place_descriptors(image)

    @staticmethod
    def _receive(device: str, pipe: Connection) -> Any:
        try:
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            raise _ended(device) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _ended(device: str) -> RetrError:
    return RetrError(
        f"the worker on {device} ended", hint="see its message above; what was committed is kept, run the build again"
    )


def _work(pipe: Connection, load: Callable[..., BaseEncoder], name: str, device: str, options: dict[str, Any]) -> None:
    """Load the encoder on one device and embed what the pipe brings, until it closes."""
    # the other end closes when this process is no longer wanted
    with suppress(EOFError, BrokenPipeError):
        try:
            encoder = load(name, device=device, **options)
        except RetrError as error:
            pipe.send(RetrError(f"{error.message} (on {device})", hint=error.hint))
            return
        pipe.send(encoder.info)
        while True:
            batch = pipe.recv()
            try:
                vectors = encoder.encode_prepared(batch)
            except RetrError as error:
                pipe.send(RetrError(error.message, hint=error.hint))
            else:
                pipe.send(vectors)
