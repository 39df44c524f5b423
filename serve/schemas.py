"""What is asked of the API, and what it answers: the models behind the OpenAPI description.

An answer to a question holds what ``retr query --json`` prints for it, and a row what it prints for a hit; the same
functions make both (`retr.Hits.to_json`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from retr import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Columns = Annotated[list[str], Field(max_length=200)]
Marks = Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(max_length=200)]


class _Strict(BaseModel):
    """A request in which a name that is not known is an error: a misspelt filter must not be passed over."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class PicturePart(_Strict):
    """A picture of a question: its bytes in base64, or the name of one that was uploaded before."""

    data: str | None = Field(None, description="The bytes of the file, in base64.")
    upload: str | None = Field(None, description="A name that `POST /v1/uploads` gave.")
    crop: tuple[Share, Share, Share, Share] | None = Field(
        None, description="The part of the picture that is meant: left, top, width, height as shares of its size."
    )
    weight: float = 1.0

    def bytes(self) -> bytes:
        """Return the bytes given as ``data``; `retr.UsageError` where they are no base64."""
        try:
            return base64.b64decode(self.data or "", validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the data of a picture are not base64") from None


class TextPart(_Strict):
    """Words of a question, taken as they stand."""

    text: str = Field(min_length=1, max_length=10_000)
    weight: float = 1.0


class RowPart(_Strict):
    """A row of the index, by its id."""

    id: str = Field(min_length=1, max_length=4096)
    crop: tuple[Share, Share, Share, Share] | None = Field(
        None, description="The part of its picture that is meant, as of a picture."
    )
    weight: float = 1.0


class VectorPart(_Strict):
    """A vector of the index's space."""

    vector: list[float] = Field(min_length=1, max_length=65_536)
    weight: float = 1.0


class Question(_Strict):
    """A weighted sum of parts; a negative weight moves away. Rows marked as right or wrong refine it."""

    parts: list[PicturePart | TextPart | RowPart | VectorPart] = Field(default=[], max_length=64)
    like: Marks = Field(default=[], description="Ids of rows that are right: more like these, which do not come back.")
    unlike: Marks = Field(default=[], description="Ids of rows that are wrong.")

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.parts and not self.like:
            raise ValueError("a question has at least one part, or a row that it is like")
        return self


class SearchRequest(_Strict):
    """One or several questions with one set of conditions."""

    questions: list[Question] = Field(min_length=1, max_length=64)
    k: int = Field(5, ge=1, le=10_000)
    where: str | None = Field(None, max_length=10_000)
    exclude_same: dict[str, str | None] | None = Field(
        None, description="Columns whose value rows must not share with the question; null: its own row's or header's."
    )
    strict_exclude: bool = False
    one_per: str | None = None
    min_score: float | None = None
    include_self: bool = False
    exact: bool = False
    effort: int | None = Field(None, ge=1)
    partial: bool = Field(
        False, description="Answer also where shards on other machines do not; the answer has the share ``searched``."
    )
    offset: int | None = Field(None, ge=0, le=100_000)
    diverse: float | None = Field(
        None, ge=0, le=1, description="Prefer hits that differ from those before them: 0 is by score alone, 1 most."
    )
    in_: Annotated[str, Field(min_length=1, max_length=4096)] | Columns | None = Field(
        None, alias="in", description="Columns of text in which the words of the questions are looked for."
    )
    fuse: float | None = Field(None, ge=0, le=1, description="The share of vectors in an answer by words.")
    item: Annotated[str, Field(min_length=1, max_length=4096)] | Literal[True] | None = Field(
        None,
        description="What a case is: study, series, volume, patient, eye-pair or a column; true: as the index records. "
        "The parts of a question are then those of one case, and cases answer.",
    )
    item_score: Literal["maxsim", "mean", "best"] = "maxsim"
    in_regions: bool = Field(
        False, description="Compare with the regions of pictures; a hit has the box of its best, ``region``, in pixels."
    )
    columns: Columns | None = None

    @field_validator("questions")
    @classmethod
    def _few_pictures(cls, questions: list[Question]) -> list[Question]:
        pictures = sum(isinstance(part, PicturePart) for question in questions for part in question.parts)
        if pictures > 64:
            raise ValueError(f"a request may hold 64 pictures, got {pictures}")
        return questions

    def options(self) -> dict[str, Any]:
        """Return the conditions as keyword arguments of `retr.Index.search`."""
        return self.model_dump(exclude={"questions"})


class ExplainRequest(_Strict):
    """A question, or the set whose question is meant, and the row of which is asked what its score rests on."""

    question: Question | None = None
    set: str | None = Field(None, min_length=1, max_length=100)
    id: str = Field(min_length=1, max_length=4096)
    size: int = Field(448, ge=16, le=2048, description="The longer side, at most, in pixels.")
    layer: bool = Field(False, description="Only what is laid over the picture, as a transparent PNG of its shape.")


class EvaluateRequest(_Strict):
    """What is measured: ``retr eval TASK --label COLUMN``."""

    task: Literal["retrieval", "neighbours", "probe"]
    label: str = Field(min_length=1, max_length=4096)
    where: str | None = Field(None, max_length=10_000)
    separator: str | None = Field(None, min_length=1, max_length=10)
    group: str | None = None
    item: Annotated[str, Field(min_length=1, max_length=4096)] | Literal[True] | None = Field(
        None, description="Of retrieval: what a case is, as a search takes it; cases ask and answer."
    )
    item_score: Literal["maxsim", "mean", "best"] = "maxsim"


class GradedRequest(_Strict):
    """Judged relevance, against which search is measured: ``retr eval graded``."""

    judged: Annotated[dict[str, dict[str, float]], Field(min_length=1, max_length=10_000)] = Field(
        description="By question the grades of rows; a question is the id of a row, or the name of a text."
    )
    questions: Annotated[
        dict[str, Annotated[str, Field(min_length=1, max_length=10_000)]], Field(max_length=10_000)
    ] | (None) = Field(None, description="The texts, by name; without them questions are rows.")
    k: list[Annotated[int, Field(ge=1, le=1000)]] = Field([5, 10], min_length=1, max_length=20)
    group: str | None = None
    where: str | None = Field(None, max_length=10_000)
    in_: Annotated[str, Field(min_length=1, max_length=4096)] | Columns | None = Field(
        None, alias="in", description="Columns of text in which the words of the questions are looked for."
    )
    fuse: float | None = Field(None, ge=0, le=1, description="The share of vectors in an answer by words.")


class FindingsRequest(_Strict):
    """What is looked for in an archive: ``retr index outliers``, ``retr index suspects --label COLUMN``."""

    kind: Literal["outliers", "suspects"]
    label: str | None = Field(None, min_length=1, max_length=4096, description="The column that suspects are told by.")
    n: int = Field(50, ge=1, le=1000, description="How many rows.")
    where: str | None = Field(None, max_length=10_000)

    @model_validator(mode="after")
    def _told_by(self) -> Self:
        if (self.label is not None) != (self.kind == "suspects"):
            raise ValueError("suspects need a label, and outliers have none")
        return self


class Job(BaseModel):
    """Work that goes on behind the answer."""

    job: str
    status: Literal["waiting", "running", "done", "failed"]
    seconds: float = Field(description="Since it was asked for; of a finished one, until it was.")
    result: dict[str, Any] | None = None
    error: str | None = None


class PartMatch(BaseModel):
    """A part of a question, and the row of a case that is most like it."""

    part: int = Field(description="The number of the question's part, from 1.")
    id: str
    score: float


class Answer(BaseModel):
    """The hits of one question, as ``retr query --json`` prints them."""

    query: str
    hits: list[dict[str, Any]]
    exact: bool
    note: str | None
    highlights: list[dict[str, list[list[int]]]] | None = Field(
        None, description="Of an answer by words: for each hit, by column, where they stand in its text."
    )
    searched: float | None = Field(
        None, description="Of an answer for which some shards did not answer: the share of the rows that was searched."
    )
    weights: dict[str, float] | None = Field(None, description="The shares of words and vectors, where both answer.")
    cases: list[str] | None = Field(
        None, description="Of an answer by cases: the id of each; the hit is its best part."
    )
    parts: list[list[PartMatch]] | None = Field(
        None, description="Of an answer by cases: for each the pairs of parts that are most alike, at most ten."
    )


class SearchAnswer(BaseModel):
    """The answers, in the order of the questions, and the version of the index that gave them."""

    index: str
    version: int
    answers: list[Answer]


class ClassifyRequest(_Strict):
    """Pictures to name, and the way: one of ``labels``, ``by`` and ``probe``."""

    pictures: list[PicturePart] = Field(min_length=1, max_length=16)
    labels: str | list[str] | None = None
    by: str | None = None
    probe: str | None = None
    k: int | None = Field(None, ge=1, le=1000)
    top: int = Field(5, ge=1, le=1000)
    where: str | None = Field(None, max_length=10_000)
    patient: str | None = None
    strict_exclude: bool = False
    max_set: int | None = Field(None, ge=1)
    calibrated_on: str | None = None


class ClassifyAnswer(BaseModel):
    """What each picture is said to show, as ``retr classify --json`` prints it."""

    index: str
    version: int
    answers: list[dict[str, Any]]
    notes: list[str]


class Added(BaseModel):
    """The row of a picture that was added."""

    index: str
    version: int
    id: str


class DeleteRequest(_Strict):
    """Rows to delete; ``purge`` leaves nothing of them in any file of the index."""

    ids: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(min_length=1, max_length=10_000)
    purge: bool = False


Ids = Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=10_000)]


class SaveRequest(_Strict):
    """Rows for a set, and what found them: a search of one question, which is asked and kept without its pictures."""

    ids: Ids
    question: SearchRequest | None = None
    note: str | None = Field(None, min_length=1, max_length=10_000)

    @field_validator("question")
    @classmethod
    def _one(cls, question: SearchRequest | None) -> SearchRequest | None:
        if question is not None and len(question.questions) != 1:
            raise ValueError(f"a set keeps one question, got {len(question.questions)}")
        return question


class LabelRequest(_Strict):
    """A label for rows of a set, or from them."""

    ids: Ids
    label: str = Field(min_length=1, max_length=200)
    remove: bool = False


class RemoveRequest(_Strict):
    """Rows to take out of a set."""

    ids: Ids


class SetSummary(BaseModel):
    """What a list of sets shows of one."""

    name: str
    rows: int
    labelled: int
    author: str
    created: str
    updated: str
    note: str | None
    asked: str | None


class SetContents(SetSummary):
    """A set: its rows, the labels with who gave them, and its question without the vector."""

    index: str
    version: int
    ids: list[str]
    missing: list[str]
    changed: list[str]
    labels: list[dict[str, Any]]
    question: dict[str, Any] | None


class SetAnswer(BaseModel):
    """A set's question asked again: today's answer, and the ids that are new in it."""

    index: str
    version: int
    answer: Answer
    new: list[str]


class TokenAnswer(BaseModel):
    """What the holder of a token may do on this server."""

    name: str
    may: list[Literal["read", "label", "write"]] = Field(description="Scopes of the token that the server grants.")
    read_only: bool = Field(description="Whether the server was begun with `--read-only`.")


class Deleted(BaseModel):
    """How many rows were deleted."""

    index: str
    version: int
    rows: int


class Rows(BaseModel):
    """Some rows of an index, and how many there are."""

    index: str
    version: int
    total: int
    rows: list[dict[str, Any]]


class Facet(BaseModel):
    """What a column holds, among the rows that a condition allows."""

    column: str
    kind: Literal["values", "range"]
    values: list[tuple[Any, int]] = []
    more: int = Field(0, description="How many further values there are.")
    low: Any = None
    high: Any = None
    missing: int = 0


class Facets(BaseModel):
    """The facets of an index under a condition."""

    index: str
    version: int
    total: int
    facets: list[Facet]
    texts: list[str] = Field(default=[], description="Columns of text, in which words may be looked for: `in`.")


class MapColumn(BaseModel):
    """What a column says of each point of a map: a code of one of its values, or a number."""

    index: str = ""
    version: int = 0
    column: str
    kind: Literal["values", "numbers", "ids"]
    values: list[Any] = Field(default=[], description="The most frequent first; of `ids`, one a point.")
    codes: list[int] = Field(default=[], description="Places in `values`; -1: not known, -2: a rarer value.")
    numbers: list[float | None] = []


class Upload(BaseModel):
    """A picture that the server holds for a while, for several questions."""

    upload: str
    width: int
    height: int
    mode: str
    notes: dict[str, str]
    frame: int = Field(1, description="Which of its frames or slices is asked with, from 1.")
    frames: int = 1
    seconds: int = Field(description="For how long it is held after its last use.")


class Error(BaseModel):
    """Why there is no answer, and what to do."""

    message: str
    hint: str | None = None
    kind: str | None = Field(None, description="The class of the error in Python, of `retr`.")


class Refusal(BaseModel):
    """The object in every answer that is no success."""

    error: Error


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 403, 404, 408, 409, 413, 421, 422, 429, 500, 503, 504)
}
# a body that is a file, which FastAPI cannot tell from the function that reads it
FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    304: {"description": "It is the one that `If-None-Match` names."},
}
