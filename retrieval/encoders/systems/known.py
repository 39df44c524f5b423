"""What is known of a published model by its name, beyond what lies in its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.retrieval.encoders.spec import Card


@dataclass(frozen=True)
class Known:
    """What is known of one model beyond its files.

    Attributes
    ----------
    card
        As `retr encoders ls` shows it.
    architecture
        Of timm, or None where it is a model of transformers.
    arguments
        What the card hands to ``timm.create_model``; the folder's ``model_args`` go before it.
    pooling
        Which tokens are the embedding, where the network's own pooling is none.
    preprocess
        What the card states against the folder's ``pretrained_cfg``.
    fallback
        What the authors' own reader does, where a weights file comes without its folder.
    files
        Names of the weights file beside timm's own two.
    resize
        ``"tensorflow"`` where the card resizes pictures with TensorFlow before the folder's processor gets them.
    """

    card: Card
    architecture: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    fallback: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    resize: str | None = None

    @property
    def timm(self) -> bool:
        """Whether it is a model of timm."""
        return self.architecture is not None
