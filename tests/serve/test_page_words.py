"""The page in a real browser: words that are looked for in reports, fused with pictures, and cases as cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# letters beyond 16 bits stand before a word: places are counted in characters
REPORTS = [
    "\U0001d538 large effusion on the left",
    "No effusion. Heart normal",
    "Small mass at the hilum",
    "Clear lungs",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("words")
    return path


@pytest.fixture(autouse=True)
def _state_of_the_module(folder, monkeypatch) -> None:
    # where the archive lies is remembered for all tests of the one server
    monkeypatch.setenv("RETR_STATE_DIR", str(folder / "state"))


@pytest.fixture(scope="module")
def url(folder, listen) -> Iterator[str]:
    """A server of 12 pictures of six patients, each with a report; its encoder embeds no words."""
    table: dict[str, list[Any]] = {"path": [], "findings": [], "label": [], "patient": [], "study": []}
    (folder / "archive").mkdir()
    for number in range(12):
        name = f"{number:02}.png"
        picture(number).save(folder / "archive" / name)
        cells = (name, REPORTS[number % 4], "ab"[number % 2], f"MRN-{4711 + number // 2}", f"1.2.{number // 3}")
        for column, value in zip(table, cells, strict=True):
            table[column].append(value)
    picture(3).save(folder / "mine.png", compress_level=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_STATE_DIR", str(folder / "state"))
        Index.build(folder / "archive", folder / "x", encoder=FakeEncoder(), metadata=table, group="patient")
    with listen(create_app({"small": folder / "x"}, Settings(), {"encoder": FakeEncoder()})) as address:
        yield address


def answer(page: Page) -> list[str]:
    page.wait_for_selector("#answer[aria-busy=false]")
    return [one.get_attribute("data-id") or "" for one in page.query_selector_all(".hit .picture")]


def say(page: Page, words: str) -> list[str]:
    page.fill("#text", words)
    page.keyboard.press("Enter")
    page.wait_for_selector("#parts .part")
    page.wait_for_selector(".found, .hit .score, #problem:not([hidden])")
    return answer(page)


def open_ways(page: Page) -> None:
    page.wait_for_selector("#ways:not([hidden])")
    page.evaluate("document.querySelector('#ways').open = true")


def test_words_are_found_in_reports_by_keys_alone(url, visit):
    page = visit(url)
    page.wait_for_selector(".hit img[src]")
    page.keyboard.press("/")
    page.keyboard.type("effusion")
    page.keyboard.press("Enter")
    page.wait_for_selector(".found")
    # no encoder reads words here: they are looked for in the reports, and a denied one is none
    assert sorted(answer(page)) == ["00.png", "04.png", "08.png"]
    assert page.locator(".found mark").all_inner_texts() == ["effusion"] * 3
    assert page.locator(".found").first.inner_text() == f"findings: {REPORTS[0]}"
    assert "3 rows deny 'effusion' and are not found by it" in page.inner_text("#trust")
    assert page.locator(".score").first.get_attribute("title").startswith("How well the words fit")
    assert not page.locator("#ways .fusing").count()
    page.locator(".picture").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    assert not page.locator("#viewer .heat-toggle").count()
    page.keyboard.press("Escape")
    # to the columns: a summary, then a box that is ticked
    page.focus("#ways summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_selector("#problem:not([hidden])")
    assert "embeds no words" in page.inner_text("#problem") or "text" in page.inner_text("#problem")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    page.keyboard.press("Space")
    page.wait_for_selector(".found")


def test_words_and_a_picture_are_fused_and_kept_with_a_set(url, visit, folder):
    page = visit(url)
    page.wait_for_selector(".hit img[src]")
    page.set_input_files("#file", folder / "mine.png")
    page.wait_for_selector(".hit .score")
    say(page, "effusion")
    open_ways(page)
    assert page.inner_text("#ways output") == "words 50 %, pictures 50 %"
    assert "words 0.5, vectors 0.5" in page.inner_text("#trust")
    slider = page.locator("#ways input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    page.locator("#trust", has_text="by BM25").filter(has_not_text="fused").wait_for()
    assert page.inner_text("#ways output") == "words 100 %, pictures 0 %"
    assert page.evaluate("document.activeElement.type") == "range"
    assert sorted(answer(page)) == ["00.png", "04.png", "08.png"]
    page.keyboard.press("ArrowRight")
    page.locator("#trust", has_text="words 0.95, vectors 0.05").wait_for()
    there = answer(page)
    page.locator(".pick input").first.check()
    page.fill("#keep-name", "by words")
    page.click("#keep-fields .first")
    page.locator("#keep-done", has_text="saved").wait_for()
    page.click("#sets-open")
    page.locator("#sets li > button", has_text="by words").click()
    page.get_by_role("button", name="Ask its question again").click()
    page.wait_for_selector("#set .calm")
    # of the same question the picture itself is left out again
    assert answer(page) == there
    assert page.locator(".found mark").count()


def test_a_case_is_a_card_with_its_best_parts(url, visit, folder):
    page = visit(url)
    page.wait_for_selector(".hit img[src]")
    open_ways(page)
    page.select_option("#ways select", "patient")
    page.set_input_files("#file", folder / "archive" / "03.png")
    page.wait_for_selector(".matches")
    found = answer(page)
    assert len(found) == 5  # the question's own case is left out
    assert page.locator(".hit .facts:first-of-type strong").all_inner_texts() == [f"Case {n}" for n in range(1, 6)]
    assert page.inner_text("#answer-title") == "Nearest cases"
    assert "MRN" not in page.locator(".matches").first.inner_text()
    assert not page.locator(".do button", has_text="Less").count()
    page.locator(".matches button").first.click()
    page.wait_for_selector("#viewer[open] .frame img[src]")
    page.keyboard.press("Escape")
    page.select_option("#ways select", "")
    page.wait_for_selector("#hits:not(:has(.matches))")
    assert len(answer(page)) == 11


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious(url, visit, folder, size):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(url, size, color_scheme="light" if size is WIDE else "dark", bypass_csp=True)

    def serious() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]

    page.wait_for_selector(".hit img[src]")
    open_ways(page)
    page.set_input_files("#file", folder / "mine.png")
    page.wait_for_selector(".hit .score")
    say(page, "effusion")
    assert not serious()
    # nothing is wider than the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.locator("#parts button").first.click()
    page.select_option("#ways select", "patient")
    page.wait_for_selector(".matches img[src]")
    assert not serious()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
