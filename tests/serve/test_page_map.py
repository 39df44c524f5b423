"""The map in a real browser: points looked at, coloured, and taken by a line; by mouse, by keys and on a phone."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = 24


class Circle:
    """Stands for UMAP, which takes seconds to compile: the rows on a circle, clockwise from the right."""

    def __init__(self, **_: Any) -> None:
        pass

    def fit_transform(self, parts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        angle = np.arange(len(parts)) * 2 * np.pi / len(parts)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.fixture
def path(make_archive, make_encoder, tmp_path) -> Path:
    archive = make_archive(ROWS)
    Index.build(archive, tmp_path / "index", encoder=make_encoder(), metadata=archive / "labels.csv", group="patient")
    return tmp_path / "index"


@pytest.fixture
def mapped(path, make_encoder, monkeypatch) -> list[str]:
    """The ids of an index with a map, in its order."""
    module = types.ModuleType("umap")
    module.UMAP = Circle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    return Index.open(path, encoder=make_encoder()).map().ids


@pytest.fixture
def url(path, make_encoder, listen) -> Iterator[str]:
    with listen(create_app({"small": path}, Settings(), {"encoder": make_encoder()})) as address:
        yield address


@pytest.fixture
def open_map(mapped, url, visit) -> Callable[..., Any]:
    def go(*size: Any, **options: Any) -> Any:
        page = visit(url, *size, **options)
        page.wait_for_selector(".hit")
        page.evaluate("document.addEventListener('retr:selected', event => { window.taken = event.detail; })")
        page.keyboard.press("m") if not options.get("has_touch") else page.tap("#map-open")
        page.wait_for_selector("#map .legend li")
        page.wait_for_timeout(100)
        return page

    return go


def test_points_are_looked_at_and_taken_by_a_line(open_map, mapped):
    page = open_map()
    box = page.locator("#map canvas").bounding_box()
    middle, radius = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), 0.46 * box["height"]
    page.mouse.move(middle[0] + radius, middle[1])
    page.wait_for_selector("#map .near img[src]")
    assert page.inner_text("#map .near .id").replace("\n", "") == mapped[0]
    page.click("#map button.lasso")
    page.mouse.move(middle[0] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in [
        (box["width"] - 2, 2),
        (box["width"] - 2, box["height"] - 2),
        (box["width"] / 2 + 2, box["height"] - 2),
    ]:
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    page.wait_for_selector("#map .said button")
    right = {one for at, one in enumerate(mapped) if np.cos(at * 2 * np.pi / ROWS) > 0.01}
    taken = page.evaluate("window.taken")
    assert (taken["index"], set(taken["ids"])) == ("small", right)
    page.click("#map .said button")
    page.wait_for_selector("#chips li")
    page.wait_for_selector("#answer[aria-busy=false]")
    shown = [one.get_attribute("data-id") for one in page.query_selector_all(".hit .picture")]
    assert set(shown) == right


def test_points_have_the_colours_of_a_column(open_map):
    page = open_map()
    painted = "[...document.querySelectorAll('#map .legend li')].map(one => one.textContent)"
    page.select_option("#map select >> nth=0", "label")
    page.wait_for_timeout(200)
    assert page.evaluate(painted) == ["glaucoma", "healthy"]
    colours = """(() => {
      const canvas = document.querySelector('#map canvas');
      const all = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      const count = new Map();
      for (const pixel of all) count.set(pixel, (count.get(pixel) || 0) + 1);
      return [...count.values()].sort((a, b) => b - a);
    })()"""
    page.wait_for_timeout(200)
    ground, first, second = page.evaluate(colours)
    assert ground > 50 * first
    assert first == second == ROWS / 2 * 64
    page.select_option("#map select >> nth=0", "age")
    page.wait_for_timeout(200)
    assert page.evaluate(painted)[0].startswith("40 –")


def test_what_is_unlike_and_what_is_labelled_wrong_is_pointed_out(open_map, mapped, path, make_encoder):
    page = open_map()
    for choice, found in (
        ("outliers", Index.open(path, encoder=make_encoder()).outliers(5)),
        ("suspects label", Index.open(path, encoder=make_encoder()).suspects("label", 5)),
    ):
        page.select_option("#map .marking", choice)
        page.get_by_text(f"{len(found)} pointed out").wait_for()
        page.click("#map .said button")
        page.get_by_text(f"{len(found)} pictures taken").wait_for()
        assert set(page.evaluate("window.taken.ids")) == set(found.ids)
    box = page.locator("#map canvas").bounding_box()
    angle, radius = mapped.index(found.ids[0]) * 2 * np.pi / ROWS, 0.46 * box["height"]
    page.mouse.move(
        box["x"] + box["width"] / 2 + radius * np.cos(angle), box["y"] + box["height"] / 2 + radius * np.sin(angle)
    )
    page.locator("#map .near").get_by_text("looks like").wait_for()
    page.select_option("#map .marking", "")
    page.get_by_text("pictures taken").wait_for(state="detached")


def test_the_map_goes_by_keys(open_map, mapped):
    page = open_map()
    page.keyboard.press("s")
    page.wait_for_selector("#map .said button")
    assert page.evaluate("window.taken.ids") == mapped
    for key in ("+", "+", "+", "+", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "0", "-"):
        page.keyboard.press(key)
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector("#map .near")
    assert page.inner_text("#map .near .id").replace("\n", "") == mapped[0]
    page.keyboard.press("Enter")
    page.wait_for_selector(".part")
    assert mapped[0][-14:] in page.inner_text(".part")
    assert not page.is_visible("#map")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious_on_the_map(open_map, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    phone = {"is_mobile": True, "has_touch": True} if width == 390 else {}
    page = open_map({"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True, **phone)
    page.click("#map canvas")
    found = Axe().run(page).response["violations"]
    assert not [one["nodes"][0]["html"] for one in found if one["impact"] in {"serious", "critical"}]
    assert page.evaluate("document.querySelector('#map').scrollWidth") <= width


def test_without_a_map_the_page_says_how_to_make_one(url, visit):
    page = visit(url)
    page.wait_for_selector(".hit")
    page.click("#map-open")
    page.get_by_text("retr map").wait_for()
    page.keyboard.press("Escape")
    assert not page.is_visible("#map")
