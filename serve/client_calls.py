"""What a client sends and makes of the answers, without a connection: `Client` and `AsyncClient` carry it.

Each function of `Calls` is a generator: it yields requests, is sent their answers, and returns the result.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import retr
from retr import Picture, Query, RetrError, UsageError
from retr.answers import MEDIA_TYPE, from_arrow

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from retr import Hits

_ONE = ("image", "text", "id", "vector", "vectors")
_FINISHED = {"done", "failed"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """One request: its method, its path below ``/v1/``, and what `httpx` takes beside; after so many seconds."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    after: float = 0.0


if TYPE_CHECKING:
    #: Requests on their way out, answers on their way in, and what they come to.
    Exchange = Generator[Call, httpx.Response, Result]


class Calls:
    """The requests of one client, which asks one index.

    Parameters
    ----------
    index
        Its name; ``None`` for the only one of the server.
    """

    def __init__(self, index: str | None) -> None:
        self.index = index

    def named(self) -> Exchange[str]:
        """Return the index's name, which is asked for once where it was not given."""
        if self.index is None:
            names = [one["index"] for one in (yield from self.indexes())]
            if len(names) != 1:
                raise UsageError(f"the server offers {', '.join(names)}", hint="say which: Client(url, index=NAME)")
            self.index = names[0]
        return self.index

    def indexes(self) -> Exchange[list[dict[str, Any]]]:
        """Return what the server's indexes hold."""
        found: list[dict[str, Any]] = checked((yield Call("GET", "indexes"))).json()
        return found

    def get(self, path: str, **asked: Any) -> Exchange[Any]:
        """Return what a path below the index answers as JSON; what is ``None`` is not asked for."""
        return (yield from self.answer("GET", path, params=given(asked))).json()

    def send(self, method: str, path: str, body: dict[str, Any]) -> Exchange[Any]:
        """Send a body of JSON to a path below the index; return the JSON of the answer."""
        return (yield from self.answer(method, path, json=body)).json()

    def answer(self, method: str, path: str, **options: Any) -> Exchange[httpx.Response]:
        """Return the answer of a path below the index."""
        name = yield from self.named()
        return checked((yield Call(method, f"indexes/{quote(name, safe='')}{path}", options)))

    def data(self, method: str, path: str, **options: Any) -> Exchange[bytes]:
        """Return the bytes of the answer of a path below the index."""
        return (yield from self.answer(method, path, **options)).content

    def search(self, query: Any, what: dict[str, Any], options: dict[str, Any]) -> Exchange[Hits | list[Hits]]:
        """Return the hits of one question, or of several."""
        bodies, single = _searches(query, what, options)
        found: list[Hits] = []
        for body in bodies:
            data = yield from self.data("POST", "/search", json=body, headers={"accept": MEDIA_TYPE})
            found += from_arrow(data)
        return found[0] if single else found

    def classify(self, pictures: Sequence[Any], options: dict[str, Any]) -> Exchange[dict[str, Any]]:
        """Return what pictures are said to show."""
        parts = [{"data": encoded(one)} for one in pictures]
        found: dict[str, Any] = yield from self.send("POST", "/classify", {"pictures": parts, **options})
        return found

    def explain(self, query: Query, row: str, size: int) -> Exchange[bytes]:
        """Return a picture of what a row's score rests on."""
        body = {"question": question(query), "id": row, "size": size}
        return (yield from self.data("POST", "/explain", json=body))

    def evaluate(self, task: str, label: str, options: dict[str, Any]) -> Exchange[dict[str, Any]]:
        """Begin an evaluation and ask for it until it is done."""
        return (yield from self._job("/evaluations", {"task": task, "label": label, **options}))

    def evaluate_graded(
        self, judged: Mapping[str, Mapping[str, float]], questions: Mapping[str, str] | None, options: dict[str, Any]
    ) -> Exchange[dict[str, Any]]:
        """Begin a measurement against judgements and ask for it until it is done."""
        return (yield from self._job("/evaluations/graded", {"judged": judged, "questions": questions, **options}))

    def _job(self, path: str, body: dict[str, Any]) -> Exchange[dict[str, Any]]:
        told = yield from self.send("POST", path, body)
        while told["status"] not in _FINISHED:
            told = checked((yield Call("GET", f"jobs/{told['job']}", after=0.2))).json()
        if told["status"] == "failed":
            raise RetrError(told["error"])
        result: dict[str, Any] = told["result"]
        return result

    def save(
        self, name: str, ids: Sequence[str], query: Query | None, note: str | None, options: dict[str, Any]
    ) -> Exchange[dict[str, Any]]:
        """Put rows into a set."""
        body = given({"ids": list(ids), "note": note})
        if query is not None:
            same = _columns(options.pop("exclude_same", None))
            body["question"] = {"questions": [question(query)], "exclude_same": same, **options}
        found: dict[str, Any] = yield from self.send("PUT", of_set(name), body)
        return found

    def added(self, picture: Any, name: str) -> Exchange[str]:
        """Add a picture under a name; return its row's id."""
        body = file_of(picture)
        row: str = (yield from self.answer("POST", "/rows", params={"name": name}, content=body)).json()["id"]
        return row

    def deleted(self, ids: Sequence[str], *, purge: bool) -> Exchange[int]:
        """Delete rows; return how many."""
        rows: int = (yield from self.send("DELETE", "/rows", {"ids": list(ids), "purge": purge}))["rows"]
        return rows


def of_set(name: str, further: str = "") -> str:
    """Return the path of a set, or one below it."""
    return f"/sets/{quote(name, safe='')}{further}"


def given(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is not ``None``."""
    return {name: value for name, value in asked.items() if value is not None}


def checked(answer: httpx.Response) -> httpx.Response:
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


def unreached(error: Exception) -> RetrError:
    """Return the error of a server that cannot be asked."""
    return RetrError(f"the server does not answer ({type(error).__name__})", hint="check its address, and that it runs")


def question(query: Query) -> dict[str, Any]:
    """Return a query as the API takes it."""
    parts = [{**_part(part.kind, part.value), **_crop(part), "weight": part.weight} for part in query.parts]
    marks = {"like": list(query.like), "unlike": list(query.unlike)}
    return {"parts": parts, **{kind: ids for kind, ids in marks.items() if ids}}


def encoded(picture: Any) -> str:
    """Return a picture's file in base64."""
    return base64.b64encode(file_of(picture)).decode("ascii")


def file_of(value: Any) -> bytes:
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


def _searches(query: Any, what: dict[str, Any], options: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Return the bodies of the requests of a search, and whether one answer is expected."""
    chosen = [name for name in _ONE if what[name] is not None]
    if len(chosen) + (query is not None) != 1:
        raise UsageError(f"a search takes one of query, {', '.join(_ONE)}", hint="mix them with `retr.Query`")
    single = isinstance(query, Query) or (query is None and chosen != ["vectors"])
    if query is not None:
        queries = [query] if isinstance(query, Query) else list(query)
    elif chosen == ["vectors"]:
        queries = [Query.vector(vector) for vector in what["vectors"]]
    else:
        queries = [getattr(Query, chosen[0])(what[chosen[0]])]
    same = options.pop("exclude_same", None)
    # one for each question: each is a request of its own
    several = isinstance(same, Sequence) and not isinstance(same, str) and not all(isinstance(s, str) for s in same)
    bodies = zip([queries] if not several else [[one] for one in queries], same if several else [same], strict=True)
    common = {"k": 5, **options}
    return [
        {"questions": [question(one) for one in asked], "exclude_same": _columns(own), **common}
        for asked, own in bodies
    ], single


def _part(kind: str, value: Any) -> dict[str, Any]:
    if kind == "image":
        return {"data": encoded(value)}
    return {kind: value.tolist() if kind == "vector" else value}


def _crop(part: Any) -> dict[str, Any]:
    """Return the region of a part as shares."""
    if part.region is None:
        return {}
    left, top, width, height = part.region
    if max(part.region) <= 1:
        return {"crop": [left, top, width, height]}
    if part.kind != "image":
        said = ",".join(f"{number:g}" for number in part.region)
        raise UsageError(
            f"a region of a row's picture is asked for in shares here, got: {said}", hint="0.2,0.1,0.1,0.1"
        )
    picture = retr.read_picture(part.value)
    picture.region(*part.region)  # refused here where it lies outside
    return {"crop": [left / picture.width, top / picture.height, width / picture.width, height / picture.height]}


def _columns(same: Any) -> dict[str, Any] | None:
    if same is None or isinstance(same, dict):
        return same
    return {same: None} if isinstance(same, str) else dict.fromkeys(same)
