"""Looking closer on the page: what matches, both eyes, windows of deep grey, slices by the wheel, two fingers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_encoder import FakeEncoder, picture
from PIL import Image

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

ROWS = [("P1", "right"), ("P1", "left"), ("P2", "left"), ("P2", "right"), ("P3", "right"), ("", "")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory, volume) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    lines = ["path,patient,laterality"]
    for number, (patient, eye) in enumerate(ROWS):
        picture(number).resize((96, 64)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{patient},{eye}")
    values = np.linspace(1000, 4000, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(values).save(folder / "deep.png")
    (folder / "scan.dcm").write_bytes(volume)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    metadata = folder / "labels.csv"
    Index.build(folder, folder / ".retr", encoder=FakeEncoder(), metadata=metadata, group="patient")
    return folder


@pytest.fixture(scope="module")
def app(archive) -> Any:
    return create_app({"small": archive / ".retr"}, Settings(), {"encoder": FakeEncoder()})


@pytest.fixture(scope="module")
def url(app, listen) -> Iterator[str]:
    with listen(app) as address:
        yield address


def look(page: Page, file: Path, row: str) -> None:
    page.wait_for_selector(".hit")
    page.set_input_files("#file", file)
    page.wait_for_selector(".hit .score")
    page.wait_for_selector("#answer[aria-busy=false]")
    page.locator(f".picture[data-id='{row}']").click()
    page.wait_for_selector("#viewer figure:nth-child(2) img[src]")


def captions(page: Page) -> list[str]:
    return [one.replace("\n", "") for one in page.locator("#viewer figcaption").all_inner_texts()]


def test_what_matches_is_laid_over_the_hit(url, app, visit, archive):
    page = visit(url)
    look(page, archive / "0.png", "3.png")
    explaining = app.state.retr.indexes["small"].explaining
    # the server looks at one hit at a time, and the page waits
    with explaining:
        page.keyboard.press("h")
        page.get_by_text("Looking for what matches").wait_for()
        page.wait_for_timeout(300)
        assert not page.locator("#viewer .heat").count()
    page.wait_for_selector("#viewer .heat")
    assert "It is no finding" in page.inner_text("#viewer .heat-key")
    figures = page.locator("#viewer figure")
    assert [figures.nth(n).locator(".heat").count() for n in range(2)] == [0, 1]
    # in the picture's own shape and place, zoomed with it
    for _ in range(3):
        page.keyboard.press("+")
    page.wait_for_timeout(100)
    over, under = (figures.nth(1).locator(one) for one in (".heat", "img >> nth=0"))
    assert over.bounding_box() == under.bounding_box()
    sizes = [one.evaluate("i => i.naturalWidth / i.naturalHeight") for one in (over, under)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert over.evaluate("i => i.style.filter") == ""
    # it stays on for the next hit
    page.keyboard.press("n")
    page.wait_for_selector("#viewer .heat")
    page.keyboard.press("h")
    page.wait_for_selector("#viewer .heat", state="detached")
    assert not page.is_visible("#viewer .heat-key")
    page.keyboard.press("Escape")
    page.click("#clear")
    page.locator("#parts, #clear").first.wait_for(state="hidden")
    page.wait_for_selector("#answer[aria-busy=false]")
    page.locator(".picture").first.click()
    page.wait_for_selector("#viewer figure img[src]")
    # nothing is asked, so nothing matches
    assert not page.locator("#viewer .heat-toggle").count()


def test_both_eyes_lie_side_by_side_and_zoom_together(url, visit, archive):
    page = visit(url)
    look(page, archive / "0.png", "2.png")
    page.wait_for_selector("#viewer .eyes")
    page.keyboard.press("b")
    page.wait_for_selector("#viewer figure:nth-child(3) img[src]")
    # the right eye on the left, as one sees a patient
    first, second, third = captions(page)
    assert first == "Your question"
    assert second.startswith("3.png, right")
    assert third.endswith("2.png, left")
    page.keyboard.press("+")
    assert (
        len(set(page.evaluate("[...document.querySelectorAll('#viewer .frame img')].map(i => i.style.transform)"))) == 1
    )
    assert page.locator("#viewer .strip button").count() == 2
    # it stays on; where there is one eye alone there is nothing to be shown beside it
    page.keyboard.press("Escape")
    page.locator(".picture[data-id='4.png']").click()
    page.wait_for_selector("#viewer figure:nth-child(2) img[src]")
    page.wait_for_timeout(200)
    assert len(captions(page)) == 2
    assert not page.is_visible("#viewer .eyes")
    page.keyboard.press("Escape")
    page.locator(".picture[data-id='3.png']").click()
    page.wait_for_selector("#viewer figure:nth-child(3) img[src]")
    page.keyboard.press("b")
    page.wait_for_selector("#viewer figure:nth-child(3)", state="detached")


def test_deep_pictures_have_a_window_and_volumes_slices(url, visit, archive):
    page = visit(url)
    look(page, archive / "deep.png", "scan.dcm#2")
    said = page.locator("#viewer figcaption .quiet:last-child")

    def says(which: int, text: str) -> None:
        page.locator("#viewer figure").nth(which).get_by_text(text).wait_for()

    says(0, "window 2500 ± 1500")
    says(1, "2 of 3, window 2000 ± 2000")
    page.keyboard.press("Shift+ArrowLeft")
    page.get_by_text("window 2500 ± 1400").wait_for()
    says(1, "window 2000 ± 1866")
    boxes = [page.locator("#viewer .frame").nth(n).bounding_box() for n in range(2)]
    middles = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
    # a drag changes what it is over alone
    page.mouse.move(*middles[0])
    page.mouse.down()
    page.mouse.move(middles[0][0], middles[0][1] + 30, steps=2)
    page.mouse.up()
    says(0, "window 2780 ± 1400")
    assert "2000 ± 1866" in said.nth(1).inner_text()
    # the wheel goes through a volume and zooms a single picture
    page.mouse.move(*middles[1])
    page.mouse.wheel(0, 100)
    says(1, "3 of 3")
    assert page.evaluate("document.querySelector('#viewer .frame img').style.transform").endswith("scale(1)")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_timeout(50)
    assert page.evaluate("document.querySelector('#viewer .frame img').style.transform").endswith("scale(1.2)")
    page.mouse.move(*middles[0])
    page.mouse.wheel(0, -100)
    page.wait_for_timeout(50)
    assert page.evaluate("document.querySelector('#viewer .frame img').style.transform").endswith("scale(1.44)")
    says(1, "3 of 3")


def test_two_fingers_zoom(url, visit, archive):
    page = visit(url, {"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    look(page, archive / "0.png", "2.png")
    box = page.locator("#viewer .frame").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": at_x, "y": at_y, "id": number} for number, (at_x, at_y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 40, y), (x + 40, y))
    touch("touchMove", (x - 60, y), (x + 60, y))
    touch("touchEnd")
    page.wait_for_timeout(100)
    transform = page.evaluate("document.querySelector('#viewer .frame img').style.transform")
    assert float(transform.rpartition("scale(")[2].rstrip(")")) == pytest.approx(3, rel=0.05)
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(url, visit, archive, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(url, color_scheme=scheme, bypass_csp=True)
    look(page, archive / "0.png", "2.png")
    page.wait_for_selector("#viewer .eyes")
    page.keyboard.press("b")
    page.keyboard.press("h")
    page.wait_for_selector("#viewer .heat")
    for size in ({"width": 1280, "height": 900}, {"width": 390, "height": 844}):
        page.set_viewport_size(size)
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in {"serious", "critical"}]
        assert not [f"{one['id']}: {one['nodes'][0]['html']}" for one in serious]
