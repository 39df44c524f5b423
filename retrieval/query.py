"""Queries: weighted sums of pictures, texts, rows and vectors.

A `Query` is a tuple of parts, each with a weight, and the rows that were marked as right or wrong (`Query.refine`); it
is built with ``+``, ``-`` and ``*`` and holds no vector until `retr.retrieval.query_vectors.resolve` has an encoder
and a store::

    Query.image("x.png") * 2 + Query.text("drusen") - Query.text("laser scars")
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from retr.index.errors import UsageError
from retr.index.json_fields import is_unicode
from retr.index.machine.home import home
from retr.index.vectors import plain_array
from retr.retrieval.query_pictures import as_region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from retr.retrieval.query_pictures import Region

PartKind = Literal["image", "text", "id", "vector"]

_WEIGHTED = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)):(.+)", re.DOTALL)
_JSON_KEYS = ("image", "text", "not", "id", "vector")
_MARKS = ("like", "unlike")


class HasId(Protocol):
    """What a mark may be: a hit."""

    @property
    def id(self) -> str:
        """The row's id."""


class EmbeddedPart(NamedTuple):
    """A part's vector, float32 ``(dim,)``, and the encoder (and bridge) that gave it."""

    by: tuple[Any, ...]
    vector: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Part:
    """One term of a query: what it is, its value, its weight, and its vector where it was embedded before.

    ``region`` is the part of a picture that is meant: left, top, width and height in pixels, or as shares.
    """

    kind: PartKind
    value: Any
    weight: float = 1.0
    embedded: EmbeddedPart | None = None
    region: Region | None = None

    def describe(self) -> str:
        """Return the part in words, without pixels or numbers."""
        shown = repr(str(self.value)) if isinstance(self.value, str | Path) else f"<{type(self.value).__name__}>"
        factor = "" if self.weight == 1 else f"{self.weight:g} * "
        of = "" if self.region is None else f" region {','.join(f'{number:g}' for number in self.region)}"
        return f"{factor}{self.kind} {shown}{of}"

    def weight_hint(self) -> str | None:
        """Return how a weight is given, where an id or words look as if they began with one."""
        match = _WEIGHTED.fullmatch(self.value)
        if match is None or (self.kind == "text" and not match[2][0].isalpha()):
            return None
        example = json.dumps({self.kind: match[2], "weight": float(match[1])}, ensure_ascii=False)
        return f"a weight is a field of its own: {example}"


@dataclass(frozen=True, eq=False)
class Query:
    """A weighted sum of parts.

    >>> query = Query.id("a.png") * 2 + Query.text("drusen") - Query.text("laser scars")
    >>> [(part.kind, part.value, part.weight) for part in query.parts]
    [('id', 'a.png', 2.0), ('text', 'drusen', 1.0), ('text', 'laser scars', -1.0)]
    """

    parts: tuple[Part, ...]
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()

    @classmethod
    def image(cls, image: Any, *, region: Sequence[float] | None = None) -> Query:
        """Ask with a picture, or with a part of one.

        Parameters
        ----------
        image
            A path, the bytes of a file, a file open in binary mode, a PIL image, a `retr.Picture`, a
            ``pydicom.Dataset``, or an array or a tensor of one picture: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``,
            uint8, floats from 0 to 1, or as `retr.retrieval.images.arrays` says.
        region
            Left, top, width and height of the part that is meant: in pixels of the upright picture, or, where none is
            above 1, as shares of its width and height. The picture itself is still the query's own, and left out.

        Raises
        ------
        ImageReadError
            It is none of these. Shape and values of an array are looked at when the query is asked.
        UsageError
            The region is empty or not within the picture, which is looked at when the query is asked.

        Examples
        --------
        >>> import numpy as np
        >>> Query.image("x.png"), Query.image(np.zeros((3, 224, 224)))
        (Query(image 'x.png'), Query(image <ndarray>))
        >>> Query.image("x.png", region=(120, 80, 64, 64))
        Query(image 'x.png' region 120,80,64,64)
        """
        part = None if region is None else as_region(region)
        if not isinstance(image, str | Path | bytes):
            from retr.retrieval.images.given import given_picture

            image = given_picture(image)
        if isinstance(image, str | Path) and "\0" in str(image):
            raise UsageError(f"no file is called {str(image)!r}", hint="check the path")
        image = home(image) if isinstance(image, str | Path) and str(image).startswith("~") else image
        return cls((Part("image", image, region=part),))

    @classmethod
    def text(cls, text: str) -> Query:
        """Ask with words.

        >>> Query.text("drusen") - 0.5 * Query.text("laser scars")
        Query(text 'drusen' + -0.5 * text 'laser scars')
        """
        if not text.strip():
            raise UsageError("the text of a query is empty", hint="give at least one word")
        if not is_unicode(text):
            raise UsageError(f"the text of a query is not Unicode: {text!r}", hint="give it as UTF-8")
        return cls((Part("text", text),))

    @classmethod
    def id(cls, row_id: str, *, region: Sequence[float] | None = None) -> Query:
        """Ask with a row of the index, by its id, or with a region of its picture, as `image` takes one.

        >>> Query.id("a.png") * 2
        Query(2 * id 'a.png')
        """
        if not isinstance(row_id, str):
            raise UsageError(f"rows are known by their ids, which are text, got: {row_id!r}")
        return cls((Part("id", row_id, region=None if region is None else as_region(region)),))

    @classmethod
    def vector(cls, vector: ArrayLike) -> Query:
        """Ask with a vector, ``(dim,)``.

        >>> Query.vector([0.5, 0.5])
        Query(vector <ndarray>)
        """
        array = as_numbers(vector)
        if array.ndim != 1:
            raise UsageError(f"a query vector must have one axis, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise UsageError("a query vector holds values that are not finite")
        return cls((Part("vector", array),))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Query:
        """Read one line of a batch: ``{"image": ..., "text": [...], "not": ..., "id": ..., "vector": []}``.

        Each of ``image``, ``text``, ``not`` and ``id`` is a string, taken as it stands, or an object with a weight,
        ``{"text": "drusen", "weight": 2}``, or a list of either. A line of one part may hold its ``weight`` itself, and
        of one picture or row its ``region``.
        ``like`` and ``unlike`` are ids of rows, as `refine` takes them. Other keys are not looked at.

        >>> record = {"id": "12:34.png", "text": [{"text": "drusen", "weight": 2}, "haze"], "not": "laser scars"}
        >>> Query.from_json(record).describe()
        "2 * text 'drusen' + text 'haze' + -1 * text 'laser scars' + id '12:34.png'"
        """
        terms: list[Query] = []
        for key in _JSON_KEYS:
            value = record.get(key)
            if value is None:
                continue
            if key == "vector":
                terms.append(cls.vector(value))
            else:
                terms += [cls._item(key, item) for item in (value if isinstance(value, list) else [value])]
        if not terms and not record.get("like"):
            raise UsageError(f"a query needs one of {', '.join(_JSON_KEYS)}, got {sorted(record)}")
        if "weight" in record:
            if len(terms) > 1:
                hint = 'write it beside its part: {"text": [{"text": "drusen", "weight": 2}, "haze"]}'
                raise UsageError("a weight belongs to one part of a query, and this one has several", hint=hint)
            if terms:
                terms[0] *= _weight(record["weight"])
        query = cls(tuple(part for term in terms for part in term.parts))
        if record.get("region") is not None:
            query = query.cut(record["region"])
        if not any(key in record for key in _MARKS):
            return query
        return query.refine(like=record.get("like") or (), unlike=record.get("unlike") or ())

    @classmethod
    def _item(cls, key: str, item: object) -> Query:
        """Read one string, or one object of a string and its weight."""
        value, weight = item, 1.0
        if isinstance(item, dict) and item.keys() <= {key, "weight"}:
            value, weight = item.get(key), _weight(item.get("weight", 1))
        if not isinstance(value, str):
            raise UsageError(
                f"{key!r} of a query must be a string, or a list of strings, got {item!r}",
                hint=f'a weight is a field of its own: {{"{key}": "...", "weight": 2}}',
            )
        return cls._of(key, value) * weight

    @classmethod
    def _of(cls, kind: str, value: str) -> Query:
        if kind == "image":
            return cls.image(value)
        if kind == "id":
            return cls.id(value)
        if kind in {"text", "not"}:
            return cls.text(value) * (-1 if kind == "not" else 1)
        raise UsageError(f"unknown kind of query {kind!r}", hint=f"one of {', '.join(_JSON_KEYS)}")

    @classmethod
    def weighted(cls, kind: str, argument: str) -> Query:
        """Read the command line's form, in which ``"2:drusen"`` is weight 2; ``kind="not"`` subtracts words.

        A number and a colon in front of words are a weight where a letter follows at once: ``"2:1 AV block"``,
        ``"12:30 scan"`` and ``"3: mild"`` are words. In front of a picture's file they are one unless there is a file
        of the whole name. An id is taken as it stands.

        >>> Query.weighted("text", "2:drusen").parts[0].weight
        2.0
        >>> Query.weighted("not", "laser scars").parts[0].weight
        -1.0
        >>> Query.weighted("text", "2:1 AV block").describe()
        "text '2:1 AV block'"
        """
        match = _WEIGHTED.fullmatch(argument)
        if match is not None:
            meant = {"text": match[2][0].isalpha(), "not": match[2][0].isalpha(), "image": not _is_file(argument)}
            if meant.get(kind):
                return cls._of(kind, match[2]) * float(match[1])
        return cls._of(kind, argument)

    def cut(self, region: Sequence[float] | str) -> Query:
        """Return the query with a region of each of its pictures and rows in place of the whole, as `image` takes one.

        Raises
        ------
        UsageError
            It has no picture and no row, or the region is none.

        Examples
        --------
        >>> Query.id("a.png").cut((0.5, 0, 0.5, 0.5))
        Query(id 'a.png' region 0.5,0,0.5,0.5)
        """
        part = as_region(region)
        if not any(one.kind in {"image", "id"} for one in self.parts):
            shown = ",".join(f"{number:g}" for number in part)
            raise UsageError(f"a region is a part of a picture, got: {shown}", hint="ask with a picture or a row")
        cut = (replace(one, region=part, embedded=None) if one.kind in {"image", "id"} else one for one in self.parts)
        return replace(self, parts=tuple(cut))

    def __mul__(self, weight: float) -> Query:
        try:
            factor = float(weight)
        except OverflowError:
            factor = math.inf
        if not math.isfinite(factor) or factor == 0:
            raise UsageError(f"the weight of a query must be finite and not zero, got {weight!r:.40}")
        # beyond these, sums of float32 run over or vanish
        if not all(1e-15 <= abs(part.weight * factor) <= 1e15 for part in self.parts):
            raise UsageError(f"the weight of a query must lie between 1e-15 and 1e15, got {weight!r:.40}")
        return replace(self, parts=tuple(replace(part, weight=part.weight * factor) for part in self.parts))

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return self * -1

    def __add__(self, other: Query) -> Query:
        return Query(self.parts + other.parts).refine(like=self.like, unlike=self.unlike)._marked(other)

    def __sub__(self, other: Query) -> Query:
        return self + -other

    def __repr__(self) -> str:
        return f"Query({self.describe()})"

    def refine(
        self,
        hits: Sequence[Any] = (),
        *,
        like: Iterable[str | int | HasId] = (),
        unlike: Iterable[str | int | HasId] = (),
    ) -> Query:
        """Ask again, moved towards rows that are right and away from rows that are wrong.

        Marked rows and their byte-identical copies do not come back (but with ``include_self``); what ``exclude_same``
        leaves out of the query's own patient it leaves out of theirs, too. The parts of the query stay, and marks
        gather from call to call: the last one on a row counts. How a question is moved:
        `retr.retrieval.feedback`.

        Parameters
        ----------
        hits
            The answer in which ranks are meant.
        like, unlike
            Ids, hits, or ranks in ``hits`` from 1.

        Raises
        ------
        UsageError
            A row is marked as both, or a mark is none of these.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> query = Query.id("healthy/P01-left.png")
        >>> hits = index.search(query, k=3)
        >>> again = query.refine(hits, like=[1], unlike=["glaucoma/P00-left.png"])
        >>> again
        Query(id 'healthy/P01-left.png', refined by 1 like and 1 unlike)
        >>> hits.ids[0] in index.search(again, k=3).ids
        False
        """
        wanted, unwanted = _marks(hits, like, "like"), _marks(hits, unlike, "unlike")
        both = [one for one in wanted if one in unwanted]
        if both:
            raise UsageError(f"{both[0]!r} is marked as like and as unlike", hint="mark it as one of them")
        new = {*wanted, *unwanted}
        return Query(
            self.parts,
            (*(one for one in self.like if one not in new), *wanted),
            (*(one for one in self.unlike if one not in new), *unwanted),
        )

    def _marked(self, other: Query) -> Query:
        return self.refine(like=other.like, unlike=other.unlike)

    @property
    def marked(self) -> tuple[Part, ...]:
        """The marked rows, as parts of a query.

        >>> [part.value for part in Query.id("a.png").refine(like=["b.png"], unlike=["c.png"]).marked]
        ['b.png', 'c.png']
        """
        return tuple(Part("id", one) for one in (*self.like, *self.unlike))

    def describe(self) -> str:
        """Return the query in words: ``image 'x.png' + 2 * text 'drusen'``.

        >>> (Query.id("a.png") + Query.text("drusen")).describe()
        "id 'a.png' + text 'drusen'"
        """
        parts = " + ".join(part.describe() for part in self.parts)
        marks = " and ".join(f"{len(ids)} {kind}" for kind in _MARKS if (ids := getattr(self, kind)))
        return ", ".join([*([parts] if parts else []), *([f"refined by {marks}"] if marks else [])])

    @property
    def uses_text(self) -> bool:
        """Whether any part is text.

        >>> Query.text("drusen").uses_text, Query.id("a.png").uses_text
        (True, False)
        """
        return any(part.kind == "text" for part in self.parts)


def as_numbers(vector: Any) -> NDArray[np.float32]:
    """Return what may be one vector or several as float32; `UsageError` where it is no numbers."""
    if type(vector) is np.ndarray and vector.dtype == np.float32:
        # the question keeps its own
        return vector.copy()
    try:
        # what float32 cannot hold becomes infinite, and is refused as such
        with np.errstate(over="ignore"):
            return plain_array(vector).astype(np.float32, casting="same_kind")
    except (TypeError, ValueError, OverflowError):
        raise UsageError("a query vector must be a list of numbers") from None


def _marks(hits: Sequence[Any], given: Iterable[object], kind: str) -> list[str]:
    """Return the ids that marks mean, each once."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"{kind} is a list of ids, got: {given!r}", hint=f"for example {kind}=['a.png']")
    found: dict[str, None] = {}
    for one in given:
        if isinstance(one, str):
            found[one] = None
        elif isinstance(one, int | np.integer) and not isinstance(one, bool):
            found[_ranked(hits, int(one))] = None
        elif isinstance(getattr(one, "id", None), str):
            found[one.id] = None  # type: ignore[attr-defined]
        else:
            raise UsageError(f"a row is marked by its id, by a hit, or by a rank, got: {one!r}")
    return list(found)


def _ranked(hits: Sequence[Any], rank: int) -> str:
    ranks = getattr(hits, "ranks", None)
    at = [] if ranks is None else np.flatnonzero(ranks == rank).tolist()
    if not at:
        raise UsageError(f"there is no hit of rank {rank}", hint="give the hits in which ranks are meant, or ids")
    found: str = hits.ids[at[0]]  # type: ignore[attr-defined]
    return found


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"a weight must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise UsageError("a weight must be finite, got a number of hundreds of digits") from None


def _is_file(name: str) -> bool:
    try:
        return home(name).exists()
    except (OSError, ValueError, UsageError):
        return False
