"""`Card`: what is known of an encoder before it is loaded. `Spec`: how it is loaded."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retr.index.encoder import EncoderInfo
from retr.index.errors import WeightsError
from retr.retrieval.encoders.weights import checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.encoders.weights.checkpoints import WeightFile


@dataclass(frozen=True)
class Card:
    """What is known of an encoder without loading it; a row of ``retr encoders ls``.

    Attributes
    ----------
    name
        Registry name; of a family the form to type, ``"open_clip:MODEL/TAG"``.
    summary
        One sentence: architecture, what it was trained on.
    modality
        As `EncoderInfo.modality`.
    dim
        Length of the default embedding, None where it depends on the model.
    text
        Whether there is a text side, None where it depends on the model.
    licence, noncommercial, source
        As in `EncoderInfo`.
    files
        What has to be on the machine, and where people get it.
    parameters
        How many the image side has as it is published, None where it depends on the model or is not known.

    Examples
    --------
    >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
    >>> card.name, card.dim
    ('mine', 48)
    """

    name: str
    summary: str
    modality: str
    dim: int | None
    text: bool | None
    licence: str
    source: str
    noncommercial: bool = False
    files: tuple[WeightFile, ...] = ()
    parameters: int | None = None

    def info(self, **loaded: Any) -> EncoderInfo:
        """Return the `EncoderInfo` of a loaded encoder: what is known of it, and what loading showed.

        >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
        >>> card.info(dim=48, similarity="cosine", text=False, weights_sha256="0" * 64, preprocessing="4x4").licence
        'MIT'
        """
        known = {key: getattr(self, key) for key in ("name", "modality", "licence", "source", "noncommercial")}
        return EncoderInfo(**{**known, **loaded})


@dataclass(frozen=True)
class Spec:
    """Target of an entry point.

    Attributes
    ----------
    card
        What is known without loading.
    load
        ``load(*, device, precision, **options) -> BaseEncoder``; of a family ``load(model, *, ...)``. Its
        keyword-only parameters are the accepted options, annotated ``str | None``, ``float`` and the like.
    family
        True where the name goes on after a colon.
    available
        Whether everything needed is on this machine; None: whether the card's files are found.
    head_options
        Options that give the features a fitted head (`retr adapt`) does best with, where they are not the default.
    members
        Of a family, cards of models that are known by name.
    recorded_options
        Options of an index's encoder that its record does not hold, where the defaults became others since.
    transform
        Whether a new index puts a transform behind it unless told otherwise (`retr.retrieval.transforms`).

    Examples
    --------
    >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
    >>> spec = Spec(card, load=lambda *, device, precision, cells="4": None, available=lambda: True)
    >>> spec.card.name
    'mine'
    """

    card: Card
    load: Callable[..., BaseEncoder]
    family: bool = False
    available: Callable[[], bool] | None = None
    head_options: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Card, ...] = ()
    recorded_options: Mapping[str, str] = field(default_factory=dict)
    transform: bool = False

    def card_of(self, rest: str) -> Card:
        """Return the card of a family's model, by what follows the colon; the family's where it has none of its own.

        >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
        >>> spec = Spec(card, load=lambda *, device, precision, cells="4": None, available=lambda: True)
        >>> spec.card_of("large").name
        'mine'
        """
        wanted = rest.lower()
        return next((card for card in self.members if card.name.partition(":")[2].lower() == wanted), self.card)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options `load` accepts.

        >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
        >>> spec = Spec(card, load=lambda *, device, precision, cells="4": None, available=lambda: True)
        >>> spec.options
        ('device', 'precision', 'cells')
        """
        parameters = inspect.signature(self.load).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def is_available(self) -> bool:
        """Return whether the encoder can be loaded without the network and without a path.

        >>> card = Card("mine", "Colours of a grid.", "fundus", 48, text=False, licence="MIT", source="https://example.org")
        >>> spec = Spec(card, load=lambda *, device, precision, cells="4": None, available=lambda: True)
        >>> spec.is_available()
        True
        """
        if self.available is not None:
            return self.available()
        try:
            for file in self.card.files:
                if not file.optional:
                    checkpoints.find(file, encoder=self.card.name, network=False)
        except WeightsError:
            return False
        return True
