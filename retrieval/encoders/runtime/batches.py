"""Run pictures through an encoder in full batches, read and prepared in threads outside a build."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retr.retrieval.progress import make_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retr.retrieval.encoders.base import BaseEncoder

T = TypeVar("T")


Stacks = list[tuple[list[int], NDArray[Any]]]


def stack_batch(encoder: BaseEncoder, inputs: Sequence[NDArray[Any]]) -> Stacks:
    """Stack network inputs so that each vector will depend on its own input alone.

    Inputs of one shape go through the network together, filled up to the encoder's batch size: the bits of a matrix
    product may depend on its number of rows.

    Parameters
    ----------
    inputs
        From ``encoder.prepare``; at most a batch of them.

    Returns
    -------
    list
        For each shape the places of its inputs, and their stack ``(n, c, h, w)``.
    """
    stacks = []
    for shape in dict.fromkeys(array.shape for array in inputs):
        rows = [row for row, array in enumerate(inputs) if array.shape == shape]
        chosen = [inputs[row] for row in rows]
        if not encoder.batch_invariant:
            chosen += [chosen[-1]] * (encoder.batch_size - len(chosen))
        stacks.append((rows, encoder.stack(chosen)))
    return stacks


def encode_stacks(
    encoder: BaseEncoder, stacks: Stacks, findings: Sequence[str] = ()
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed what `stack_batch` stacked.

    Parameters
    ----------
    encoder
        With ``encode_and_score`` where there are findings.
    findings
        Also scored, in the same pass of the image encoder.

    Returns
    -------
    tuple
        Vectors float32 ``(n, dim)``, not normalised, and probabilities float32 ``(n, len(findings))``.
    """
    count = sum(len(rows) for rows, _ in stacks)
    vectors = np.empty((count, encoder.info.dim), dtype=np.float32)
    scores = np.empty((count, len(findings)), dtype=np.float32)
    for rows, batch in stacks:
        if findings:
            found, asked = encoder.encode_and_score(batch, findings)  # type: ignore[attr-defined]
            scores[rows] = asked[: len(rows)]
        else:
            found = encoder.encode_prepared(batch)
        vectors[rows] = found[: len(rows)]
    return vectors, scores


def encode_batch(
    encoder: BaseEncoder, inputs: Sequence[NDArray[Any]], findings: Sequence[str] = ()
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stack and embed at most a batch of network inputs; see `stack_batch` and `encode_stacks`."""
    return encode_stacks(encoder, stack_batch(encoder, inputs), findings)


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
            vectors[start : start + len(batch)] = encode_batch(encoder, batch)[0]
            shown.step(len(batch))
    return vectors
