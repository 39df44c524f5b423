"""Large pictures on the page: reduced to the screen, and the part in sight in full where it is magnified."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings


@pytest.fixture
def client_url(make_archive, make_encoder, tmp_path, listen):
    archive = make_archive(2)
    # fine stripes, which a reduced picture loses
    stripes = np.zeros((3200, 4000), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    Image.fromarray(stripes).convert("RGB").save(archive / "healthy" / "large.jpg", quality=95)
    Index.build(archive, tmp_path / "index", encoder=make_encoder())
    with listen(create_app({"small": tmp_path / "index"}, Settings(), {"encoder": make_encoder()})) as url:
        yield url


def test_the_part_in_sight_is_fetched_in_full(client_url, visit):
    page = visit(client_url)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if "large.jpg" in one.url else None)
    page.wait_for_selector(".hit")
    page.locator(".picture[data-id='healthy/large.jpg']").click()
    page.wait_for_selector("#viewer .frame img[src]")
    page.wait_for_timeout(300)
    assert not page.locator("#viewer .detail").count()
    for _ in range(8):
        page.keyboard.press("+")
    page.wait_for_selector("#viewer .detail[src]")
    page.wait_for_timeout(200)
    pictures = [Image.open(io.BytesIO(page.request.get(url).body())) for url in asked]
    whole, part = pictures[-2:]
    assert max(whole.size) <= 1280
    assert "region=" in asked[-1]
    # what was grey is black and white
    contrast = [float(np.asarray(image.convert("L"), np.float32).std()) for image in (whole, part)]
    assert contrast[0] < 60 < 100 < contrast[1]
    # it lies where the whole picture has it
    boxes = [page.locator("#viewer .frame img").nth(n).bounding_box() for n in range(2)]
    frame = page.locator("#viewer .frame").first.bounding_box()
    assert boxes[1]["x"] == pytest.approx(frame["x"], abs=2)
    assert boxes[1]["width"] == pytest.approx(frame["width"], abs=3)
    page.keyboard.press("0")
    page.wait_for_selector("#viewer .detail", state="detached")
