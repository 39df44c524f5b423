"""After a mark the page shows what was not seen yet; what was is a click away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

N, SHOWN = 60, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("unseen")
    return path


@pytest.fixture(autouse=True)
def _state_of_the_module(folder, monkeypatch) -> None:
    monkeypatch.setenv("RETR_STATE_DIR", str(folder / "state"))


@pytest.fixture(scope="module")
def url(folder, listen) -> Iterator[str]:
    """A server of 60 pictures: more than two screens of hits."""
    (folder / "archive").mkdir()
    table: dict[str, list[object]] = {"path": [], "label": []}
    for number in range(N):
        picture(number).save(folder / "archive" / f"{number:02}.png")
        table["path"].append(f"{number:02}.png")
        table["label"].append("ab"[number % 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_STATE_DIR", str(folder / "state"))
        Index.build(folder / "archive", folder / "x", encoder=FakeEncoder(), metadata=table)
    with listen(create_app({"small": folder / "x"}, Settings(), {"encoder": FakeEncoder()})) as address:
        yield address


def shown(page: Page) -> list[str]:
    page.wait_for_timeout(30)
    page.wait_for_selector("#answer[aria-busy=false]")
    return [one.get_attribute("data-id") or "" for one in page.query_selector_all(".hit .picture")]


def ask(page: Page) -> list[str]:
    # what they look like is no part of it
    page.route("**/picture?*", lambda route: route.fulfill(status=404, body="{}", content_type="application/json"))
    page.reload()
    page.wait_for_selector(".hit")
    page.locator(".hit .do .ask").nth(3).click()
    page.wait_for_selector(".hit .score")
    return shown(page)


def mark(page: Page, row: str, title: str) -> list[str]:
    page.locator(f".picture[data-id='{row}'] ~ .do").get_by_title(title).click()
    page.wait_for_selector(f"#marks [title='{row}']")
    return shown(page)


def test_a_mark_brings_up_what_was_not_seen_and_the_rest_is_a_click_away(url, visit, folder):
    page = visit(url)
    first = ask(page)
    asked = page.locator("#parts .id").get_attribute("title")
    second = mark(page, first[5], "More like this")
    assert len(second) == SHOWN
    assert not set(first) & set(second)
    assert "24 pictures not seen before" in page.inner_text("#status")
    third = mark(page, second[0], "Less like this")
    # 60 rows, less the question and the marked ones: what is left is new, then what was seen fills the page
    rest = N - 1 - len(first) - len(second)
    assert len(third) == SHOWN
    assert not {*first, *second} & set(third[:rest])
    assert set(third[rest:]) <= {*first, *second}
    assert page.locator(".hit").nth(rest - 1).get_by_text("seen", exact=True).count() == 0
    assert page.locator(".hit").nth(rest).get_by_text("seen", exact=True).count() == 1
    # ranks are those of the answer, and in both parts go up
    ranks = [int(one) for one in page.locator(".hit .facts:first-of-type > strong").all_inner_texts()]
    assert ranks[:rest] == sorted(ranks[:rest])
    assert ranks[rest:] == sorted(ranks[rest:])

    page.click("#before")
    every = shown(page)
    with Index.open(folder / "x", encoder=FakeEncoder()) as index:
        everything = set(index.table(["id"])["id"].to_pylist())
    assert len(every) == len(set(every))
    assert set(every) == everything - {asked, first[5], second[0]}
    # whoever opens it by keys goes on there
    assert page.evaluate("document.activeElement.dataset.id") == every[SHOWN]
    assert not page.locator("#before").is_visible()


def test_what_changes_without_a_mark_hides_nothing(url, visit):
    page = visit(url)
    first = ask(page)
    second = mark(page, first[0], "More like this")
    # another condition, and the way back: the same pictures, though they have been shown
    page.fill("#where", "label = 'a'")
    page.click("#filter button")
    page.wait_for_selector("#chips li")
    assert {row for row in second if int(row[:2]) % 2 == 0} <= set(shown(page))
    page.click("#chips button")
    page.wait_for_selector("#chips", state="hidden")
    assert shown(page) == second
    page.click("#more")
    page.wait_for_selector(f".picture[data-place='{SHOWN}']")
    assert shown(page)[:SHOWN] == second
    # without marks the answer is the question's own again
    page.click("#marks > button")
    page.wait_for_selector("#marks", state="hidden")
    assert shown(page)[:SHOWN] == first
    # and a new question knows of nothing that was seen
    mark(page, first[1], "More like this")
    page.locator(".hit .do .ask").first.click()
    page.wait_for_selector("#marks", state="hidden")
    assert len(shown(page)) == SHOWN
    assert "the most similar first" in page.inner_text("#status")
    assert "not seen" not in page.inner_text("#status")
