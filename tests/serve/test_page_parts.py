"""On the page: several pictures asked as one case, and kept with a set; the part of a hit that is like a question."""

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("parts")
    return path


@pytest.fixture(autouse=True)
def _state_of_the_module(folder, monkeypatch) -> None:
    monkeypatch.setenv("RETR_STATE_DIR", str(folder / "state"))


@pytest.fixture(scope="module")
def url(folder, listen) -> Iterator[str]:
    """A server of 12 pictures, two of each of six patients, with regions."""
    (folder / "archive").mkdir()
    table: dict[str, list[Any]] = {"path": [], "patient": []}
    for number in range(12):
        picture(number, (96, 64)).save(folder / "archive" / f"{number:02}.png")
        table["path"].append(f"{number:02}.png")
        table["patient"].append(f"MRN-{4711 + number // 2}")
    for number in (4, 5):
        picture(number, (96, 64)).rotate(2).save(folder / f"mine-{number}.png")
    (folder / "report.txt").write_text("no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_STATE_DIR", str(folder / "state"))
        Index.build(
            folder / "archive", folder / "x", encoder=FakeEncoder(), metadata=table, group="patient", regions="grid"
        )
    with listen(create_app({"small": folder / "x"}, Settings(), {"encoder": FakeEncoder()})) as address:
        yield address


def shown(page: Page) -> list[str]:
    page.wait_for_timeout(30)
    page.wait_for_selector("#answer[aria-busy=false]")
    return [one.get_attribute("data-id") or "" for one in page.query_selector_all(".hit .picture")]


def bring(page: Page, *files: Path) -> list[str]:
    page.wait_for_selector(".hit")
    page.set_input_files("#file", files)
    page.wait_for_selector(".hit .score")
    return shown(page)


def test_pictures_brought_together_are_one_case_and_its_question_is_kept(url, visit, folder):
    page = visit(url)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "/search" in request.url else None)
    bring(page, folder / "mine-4.png", folder / "report.txt", folder / "mine-5.png")
    assert page.inner_text("#answer-title") == "Nearest cases"
    assert page.inner_text("#ask-title") == "Find what is like these 2 pictures of one case"
    assert page.locator(".hit").count() == 6
    # the case of which both are pictures, whatever it is called
    assert page.locator(".hit .picture").first.get_attribute("data-id") in {"04.png", "05.png"}
    assert (sent[-1]["item"], len(sent[-1]["questions"][0]["parts"])) == ("patient", 2)
    # what is no picture is said, and its name, and the others are asked with
    assert "report.txt" in page.inner_text("#brought")
    assert page.locator(".part").count() == 1
    assert "mine-5.png" in page.locator(".part .id").get_attribute("title")
    # a case is no vector that marks could move
    assert page.locator(".hit .do button").count() == 6

    page.locator(".pick input").first.check()
    page.fill("#keep-name", "alike")
    page.keyboard.press("Enter")
    page.get_by_text('1 picture saved in "alike"').wait_for()
    with Index.open(folder / "x", encoder=FakeEncoder()) as index:
        assert index.sets["alike"].question["options"]["item"] == "patient"
        assert len(index.sets["alike"].question["weights"]) == 2
    cards = shown(page)
    page.click("#sets-open")
    page.locator("#sets li > button", has_text="alike").click()
    page.locator("#set button.first").click()
    page.get_by_text("Nothing is new").wait_for()
    assert shown(page) == cards
    assert page.locator(".hit .matches").count() == 6

    # another picture joins them, and each can be taken out
    page.locator("#set").get_by_text("Leave the set").click()
    page.set_input_files("#another-file", folder / "archive" / "00.png")
    page.wait_for_selector(".part >> nth=1")
    shown(page)
    assert len(sent[-1]["questions"][0]["parts"]) == 3
    page.locator("#clear").click()
    page.locator(".part button").last.click()
    page.wait_for_selector("#parts", state="hidden")
    shown(page)
    assert len(sent[-1]["questions"][0]["parts"]) == 1


def test_marks_give_way_where_cases_answer(url, visit):
    page = visit(url)
    page.wait_for_selector(".hit")
    page.locator(".hit .do").first.get_by_title("More like this").click()
    page.wait_for_selector("#marks:not([hidden])")
    page.locator("#ways > summary").click()
    page.locator("#ways select").select_option("patient")
    page.wait_for_selector(".matches")
    assert page.locator("#marks").is_hidden()
    assert page.locator(".part").count() == 1


def test_a_box_shows_the_part_that_is_like_the_question(url, visit, folder):
    page = visit(url)
    bring(page, folder / "mine-4.png")
    assert not page.locator(".region").count()
    page.locator("#ways > summary").click()
    page.get_by_label("Compare with parts of pictures").check()
    page.wait_for_selector(".hit .region")
    assert page.inner_text("#answer-title") == "Pictures with a similar part"
    rows = shown(page)
    assert page.locator(".hit .region").count() == len(rows)
    with Index.open(folder / "x", encoder=FakeEncoder()) as index:
        wanted = index.search(image=folder / "mine-4.png", k=len(rows), in_regions=True)
    assert rows == wanted.ids
    box = page.locator(".hit .region .over").first
    assert [int(box.get_attribute(name)) for name in ("x", "y", "width", "height")] == list(wanted.regions[0])
    # it lies on the picture, wherever that lies in its frame
    page.wait_for_selector(".hit img[src]")
    outer, inner = page.locator(".hit img").first.bounding_box(), box.bounding_box()
    assert outer["x"] - 3 <= inner["x"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 3
    page.locator(".picture").first.click()
    page.wait_for_selector("#viewer .frame .region")
    page.keyboard.press("+")
    moved = page.locator("#viewer .frame .region").get_attribute("style")
    assert "scale(1.2)" in moved


@pytest.mark.parametrize(
    "size", [{"width": 1280, "height": 900}, {"width": 390, "height": 844}], ids=["wide", "narrow"]
)
def test_axe_finds_nothing_serious_in_cases_and_parts(url, visit, folder, size):
    from axe_playwright_python.sync_playwright import Axe

    def serious() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]

    page = visit(url, size, bypass_csp=True)
    bring(page, folder / "mine-4.png", folder / "report.txt", folder / "mine-5.png")
    page.locator("#ways > summary").click()
    assert not serious()
    page.locator("#ways select").select_option("")
    page.get_by_label("Compare with parts of pictures").check()
    page.wait_for_selector(".hit .region")
    shown(page)
    assert not serious()
    page.locator(".picture").first.click()
    page.wait_for_selector("#viewer .frame .region")
    assert not serious()
