"""A server's indexes as if they were here: `Client` asks as `retr.Index` does and gives the same `retr.Hits`.

    with retr.Client("http://127.0.0.1:7860", index="fundus") as client:
        hits = client.search(image="x.png", k=5, where="age >= 60")

Errors are those that the index would raise here. Answers to a search come as Arrow, so that metadata keep their types;
the same question to an `Index` and to a `Client` on the same version gives equal hits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import httpx

from retr.serve.client_calls import Calls, of_set, unreached

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from retr import Hits, Query
    from retr.serve.client_calls import Call, Exchange

    Result = TypeVar("Result")


class Client:
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
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._calls = Calls(index)
        self._http = httpx.Client(base_url=f"{url.rstrip('/')}/v1/", headers=headers, **{"timeout": 120, **options})

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
        return self._run(self._calls.named())

    def indexes(self) -> list[dict[str, Any]]:
        """Return what the server's indexes hold, `index` being their names.

        >>> import httpx
        >>> answer = httpx.Response(200, json=[{"index": "fundus"}])
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.indexes()
        [{'index': 'fundus'}]
        """
        return self._run(self._calls.indexes())

    def info(self) -> dict[str, Any]:
        """Return what the index holds, as `retr.Index.info` does.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"rows": 24})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.info()["rows"]
        24
        """
        found: dict[str, Any] = self._run(self._calls.get(""))
        return found

    def row(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Return everything the index holds of one row, as JSON holds it.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"label": "healthy"})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.row("a.png")["label"]
        'healthy'
        """
        found: dict[str, Any] = self._run(self._calls.get("/row", id=id))
        return found

    def rows(self, where: str | None = None, *, offset: int = 0, limit: int = 50) -> dict[str, Any]:
        """Return the rows that a condition allows, a page at a time: their ``total``, and ``rows`` with all columns.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"total": 1, "rows": [{"id": "a.png"}]})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.rows("age > 60")["total"]
        1
        """
        found: dict[str, Any] = self._run(self._calls.get("/rows", where=where, offset=offset, limit=limit))
        return found

    def facets(self, where: str | None = None) -> dict[str, Any]:
        """Return what each column holds among the rows that a condition allows: values with counts, or a range.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"total": 1, "facets": []})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.facets("age > 60")["total"]
        1
        """
        found: dict[str, Any] = self._run(self._calls.get("/facets", where=where))
        return found

    def picture(self, id: str, *, size: int = 1024, **view: Any) -> bytes:  # noqa: A002
        """Return a row's picture as JPEG, its longer side at most so many pixels.

        Another view of it: ``center`` and ``width``, a window of deep grey; ``frame``, from 1; ``region``, a part in
        more detail, ``left,top,width,height`` as shares.

        >>> import httpx
        >>> answer = httpx.Response(200, content=b"JPEG")
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.picture("a.png", size=256)
        b'JPEG'
        """
        return self._run(self._calls.data("GET", "/picture", params={"id": id, "size": size, **view}))

    def classify(self, *pictures: Any, **options: Any) -> dict[str, Any]:
        """Name what pictures show: ``answers`` as ``retr classify --json`` prints them, and ``notes``.

        The options are those of the API: one of ``labels``, ``by`` and ``probe``, then ``k``, ``top``, ``where`` ...

        >>> import httpx
        >>> answer = httpx.Response(200, json={"answers": [{"label": "healthy"}]})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.classify(b"a file", by="label")["answers"]
        [{'label': 'healthy'}]
        """
        return self._run(self._calls.classify(pictures, options))

    def explain(self, query: Query, id: str, *, size: int = 448) -> bytes:  # noqa: A002
        """Return what a row's score for a question rests on, as the PNG of `retr.Index.explain`.

        >>> import httpx
        >>> from retr import Query
        >>> answer = httpx.Response(200, content=b"PNG")
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.explain(Query.id("a.png"), "b.png")
        b'PNG'
        """
        return self._run(self._calls.explain(query, id, size))

    def evaluate(self, task: str, label: str, **options: Any) -> dict[str, Any]:
        """Measure the index on its own labels, as `retr.Index.evaluate` does, and wait for the result.

        Raises
        ------
        RetrError
            It cannot be measured, or four evaluations wait already.

        Examples
        --------
        >>> import httpx
        >>> answer = httpx.Response(200, json={"job": "x", "status": "done", "result": {"metrics": {}}})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.evaluate("retrieval", "label")
        {'metrics': {}}
        """
        return self._run(self._calls.evaluate(task, label, options))

    def evaluate_graded(
        self, judged: Mapping[str, Mapping[str, float]], questions: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Measure search against grades of rows by question, as `retr.Index.evaluate_graded` does.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"job": "x", "status": "done", "result": {"questions": 1}})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.evaluate_graded({"q": {"a.png": 2}}, {"q": "effusion"}, in_="findings")
        {'questions': 1}
        """
        return self._run(self._calls.evaluate_graded(judged, questions, options))

    def sets(self) -> list[dict[str, Any]]:
        """Return the sets, in the order in which they were made: names, how many rows, authors.

        >>> import httpx
        >>> answer = httpx.Response(200, json=[{"name": "odd"}])
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.sets()
        [{'name': 'odd'}]
        """
        found: list[dict[str, Any]] = self._run(self._calls.get("/sets"))
        return found

    def set_contents(self, name: str) -> dict[str, Any]:
        """Return a set: the ids of its rows, its labels, its note and its question.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"ids": ["a.png"]})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.set_contents("odd")["ids"]
        ['a.png']
        """
        found: dict[str, Any] = self._run(self._calls.get(of_set(name)))
        return found

    def save_set(
        self, name: str, ids: Sequence[str], *, question: Query | None = None, note: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Put rows into a set, with the question that found them and its options; return the set.

        >>> import httpx
        >>> from retr import Query
        >>> answer = httpx.Response(200, json={"ids": ["a.png"]})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.save_set("odd", ["a.png"], question=Query.id("b.png"), k=1)["ids"]
        ['a.png']
        """
        return self._run(self._calls.save(name, ids, question, note, options))

    def label(self, name: str, ids: Sequence[str], label: str, *, remove: bool = False) -> dict[str, Any]:
        """Label rows of a set, or take a label from them; return the set.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"labelled": 1})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.label("odd", ["a.png"], "haze")["labelled"]
        1
        """
        found: dict[str, Any] = self._run(
            self._calls.send("POST", of_set(name, "/labels"), {"ids": list(ids), "label": label, "remove": remove})
        )
        return found

    def remove_from_set(self, name: str, ids: Sequence[str]) -> dict[str, Any]:
        """Take rows out of a set, with their labels there; return the set.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"ids": []})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.remove_from_set("odd", ["a.png"])["ids"]
        []
        """
        found: dict[str, Any] = self._run(self._calls.send("POST", of_set(name, "/remove"), {"ids": list(ids)}))
        return found

    def reopen_set(self, name: str) -> dict[str, Any]:
        """Ask a set's question again: today's ``answer``, and the ids that are ``new`` in it.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"new": ["c.png"]})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.reopen_set("odd")["new"]
        ['c.png']
        """
        found: dict[str, Any] = self._run(self._calls.get(of_set(name, "/answer")))
        return found

    def export_set(self, name: str, form: str = "csv") -> bytes:
        """Return a set with all columns and its labels, as ``csv`` or ``parquet``.

        >>> import httpx
        >>> answer = httpx.Response(200, content=b"id")
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.export_set("odd")
        b'id'
        """
        return self._run(self._calls.data("GET", of_set(name, "/file"), params={"form": form}))

    def drop_set(self, name: str) -> None:
        """Take a set away; its rows stay in the index.

        >>> import httpx
        >>> answer = httpx.Response(200, content=b"")
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.drop_set("odd") is None
        True
        """
        self._run(self._calls.data("DELETE", of_set(name)))

    def add(self, picture: Any, name: str) -> str:
        """Add a picture, which the server keeps under a name with its format's suffix; return its row's id.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"id": "added/a.png"})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.add(b"a file", "a.png")
        'added/a.png'
        """
        return self._run(self._calls.added(picture, name))

    def delete(self, ids: Sequence[str], *, purge: bool = False) -> int:
        """Delete rows; return how many. ``purge`` leaves nothing of them in any file of the index.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"rows": 1})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.delete(["a.png"])
        1
        """
        return self._run(self._calls.deleted(ids, purge=purge))

    def map_column(self, name: str | None = None) -> dict[str, Any]:
        """Return what a column, or none: the clusters, says of each point of the map.

        >>> import httpx
        >>> answer = httpx.Response(200, json={"kind": "values"})
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.map_column("label")["kind"]
        'values'
        """
        found: dict[str, Any] = self._run(self._calls.get("/map/column", name=name))
        return found

    def map(self) -> bytes:
        """Return where each row lies on the map: little-endian float32, x and y of each, in the order of the index.

        >>> import httpx
        >>> answer = httpx.Response(200, content=b"12345678")
        >>> server = httpx.MockTransport(lambda request: answer)
        >>> client = Client("http://127.0.0.1:7860", index="fundus", transport=server)
        >>> client.map()
        b'12345678'
        """
        return self._run(self._calls.data("GET", "/map"))

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
        what = {"image": image, "text": text, "id": id, "vector": vector, "vectors": vectors}
        return self._run(self._calls.search(query, what, options))

    def _run(self, exchange: Exchange[Result]) -> Result:
        """Carry requests to the server and answers back, until there is a result."""
        try:
            call = next(exchange)
            while True:
                time.sleep(call.after)
                call = exchange.send(self._answer(call))
        except StopIteration as end:
            result: Result = end.value
            return result

    def _answer(self, call: Call) -> httpx.Response:
        try:
            return self._http.request(call.method, call.path, **call.options)
        except httpx.HTTPError as error:
            raise unreached(error) from error
