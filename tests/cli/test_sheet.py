"""``retr query --sheet`` and ``--explain`` on real photographs."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from retr.retrieval import sheet

HRF = Path(__file__).parents[2] / "examples/hrf45"
IMAGE = HRF / "glaucoma/05_g.jpg"


class _Page(HTMLParser):
    """Collects the pictures, and everything a page could fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[Image.Image] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for name in ("src", "href"):
            if name in given:
                assert given[name].startswith("data:image/jpeg;base64,"), given[name]
                data = base64.b64decode(given[name].partition(",")[2])
                self.images.append(Image.open(io.BytesIO(data)).copy())
        if tag not in {"meta", "hr", "img", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_stands_alone(retr, placed, tmp_path):
    page = tmp_path / "out.html"
    done = retr("query", "--image", IMAGE, "-k", 4, "--sheet", page, "--json", "--index", placed)
    assert done.code == 0
    text = page.read_text()
    read = _Page(text)
    assert read.open == []
    assert len(read.images) == 5
    assert not re.search(r"https?:", text)
    assert "url(" not in text
    for hit in done.json[0]["hits"]:
        assert f"{hit['rank']}. {hit['score']:.4f} {hit['id']}" in text
    original = Image.open(IMAGE).convert("RGB")
    original.thumbnail((448, 448))
    assert read.images[0].size == original.size
    difference = np.abs(np.asarray(read.images[0], float) - np.asarray(original, float)).mean()
    assert difference < 5


def test_names_are_escaped(retr, tmp_path):
    archive = tmp_path / "a"
    archive.mkdir()
    for i in range(3):
        Image.effect_noise((40, 40), 30 + i).convert("RGB").save(archive / f"<b>{i} & co.png")
    assert retr("index", "build", archive, "--index", tmp_path / "x.retr").code == 0
    page = tmp_path / "out.html"
    assert retr("query", "--id", "<b>0 & co.png", "--sheet", page, "--index", tmp_path / "x.retr").code == 0
    assert "<b>1 &" not in page.read_text()
    assert "&lt;b&gt;1 &amp; co.png" in page.read_text()


def test_nothing_of_a_name_acts_on_a_page():
    card = sheet.SheetPicture("1. \u202egnp.exe\x1b[2J", None, {"a\u200bge": "x\u2066", "raw": b"\x00"})
    sheets = [sheet.Sheet("image '\u200f'", [], [card], ["note \u2028"])]
    page = sheet.page(sheets)
    assert not set("\u202e\x1b\u200b\u2066\u200f\u2028") & set(page)
    for shown in ("1. \\u202egnp.exe\\x1b[2J", "a\\u200bge", "x\\u2066", "note \\u2028", "<td>00</td>"):
        assert shown in page
    sheet.contact_sheet(sheets)


def test_a_contact_sheet(retr, placed, tmp_path):
    path = tmp_path / "out.png"
    done = retr("query", "--image", IMAGE, "--id", "healthy/02_h.jpg", "-k", 8, "--sheet", path, "--index", placed)
    assert done.code == 0
    sheet = Image.open(path)
    # two queries of one row for the question and two for eight hits
    assert sheet.size == (8 + 6 * 232, 8 + 6 * (224 + 44 + 8))
    assert np.asarray(sheet).std() > 20


def original_size(shown):
    """The longer side is 448 and the shape is the photograph's."""
    with Image.open(IMAGE) as original:
        width, height = original.size
    scale = 448 / max(width, height)
    assert abs(shown.width - width * scale) <= 1
    assert abs(shown.height - height * scale) <= 1
    return shown.size


def test_an_explained_hit_has_an_overlay(retr, placed, tmp_path):
    page = tmp_path / "out.html"
    done = retr("query", "--image", IMAGE, "-k", 2, "--sheet", page, "--explain", "--json", "--index", placed)
    assert done.code == 0
    images = _Page(page.read_text()).images
    assert len(images) == 1 + 2 * 2
    plain, laid = images[1:3]
    assert plain.size == laid.size == original_size(plain)
    assert np.asarray(laid, float).mean() < np.asarray(plain, float).mean()
    assert "than like places of other pictures" in page.read_text()


def test_an_archive_that_is_elsewhere_is_said_so(retr, hrf_copy, tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "elsewhere"))
    page = tmp_path / "out.html"
    assert retr("query", "--id", "healthy/02_h.jpg", "-k", 2, "--sheet", page, "--index", hrf_copy).code == 0
    assert page.read_text().count("not on this machine") == 3


def test_what_cannot_be_meant(retr, hrf_index, tmp_path):
    assert "--sheet" in retr("query", "--image", IMAGE, "--explain", "--index", hrf_index).error(2)
    done = retr("query", "--image", IMAGE, "--sheet", tmp_path / "out.pdf", "--index", hrf_index)
    assert ".html" in done.error(2)


def test_a_sheet_names_no_folder_of_this_machine(retr, hrf_index, tmp_path):
    retr("query", "--image", HRF / "glaucoma/05_g.jpg", "--sheet", tmp_path / "x.html", "--index", hrf_index)
    text = (tmp_path / "x.html").read_text()
    assert "05_g.jpg" in text
    assert str(HRF.parent) not in text
