"""The encoder of an adapted index: the one it was made from, followed by a fitted head.

An adapted index keeps its head in the sidecar file ``head.npz``; the encoder it is loaded as has another identity than
the plain one, so that adapted and plain vectors can never meet.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.encoder import EncoderInfo
from retr.index.errors import RetrError
from retr.index.json_fields import Fields, stored
from retr.index.vectors import unit
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.index_encoder import load_recorded, require_same
from retr.retrieval.heads.head import Head
from retr.retrieval.labels.held_out_views import Views
from retr.retrieval.labels.trained_rows import HEAD_FILE, HEAD_NOTE, HELD_OUT, SPLIT, VIEWS_FILE, marks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.rows.snapshot import Snapshot
    from retr.index.rows.writer import Writer
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


def head_of(store: Store) -> Head | None:
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
    """Load the encoder an index was built with, with its head where it has one.

    Raises
    ------
    EncoderMismatchError
        ``encoder`` is another one.
    """
    recorded, head = store.manifest.encoder, head_of(store)
    if head is None:
        return load_recorded(encoder, recorded, options)
    if isinstance(encoder, BaseEncoder) and encoder.info.agrees_with(recorded):
        return encoder
    adapted = AdaptedEncoder(load_recorded(encoder, EncoderInfo.from_json(head.about["encoder"]), options), head)
    require_same(recorded, adapted.info)
    return adapted


class FittedHead:
    """The head of an adapted index, as a kind of side data (`retr.index.rows.purge.Kind`): never dropped.

    Without its head the index could take no picture any more. What the head learnt from a row cannot be taken out of
    its numbers, and the vectors it was fitted on are not in this index.
    """

    def holds(self, name: str) -> bool:
        """Return whether it is the head, what lies beside it, or the note of what it was fitted on."""
        return name in {HEAD_FILE, VIEWS_FILE, HEAD_NOTE}

    def purge(self, store: Snapshot, gone: NDArray[np.int64], writer: Writer[Snapshot]) -> Iterator[str]:
        """Refuse where the head was fitted on one of the rows; rows held out have left nothing in it but views."""
        if HEAD_FILE not in writer.draft.files:
            return
        fitted, marks = len(gone), marks_of(store, HEAD_FILE)
        if marks is not None:
            fitted = int(marks.among(store, gone).sum())
        elif SPLIT in store.schema.names:
            fitted = sum(side not in {HELD_OUT, None} for side in store.table([SPLIT], gone)[SPLIT].to_pylist())
        if len(gone) and fitted:
            raise RetrError(
                f"the head of this adapted index was fitted on {fitted} of the rows, so it cannot be purged of them",
                hint="purge the index it was made from, adapt that one again with `retr adapt`, and remove this one",
            )
        if VIEWS_FILE in writer.draft.files:
            # rows that were deleted and compacted before, too
            stays = np.setdiff1d(store.live_rows(), gone)
            writer.add_file(VIEWS_FILE, Views.from_bytes(store.file(VIEWS_FILE)).only(store, stays).to_bytes())
        yield from ()
