"""The pictures of an index as a ``torch.utils.data.Dataset`` (MONAI's loaders take it, too)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from retr.retrieval.archive.row_pictures import picture_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from retr.retrieval.index import Index


class IndexDataset(Dataset[tuple[Any, Any]]):
    """Pictures of an index with the values of a column, in the order of its rows.

    It can be pickled, and worker processes read from it.

    Parameters
    ----------
    index
        An open `retr.Index`; the archive must be in reach.
    label
        The column of the second half of an item; without one that is the row's id.
    where
        A condition: only rows for which it is true.
    transform
        Makes of a picture (PIL, RGB) what the first half is; by default a float32 tensor ``(3, h, w)`` in 0 to 1.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> dataset = IndexDataset(sample_index(), "label", where="age < 42")
    >>> picture, label = dataset[0]
    >>> len(dataset), tuple(picture.shape), label
    (4, (3, 32, 32), 'glaucoma')
    """

    def __init__(
        self,
        index: Index,
        label: str | None = None,
        *,
        where: str | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        store = index.store
        if label is not None:
            store.columns.require(label)
        rows = store.live_rows() if where is None else np.flatnonzero(store.where(where))
        # one version, whatever is added meanwhile
        self._store = index.snapshot().store
        self.ids: list[str] = store.table(["id"], rows)["id"].to_pylist()
        self.labels: list[Any] = self.ids if label is None else store.table([label], rows)[label].to_pylist()
        self._transform = _tensor if transform is None else transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        """Return the picture and the label of a row."""
        return self._transform(picture_of(self._store, self.ids[number]).image), self.labels[number]


def _tensor(image: Any) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image, np.uint8))
    return pixels.permute(2, 0, 1).to(torch.float32) / 255
