"""Pages out of templates: nothing of what they are given acts, and a browser finds no serious fault in them."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retr.retrieval import sheet
from retr.retrieval.evaluation import page
from retr.retrieval.evaluation.evaluation import Evaluation
from retr.retrieval.pages import render
from retr.retrieval.stats.intervals import Estimate

SIZES = {"wide": (1280, 900), "phone": (390, 844)}


def sheet_page() -> str:
    """Two questions: pictures of several shapes, one that is away, an explained one, notes."""
    wide, tall = Image.effect_mandelbrot((300, 100), (-2, -1.5, 1, 1.5), 90), Image.effect_noise((100, 300), 40)
    cards = [
        sheet.SheetPicture("1. 0.9000 a.png", wide, {"label": "glaucoma", "age": 61}, tall, "places"),
        sheet.SheetPicture("2. 0.8000 a name that is long and has no place to break_____.png", tall, {"age": 61}),
        sheet.SheetPicture("3. 0.7000 b.png", None, {}),
    ]
    asked = [sheet.SheetPicture("query: image 'q.png'", wide, {})]
    return sheet.page([sheet.Sheet("image 'q.png'", asked, cards, ["of few"]), sheet.Sheet("x", [], [], ["no hits"])])


def evaluation_page() -> str:
    names = ["healthy", "glaucoma", "drusen"]
    one = Estimate(0.5, 0.4, 0.6, 9, 9)
    rows = [{"class": name, "n": 9, "small": name == "drusen", "recall": one} for name in names]
    curve = {"recall": [0.1, 0.2], "precision": [0.9, 0.8]}
    curves = {
        "precision_recall": curve,
        "precision_recall_classes": [{"class": name, **curve} for name in names],
        "calibration": {"confidence": [0.2, 0.4], "accuracy": [0.1, 0.3], "count": [3, 4]},
        "confusion": {"classes": names, "counts": [[9, 0, 1], [2, 7, 1], [0, 0, 0]]},
    }
    facts = {"label": "label", "patients": 9, "intervals": "95 %, by patient"}
    return page.render(Evaluation("probe", facts, {"top1": one}, rows, rows, curves, ("few",)))


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_no_text_is_markup_or_hidden(text):
    whole = sheet.page([sheet.Sheet(text, [], [sheet.SheetPicture(text, None, {text: text})], [text])])
    known = sheet.page([sheet.Sheet("x", [], [sheet.SheetPicture("x", None, {"x": "x"})], ["x"])])
    assert re.findall("<[^>]*>", whole) == re.findall("<[^>]*>", known)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", whole)


def test_a_name_that_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="is undefined"):
        render("sheet.html")


@pytest.fixture(scope="module")
def open_page():
    """``open_page(text, size, scheme)``: the page as a browser shows it; what its policy refuses fails the test."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed: the pages cannot be looked at")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--headless=new"])

        def go(text, size, scheme, **options):
            width, height = SIZES[size]
            shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
            shown.on("console", lambda line: said.append(line.text))
            shown.set_content(text)
            return shown

        yield go
        browser.close()
    assert not said


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [sheet_page, evaluation_page], ids=["sheet", "evaluation"])
def test_a_browser_finds_no_fault(open_page, make, size):
    from axe_playwright_python.sync_playwright import Axe

    if make is evaluation_page:
        pytest.importorskip("matplotlib")
    shown = open_page(make(), size, "dark" if size == "phone" else "light", bypass_csp=True)
    found = Axe().run(shown).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] != "minor"] == []
    # nothing is wider than the window, and no picture is stretched
    assert shown.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    shapes = """[...document.images].map(one => [one.width / one.height, one.naturalWidth / one.naturalHeight])"""
    assert all(abs(a / b - 1) < 0.03 for a, b in shown.evaluate(shapes))


def test_a_plot_is_drawn_in_the_pages_colours_and_fills_its_axes(open_page):
    pytest.importorskip("matplotlib")
    shown = open_page(evaluation_page(), "wide", "dark")
    ink = shown.evaluate("getComputedStyle(document.body).color")
    assert shown.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == ink
    share = """(() => {
      const plot = document.querySelector('svg').getBoundingClientRect();
      const line = document.querySelector('svg path[style*="var(--strong)"][clip-path]').getBoundingClientRect();
      return [line.width / plot.width, line.height / plot.height];
    })()"""
    across, down = shown.evaluate(share)
    assert across > 0.3 and down > 0.5
