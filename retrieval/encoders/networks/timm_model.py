"""What a `timm` encoder is made from, once its name, files and options are resolved; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from retr.index.encoder import Option
    from retr.retrieval.encoders.spec import Card


@dataclass(frozen=True)
class TimmModel:
    """What a name, a path and the options come to.

    Attributes
    ----------
    checkpoints
        The weights file, or its shards.
    architecture, arguments
        Of ``timm.create_model``; the arguments as plain values, layers by their names.
    pretrained
        ``pretrained_cfg`` of the folder, or of timm's tag.
    preprocess
        The keys of `STATED`, and ``crop_mode`` and ``input_size`` where they are stated.
    pooling
        One of `POOLINGS`, or None: the network's own.
    stated_pooling
        What the folder says of the pooling of the network that was saved, which timm reads in ``model_args`` alone.
    """

    name: str
    architecture: str
    checkpoints: tuple[Path, ...]
    card: Card
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pretrained: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    stated_pooling: str | None = None

    @property
    def file(self) -> str:
        """The weights file's name, or the first shard's, for messages."""
        return self.checkpoints[0].name
