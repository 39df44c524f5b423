"""An index for agents, over the Model Context Protocol (extra ``mcp``): search, classify and info, read-only.

What answers hold, and what may be asked, says `retr.retrieval.mcp.agents`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable  # noqa: TC003 - the protocol's library reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from retr.index.errors import RetrError
from retr.retrieval.mcp.agents import MOST_HITS, REMARKS, WHAT_AN_ID_IS

if TYPE_CHECKING:
    from retr.retrieval.mcp.agents import Shown

T = TypeVar("T")
Picture = Annotated[str, Field(description="A picture file in base64; or a file's name, where a folder is shared.")]
Like = Annotated[str | None, Field(description="The id of a hit: what is like that one.")]
Words = Annotated[str | None, Field(description="Words, where the encoder or a bridge reads them.")]
Where = Annotated[str | None, Field(description="A condition, e.g. patient_age >= 60 and modality = 'CR'.")]
Hits = Annotated[int, Field(description="How many hits.", ge=1, le=MOST_HITS)]
Labels = Annotated[list[str] | None, Field(description="The classes in words, for a zero-shot answer.")]
By = Annotated[str | None, Field(description="A column: the nearest pictures vote with its values.")]
Voters = Annotated[int, Field(description="How many of them vote.", ge=1, le=1000)]
WordsIn = Annotated[
    list[str] | None,
    Field(description="Columns of text: the words are looked for in these, and a picture beside them is fused in."),
]
Fuse = Annotated[float | None, Field(description="The share of vectors in an answer by words.", ge=0, le=1)]
Case = Annotated[
    str | None,
    Field(description="Answer with cases: study, series, volume, patient, eye-pair, a column, or declared."),
]
Region = Annotated[
    list[float] | None,
    Field(description="A part of the picture or of the hit's: x, y, width and height in pixels, or all from 0 to 1."),
]
InRegions = Annotated[
    bool,
    Field(description="Compare with parts of pictures: a hit has the part that is most alike as x, y, width, height."),
]
OtherPatients = Annotated[bool, Field(description="Leave out pictures of the patient that is asked with.")]


def make_server(shown: Shown, version: str) -> MCPServer:
    """Return a server with the tools ``search``, ``classify`` and ``info``."""
    instructions = f"Search of a medical image archive, read-only. {WHAT_AN_ID_IS} {' '.join(REMARKS)}"
    server = MCPServer("retr", instructions=instructions, version=version, log_level="CRITICAL")
    reading = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)

    @server.tool(annotations=reading, structured_output=True)
    def search(
        text: Words = None,
        picture: Picture | None = None,
        like: Like = None,
        where: Where = None,
        k: Hits = 5,
        other_patients: OtherPatients = False,
        words_in: WordsIn = None,
        fuse: Fuse = None,
        item: Case = None,
        region: Region = None,
        in_regions: InRegions = False,
    ) -> dict[str, Any]:
        """Find the pictures or cases of the archive most like words, a picture, or a hit of before."""
        further: dict[str, Any] = {"words_in": words_in, "fuse": fuse, "item": item}
        further |= {"region": region, "in_regions": in_regions}
        return _said(functools.partial(shown.search, text, picture, like, where, k, other_patients, **further))

    @server.tool(annotations=reading, structured_output=True)
    def classify(picture: Picture, labels: Labels = None, by: By = None, k: Voters = 5) -> dict[str, Any]:
        """Return which of several classes a picture shows, with how sure that is, or why no answer should be taken."""
        return _said(functools.partial(shown.classify, picture, labels, by, k))

    @server.tool(annotations=reading, structured_output=True)
    def info() -> dict[str, Any]:
        """Return what the archive holds: pictures, encoder, columns that may be asked, and what an id is."""
        return _said(shown.info)

    return server


def _said(ask: Callable[[], T]) -> T:
    """Return an answer; an error is a line for whoever asked."""
    try:
        return ask()
    except RetrError as error:
        raise ToolError(f"{error.message}; {error.hint}" if error.hint else error.message) from None
    except Exception:  # noqa: BLE001 - what an unforeseen error says may hold anything
        raise ToolError("the question could not be answered") from None
