"""The encoder an index was built with: compared with the one offered, or loaded from its record.

Vectors of two encoders must never meet in one index: not of two names, not of two checkpoints under one name, not of
two preprocessings. Everything that opens an index for embedding passes through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from retr.index.encoder import EncoderInfo
from retr.index.errors import EncoderMismatchError, EncoderNotFoundError, NoTextSideError, UsageError
from retr.retrieval.encoders.registry import find_spec, text_option
from retr.retrieval.encoders.runtime.truncation import lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

DEFAULT_ENCODER = "lite"


def require_loaded(encoder: object, what: str = "a name or a loaded encoder") -> None:
    """Raise `UsageError` for what was given as a loaded encoder and is none, such as a bare function or network."""
    if not isinstance(getattr(encoder, "info", None), EncoderInfo):
        raise UsageError(
            f"an encoder is {what}, got {type(encoder).__name__}",
            hint="see `retr encoders ls`; retr.encoders.from_callable makes one of a function or a torch module",
        )


class RecordedEncoder:
    """An index's encoder by its record; the real one is loaded only when something has to be embedded.

    Parameters
    ----------
    info
        What the manifest recorded.
    load
        Gives the real encoder.
    """

    def __init__(self, info: EncoderInfo, load: Callable[[], BaseEncoder]) -> None:
        self.info = info
        self.load = load

    def encode_images(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """Embed pictures with the real encoder."""
        return self.load().encode_images(items)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with the real encoder; `NoTextSideError` without loading it where it has no text side."""
        if not self.info.text:
            no_text_side(self.info)
        return self.load().encode_texts(texts)

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Count the tokens of texts as the real encoder does; see `BaseEncoder.text_lengths`."""
        return lengths(self.load(), texts)


def no_text_side(info: EncoderInfo) -> NoReturn:
    """Raise `NoTextSideError`: an index of this encoder cannot be asked with words; the hint says what can be done."""
    other = text_option(info)
    if other is not None:
        raise NoTextSideError(
            f"the encoder {info.name!r} embeds images only with feature={info.options['feature']}",
            hint=f"build an index with --set {other} to ask with words, or search by image",
        )
    raise NoTextSideError(
        f"the encoder {info.name!r} embeds images only",
        hint="fit a bridge from the archive's own texts with `retr align --text-column COLUMN`, search by image, or "
        "build with an encoder that has a text side (`retr encoders ls`)",
    )


def require_same(recorded: EncoderInfo, given: EncoderInfo) -> None:
    """Raise `EncoderMismatchError` unless two encoders give comparable vectors."""
    if recorded.agrees_with(given):
        return
    if recorded.name != given.name:
        raise mismatch(recorded.name, given.name)
    if recorded.weights_sha256 != given.weights_sha256:
        raise EncoderMismatchError(
            f"the weights of {given.name!r} changed: the index was built with {recorded.weights_sha256[:12]}, "
            f"got: {given.weights_sha256[:12]}",
            hint="give the weights it was built with, or build a new index",
        )
    old, new = dict(recorded.options), dict(given.options)
    changed = [
        f"{key}={new.get(key)!r} instead of {old.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if not changed and recorded.preprocessing != given.preprocessing:
        changed = [f"its preprocessing is {given.preprocessing!r} instead of {recorded.preprocessing!r}"]
    if not changed:
        known = recorded.config_sha256 and given.config_sha256
        what = "configuration" if known and recorded.config_sha256 != given.config_sha256 else "text side (tokenizer)"
        raise EncoderMismatchError(
            f"the {what} of {given.name!r} is another than the index was built with, beside the same weights",
            hint="give the files it was built with, or build a new index",
        )
    raise EncoderMismatchError(
        f"the index was built with {given.name!r} set otherwise: {', '.join(changed)}",
        hint="use the recorded settings, or build a new index",
    )


def mismatch(recorded: str, given: str) -> EncoderMismatchError:
    """Return the error that names both encoders."""
    return EncoderMismatchError(
        f"the index was built with {recorded!r}, got: {given!r}",
        hint=f"use {recorded!r}, or build a new index with {given!r}",
    )


def _require_known(name: str) -> None:
    """Raise `EncoderNotFoundError` where an index was built with an encoder that has no name here."""
    try:
        find_spec(name)
    except EncoderNotFoundError as error:
        raise EncoderNotFoundError(
            f"the index holds vectors of {name!r}, which is no encoder that can be loaded here",
            hint="ask by id or by vector, give the encoder itself with `Index.open(path, encoder=...)`, or install the "
            "package that brings it",
        ) from error


def load_recorded(
    encoder: str | BaseEncoder | None, recorded: EncoderInfo | None, options: Mapping[str, Any]
) -> BaseEncoder:
    """Load the encoder asked for, else the recorded one, else the default; refuse another than the recorded one."""
    from retr.retrieval.encoders.registry import load_encoder, recorded_options

    if not isinstance(encoder, str) and encoder is not None:
        require_loaded(encoder)
        if recorded is not None:
            require_same(recorded, encoder.info)
        return encoder
    name = encoder or (recorded.name if recorded else DEFAULT_ENCODER)
    if recorded is not None:
        if name != recorded.name:
            # refused before anything is loaded
            raise mismatch(recorded.name, name)
        _require_known(name)
        options = {**recorded_options(recorded), **options}
    loaded = load_encoder(name, **options)
    if recorded is not None:
        require_same(recorded, loaded.info)
    return loaded
