"""Queries: weighted sums of pictures, texts, rows and vectors.

A `Query` is a tuple of parts, each with a weight; it is built with ``+``, ``-`` and ``*`` and holds no vector
until `resolve` is given an encoder and a store::

    Query.image("x.png") * 2 + Query.text("drusen") - Query.text("laser scars")

Where the index scores by cosine, each part becomes a unit vector, so that weights mean the same for pictures
and words, and the sum is made a unit vector again. Where it scores by dot product nothing is rescaled, and
the score of a sum is the weighted sum of its parts' scores.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from retr.index.errors import UsageError
from retr.index.json_fields import is_unicode
from retr.index.machine.home import home
from retr.index.rows.row_ids import unknown_id
from retr.index.vectors import plain_array, unit
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.query_pictures import one_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from retr.index.encoder import Encoder
    from retr.index.store import Store

PartKind = Literal["image", "text", "id", "vector"]

_WEIGHTED = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)):(.+)", re.DOTALL)
_JSON_KEYS = ("image", "text", "not", "id", "vector")


class TextEncoder(Protocol):
    """Turns words into vectors of the image space: an encoder's own text side, or a bridge."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 ``(n, dim)``."""


@dataclass(frozen=True, eq=False)
class Part:
    """One term of a query: what it is, its value, and its weight."""

    kind: PartKind
    value: Any
    weight: float = 1.0

    def describe(self) -> str:
        """Return the part in words, without pixels or numbers."""
        shown = repr(str(self.value)) if isinstance(self.value, str | Path) else f"<{type(self.value).__name__}>"
        factor = "" if self.weight == 1 else f"{self.weight:g} * "
        return f"{factor}{self.kind} {shown}"

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

    @classmethod
    def image(cls, image: Any) -> Query:
        """Ask with a picture.

        Parameters
        ----------
        image
            A path, the bytes of a file, a file open in binary mode, a PIL image, a `retr.Picture`, a
            ``pydicom.Dataset``, or an array or a tensor of one picture: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``,
            uint8, floats from 0 to 1, or as `retr.retrieval.images.arrays` says.

        Raises
        ------
        ImageReadError
            It is none of these. Shape and values of an array are looked at when the query is asked.

        Examples
        --------
        >>> import numpy as np
        >>> Query.image("x.png"), Query.image(np.zeros((3, 224, 224)))
        (Query(image 'x.png'), Query(image <ndarray>))
        """
        if not isinstance(image, str | Path | bytes):
            from retr.retrieval.images.given import given_picture

            image = given_picture(image)
        if isinstance(image, str | Path) and "\0" in str(image):
            raise UsageError(f"no file is called {str(image)!r}", hint="check the path")
        image = home(image) if isinstance(image, str | Path) and str(image).startswith("~") else image
        return cls((Part("image", image),))

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
    def id(cls, row_id: str) -> Query:
        """Ask with a row of the index, by its id.

        >>> Query.id("a.png") * 2
        Query(2 * id 'a.png')
        """
        if not isinstance(row_id, str):
            raise UsageError(f"rows are known by their ids, which are text, got: {row_id!r}")
        return cls((Part("id", row_id),))

    @classmethod
    def vector(cls, vector: ArrayLike) -> Query:
        """Ask with a vector, ``(dim,)``.

        >>> Query.vector([0.5, 0.5])
        Query(vector <ndarray>)
        """
        return cls._of_numbers(cls._numbers(vector))

    @classmethod
    def _of_numbers(cls, array: NDArray[np.float32]) -> Query:
        if array.ndim != 1:
            raise UsageError(f"a query vector must have one axis, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise UsageError("a query vector holds values that are not finite")
        return cls((Part("vector", array),))

    @staticmethod
    def _numbers(vector: Any) -> NDArray[np.float32]:
        try:
            # what float32 cannot hold becomes infinite, and is refused as such
            with np.errstate(over="ignore"):
                return plain_array(vector).astype(np.float32, casting="same_kind")
        except (TypeError, ValueError, OverflowError):
            raise UsageError("a query vector must be a list of numbers") from None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Query:
        """Read one line of a batch: ``{"image": ..., "text": [...], "not": ..., "id": ..., "vector": []}``.

        Each of ``image``, ``text``, ``not`` and ``id`` is a string, taken as it stands, or an object with a weight,
        ``{"text": "drusen", "weight": 2}``, or a list of either. A line of one part may hold its ``weight`` itself.
        Other keys are not looked at.

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
        if not terms:
            raise UsageError(f"a query needs one of {', '.join(_JSON_KEYS)}, got {sorted(record)}")
        if "weight" in record:
            if len(terms) > 1:
                hint = 'write it beside its part: {"text": [{"text": "drusen", "weight": 2}, "haze"]}'
                raise UsageError("a weight belongs to one part of a query, and this one has several", hint=hint)
            terms[0] *= _weight(record["weight"])
        return cls(tuple(part for term in terms for part in term.parts))

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

    def __mul__(self, weight: float) -> Query:
        factor = float(weight)
        if not math.isfinite(factor) or factor == 0:
            raise UsageError(f"the weight of a query must be finite and not zero, got {weight!r}")
        return Query(tuple(Part(p.kind, p.value, p.weight * factor) for p in self.parts))

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return self * -1

    def __add__(self, other: Query) -> Query:
        return Query(self.parts + other.parts)

    def __sub__(self, other: Query) -> Query:
        return self + -other

    def __repr__(self) -> str:
        return f"Query({self.describe()})"

    def describe(self) -> str:
        """Return the query in words: ``image 'x.png' + 2 * text 'drusen'``.

        >>> (Query.id("a.png") + Query.text("drusen")).describe()
        "id 'a.png' + text 'drusen'"
        """
        return " + ".join(part.describe() for part in self.parts)

    @property
    def uses_text(self) -> bool:
        """Whether any part is text.

        >>> Query.text("drusen").uses_text, Query.id("a.png").uses_text
        (True, False)
        """
        return any(part.kind == "text" for part in self.parts)


def gather_queries(
    query: Query | Sequence[Query] | None,
    *,
    image: Any,
    text: str | None,
    id: str | None,  # noqa: A002
    vector: ArrayLike | None,
    vectors: ArrayLike | None = None,
) -> tuple[list[Query], bool]:
    """Turn what was asked into queries, and say whether one or several answers are expected."""
    asked = {"query": query, "image": image, "text": text, "id": id, "vector": vector, "vectors": vectors}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise UsageError(
            f"a search takes one of {', '.join(asked)}, got: {what}",
            hint="mix them with `retr.Query`",
        )
    if isinstance(query, Query):
        return [query], True
    if query is not None:
        return _several(query), False
    if image is not None:
        return [Query.image(image)], True
    if text is not None:
        return [Query.text(text)], True
    if id is not None:
        return [Query.id(id)], True
    rows = Query._numbers(vector if vectors is None else vectors)
    if vectors is not None and rows.ndim != 2:
        raise UsageError(f"vectors must have the shape (n, dim), got {rows.shape}", hint="one vector is vector=")
    if rows.ndim == 2:
        return [Query._of_numbers(row) for row in rows], False
    return [Query._of_numbers(rows)], True


def _several(queries: Any) -> list[Query]:
    """Return a list of queries; `UsageError` for anything else."""
    found = (
        list(queries)
        if isinstance(queries, Iterable) and not isinstance(queries, str | bytes) and _may_hold_queries(queries)
        else [queries]
    )
    others = [one for one in found if not isinstance(one, Query)]
    if others:
        raise UsageError(
            f"a question is a retr.Query or a list of them, got {type(others[0]).__name__}",
            hint="say what it is: image=, text=, id=, vector= or vectors=",
        )
    return found


def _may_hold_queries(queries: Any) -> bool:
    # an array of numbers is no list of questions, however many rows it has
    return not isinstance(queries, np.ndarray) or (queries.dtype == object and queries.ndim > 0)


def resolve(
    queries: Sequence[Query], encoder: Encoder, store: Store, *, text_encoder: TextEncoder | None = None
) -> NDArray[np.float32]:
    """Return the queries' vectors; all pictures go through in one batch.

    Parameters
    ----------
    text_encoder
        Embeds the words instead of ``encoder`` (a bridge, for encoders without a text side).

    Returns
    -------
    float32 ``(n, dim)``; of unit length where the encoder's similarity is cosine.

    Raises
    ------
    UsageError
        For an id that is not in the index, a vector of another length, or parts that cancel out.
    NoTextSideError
        For text where neither the encoder nor ``text_encoder`` can embed it.
    """
    cosine = encoder.info.similarity == "cosine"
    parts = [part for query in queries for part in query.parts]
    vectors = _embed(parts, encoder, store, text_encoder or encoder)
    if cosine:
        vectors = [unit(vector) for vector in vectors]
    out = np.zeros((len(queries), encoder.info.dim), dtype=np.float32)
    found = iter(vectors)
    for row, query in enumerate(queries):
        if len(query.parts) == 1 and query.parts[0].weight == 1:
            # nothing to be added up, and a sum of one is the same to the last bit
            vector = next(found)
            if not vector.any():
                raise _cancelled()
            out[row] = unit(vector) if cosine else vector
            continue
        total = np.zeros(encoder.info.dim, dtype=np.float64)
        for part in query.parts:
            total += part.weight * next(found)
        # A tenth of a millionth of the weights is float32 rounding, not a direction.
        if np.linalg.norm(total) <= 1e-7 * sum(abs(part.weight) for part in query.parts):
            raise _cancelled()
        out[row] = unit(total) if cosine else total
    return out


def _cancelled() -> UsageError:
    return UsageError("the parts of the query cancel out", hint="change a weight or leave a part out")


def _embed(parts: Sequence[Part], encoder: Encoder, store: Store, text_encoder: TextEncoder) -> list[NDArray[Any]]:
    images = [part.value for part in parts if part.kind == "image"]
    if images:
        reading = BuildNotes.of(store).reading
        images = [one_picture(image, encoder.info, reading) for image in images]
    pictures = iter(encoder.encode_images(images)) if images else iter(())
    out: list[NDArray[Any]] = []
    for part in parts:
        if part.kind == "image":
            out.append(next(pictures))
        elif part.kind == "text":
            # One at a time: with text towers that average over padding, a text's vector depends on its batch.
            out.append(text_encoder.encode_texts([part.value])[0])
        elif part.kind == "id":
            row = store.rows_of([part.value])
            if row[0] < 0:
                raise unknown_id(store, part.value, part.weight_hint())
            out.append(np.asarray(store.vectors(row)[0], dtype=np.float32))
        else:
            if part.value.shape != (encoder.info.dim,):
                raise UsageError(f"the index holds vectors of length {encoder.info.dim}, got one of {len(part.value)}")
            out.append(part.value)
    return out


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
