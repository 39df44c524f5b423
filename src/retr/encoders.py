"""What an encoder of one's own is made of, and what is known of those that there are.

A package that brings an encoder subclasses `BaseEncoder` and registers a `Spec` under the entry-point group
``retr.encoders``; a function or a ``torch.nn.Module`` becomes one with `from_callable`. `compare` tells which of
several suits one's pictures. See ``docs/encoders.md``.
"""

from retr.index.encoder import EncoderInfo
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.callables import from_callable
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.evaluation.compare import compare

__all__ = ["BaseEncoder", "Card", "EncoderInfo", "Spec", "compare", "from_callable"]
