"""Pictures: those of the archive, at the size that a page shows, and those that a person brings."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response

from retr.serve.schemas import Refusal, Upload
from retr.serve.state import Reader, TheIndex, TheState
from retr.serve.uploads import KEPT_SECONDS

if TYPE_CHECKING:
    from retr import Picture

router = APIRouter(
    tags=["pictures"], responses={status: {"model": Refusal} for status in (401, 403, 404, 413, 422, 429)}
)
Size = Annotated[int, Query(ge=16, le=4096, description="The longer side, at most, in pixels.")]


@router.get("/indexes/{index}/picture", response_class=Response)
async def picture(
    served: TheIndex,
    state: TheState,
    token: Reader,
    id: Annotated[str, Query(max_length=4096)],  # noqa: A002
    size: Size = 1024,
) -> Response:
    """Return a row's picture out of its archive, as JPEG, reduced on the server."""
    found = await state.run(lambda: _jpeg(served.index.picture(id), size))
    state.record(token, served, "picture", {}, [[id]])
    return Response(found, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})


@router.post("/uploads", status_code=201)
async def upload(request: Request, state: TheState, token: Reader) -> Upload:
    """Hold a picture for several questions: the body is the file's bytes, of any format that ``retr`` reads."""
    data = await request.body()
    if not data:
        raise HTTPException(422, "the body is empty; send the bytes of a picture")
    read = await state.run(state.decoders.read, data)
    return Upload(
        upload=state.uploads.add(read, token.name),
        width=read.width,
        height=read.height,
        mode=read.mode,
        notes=dict(read.notes),
        seconds=KEPT_SECONDS,
    )


@router.get("/uploads/{upload}", response_class=Response)
async def uploaded(upload: str, state: TheState, token: Reader, size: Size = 1024) -> Response:
    """Return an uploaded picture as JPEG: what the encoder sees of a DICOM file or a TIFF."""
    found = await state.run(lambda: _jpeg(state.uploads.of(upload, token.name), size))
    return Response(found, media_type="image/jpeg", headers={"cache-control": "private, no-store"})


def _jpeg(picture: Picture, size: int) -> bytes:
    image = picture.image
    if max(image.size) > size:
        image = image.copy()
        image.thumbnail((size, size))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()
