"""Pictures: those of the archive, at the size that a page shows, and those that a person brings."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response

from retr import UsageError
from retr.serve.schemas import FILE, JPEG, REFUSALS, Upload
from retr.serve.state import EarlyRoute, Reader, TheIndex, TheState
from retr.serve.uploads import KEPT_SECONDS

if TYPE_CHECKING:
    from retr import Picture

router = APIRouter(tags=["pictures"], responses=REFUSALS, route_class=EarlyRoute)
Size = Annotated[int, Query(ge=16, le=4096, description="The longer side, at most, in pixels.")]


class Seen:
    """How a picture is to be seen: its size, and of DICOM and volumes the window and the frame."""

    def __init__(
        self,
        size: Size = 1024,
        center: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        width: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        frame: Annotated[int | None, Query(ge=1, le=1_000_000, description="Frame or slice, from 1.")] = None,
        region: Annotated[
            str | None, Query(max_length=200, description="left,top,width,height as shares: a part, in more detail.")
        ] = None,
    ) -> None:
        if (center is None) != (width is None):
            raise UsageError("a window needs both center= and width=")
        self.size, self.frame = size, frame
        self.region = None if region is None else _shares(region)
        self.window = None if center is None or width is None else (center, width)

    def reading(self) -> dict[str, Any]:
        """Return what was asked beyond the size, as `retr.read_picture` takes it."""
        asked = {"window": self.window, "frame": self.frame}
        return {name: value for name, value in asked.items() if value is not None}


@router.get("/indexes/{index}/picture", response_class=Response, responses=JPEG)
async def picture(
    served: TheIndex,
    state: TheState,
    token: Reader,
    id: Annotated[str, Query(max_length=4096)],  # noqa: A002
    seen: Annotated[Seen, Depends()],
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """Return a row's picture out of its archive, as JPEG, reduced on the server."""
    found = await state.run(lambda: _answer(served.index.picture(id, **seen.reading()), seen, if_none_match))
    await state.record(token, served, "picture", {}, [[id]])
    return found


@router.post("/uploads", status_code=201, openapi_extra=FILE)
async def upload(request: Request, state: TheState, token: Reader) -> Upload:
    """Hold a picture for several questions: the body is the file's bytes, of any format that ``retr`` reads."""
    data = await request.body()
    if not data:
        raise HTTPException(422, "the body is empty; send the bytes of a picture")
    read = await state.decode(state.decoders.read, data)
    return Upload(
        upload=state.uploads.add(
            read, token.name, data if read.frames > 1 or read.window else b"", hashlib.sha256(data).hexdigest()
        ),
        width=read.width,
        height=read.height,
        mode=read.mode,
        notes=dict(read.notes),
        frame=read.frame,
        frames=read.frames,
        seconds=KEPT_SECONDS,
    )


@router.get("/uploads/{upload}", response_class=Response, responses=JPEG)
async def uploaded(upload: str, state: TheState, token: Reader, seen: Annotated[Seen, Depends()]) -> Response:
    """Return an uploaded picture as JPEG: what the encoder sees of a DICOM file or a TIFF, or another view of it."""

    def read() -> Response:
        held = state.uploads.held(upload, token.name)
        asked = seen.reading() if held.data else {}
        picture = state.decoders.read(held.data, **asked) if asked else held.picture
        return _answer(picture, seen, "")

    found = await state.decode(read)
    found.headers["cache-control"] = "private, no-store"
    return found


def _shares(region: str) -> tuple[float, float, float, float]:
    try:
        left, top, width, height = (float(one) for one in region.split(","))
    except ValueError:
        raise UsageError("a region is left,top,width,height, as shares of the picture") from None
    return left, top, width, height


def _answer(picture: Picture, seen: Seen, known: str) -> Response:
    """Return a picture with what can be varied of it: its frame of how many, its window if any, its whole size."""
    part = picture if seen.region is None else picture.crop(*seen.region)
    data = _jpeg(part, seen.size)
    headers = {"etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"', "cache-control": "private, max-age=600"}
    headers["x-retr-size"] = f"{picture.image.width} {picture.image.height}"
    headers["x-retr-frame"] = f"{picture.frame} {picture.frames}"
    if picture.window is not None:
        headers["x-retr-window"] = " ".join(f"{number:.6g}" for number in picture.window)
    if headers["etag"] == known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def _jpeg(picture: Picture, size: int) -> bytes:
    image = picture.image
    if max(image.size) > size:
        image = image.copy()
        image.thumbnail((size, size))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()
