"""The encoder of an adapted index: the one it was made from, followed by a fitted head.

An adapted index keeps its head in the sidecar file ``head.npz``; the encoder it is loaded as has another identity than
the plain one, so that adapted and plain vectors can never meet.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.disk.side_data import Change, Kind
from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.json_fields import Fields, stored
from retr.index.vectors import unit
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.index_encoder import load_recorded, require_same
from retr.retrieval.heads.head import Head
from retr.retrieval.labels.held_out_views import Views
from retr.retrieval.labels.trained_rows import HEAD_FILE, HEAD_NOTE, HELD_OUT, SPLIT, VIEWS_FILE, marks_of, noted_head
from retr.retrieval.transforms.transform import without_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.store import Store


class AdaptedEncoder(BaseEncoder):
    """An encoder followed by a head: images only, cosine."""

    def __init__(self, base: BaseEncoder, head: Head) -> None:
        self.base, self.head = base, head
        self.notes = base.notes
        self.batch_size = base.batch_size
        self.info = adapted_info(base.info, head)
        self.files = {HEAD_FILE: head.to_bytes()}

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into the base network's input."""
        return self.base.prepare(image)

    def compact(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Prepare one picture as the base network does, in few bytes."""
        return self.base.compact(image)

    def stack(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Stack prepared pictures as the base network wants them."""
        return self.base.stack(inputs)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures: float32 ``(n, head.dim)``."""
        return self.head(as_stored(self.base.info, self.base.encode_prepared(batch)))

    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Describe the places of one RGB picture as the base encoder does: they are compared with each other only."""
        return self.base.place_descriptors(image)


def as_stored(info: EncoderInfo, vectors: NDArray[Any]) -> NDArray[Any]:
    """Return vectors as a store keeps them: of unit length where the similarity is cosine."""
    return unit(vectors) if info.similarity == "cosine" else vectors


def adapted_info(base: EncoderInfo, head: Head) -> EncoderInfo:
    """Return the identity of ``base`` followed by ``head``."""
    both = hashlib.sha256("".join(sorted((base.weights_sha256, head.sha256))).encode()).hexdigest()
    return replace(
        base,
        dim=head.dim,
        similarity="cosine",
        text=False,
        text_sha256=None,
        logit_scale=None,
        weights_sha256=both,
        preprocessing=f"{base.preprocessing}; then a linear head fitted to {head.about['label']!r}",
    )


def head_of(store: Snapshot) -> Head | None:
    """Read the head of an adapted index; ``None`` for a plain one.

    Raises
    ------
    IndexCorruptError
        It cannot be read, or gives vectors of another length than the index holds.
    """
    if HEAD_FILE not in store.manifest.files:
        return None
    head = Head.from_bytes(store.file(HEAD_FILE))
    with stored("the stored head"):
        about = Fields(head.about)
        about.text("label")
        base = EncoderInfo.from_json(about.inner("encoder").data())
        if (base.dim, store.manifest.encoder.dim) != head.weights.shape:
            raise ValueError("a head of other lengths")
    return head


def load_for(store: Store, encoder: str | BaseEncoder | None, options: Mapping[str, Any]) -> BaseEncoder:
    """Load the encoder an index was built with, with its head where it has one, and without its transform.

    Raises
    ------
    EncoderMismatchError
        ``encoder`` is another one.
    """
    recorded, head = store.manifest.encoder.own, head_of(store)
    encoder = without_transform(encoder) if isinstance(encoder, BaseEncoder) else encoder
    if head is None:
        return load_recorded(encoder, recorded, options)
    if isinstance(encoder, BaseEncoder) and encoder.info.agrees_with(recorded):
        return encoder
    adapted = AdaptedEncoder(load_recorded(encoder, EncoderInfo.from_json(head.about["encoder"]), options), head)
    require_same(recorded, adapted.info)
    return adapted


class FittedHead(Kind):
    """The head of an adapted index, as a kind of side data: never dropped.

    Without its head the index could take no picture any more. What the head learnt from a row cannot be taken out of
    its numbers, and the vectors it was fitted on are not in this index.
    """

    name = "head"

    def checks(self, snapshot: Snapshot) -> Mapping[str, Callable[[], object]]:
        """Return what reads the head, whether it leads to vectors such as these, and what reads its views and note."""
        files = snapshot.manifest.files
        looks: dict[str, Callable[[], object]] = {HEAD_NOTE: lambda: noted_head(snapshot)}
        if HEAD_FILE in files:
            looks[HEAD_FILE] = lambda: (head_of(snapshot), marks_of(snapshot, HEAD_FILE))
        if VIEWS_FILE in files:
            looks[VIEWS_FILE] = lambda: Views.from_bytes(snapshot.file(VIEWS_FILE))
        return looks

    def stale(self, snapshot: Snapshot) -> tuple[str, ...]:  # noqa: ARG002
        """Return nothing: the vectors of the index are its own, whatever rows have come since."""
        return ()

    def rows(self, snapshot: Snapshot) -> NDArray[np.bool_] | None:
        """Return the rows that it was fitted on, deleted ones too; ``None`` where an older version did not say."""
        every, marks = np.arange(snapshot.n_total), marks_of(snapshot, HEAD_FILE)
        if marks is not None:
            return marks.among(snapshot, every)
        if SPLIT not in snapshot.schema.names:
            return None
        sides = snapshot.table([SPLIT], every)[SPLIT].to_pylist()
        return np.array([side not in {HELD_OUT, None} for side in sides], bool)

    def purge(self, snapshot: Snapshot, gone: NDArray[np.int64]) -> Change:
        """Refuse where the head was fitted on one of the rows; rows held out have left nothing in it but views."""
        if HEAD_FILE not in snapshot.manifest.files:
            return Change()
        rows = self.rows(snapshot)
        fitted = len(gone) if rows is None else int(rows[gone].sum())
        if fitted:
            raise RetrError(
                f"the head of this adapted index was fitted on {fitted} of the rows, so it cannot be purged of them",
                hint="purge the index it was made from, adapt that one again with `retr adapt`, and remove this one",
            )
        if VIEWS_FILE not in snapshot.manifest.files:
            return Change()
        # without rows that were deleted and compacted before, too
        stays = np.setdiff1d(snapshot.live_rows(), gone)
        views = Views.from_bytes(snapshot.file(VIEWS_FILE)).only(snapshot, stays)
        return Change({VIEWS_FILE: views.to_bytes()})
