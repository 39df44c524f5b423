"""Embed classes by their prompts, cached for each text encoder in a process.

The same prompts asked again are answered from memory, as long as the encoder or bridge that embedded them is in use.
Nothing of it is on disk.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from retr.index.machine.waiting import waiting
from retr.index.once import Once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retr.index.store import Store


class WordEncoder(Protocol):
    """What zero-shot needs of an encoder, or of a bridge in its place."""

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed a class described by several prompts: float32 ``(dim,)``."""

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return what a softmax over prompts takes: float32 ``(n, m)``."""


class FittedWordEncoder(WordEncoder, Protocol):
    """A text side that was fitted on an index's own texts."""

    @property
    def fitted_on(self) -> str:
        """The column of texts."""

    def without(self, store: Store, gone: NDArray[np.int64], fold: int | None) -> WordEncoder:
        """Fit it again without some rows, in a view or in the index itself; `retr.retrieval.text.align.Bridge`."""


# So many classes of one text side are kept.
_MOST = 10_000
_made: WeakKeyDictionary[WordEncoder, Once] = WeakKeyDictionary()


def class_vectors(side: WordEncoder, classes: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Embed classes, each described by its prompts: float32 ``(c, dim)``."""
    made = _made.setdefault(side, Once(most=_MOST))
    asked = [tuple(prompts) for prompts in classes]
    new = sum(made.get(prompts) is None for prompts in set(asked))
    with waiting(f"embedding the prompts of {new} classes") if new else nullcontext():
        return np.stack([made(prompts, partial(side.class_embedding, prompts)) for prompts in asked])
