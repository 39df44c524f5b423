"""A server over a small archive of its own, asked without a socket."""

from __future__ import annotations

import io
import os
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from patience import LONG

from retr import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from PIL import Image
    from playwright.sync_api import Browser, Page

from fastapi.testclient import TestClient

from retr.serve.app import create_app
from retr.serve.settings import Settings


@pytest.fixture
def indexed(make_archive, make_encoder, tmp_path) -> Index:
    """An index of 12 pictures: two classes, six patients, ages."""
    archive = make_archive(12)
    path = tmp_path / "index"
    Index.build(archive, path, encoder=make_encoder(), metadata=archive / "labels.csv", group="patient")
    return Index.open(path, encoder=make_encoder())


@pytest.fixture
def serve(indexed, make_encoder) -> Iterator[Callable[..., TestClient]]:
    """``serve(token_file=...)``: a client of a server of the index ``small``."""
    clients = []

    def begin(**settings: Any) -> TestClient:
        app = create_app({"small": indexed.path}, Settings(**settings), {"encoder": make_encoder()})
        client = TestClient(app, base_url="http://localhost:7860")
        client.__enter__()
        clients.append(client)
        return client

    yield begin
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def png(make_picture) -> Callable[[int], bytes]:
    """``png(seed)``: the bytes of a picture."""

    def encode(seed: int) -> bytes:
        file = io.BytesIO()
        image: Image.Image = make_picture(seed)
        image.save(file, "PNG")
        return file.getvalue()

    return encode


@pytest.fixture(scope="module")
def volume() -> bytes:
    """The bytes of a DICOM file of three frames of deep grey, the nth brightest in its nth row."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    values = np.zeros((3, 40, 60), np.uint16)
    for number in range(3):
        values[number, 10 * number : 10 * number + 10] = 1000 * (number + 1)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    header.Rows, header.Columns, header.NumberOfFrames = 40, 60, 3
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.SamplesPerPixel, header.PixelRepresentation, header.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    header.WindowCenter, header.WindowWidth = 2000, 4000
    header.PixelData = values.tobytes()
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


# not for the session: while playwright runs, no test of this process can run an event loop of its own
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed: the page cannot be looked at")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--headless=new"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def listen() -> Callable[..., AbstractContextManager[str]]:
    """``with listen(app, port=0) as url``: a server of an app at an address of this machine."""

    @contextmanager
    def running(app: Any, port: int = 0) -> Iterator[str]:
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        server.should_exit = True
        thread.join(LONG)

    return running


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Page]]:
    """``visit(url, size)``: the page, opened; whatever it throws or its policy refuses fails the test."""
    contexts, faults = [], []

    def go(url: str, size: dict[str, int] | None = None, **options: Any) -> Page:
        context = browser.new_context(viewport=size or {"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * LONG)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not faults
