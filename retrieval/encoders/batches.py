"""Embedding many pictures outside a build: read and prepared in threads, encoded in full batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retr.retrieval.progress import make_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

T = TypeVar("T")


def encode_all(
    encoder: BaseEncoder, items: Sequence[T], prepare: Callable[[T], NDArray[Any]], *, progress: bool = False
) -> NDArray[np.float32]:
    """Embed one picture for each item, in order.

    Parameters
    ----------
    encoder
        Who embeds.
    items
        Whatever ``prepare`` takes.
    prepare
        From an item to the network's input, ``encoder.prepare`` of its picture; called from several threads.
    progress
        Show progress on standard error.

    Returns
    -------
    NDArray
        float32 ``(n, dim)``, not normalised.
    """
    size = encoder.batch_size
    vectors = np.empty((len(items), encoder.info.dim), dtype=np.float32)
    shown = make_progress(show=progress)
    with shown, ThreadPoolExecutor() as pool:
        shown.total(len(items))
        upcoming = [pool.submit(prepare, item) for item in items[: 2 * size]]
        for start in range(0, len(items), size):
            batch = [future.result() for future in upcoming[:size]]
            upcoming = upcoming[size:]
            upcoming += [pool.submit(prepare, item) for item in items[start + 2 * size : start + 3 * size]]
            # a full batch every time, since the bits of a product may depend on its number of rows
            full = np.stack(batch + batch[-1:] * (size - len(batch)))
            vectors[start : start + len(batch)] = encoder.encode_prepared(full)[: len(batch)]
            shown.step(len(batch))
    return vectors
