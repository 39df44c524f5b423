"""A server's indexes as if they were here: `Client` asks as `retr.Index` does and gives the same `retr.Hits`.

    with retr.Client("http://127.0.0.1:7860", index="fundus") as client:
        hits = client.search(image="x.png", k=5, where="age >= 60")

Errors are those that the index would raise here. Answers come as Arrow, so that metadata keep their types; the same
question to an `Index` and to a `Client` on the same version gives equal hits.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import httpx

import retr
from retr import Picture, Query, RetrError, UsageError
from retr.answers import MEDIA_TYPE, from_arrow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from retr import Hits

_ONE = ("image", "text", "id", "vector", "vectors")


class _Questions:
    """What both clients share: requests made of what is asked, and answers or errors made of what comes back."""

    def __init__(self, url: str, index: str | None, token: str | None, options: dict[str, Any]) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._settings = {"base_url": f"{url.rstrip('/')}/v1/", "headers": headers, **options}
        self._name = index

    def _asked(self, query: Any, given: dict[str, Any], options: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """Return the bodies of the requests, and whether one answer is expected."""
        chosen = [name for name in _ONE if given[name] is not None]
        if len(chosen) + (query is not None) != 1:
            raise UsageError(f"a search takes one of query, {', '.join(_ONE)}", hint="mix them with `retr.Query`")
        single = isinstance(query, Query) or (query is None and chosen != ["vectors"])
        if query is not None:
            queries = [query] if isinstance(query, Query) else list(query)
        elif chosen == ["vectors"]:
            queries = [Query.vector(vector) for vector in given["vectors"]]
        else:
            queries = [getattr(Query, chosen[0])(given[chosen[0]])]
        same = options.pop("exclude_same", None)
        # one for each question: each is a request of its own
        several = isinstance(same, Sequence) and not isinstance(same, str) and not all(isinstance(s, str) for s in same)
        bodies = zip([queries] if not several else [[one] for one in queries], same if several else [same], strict=True)
        common = {"k": 5, **options}
        return [
            {"questions": [_question(one) for one in asked], "exclude_same": _columns(own), **common}
            for asked, own in bodies
        ], single

    def _of_index(self, names: list[str]) -> str:
        if self._name is None:
            if len(names) != 1:
                raise UsageError(f"the server offers {', '.join(names)}", hint="say which: Client(url, index=NAME)")
            self._name = names[0]
        return self._name


class Client(_Questions):
    """A client that waits for each answer; threads may share one.

    Parameters
    ----------
    url
        Of the server, e.g. ``"http://127.0.0.1:7860"``.
    index
        Which of its indexes; may be left out where there is one.
    token
        If the server wants one.
    options
        Of ``httpx.Client``: ``timeout=``, ``verify=`` (the certificate of the server's own authority) ...

    Examples
    --------
    >>> import httpx
    >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json={"rows": 24}))
    >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
    ...     client.info()["rows"]
    24
    """

    def __init__(self, url: str, *, index: str | None = None, token: str | None = None, **options: Any) -> None:
        super().__init__(url, index, token, {"timeout": 120, **options})
        self._http = httpx.Client(**self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections.

        >>> client = Client("http://127.0.0.1:7860")
        >>> client.close()
        >>> client._http.is_closed
        True
        """
        self._http.close()

    @property
    def index(self) -> str:
        """The index that is asked.

        >>> with Client("http://127.0.0.1:7860", index="fundus") as client:
        ...     client.index
        'fundus'
        """
        if self._name is None:
            self._of_index([one["index"] for one in self._get("indexes")])
        assert self._name is not None
        return self._name

    def info(self) -> dict[str, Any]:
        """Return what the index holds, as `retr.Index.info` does.

        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json={"rows": 24}))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.info()["rows"]
        24
        """
        found: dict[str, Any] = self._get(f"indexes/{self.index}")
        return found

    def row(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return everything the index holds of one row, as JSON holds it.

        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json={"label": "healthy"}))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.row("a.png")["label"]
        'healthy'
        """
        found: dict[str, Any] = self._get(f"indexes/{self.index}/row", id=id)
        return found

    def picture(self, id: str, *, size: int = 1024) -> bytes:  # noqa: A002
        """Return a row's picture as JPEG, its longer side at most so many pixels.

        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, content=b"JPEG"))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.picture("a.png", size=256)
        b'JPEG'
        """
        return _checked(self._call("GET", f"indexes/{self.index}/picture", params={"id": id, "size": size})).content

    def explain(self, query: Query, id: str, *, size: int = 448) -> bytes:  # noqa: A002
        """Return which parts of a row's picture match a question, as the PNG of ``retr.Index.explain(...).overlay()``.

        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, content=b"PNG"))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.explain(Query.id("a.png"), "b.png")
        b'PNG'
        """
        asked = {"question": _question(query), "id": id, "size": size}
        return _checked(self._call("POST", f"indexes/{self.index}/explain", json=asked)).content

    def evaluate(self, task: str, label: str, **options: Any) -> dict[str, Any]:
        """Measure the index on its own labels, as `retr.Index.evaluate` does, and wait for the result.

        Raises
        ------
        RetrError
            It cannot be measured, or four evaluations wait already.

        Examples
        --------
        >>> import httpx
        >>> told = {"job": "x", "status": "done", "result": {"metrics": {}}}
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json=told))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.evaluate("retrieval", "label")
        {'metrics': {}}
        """
        asked = {"task": task, "label": label, **options}
        told = _checked(self._call("POST", f"indexes/{self.index}/evaluations", json=asked)).json()
        while told["status"] in {"waiting", "running"}:
            time.sleep(0.2)
            told = self._get(f"jobs/{told['job']}")
        if told["status"] == "failed":
            raise RetrError(told["error"])
        result: dict[str, Any] = told["result"]
        return result

    @overload
    def search(self, query: Sequence[Query], **options: Any) -> list[Hits]: ...

    @overload
    def search(self, *, vectors: ArrayLike, **options: Any) -> list[Hits]: ...

    @overload
    def search(
        self,
        query: Query | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        id: str | None = None,
        vector: ArrayLike | None = None,
        **options: Any,
    ) -> Hits: ...

    def search(
        self,
        query: Query | Sequence[Query] | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        id: str | None = None,  # noqa: A002
        vector: ArrayLike | None = None,
        vectors: ArrayLike | None = None,
        **options: Any,
    ) -> Hits | list[Hits]:
        """Find the most similar rows, as `retr.Index.search` does and with its options.

        >>> from retr.answers import to_arrow
        >>> from retr.sample import sample_index
        >>> answer = to_arrow([sample_index().search(id="healthy/P01-left.png", k=1)])
        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
        >>> with Client("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...     client.search(id="healthy/P01-left.png", k=1).ids
        ['healthy/P11-right.png']
        """
        given = {"image": image, "text": text, "id": id, "vector": vector, "vectors": vectors}
        bodies, single = self._asked(query, given, options)
        path = f"indexes/{self.index}/search"
        found = [hits for body in bodies for hits in _hits(self._call("POST", path, json=body, headers=_ARROW))]
        return found[0] if single else found

    def _get(self, path: str, **asked: Any) -> Any:
        return _checked(self._call("GET", path, params=asked)).json()

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreached(error) from error


class AsyncClient(_Questions):
    """A client for ``async`` code; its parameters are those of `Client`.

    >>> import asyncio
    >>> import httpx
    >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json={"rows": 24}))
    >>> async def ask():
    ...     async with AsyncClient("http://127.0.0.1:7860", index="fundus", transport=server) as client:
    ...         return await client.info()
    >>> asyncio.run(ask())
    {'rows': 24}
    """

    def __init__(self, url: str, *, index: str | None = None, token: str | None = None, **options: Any) -> None:
        super().__init__(url, index, token, {"timeout": 120, **options})
        self._http = httpx.AsyncClient(**self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections.

        >>> import asyncio
        >>> client = AsyncClient("http://127.0.0.1:7860")
        >>> asyncio.run(client.close())
        >>> client._http.is_closed
        True
        """
        await self._http.aclose()

    async def info(self) -> dict[str, Any]:
        """Return what the index holds, as `retr.Index.info` does.

        >>> import asyncio
        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, json={"rows": 24}))
        >>> async def ask():
        ...     async with AsyncClient("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...         return await client.info()
        >>> asyncio.run(ask())
        {'rows': 24}
        """
        found: dict[str, Any] = _checked(await self._call("GET", f"indexes/{await self._index()}")).json()
        return found

    async def search(
        self,
        query: Query | Sequence[Query] | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        id: str | None = None,  # noqa: A002
        vector: ArrayLike | None = None,
        vectors: ArrayLike | None = None,
        **options: Any,
    ) -> Hits | list[Hits]:
        """Find the most similar rows, as `retr.Index.search` does and with its options.

        >>> from retr.answers import to_arrow
        >>> from retr.sample import sample_index
        >>> answer = to_arrow([sample_index().search(id="healthy/P01-left.png", k=1)])
        >>> import asyncio
        >>> import httpx
        >>> server = httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
        >>> async def ask():
        ...     async with AsyncClient("http://127.0.0.1:7860", index="fundus", transport=server) as client:
        ...         return (await client.search(id="healthy/P01-left.png", k=1)).ids
        >>> asyncio.run(ask())
        ['healthy/P11-right.png']
        """
        given = {"image": image, "text": text, "id": id, "vector": vector, "vectors": vectors}
        bodies, single = self._asked(query, given, options)
        path = f"indexes/{await self._index()}/search"
        found = []
        for body in bodies:
            found += _hits(await self._call("POST", path, json=body, headers=_ARROW))
        return found[0] if single else found

    async def _index(self) -> str:
        if self._name is None:
            self._of_index([one["index"] for one in _checked(await self._call("GET", "indexes")).json()])
        assert self._name is not None
        return self._name

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreached(error) from error


_ARROW = {"accept": MEDIA_TYPE}


def _hits(answer: httpx.Response) -> list[Hits]:
    return from_arrow(_checked(answer).content)


def _checked(answer: httpx.Response) -> httpx.Response:
    """Return an answer; an error of the server is raised as the class it had there."""
    if answer.is_success:
        return answer
    try:
        said = answer.json()["error"]
        kind = getattr(retr, said.get("kind") or "RetrError", RetrError)
        error: RetrError = kind.__new__(kind)
        error.args, error.message, error.hint = (said["message"],), said["message"], said["hint"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RetrError(
            f"the server answers {answer.status_code}", hint="is this the address of `retr serve`?"
        ) from None
    raise error


def _unreached(error: httpx.HTTPError) -> RetrError:
    return RetrError(f"the server does not answer ({type(error).__name__})", hint="check its address, and that it runs")


def _question(query: Query) -> dict[str, Any]:
    parts = [{**_part(part.kind, part.value), "weight": part.weight} for part in query.parts]
    marks = {"like": list(query.like), "unlike": list(query.unlike)}
    return {"parts": parts, **{kind: ids for kind, ids in marks.items() if ids}}


def _part(kind: str, value: Any) -> dict[str, Any]:
    if kind == "image":
        return {"data": base64.b64encode(_file_of(value)).decode("ascii")}
    return {kind: value.tolist() if kind == "vector" else value}


def _file_of(value: Any) -> bytes:
    """Return a picture as the bytes of a file: its own, or of pixels alone a PNG of them."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | Path):
        try:
            return Path(value).read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read the picture {str(value)!r}: {error.strerror}", hint="check the path"
            ) from None
    picture = value if isinstance(value, Picture) else retr.read_picture(value)
    file = io.BytesIO()
    picture.image.save(file, "PNG")
    return file.getvalue()


def _columns(same: Any) -> dict[str, Any] | None:
    if same is None or isinstance(same, dict):
        return same
    return {same: None} if isinstance(same, str) else dict.fromkeys(same)
