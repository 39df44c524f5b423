"""What kind of index stands before the exact search: small dataclasses, one a kind.

All of them only propose candidates, which are scored again from the segments' own vectors; so a codec costs recall,
never the correctness of a score. ``tune`` chooses among them; ``Flat`` is what an index has before.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from retr.index.errors import FormatVersionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

IVFCodec = Literal["rabitq", "sq8", "fp16"]
HNSWCodec = Literal["sq8", "fp16"]


@dataclass(frozen=True)
class Flat:
    """Exact search: recall 1, time in proportion to the rows."""


@dataclass(frozen=True)
class IVF:
    """Inverted lists around centroids, with the vectors in them compressed.

    Attributes
    ----------
    lists
        How many centroids a segment gets; 0 means 4 times the square root of its rows. More lists make a probe
        cheaper and training dearer.
    codec
        ``rabitq``: 1 bit a dimension (about 80 bytes a 512-d vector), the smallest and the fastest; ``sq8`` 8 bits;
        ``fp16`` 16 bits.
    probes
        How many lists are searched. More raise recall and time.
    refine
        How many candidates, as a multiple of k, are scored again from the stored vectors. More raise recall and time.
    """

    lists: int = 0
    codec: IVFCodec = "rabitq"
    probes: int = 16
    refine: int = 4

    def factory(self, rows: int, dim: int) -> str:  # noqa: ARG002 - one signature for all kinds
        """Return faiss's name for a segment of ``rows`` rows of ``dim`` dimensions."""
        lists = self.lists or 4 * math.isqrt(rows)
        codec = {"rabitq": "RaBitQ", "sq8": "SQ8", "fp16": "SQfp16"}
        return f"IVF{max(1, min(lists, rows // 39))},{codec[self.codec]}"


@dataclass(frozen=True)
class HNSW:
    """A navigable graph: fast one query at a time, dear to build; loses more recall on text queries than `IVF`.

    Attributes
    ----------
    links
        Edges a vector; 16 to 48. More raise recall, memory (8 bytes an edge) and build time.
    build_effort
        Candidates looked at for each vector when building; raise with ``links``.
    search_effort
        Candidates kept while searching, at least k. More raise recall and time.
    codec
        How the graph's own vectors are held: ``sq8`` or ``fp16``.
    refine
        How many candidates, as a multiple of k, are scored again from the stored vectors.
    """

    links: int = 16
    build_effort: int = 80
    search_effort: int = 64
    codec: HNSWCodec = "sq8"
    refine: int = 4

    def factory(self, rows: int, dim: int) -> str:  # noqa: ARG002 - one signature for all kinds
        """Return faiss's name."""
        return f"HNSW{self.links}_{'SQ8' if self.codec == 'sq8' else 'SQfp16'}"


@dataclass(frozen=True)
class Cagra:
    """A graph on a GPU: needs faiss built with cuVS, and is searched on GPUs alone (without one, search is exact).

    Nothing is stored: the graph is built from the segments' vectors when they are put on the GPU, and takes their
    float32 bytes there beside its own.

    Attributes
    ----------
    links
        Edges a vector. More raise recall, memory (4 bytes an edge) and build time.
    search_effort
        Candidates kept while searching, at most 512, in steps of 32. More raise recall and time.
    """

    links: int = 64
    search_effort: int = 64


# How deep `tune` measures: of so many best rows, beside one that may not be found.
DEPTH = 10
Config: TypeAlias = Flat | IVF | HNSW | Cagra
# Beyond as many lists or candidates no index has more to look at.
_MOST_EFFORT = 1 << 16
_CODECS = {"rabitq", "sq8", "fp16"}
_KINDS: dict[str, type[Config]] = {"flat": Flat, "ivf": IVF, "hnsw": HNSW, "cagra": Cagra}


def with_effort(config: Config, effort: object) -> Config:
    """Return a kind of index that looks so far: `IVF` at so many lists, a graph at so many candidates.

    Raises
    ------
    UsageError
        Search is exact, or no index can look so far.
    """
    if isinstance(config, Flat):
        raise UsageError(
            f"effort {effort!r} says how far an approximate index looks, and this one is searched exactly",
            hint="leave effort out, or see `retr index tune`",
        )
    if isinstance(effort, bool) or not isinstance(effort, int) or not 1 <= effort <= _MOST_EFFORT:
        raise UsageError(f"effort must be a whole number from 1 to {_MOST_EFFORT}, got {effort!r}")
    return replace(config, probes=effort) if isinstance(config, IVF) else replace(config, search_effort=effort)


def effort_of(config: Config) -> int | None:
    """Return how far a kind of index looks; ``None`` for exact search."""
    if isinstance(config, Flat):
        return None
    return config.probes if isinstance(config, IVF) else config.search_effort


def to_json(config: Config) -> dict[str, Any]:
    """Return the manifest's form."""
    return {"kind": type(config).__name__.lower(), **asdict(config)}


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `to_json` wrote as people and JSON read it: ``flat`` is exact search, and is called so."""
    return {**stored, "kind": "exact" if stored["kind"] == "flat" else stored["kind"]}


def from_json(data: Mapping[str, Any]) -> Config:
    """Read what `to_json` wrote.

    Raises
    ------
    FormatVersionError
        The kind or one of its settings is not known to this version.
    """
    settings = dict(data)
    kind = settings.pop("kind", None)
    try:
        if not all(value in _CODECS or _is_setting(name, value) for name, value in settings.items()):
            kind = None
        return _KINDS[kind](**settings)
    except (KeyError, TypeError) as error:
        raise FormatVersionError(
            f"the index was tuned with {dict(data)!r}, which this retr does not know",
            hint="upgrade retr, or run `retr index tune` again",
        ) from error


def _is_setting(name: str, value: Any) -> bool:
    """Return whether a number may be meant: one beyond these would fill the memory, and no tuner tries it."""
    return type(value) is int and 0 <= value <= (1000 if name == "refine" else _MOST_EFFORT)


def parse_seconds(text: str) -> float:
    """Read a duration: ``"5ms"``, ``"0.5s"``.

    >>> parse_seconds("5ms"), parse_seconds("0.5s")
    (0.005, 0.5)

    Raises
    ------
    UsageError
        It is not one.
    """
    number = text.strip().lower()
    unit = next((unit for unit in ("ms", "us", "s") if number.endswith(unit)), "")
    try:
        amount = float(number.removesuffix(unit)) * {"ms": 1e-3, "us": 1e-6, "s": 1.0}.get(unit, math.nan)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise UsageError(f"{text!r} is not a duration", hint="write for example 5ms or 0.5s")
    return amount


def parse_bytes(text: str) -> int:
    """Read an amount of memory: ``"4G"``, ``"512M"``, ``"1.5GiB"``.

    >>> parse_bytes("4G"), parse_bytes("512M")
    (4294967296, 536870912)

    Raises
    ------
    UsageError
        It is not one.
    """
    number = text.strip().rstrip("BbIi").upper()
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(number[-1:], 1)
    try:
        amount = float(number.rstrip("KMGT")) * scale
    except ValueError:
        amount = 0.0
    if not 0 < amount < math.inf:
        raise UsageError(f"{text!r} is not an amount of memory", hint="write for example 4G or 512M")
    return int(amount)
