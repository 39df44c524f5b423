"""The features that a head is fitted on: pictures are embedded again where the encoder has better ones.

Some encoders know features that serve a head better than the ones they give by default (`Spec.head_options`); with the
archive at hand, its pictures are embedded again with those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import EncoderNotFoundError, RetrError
from retr.retrieval.archive import locations
from retr.retrieval.archive.locations import Archive
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_in
from retr.retrieval.encoders.runtime.batches import encode_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder


def better_features(store: Store) -> BaseEncoder | None:
    """Load the index's encoder with the features that suit a head better, where it has any and pictures are at hand."""
    from retr.retrieval.encoders.registry import find_spec, load_encoder, recorded_options

    info = store.manifest.encoder
    try:
        spec, _ = find_spec(info.name)
    except EncoderNotFoundError:  # built with an encoder object that has no name here
        return None
    if not spec.head_options or spec.head_options.items() <= dict(info.options).items():
        return None
    paths = (
        store.table(["path"], rows=store.live_rows()[:1])["path"].to_pylist() if "path" in store.schema.names else []
    )
    try:
        locations.locate(store, paths[0])
    except (RetrError, IndexError):
        return None
    return load_encoder(info.name, **{**recorded_options(info), **spec.head_options})


def embed_again(
    store: Store, rows: NDArray[np.int64], encoder: BaseEncoder, progress: bool, *, otherwise: str | None = None
) -> NDArray[np.float32]:
    """Read every row's picture from its archive and embed it: float32 ``(n, dim)``.

    Parameters
    ----------
    otherwise
        What a person can do where a picture cannot be read; by default what would make it readable.

    Raises
    ------
    RetrError
        One cannot.
    """
    table = store.table(["id", "path"], rows=rows)
    items = list(zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True))
    return encode_all(encoder, items, _Reader(store, encoder, otherwise), progress=progress)


class _Reader:
    """From a row to the network's input; safe to call from several threads."""

    def __init__(self, store: Store, encoder: BaseEncoder, otherwise: str | None) -> None:
        self._archive, self._notes, self._encoder = Archive(store), BuildNotes.of(store), encoder
        self._otherwise = otherwise

    def __call__(self, item: tuple[str, str]) -> NDArray[Any]:
        name, path = item
        info = self._encoder.info
        reading = {"draft_size": info.draft_size, "grey16": info.grey16}
        try:
            picture = picture_in(self._archive.read(path), name, self._notes, **reading)
        except RetrError as error:
            hint = self._otherwise or error.hint or "bring its archive back to where it was"
            raise RetrError(f"the picture of {name!r} cannot be read again", hint=hint) from error
        return self._encoder.compact(picture.image)
