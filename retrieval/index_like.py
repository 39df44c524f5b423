"""The protocol of an open index, for functions that work on one without importing the public `Index`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.images import Picture


class BridgeLike(Protocol):
    """What embeds words for an encoder without a text side; see `retr.retrieval.text.align.Bridge`."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts in the image space: float32 ``(n, dim)``."""

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts, and how many of them are read."""

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed a class described by several prompts: float32 ``(dim,)``."""

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return what a softmax over prompts takes: float32 ``(n, m)``."""

    def note(self, texts: Sequence[str]) -> str:
        """Return what a person should know of words that went through the bridge."""


class IndexLike(Protocol):
    """An open index: its snapshot, and the encoder it was built with."""

    @property
    def store(self) -> Store:
        """The snapshot that is asked."""

    @property
    def path(self) -> Path:
        """The index folder."""

    @property
    def encoder(self) -> BaseEncoder:
        """The encoder the index was built with, loaded on first use."""

    @property
    def bridge(self) -> BridgeLike | None:
        """What embeds words for an encoder that has no text side, if there is one."""

    @property
    def text_side(self) -> BaseEncoder | BridgeLike:
        """What embeds words; `NoTextSideError` where nothing does."""

    def __len__(self) -> int: ...

    def snapshot(self) -> Self:
        """Return an index that stays on this version, whatever `refresh` does to this one."""

    def keep_encoder(self, encoder: BaseEncoder, options: Mapping[str, Any]) -> None:
        """Take in the loaded encoder of the version that is searched, and how it was loaded."""

    def refresh(self) -> bool:
        """Move on to the newest committed version; say whether there was one."""

    def picture(self, id: str) -> Picture:  # noqa: A002
        """Read the picture a row was made from, in full."""
