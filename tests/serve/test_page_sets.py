"""Sets on the page: picked, labelled and saved, opened again, handed on; by two people at once, and refused in time."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings
from retr.serve.tokens import make_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """The index of 12 pictures, inside their archive: found there whatever this machine remembers."""
    archive = tmp_path_factory.mktemp("archive")
    lines = ["path,label"]
    for number in range(12):
        name = f"{('healthy', 'glaucoma')[number % 2]}/{number:03d}.png"
        (archive / name).parent.mkdir(exist_ok=True)
        picture(number).save(archive / name)
        lines.append(f"{name},{name.partition('/')[0]}")
    (archive / "labels.csv").write_text("\n".join(lines) + "\n")
    index = archive / ".retr"
    Index.build(archive, index, encoder=FakeEncoder(), metadata=archive / "labels.csv")
    return index


@pytest.fixture(scope="module")
def url(path, listen) -> Iterator[str]:
    with listen(create_app({"small": path}, Settings(), {"encoder": FakeEncoder()})) as address:
        yield address


@pytest.fixture
def sets(path) -> Callable[[], dict[str, Any]]:
    def look() -> dict[str, Any]:
        with Index.open(path, encoder=FakeEncoder()) as index:
            return {one.name: one for one in index.sets.all()}

    return look


def shown(page: Page) -> list[str]:
    page.wait_for_selector("#answer[aria-busy=false]")
    return [one.get_attribute("data-id") or "" for one in page.query_selector_all(".hit .picture")]


def ask(page: Page, path: Path) -> list[str]:
    page.wait_for_selector(".hit")
    page.set_input_files("#file", path.parent / "healthy" / "000.png")
    page.wait_for_selector(".hit .score")
    return shown(page)


def done(page: Page, text: str) -> None:
    page.get_by_text(text).wait_for()


def focused(page: Page) -> str:
    said: str = page.evaluate("document.activeElement.textContent")
    return said


def open_set(page: Page, name: str) -> None:
    page.click("#sets-open")
    page.locator("#sets li > button", has_text=name).click()
    page.get_by_role("heading", name=f'Set "{name}"').wait_for()
    page.wait_for_selector("#answer[aria-busy=false]")


def test_a_set_is_made_labelled_asked_again_and_handed_on(url, visit, path, sets, tmp_path):
    page = visit(url)
    found = ask(page, path)
    page.locator(".pick input").nth(1).check()
    # with Shift all up to it
    page.locator(".pick input").nth(3).click(modifiers=["Shift"])
    page.locator(".pick input").nth(2).uncheck()
    assert page.inner_text("#keep-count") == "2 picked"
    # they stay picked while something else is asked
    page.locator(f".picture[data-id='{found[5]}'] ~ .do").get_by_text("Ask with this").click()
    page.wait_for_selector(".part")
    assert page.locator(".hit.picked").count() == 2
    page.locator(".part button").click()
    ask(page, path)
    page.fill("#keep-name", "to discuss")
    page.fill("#keep-label", "drusen?")
    page.keyboard.press("Enter")
    done(page, '2 pictures labelled "drusen?" in "to discuss".')
    kept = sets()["to discuss"]
    assert kept.labels == dict.fromkeys([found[1], found[3]], ("drusen?",))
    assert list(kept.question["hits"]) == found

    # a later version, with a picture that is nearer than most
    picture(0).rotate(2).save(path.parent / "healthy" / "new.png")
    Index.build(path.parent, path, encoder=FakeEncoder())
    page.wait_for_timeout(1100)  # as often the server looks
    open_set(page, "to discuss")
    assert sorted(shown(page)) == sorted([found[1], found[3]])
    assert page.locator(".labels").count() == 2
    page.click("#set button.first")
    page.get_by_text("1 of these is new").wait_for()
    assert page.locator(".hit", has=page.locator(".fresh")).locator(".picture").get_attribute("data-id") == (
        "healthy/new.png"
    )
    # what its question and a picture share is looked for as with any other
    page.locator(".picture").first.click()
    page.keyboard.press("h")
    page.wait_for_selector("#viewer .heat")
    page.keyboard.press("Escape")
    page.click("text=Show what was saved")
    page.wait_for_selector("#set button.first")
    for form, title in (("csv", "CSV"), ("zip", "Pictures (zip)")):
        with page.expect_download() as download:
            page.get_by_role("button", name=title).click()
        assert download.value.suggested_filename == f"to discuss.{form}"
        download.value.save_as(tmp_path / f"set.{form}")
    assert "drusen?" in (tmp_path / "set.csv").read_text()
    assert len(zipfile.ZipFile(tmp_path / "set.zip").namelist()) == 3
    # its question is not replaced unasked
    page.click("text=Leave the set")
    page.wait_for_selector("#set", state="hidden")
    page.locator(".pick input").nth(0).check()
    assert page.input_value("#keep-name") == "to discuss"
    assert not page.is_checked("#keep-question")


def test_by_keys_alone(url, visit, sets):
    page = visit(url)
    page.wait_for_selector(".hit")
    first = shown(page)
    page.locator(".picture").first.focus()
    page.keyboard.press("s")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    page.keyboard.press("s")
    assert page.inner_text("#keep-count") == "3 picked"
    page.wait_for_selector("#keep-fields:not([hidden])")
    page.keyboard.press("l")
    page.keyboard.type("by keys")
    page.keyboard.press("Enter")
    done(page, '3 pictures saved in "by keys".')
    assert sets()["by keys"].ids == tuple(first[:3])
    page.keyboard.press("o")
    page.wait_for_selector("#sets li")
    # the newest comes first, and has the focus
    page.keyboard.press("Enter")
    page.get_by_role("heading", name='Set "by keys"').wait_for()
    page.wait_for_selector("#answer[aria-busy=false]")
    page.locator(".picture").first.focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("l")
    page.keyboard.type("good")
    page.keyboard.press("Enter")
    page.wait_for_selector(".labels button")
    page.locator(".labels button").first.press("Enter")
    page.locator(".labels").nth(2).wait_for(state="detached")
    assert len(sets()["by keys"].labels) == 2
    page.locator(".picture").first.focus()
    page.keyboard.press("s")
    page.locator("#keep-out").press("Enter")
    done(page, 'taken out of "by keys"')
    assert page.evaluate("document.activeElement.id") == "answer"

    # somebody else's label draws the set anew, and leaves the focus and what is asked where they are
    def others_label() -> None:
        page.evaluate("import('/page/state.js').then((state) => state.tell('set'))")
        page.wait_for_selector("#answer[aria-busy=false]")

    page.wait_for_selector("#answer[aria-busy=false]")
    page.get_by_role("button", name="Delete the set").focus()
    for sure in ("Delete the set", 'Delete "by keys"'):
        others_label()
        assert focused(page).startswith(sure)
        page.keyboard.press("Enter")
    page.wait_for_selector("#set", state="hidden")
    assert "by keys" not in sets()
    # what is gone does not take the focus with it
    assert page.evaluate("document.activeElement.id") == "answer"


def test_two_people_label_at_once(path, listen, visit, sets, tmp_path):
    """Both labels are there, each sees the other's, and who may only read is told before there is work to lose."""
    tokens = {
        name: make_token(tmp_path / "tokens", name, frozenset(scopes.split()))
        for name, scopes in (("anna", "read label"), ("ben", "read label"), ("carl", "read"))
    }
    app = create_app({"small": path}, Settings(token_file=tmp_path / "tokens"), {"encoder": FakeEncoder()})

    def enter(page: Page, name: str) -> None:
        page.wait_for_selector("#login[open]")
        page.fill("#token", tokens[name])
        page.keyboard.press("Enter")

    with listen(app) as address:
        anna, ben = visit(address), visit(address)
        enter(anna, "anna")
        enter(ben, "carl")
        for page in (anna, ben):
            page.wait_for_selector(".hit")
            page.locator(".pick input").nth(0).check()
        ben.locator(".pick input").nth(1).check()
        ben.get_by_text('it lacks the scope "label"').wait_for()
        assert not ben.is_visible("#keep-name")
        ben.click("#keep-token")
        enter(ben, "ben")
        ben.wait_for_selector("#keep-name")
        assert ben.inner_text("#keep-count") == "2 picked"
        for page, label in ((anna, "early"), (ben, "late")):
            page.fill("#keep-name", "both")
            page.fill("#keep-label", label)
        anna.click("#keep button.first")
        ben.click("#keep button.first")
        for page in (anna, ben):
            page.wait_for_selector("#keep", state="hidden")
        given = {(one.label, one.author) for one in sets()["both"].given}
        assert given == {("early", "anna"), ("late", "ben")}
        open_set(anna, "both")
        open_set(ben, "both")
        ben.locator(".pick input").nth(1).check()
        ben.fill("#keep-label", "third")
        ben.click("#keep button.first")
        # without a touch
        anna.get_by_text("third").wait_for()
        # a token that may no more: nothing that was picked or written is lost
        anna.locator(".pick input").nth(0).check()
        anna.fill("#keep-label", "fourth")
        lines = (tmp_path / "tokens").read_text().splitlines()
        (tmp_path / "tokens").write_text(
            "\n".join(line.replace("read,label", "read") if line.startswith("anna") else line for line in lines) + "\n"
        )
        anna.click("#keep button.first")
        anna.get_by_text("Not saved").wait_for()
        assert anna.input_value("#keep-label") == "fourth"
        assert anna.inner_text("#keep-count") == "1 picked"


@pytest.mark.parametrize(("size", "scheme"), [(NARROW, "light"), (NARROW, "dark"), (WIDE, "light"), (WIDE, "dark")])
def test_axe_finds_nothing_serious(url, visit, path, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    name = f"{size['width']} {scheme}"
    phone = {"is_mobile": True, "has_touch": True} if size is NARROW else {}
    page = visit(url, size, color_scheme=scheme, bypass_csp=True, **phone)
    ask(page, path)
    page.locator(".pick input").nth(1).check()
    page.fill("#keep-name", name)
    page.fill("#keep-label", "x")
    page.wait_for_timeout(100)

    def fine() -> None:
        found = Axe().run(page).response["violations"]
        assert not [
            f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

    fine()
    # the boxes are large enough for a thumb
    assert size is WIDE or min(page.locator(".pick").first.bounding_box()[side] for side in ("width", "height")) >= 40
    page.click("#keep button.first")
    page.wait_for_selector("#keep", state="hidden")
    page.click("#sets-open")
    page.wait_for_selector("#sets li")
    fine()
    page.locator("#sets li", has_text=name).locator("button", has_text="Ask its question").click()
    page.wait_for_selector("#set .calm")
    fine()
