"""The interface of an encoder, and the identity by which an index knows it.

The index records an `EncoderInfo` and compares identities; it never imports an implementation. Implementations
register under the entry-point group ``retr.encoders`` (see ``retr.retrieval.encoders.registry``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from retr.index.json_fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

Similarity = Literal["cosine", "dot"]
Option = str | int | float | bool | None
# Options that say where files lie or what runs them: a machine's matter, never a received index's.
_NOT_RECORDED = {"weights", "text_model", "device", "precision", "runtime"}


@dataclass(frozen=True)
class TransformInfo:
    """What is known of a transform that an index puts behind its encoder.

    Attributes
    ----------
    name
        What it is: ``"whitening"``.
    sha256
        Of its numbers.
    dim
        Length of the encoder's own vectors, which go in; they are compared by cosine.

    Examples
    --------
    >>> TransformInfo("whitening", "0" * 64, 1280).dim
    1280
    """

    name: str
    sha256: str
    dim: int

    @classmethod
    def from_json(cls, data: object) -> TransformInfo:
        """Read a dictionary of its fields; ``ValueError`` for anything else.

        >>> TransformInfo.from_json({"name": "whitening", "sha256": "0", "dim": 4}).dim
        4
        """
        given = Fields(data)
        return cls(given.text("name"), given.text("sha256"), given.whole("dim", least=1))


@dataclass(frozen=True)
class EncoderInfo:
    """Identity and properties of one loaded encoder; what the manifest records.

    Two encoders are the same when `identity` is the same (name, options, weights and preprocessing) and what is known
    of the configurations beside the weights does not differ: `agrees_with`.

    Attributes
    ----------
    name
        The registry name, as given to ``load_encoder``: ``"lite"``, ``"open_clip:ViT-B-32"``.
    dim
        Length of an embedding.
    similarity
        The score its authors trained: ``"cosine"`` (the index stores unit vectors) or ``"dot"`` (stored as they come).
    modality
        What it was trained on, for people: ``"fundus"``, ``"chest X-ray"``, ``"natural images"``, ``"many"``.
    text
        Whether it has a text side (``encode_texts``).
    weights_sha256
        sha256 of the checkpoint's bytes (of the sorted hashes where there are several files).
    config_sha256
        sha256 of what is stated beside the weights and decides the vectors too (activation, size, pooling, the image
        processor's values); None where all is in the weights, and in indexes of before.
    text_sha256
        sha256 of what decides the vectors of texts beside the weights (tokenizer, configuration of the text side);
        None where it was not available.
    preprocessing
        Fingerprint of everything between the decoded RGB picture and the network, as one readable line.
    options
        What ``load_encoder`` needs beside the name to build it again: ``{"feature": "retrieval"}``. Never a path.
    licence, source
        Licence of the weights, and where they come from.
    noncommercial
        True where the licence forbids commercial use or none is stated: said at build time.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``: in what the network was run. Not part of the identity.
    device
        Where it runs, for people. Not part of the identity.
    logit_scale
        Factor on the similarity before a softmax over prompts, where the encoder stores one.
    draft_size
        JPEGs may be decoded at a reduced size (DCT scaling) whose shorter side is at least this many pixels;
        ``None`` asks for a full decode.
    grey16
        How 16-bit grey becomes 8-bit: ``"minmax"`` over the picture's own range, or ``"max"`` (x / max).
    transform
        What an index puts behind the encoder; ``dim`` then speaks of what comes out of it. `own` is the encoder
        without it.

    Examples
    --------
    >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
    >>> info.name, info.dim, info.similarity
    ('mine', 48, 'cosine')
    """

    name: str
    dim: int
    similarity: Similarity
    modality: str
    text: bool
    weights_sha256: str
    preprocessing: str
    options: Mapping[str, Option] = field(default_factory=dict)
    licence: str = "unknown"
    source: str = "unknown"
    noncommercial: bool = False
    precision: str = "fp32"
    device: str = "cpu"
    logit_scale: float | None = None
    draft_size: int | None = None
    grey16: Literal["minmax", "max"] = "minmax"
    config_sha256: str | None = None
    text_sha256: str | None = None
    transform: TransformInfo | None = None

    @property
    def own(self) -> EncoderInfo:
        """The encoder as it is without the index's transform.

        >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
        >>> info.own == info
        True
        """
        return self if self.transform is None else replace(self, dim=self.transform.dim, transform=None)

    @property
    def identity(self) -> tuple[str | int | tuple[tuple[str, Option], ...], ...]:
        """What must be equal for two encoders to give comparable vectors.

        >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
        >>> info.identity[0], info.identity[-1]
        ('mine', 'cosine')
        """
        return (
            self.name,
            tuple(sorted(self.options.items())),
            self.weights_sha256,
            self.preprocessing,
            self.dim,
            self.similarity,
            # without one it is what it was before there were any: fingerprints hold it
            *(() if self.transform is None else (self.transform.name, self.transform.sha256)),
        )

    def agrees_with(self, other: EncoderInfo) -> bool:
        """Tell whether vectors of the two may meet: the same identity, and no known difference beside the weights.

        >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
        >>> from dataclasses import replace
        >>> info.agrees_with(replace(info, device="cuda")), info.agrees_with(replace(info, weights_sha256="1" * 64))
        (True, False)
        """
        pairs = ((self.config_sha256, other.config_sha256), (self.text_sha256, other.text_sha256))
        return self.identity == other.identity and all(a == b or a is None or b is None for a, b in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, the inverse of `from_json`.

        >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
        >>> info.to_json()["preprocessing"]
        '4x4'
        """
        fields = {**asdict(self), "options": dict(self.options)}
        if self.transform is None:
            # so that a manifest without one is the same text as before
            del fields["transform"]
        return fields

    @classmethod
    def from_json(cls, data: object) -> EncoderInfo:
        """Read what `to_json` wrote; keys of a newer version are ignored.

        Raises
        ------
        ValueError, KeyError
            A value is not of its type, or missing.

        Examples
        --------
        >>> info = EncoderInfo("mine", 48, "cosine", "fundus", text=False, weights_sha256="0" * 64, preprocessing="4x4")
        >>> EncoderInfo.from_json(info.to_json()) == info
        True
        """
        given = Fields(data)
        options = given.inner("options", {}).data()
        if not all(isinstance(value, str | int | float | bool | None) for value in options.values()):
            raise ValueError("an option is no single value")
        if not _NOT_RECORDED.isdisjoint(options):
            raise ValueError("an option names a place or a device")
        return cls(
            name=given.text("name"),
            dim=given.whole("dim"),
            similarity=given.choice("similarity", ("cosine", "dot")),
            modality=given.text("modality"),
            text=given.flag("text"),
            weights_sha256=given.text("weights_sha256"),
            preprocessing=given.text("preprocessing"),
            options=options,
            licence=given.text("licence", "unknown"),
            source=given.text("source", "unknown"),
            noncommercial=given.flag("noncommercial", default=False),
            precision=given.text("precision", "fp32"),
            device=given.text("device", "cpu"),
            logit_scale=given.number("logit_scale") if given.has("logit_scale") else None,
            draft_size=given.whole("draft_size") if given.has("draft_size") else None,
            grey16=given.choice("grey16", ("minmax", "max"), "minmax"),
            config_sha256=given.text("config_sha256") if given.has("config_sha256") else None,
            text_sha256=given.text("text_sha256") if given.has("text_sha256") else None,
            transform=TransformInfo.from_json(given.inner("transform").data()) if given.has("transform") else None,
        )


class Encoder(Protocol):
    """Turns pictures, and where it can words, into vectors."""

    @property
    def info(self) -> EncoderInfo:
        """Who this is."""

    def encode_images(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """Embed pictures (paths, bytes, PIL images, arrays ...): float32 ``(n, dim)``, not normalised."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 ``(n, dim)``; raises `NoTextSideError` where there is no text side."""
