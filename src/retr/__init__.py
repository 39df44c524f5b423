"""Image retrieval for medical archives.

>>> import retr
>>> sorted(retr.__all__)
['Index', 'Query', 'RetrError', 'load_encoder']
"""

from typing import TYPE_CHECKING

from retr import telemetry

if TYPE_CHECKING:
    from retr.index.errors import RetrError
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.engine import Index
    from retr.retrieval.query import Query

__all__ = ["Index", "Query", "RetrError", "load_encoder"]
__version__ = "0.1.0"

telemetry.switch_off()

# Public names load on first use, so that `retr --help` starts without numpy, pyarrow or an encoder.
_HOMES = {
    "Index": "retr.retrieval.engine",
    "Query": "retr.retrieval.query",
    "RetrError": "retr.index.errors",
    "load_encoder": "retr.retrieval.encoders.registry",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'retr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
