"""The page in a real browser: what a person does with it, from the first look to a server that is started again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from patience import LONG
from PIL import Image

from retr import Index
from retr.serve.app import create_app
from retr.serve.settings import Settings
from retr.serve.tokens import make_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def serve(archive, make_encoder, tmp_path, listen) -> Iterator[Callable[..., str]]:
    """``serve(port=0, **settings)``: the address of a server of 12 pictures, four of each patient, both eyes."""
    lines = (archive / "labels.csv").read_text().splitlines()
    eyes = [f"{line},{('left', 'right')[n % 2]},Topcon" for n, line in enumerate(lines[1:])]
    (archive / "labels.csv").write_text("\n".join([f"{lines[0]},laterality,camera", *eyes]) + "\n")
    path = tmp_path / "index"
    Index.build(archive, path, encoder=make_encoder(), metadata=archive / "labels.csv", group="patient")
    begun = []

    def begin(port: int = 0, **settings: Any) -> str:
        app = create_app({"small": path}, Settings(**settings), {"encoder": make_encoder()})
        begun.append(listen(app, port))
        return begun[-1].__enter__()

    begin.stop = lambda: begun.pop().__exit__(None, None, None)
    yield begin
    while begun:
        begin.stop()


@pytest.fixture
def file(archive, tmp_path) -> Path:
    """Another file of a picture that is in the archive too."""
    path = tmp_path / "mine.png"
    Image.open(archive / "healthy" / "000.png").save(path, compress_level=0)
    return path


def hits(page: Page) -> list[str]:
    page.wait_for_selector("#answer[aria-busy=false]")
    return [one.get_attribute("data-id") or "" for one in page.query_selector_all(".hit .picture")]


def until(page: Page, true: str) -> None:
    """Wait for something; the page's policy allows no `wait_for_function`, which evaluates text."""
    end = time.monotonic() + LONG
    while not page.evaluate(true):
        assert time.monotonic() < end, true
        page.wait_for_timeout(20)


def tick(page: Page, value: str) -> None:
    page.locator("#facets [data-column=label]").get_by_label(value).check()


def ask(page: Page, file: Path) -> list[str]:
    page.wait_for_selector(".hit")
    page.set_input_files("#file", file)
    page.wait_for_selector(".hit .score")
    return hits(page)


def test_a_picture_is_brought_and_its_answer_looked_at(serve, visit, file):
    page = visit(serve())
    page.wait_for_selector(".hit img[src]")
    assert "12 of 12" in page.inner_text("#status")
    found = ask(page, file)
    assert found[0] == "healthy/000.png"
    assert page.inner_text("#trust").startswith(("Complete:", "Before you trust this:"))
    # the remark is above the first picture
    boxes = [page.locator(one).first.bounding_box() for one in ("#trust", ".hit")]
    assert boxes[0]["y"] < boxes[1]["y"] < 450
    assert page.locator(".hit").first.inner_text().split()[1] == "1.000"
    # a picture's shape is its own
    until(page, "document.querySelector('.hit img').naturalWidth > 0")
    shape = page.eval_on_selector(".hit img", "i => [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]")
    assert shape[0] == pytest.approx(shape[1], rel=0.03)


def test_conditions_are_ticked_written_and_taken_away(serve, visit, file):
    page = visit(serve())
    ask(page, file)
    columns = page.locator("#facets > details:not([data-column='']) > summary").all_inner_texts()
    assert columns[0] == "label"
    # neither a column of one value nor of the file's storage is among them
    assert {"label", "age", "laterality"} <= set(columns)
    assert not {"width", "height", "mode", "camera", "sha256"} & set(columns)
    tick(page, "glaucoma")
    page.wait_for_selector("#chips li")
    assert all(one.startswith("glaucoma/") for one in hits(page))
    # a second value can still be ticked beside the first
    assert "6" in page.locator("[data-column=label] label", has_text="healthy").inner_text()
    assert page.input_value("#where") == "label = 'glaucoma'"
    page.fill("#where", "age >= 50")
    page.click("#filter button")
    until(page, "document.querySelector('#chips').innerText.includes('age >= 50')")
    assert len(hits(page)) == 2
    page.fill("#where", "age >")
    page.click("#filter button")
    page.wait_for_selector("#problem:not([hidden])")
    assert "age >" in page.inner_text("#problem")
    page.fill("#where", "age > 500")
    page.click("#filter button")
    until(page, "document.querySelector('#status').innerText.includes('Take one of them away')")
    page.click("#chips button")
    page.wait_for_selector(".hit")
    assert len(hits(page)) == 12
    page.locator("#patients").get_by_label("One picture per patient").check()
    until(page, "document.querySelectorAll('.hit').length === 4")
    assert "One picture per patient" in page.inner_text("#chips")


def test_more_and_less_like_this_lead_to_another_picture(serve, visit, file, tmp_path, make_encoder):
    page = visit(serve())
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "search" in request.url else None)
    first = ask(page, file)
    target = first[-1]
    like = Index.open(tmp_path / "index", encoder=make_encoder()).search(id=target, k=11).ids

    def click(title: str, row: str) -> None:
        page.locator(f".picture[data-id='{row}'] ~ .do").get_by_title(title).click()
        until(page, f"!document.querySelector(`.picture[data-id='{row}']`)")

    click("Less like this", first[0])
    marks = 1
    while target not in hits(page)[:2]:
        click("More like this", next(one for one in like if one in hits(page)))
        marks += 1
    # it was the last of twelve: unmoved it would take ten
    assert marks <= 5
    question = sent[-1]["questions"][0]
    assert (len(question["like"]), question["unlike"]) == (marks - 1, [first[0]])
    assert f"{marks - 1} marked right, 1 wrong" in page.inner_text("#status")
    assert page.locator(".marked.like li").count() == marks - 1
    # a mark is taken away again, and its picture is back
    page.locator("#marks").get_by_label(f"Take out Wrong: less like these: {first[0]}").click()
    until(page, f"document.querySelector(`.picture[data-id='{first[0]}']`) !== null")
    page.click("#marks > button")
    page.wait_for_selector("#marks", state="hidden")
    until(page, "document.querySelectorAll('.hit').length === 12")
    assert hits(page) == first
    page.locator(f".picture[data-id='{target}'] ~ .do").get_by_text("Ask with this").click()
    until(page, "document.querySelectorAll('.part').length === 1")
    assert hits(page)[:3] == like[:3]


def test_marks_alone_ask_and_go_by_keys(serve, visit):
    page = visit(serve())
    page.wait_for_selector(".hit")
    chosen = hits(page)[2]
    page.locator(".picture").nth(2).focus()
    page.keyboard.press("+")
    page.wait_for_selector(".hit .score")
    assert chosen not in hits(page)
    # the keys go on where they were
    assert page.evaluate("document.activeElement.dataset.place") == "2"
    wrong = hits(page)[2]
    page.keyboard.press("-")
    until(page, f"!document.querySelector(`.picture[data-id='{wrong}']`)")
    # what is wrong asks nothing by itself
    page.locator(".marked.like button").press("Enter")
    page.wait_for_selector("#marks", state="hidden")
    until(page, "document.querySelectorAll('.hit').length === 12")
    assert not page.locator(".hit .score").count()


def test_a_part_of_the_picture_is_asked_with(serve, visit, file):
    page = visit(serve())
    whole = ask(page, file)
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "search" in request.url else None)
    box = page.locator("#asked").bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    page.mouse.up()
    page.wait_for_timeout(100)
    hits(page)
    left, top, width, height = sent[-1]["questions"][0]["parts"][0]["crop"]
    assert 0 < left < width < 0.4 > height > top > 0
    page.locator("#asked").press("Escape")
    page.wait_for_timeout(100)
    assert hits(page) == whole
    assert "crop" not in sent[-1]["questions"][0]["parts"][0]


def test_two_pictures_are_compared_by_keys(serve, visit, file):
    page = visit(serve())
    found = ask(page, file)
    page.locator(".picture").nth(1).click()
    page.wait_for_selector("#viewer figure:nth-child(2) img[src]")
    transforms = "[...document.querySelectorAll('#viewer .frame img')].map(i => i.style.transform)"
    for key in ("+", "+", "ArrowRight"):
        page.keyboard.press(key)
    both = page.evaluate(transforms)
    assert both[0] == both[1]
    assert "scale(1.44)" in both[0]
    assert "-40px" in both[0]
    page.keyboard.press("0")
    assert "scale(1)" in page.evaluate(transforms)[0]
    # both eyes of the patient lie beneath
    page.wait_for_selector("#viewer .strip button")
    assert {"left", "right"} <= set(page.locator(".strip button").all_inner_texts())
    for technical in ("sha256", "mtime"):
        assert not page.get_by_text(technical, exact=True).is_visible()
    page.keyboard.press("n")
    assert found[2].rpartition("/")[2] in page.inner_text("#viewer figcaption >> nth=1")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def test_deep_grey_is_looked_into_by_frame_and_window(serve, visit, volume, tmp_path):
    (tmp_path / "scan.dcm").write_bytes(volume)
    page = visit(serve())
    ask(page, tmp_path / "scan.dcm")
    page.locator(".picture").first.click()
    page.wait_for_selector("#viewer figure:first-child img[src]")
    said = page.locator("#viewer figure").first.locator("figcaption .quiet")

    def says(text: str) -> None:
        until(page, f"document.querySelector('#viewer figcaption .quiet').textContent === '{text}'")

    says("1 of 3, window 2000 ± 2000")
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    says("3 of 3, window 2000 ± 2000")
    box = page.locator("#viewer .frame").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 130, steps=3)
    page.mouse.move(box["x"] + 40, box["y"] + 130, steps=3)
    page.mouse.up()
    until(page, "!document.querySelector('#viewer figcaption .quiet').textContent.includes('± 2000')")
    page.wait_for_timeout(300)
    shown = said.inner_text().replace("±", "").split()
    assert int(shown[-2]) == pytest.approx(2400, abs=60)
    assert int(shown[-1]) == pytest.approx(1600, abs=60)
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, -100)
    until(page, "document.querySelector('#viewer figcaption .quiet').textContent.startsWith('2 of 3')")
    page.click("#viewer button:has-text('Reset')")
    says("1 of 3, window 2000 ± 2000")


def test_until_the_model_is_there_the_page_says_so(serve, visit):
    page = visit("about:blank")
    page.route("**/readyz", lambda route: route.fulfill(status=503))
    page.goto(serve())
    page.wait_for_selector(".hit")
    assert "being loaded" in page.inner_text("#loading")
    page.unroute("**/readyz")
    page.wait_for_selector("#loading", state="hidden")


def test_a_token_is_asked_for_refused_and_taken(serve, visit, tmp_path):
    token = make_token(tmp_path / "tokens", "anna", frozenset({"read"}))
    page = visit(serve(token_file=tmp_path / "tokens"))
    page.wait_for_selector("#login[open]")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#login .alert")
    page.fill("#token", token)
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit img[src]")
    page.reload()
    page.wait_for_selector(".hit img[src]")
    assert not page.locator("#login").is_visible()


def test_a_server_that_is_started_again_answers_the_open_page(serve, visit, file, tmp_path, make_encoder):
    url = serve()
    page = visit(url)
    found = ask(page, file)
    page.locator(".pick input").nth(1).check()
    serve.stop()
    page.click("button:has-text('Show more')") if page.is_visible("#more") else page.locator("#asked").press("Escape")
    page.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in page.inner_text("#problem")
    serve(int(url.rstrip("/").rpartition(":")[2]))
    page.wait_for_selector("#problem", state="hidden")
    # the picture was held in the memory of the one before
    assert hits(page) == found
    assert not page.is_visible("#problem")
    # what was picked before is saved after, with the question
    page.fill("#keep-name", "after")
    page.click("#keep button.first")
    page.wait_for_selector("#keep", state="hidden")
    kept = Index.open(tmp_path / "index", encoder=make_encoder()).sets["after"]
    assert kept.ids == (found[1],)
    assert list(kept.question["hits"]) == found


def test_all_of_it_goes_by_keys(serve, visit):
    page = visit(serve())
    page.wait_for_selector(".hit")
    page.keyboard.press("?")
    assert "Looking closer" in page.inner_text("#help")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("drusen")
    page.keyboard.press("Enter")
    # an encoder without a text side: said in words
    page.wait_for_selector("#problem:not([hidden])")
    assert "No answer" in page.inner_text("#problem")
    page.locator(".part button").press("Enter")
    # what is gone hands the focus on, and what is drawn anew keeps it
    assert page.evaluate("document.activeElement.id") == "text"
    page.wait_for_selector(".hit")
    page.locator("#patients input").first.focus()
    for checked in (True, False):
        page.keyboard.press("Space")
        hits(page)
        assert page.evaluate("[document.activeElement.type, document.activeElement.checked]") == ["checkbox", checked]
    second = hits(page)[1]
    page.locator(".picture").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") == second
    page.keyboard.press("a")
    page.wait_for_selector(".hit .score")
    assert second not in hits(page)
    seen = set()
    page.locator("#keys").focus()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"file", "text", "where", "picture", "ask"} <= {one.removeprefix("unseen") or "file" for one in seen} | {
        "file" if "unseen" in seen else ""
    }


def test_on_a_phone_the_answer_follows_the_question(serve, visit, file):
    page = visit(serve(), NARROW, is_mobile=True, has_touch=True)
    ask(page, file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.is_visible("#where")
    assert page.locator("#trust").bounding_box()["y"] < 844
    # two pictures side by side
    tops = [page.locator(".hit").nth(place).bounding_box()["y"] for place in range(3)]
    assert tops[0] == tops[1] < tops[2]
    # and the end of a name, which tells files apart, is in sight
    for end, card in [
        (page.locator(f".hit >> nth={n} >> .id span:last-child"), page.locator(f".hit >> nth={n}")) for n in (0, 1)
    ]:
        name, box = end.bounding_box(), card.bounding_box()
        assert name["x"] + name["width"] <= box["x"] + box["width"]
    page.tap("#conditions > summary")
    tick(page, "glaucoma")
    page.wait_for_selector("#chips li")
    assert all(one.startswith("glaucoma/") for one in hits(page))


def test_what_a_picture_may_show_comes_with_its_doubts(serve, visit, file):
    page = visit(serve())
    assert not page.is_visible("#named")
    ask(page, file)
    page.click("#named summary")
    page.wait_for_selector("#named .classes li")
    said = page.inner_text("#named")
    assert "Not calibrated" in said
    assert "no diagnosis" in said
    assert {"healthy", "glaucoma"} >= set(page.locator("#named .classes .name").all_inner_texts())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_serious(serve, visit, file, scheme, size):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(serve(), size, color_scheme=scheme, bypass_csp=True)

    def serious() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]

    page.wait_for_selector(".hit img[src]")
    assert not serious()
    ask(page, file)
    page.evaluate("document.querySelector('#conditions').open = true")
    page.click("#named summary")
    page.wait_for_selector("#named .classes li")
    tick(page, "glaucoma")
    page.wait_for_selector("#chips li")
    hits(page)
    assert not serious()
    page.locator(".picture").first.click()
    page.wait_for_selector("#viewer .strip button")
    assert not serious()


def test_the_page_weighs_little(serve, visit):
    page = visit("about:blank")
    weights: dict[str, int] = {}
    page.on("requestfinished", lambda one: weights.update({one.url: one.sizes()["responseBodySize"]}))
    page.goto(serve())
    page.wait_for_selector(".hit img[src]")
    page.wait_for_timeout(200)
    code = {url: size for url, size in weights.items() if "/page/" in url or url.endswith("/")}
    assert len(code) > 10
    assert sum(code.values()) <= 300_000
    assert all(url.startswith("http://127.0.0.1") for url in weights if not url.startswith("blob:"))
