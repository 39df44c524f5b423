"""Small indexes of made-up rows, for everything below `retr.index`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIM = 8


def encoder(dim: int = DIM, similarity: str = "cosine") -> EncoderInfo:
    return EncoderInfo(
        name="fake",
        dim=dim,
        similarity=similarity,  # type: ignore[arg-type]
        modality="none",
        text=False,
        weights_sha256="0" * 64,
        preprocessing="none",
    )


def rows(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table(
        {
            "id": [f"r{i}" for i in numbers],
            "age": pa.array([None if i % 7 == 3 else i % 90 for i in numbers], pa.int64()),
            "sex": [("F", "M", None)[i % 3] for i in numbers],
            "patient": [f"p{i // 4}" for i in numbers],
        }
    )


def vectors(start: int, stop: int, dim: int = DIM) -> np.ndarray:
    return np.stack([np.random.default_rng(i).standard_normal(dim) for i in range(start, stop)])


def never(segments: object, added: int) -> list[range]:
    """Merge nothing, in place of `retr.index.disk.compaction.last_run`."""
    return []


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave every commit its own segments, as small as they are."""
    monkeypatch.setattr("retr.index.rows.writer.last_run", never)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Store]:
    """Make an index with one segment for each of ``sizes``."""

    def build(*sizes: int, name: str = "index", similarity: str = "cosine", **options: object) -> Store:
        store = Store.create(tmp_path / name, encoder=encoder(similarity=similarity), **options)  # type: ignore[arg-type]
        at = 0
        with store.writer() as writer, pytest.MonkeyPatch.context() as patch:
            patch.setattr("retr.index.rows.writer.last_run", never)
            for size in sizes:
                writer.append(rows(at, at + size), vectors(at, at + size))
                store = writer.commit()
                at += size
        return store

    return build
