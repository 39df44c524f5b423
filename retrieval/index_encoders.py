"""What embeds the queries of an index: its encoder, loaded on first need, and what stands in for a text side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.retrieval.contents import IndexContents, encoder_key
from retr.retrieval.encoders.index_encoder import no_text_side, require_loaded, require_same

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.text.align import Bridge


class IndexEncoders(IndexContents):
    """The encoder of an index that is open, and its bridge from words.

    >>> from retr.sample import sample_index
    >>> sample_index().encoder.info.dim
    48
    """

    @property
    def encoder(self) -> BaseEncoder:
        """The encoder the index was built with, loaded on first use, once however many threads ask.

        Where the index has a transform this is the encoder followed by it: its vectors lie where the index's rows lie.
        ``load_encoder`` gives the encoder as its authors made it.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.encoder
        <CallableEncoder colours dim=48 fp32 on cpu>
        """
        from retr.retrieval.heads.adapted import load_for
        from retr.retrieval.transforms.transform import with_transform

        store = self.store
        loaded = self._loaded(encoder_key(store), lambda: load_for(store, None, self._loading))
        encoder: BaseEncoder = self._followed(store.manifest.encoder.identity, lambda: with_transform(store, loaded))
        return encoder

    @property
    def bridge(self) -> Bridge | None:
        """What embeds words for an encoder that has no text side, if `retr align` was run; else ``None``.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> index.bridge is None
        True
        >>> _ = index.align("caption")
        >>> index.bridge.encode_texts(["left eye"]).shape
        (1, 48)
        """
        from retr.retrieval.text.align import FILE, find_bridge

        store = self.store
        if store.manifest.encoder.text:
            return None
        bridge: Bridge | None = self._bridges(store.manifest.files.get(FILE), lambda: find_bridge(store))
        return bridge

    @property
    def text_side(self) -> BaseEncoder | Bridge:
        """What embeds words: the encoder, or the bridge in its place.

        Raises
        ------
        NoTextSideError
            There is neither.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> _ = index.align("caption")
        >>> index.text_side is index.bridge
        True
        """
        info = self.store.manifest.encoder
        return self.encoder if info.text else self.bridge or no_text_side(info)

    def keep_encoder(self, encoder: BaseEncoder, options: Mapping[str, Any]) -> None:
        """Take in the loaded encoder of the version that is searched; `EncoderMismatchError` for another one.

        >>> from retr.sample import sample_index
        >>> (index := sample_index()).keep_encoder(index.encoder, {"device": "cpu"})
        >>> index.encoder.info.name
        'colours'
        """
        from retr.retrieval.transforms.transform import without_transform

        require_loaded(encoder)
        encoder = without_transform(encoder)
        require_same(self.store.manifest.encoder.own, encoder.info)
        self._options, self._options_of = {**self._loading, **options}, encoder_key(self.store)
        self._loaded.put(self._options_of, encoder)
