"""What a writer changes: pictures added to an index, rows deleted from it.

A picture that is added is kept, as its bytes came, in the folder of additions, and its row's id is ``added/NAME``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from retr import UsageError, system
from retr.serve.schemas import FILE, REFUSALS, Added, Deleted, DeleteRequest
from retr.serve.state import EarlyRoute, TheIndex, TheState, Writer

if TYPE_CHECKING:
    from pathlib import Path

    from retr.serve.served import Served

router = APIRouter(tags=["write"], responses=REFUSALS, route_class=EarlyRoute)
# what the ids of added rows begin with
PART = "added"
Name = Annotated[str, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.[A-Za-z0-9]{2,5}$")]


@router.post("/indexes/{index}/rows", status_code=201, openapi_extra=FILE)
async def add(request: Request, served: TheIndex, state: TheState, token: Writer, name: Name) -> Added:
    """Add a picture: the body is the file's bytes, ``name`` its name, with its format's suffix."""
    folder = state.settings.additions
    if folder is None:
        raise HTTPException(403, "this server keeps no pictures (--additions)")
    data = await request.body()
    # what cannot be read leaves no file
    await state.decode(state.decoders.read, data)
    row = await state.run(_add, served, folder / served.name, name, data)
    await state.record(token, served, "add", {}, [[row]])
    return Added(index=served.name, version=served.index.version, id=row)


@router.delete("/indexes/{index}/rows")
async def delete(asked: DeleteRequest, served: TheIndex, state: TheState, token: Writer) -> Deleted:
    """Delete rows; one id that is not there is an error, and nothing is deleted."""
    folder = state.settings.additions
    rows = await state.run(_delete, served, None if folder is None else folder / served.name, asked)
    await state.record(token, served, "purge" if asked.purge else "delete", {}, [asked.ids])
    return Deleted(index=served.name, version=served.index.version, rows=rows)


def _add(served: Served, folder: Path, name: str, data: bytes) -> str:
    row = f"{PART}/{name}"
    with served.writing:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = folder / name
        scratch = folder.parent / f".{secrets.token_hex(8)}"
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NAMED, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                # fails where the name is taken, by a file or a link
                os.link(scratch, kept)
            except FileExistsError:
                raise UsageError(f"there is a picture of the name {name!r}", hint="choose another") from None
        finally:
            scratch.unlink(missing_ok=True)
        try:
            served.index.add(folder, name=PART)
            if row not in served.index:
                raise UsageError(  # noqa: TRY301 - the file goes whatever is raised
                    f"the picture {name!r} cannot be embedded", hint="does the suffix say its format?"
                )
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
    return row


def _delete(served: Served, folder: Path | None, asked: DeleteRequest) -> int:
    with served.writing:
        rows = served.index.delete(ids=asked.ids, purge=asked.purge)
        for part, _, name in (row.partition("/") for row in asked.ids):
            if folder is not None and part == PART and name and "/" not in name:
                # else the next addition would bring its row back
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).unlink()
    return rows
