"""The page: its few files, read once, under fixed names; nothing of a request becomes a path."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, HTTPException, Request, Response

router = APIRouter(include_in_schema=False)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES = {
    file.name: (file.read_bytes(), _TYPES[file.name.rpartition(".")[2]])
    for file in resources.files("retr.serve").joinpath("page").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}
_TAGS = {name: f'"{hashlib.sha256(data).hexdigest()[:16]}"' for name, (data, _) in _FILES.items()}


@router.get("/")
async def index(request: Request) -> Response:
    """Return the page."""
    return _file("index.html", request)


@router.get("/page/{name}")
async def file(name: str, request: Request) -> Response:
    """Return one of the page's files."""
    return _file(name, request)


def _file(name: str, request: Request) -> Response:
    if name not in _FILES:
        raise HTTPException(404, "the page has no such file")
    headers = {"etag": _TAGS[name], "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == _TAGS[name]:
        return Response(status_code=304, headers=headers)
    data, kind = _FILES[name]
    return Response(data, media_type=kind, headers=headers)
