"""From a question of the API to a `retr.Query`, with nothing read from the server's disk."""

from __future__ import annotations

import hashlib
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from retr import Query, UsageError
from retr.serve.schemas import PicturePart, RowPart, TextPart

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from retr import Picture
    from retr.serve.audit import Audit
    from retr.serve.remembered import Asked
    from retr.serve.schemas import Question
    from retr.serve.state import State
    from retr.serve.tokens import Token
    from retr.serve.uploads import Uploads


def query_of(
    question: Question, state: State, token: Token, known: Callable[[Hashable], Picture | None] | None = None
) -> Asked:
    """Return the query, and by what its parts are remembered; reads its pictures, so that it takes long.

    Parameters
    ----------
    known
        Returns a picture whose vector is remembered (`Remembered.picture`), which is not read.

    Raises
    ------
    ImageReadError, UsageError
        A picture cannot be read, an upload is gone, or a part cannot be meant.
    """
    terms = []
    keys: list[tuple[Any, ...] | None] = []
    for part in question.parts:
        if isinstance(part, PicturePart):
            digest = digest_of(part, state.uploads)
            # an upload that went since has no hash, and no vector is known by none
            key = ("picture", digest, part.crop) if digest else None
            held = None if known is None or part.data is None or part.upload is not None else known(key)
            whole = held or picture_of(part.model_copy(update={"crop": None}), state, token)
            term = Query.image(whole, region=part.crop)
            keys.append(key)
        elif isinstance(part, TextPart):
            term = Query.text(part.text)
            keys.append(("text", part.text))
        else:
            term = Query.id(part.id, region=part.crop) if isinstance(part, RowPart) else Query.vector(part.vector)
            keys.append(None)
        terms.append(term * part.weight)
    return reduce(add, terms, Query(())).refine(like=question.like, unlike=question.unlike), tuple(keys)


def is_decoded(question: Question) -> bool:
    """Return whether the query of a question is made without decoding or copying a picture."""
    return all(
        not isinstance(part, PicturePart) or (part.data is None and part.crop is None) for part in question.parts
    )


def digest_of(part: PicturePart, uploads: Uploads) -> str:
    """Return the hash of a picture's bytes; empty of an upload that is not held any more."""
    return uploads.digest(part.upload or "") if part.data is None else _digest(part.bytes())


def picture_of(part: PicturePart, state: State, token: Token) -> Picture:
    """Return the picture of a part, or the part of it that is meant."""
    if (part.data is None) == (part.upload is None):
        raise UsageError("a picture is given as data or as an upload")
    picture = state.decoders.read(part.bytes()) if part.upload is None else state.uploads.of(part.upload, token.name)
    return picture if part.crop is None else picture.crop(*part.crop)


def told(question: Question, audit: Audit, uploads: Uploads) -> list[dict[str, Any]]:
    """Return a question as the audit holds it: of a picture the hash of its bytes, of a vector that of its numbers."""
    parts: list[dict[str, Any]] = []
    shown: dict[str, Any]
    for part in question.parts:
        if isinstance(part, PicturePart):
            shown = {"picture": digest_of(part, uploads)}
            shown |= {} if part.crop is None else {"crop": list(part.crop)}
        elif isinstance(part, TextPart):
            shown = {"text": audit.words(part.text)}
        elif isinstance(part, RowPart):
            (hashed,) = audit.ids([part.id])
            shown = {"id": hashed} | ({} if part.crop is None else {"crop": list(part.crop)})
        else:
            shown = {"vector": _digest(repr(part.vector).encode())}
        parts.append({**shown, "weight": part.weight})
    marks = {"like": audit.ids(question.like), "unlike": audit.ids(question.unlike)}
    return [*parts, *([marks] if question.like or question.unlike else [])]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
