"""Image retrieval for medical archives.

>>> import retr
>>> sorted(set(retr.__all__) - {name for name in retr.__all__ if name.endswith("Error")})
['AsyncClient', 'BuildReport', 'Client', 'Hit', 'Hits', 'Index', 'Picture', 'Query', 'load_encoder', 'read_picture']
"""

from pathlib import Path
from typing import TYPE_CHECKING

from retr import telemetry

if TYPE_CHECKING:
    from retr.index.errors import (
        EncoderMismatchError,
        EncoderNotFoundError,
        FilterError,
        FormatVersionError,
        ImageReadError,
        IndexCorruptError,
        IndexLockedError,
        IndexNotFoundError,
        MissingExtraError,
        NoTextSideError,
        RetrError,
        UnknownIdError,
        UsageError,
        WeightsError,
    )
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.hits import Hit, Hits
    from retr.retrieval.images import Picture
    from retr.retrieval.images.origin import read_picture
    from retr.retrieval.index import Index
    from retr.retrieval.ingest.report import BuildReport
    from retr.retrieval.query import Query
    from retr.serve.async_client import AsyncClient
    from retr.serve.client import Client

__all__ = [
    "AsyncClient",
    "BuildReport",
    "Client",
    "EncoderMismatchError",
    "EncoderNotFoundError",
    "FilterError",
    "FormatVersionError",
    "Hit",
    "Hits",
    "ImageReadError",
    "Index",
    "IndexCorruptError",
    "IndexLockedError",
    "IndexNotFoundError",
    "MissingExtraError",
    "NoTextSideError",
    "Picture",
    "Query",
    "RetrError",
    "UnknownIdError",
    "UsageError",
    "WeightsError",
    "load_encoder",
    "read_picture",
]
__version__ = "0.2.0"

telemetry.switch_off()

# a checkout on a system that made files of its links: the folders that they lead to lie beside `src`
if not (Path(__file__).parent / "index").is_dir():
    __path__.append(str(Path(__file__).parents[2]))

# Public names load on first use, so that `retr --help` starts without numpy, pyarrow or an encoder.
_HOMES = {
    "AsyncClient": "retr.serve.async_client",
    "Client": "retr.serve.client",
    "BuildReport": "retr.retrieval.ingest.report",
    "Hit": "retr.retrieval.hits",
    "Hits": "retr.retrieval.hits",
    "Index": "retr.retrieval.index",
    "Picture": "retr.retrieval.images",
    "Query": "retr.retrieval.query",
    "load_encoder": "retr.retrieval.encoders.registry",
    "read_picture": "retr.retrieval.images.origin",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'retr' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "retr.index.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
