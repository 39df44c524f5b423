"""Pictures in a terminal, and a picture by its address: only where a person asks, and a terminal says that it can."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import picture
from patience import LONG
from PIL import Image

from retr.cli import _inline
from retr.index.errors import UsageError

ROOT = Path(__file__).parents[2]
ROW = "glaucoma/05_g.jpg"
SAYS = {"kitty": {"TERM": "xterm-kitty"}, "iterm": {"TERM_PROGRAM": "iTerm.app"}}


@contextmanager
def a_terminal():
    """Standard output and input are one terminal, whose other end is given."""
    monkeypatch = pytest.MonkeyPatch()
    for name in ("TMUX", "STY", "TERM_PROGRAM", "KITTY_WINDOW_ID", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(os.dup(theirs), "w") as out, os.fdopen(os.dup(theirs), "r") as typed:
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stdin", typed)
            yield ours
            monkeypatch.undo()
    finally:
        monkeypatch.undo()
        os.close(ours)
        os.close(theirs)


def answering(ours: int, answer: bytes) -> threading.Thread:
    """Be a terminal that is asked for its attributes."""

    def answer_once() -> None:
        assert os.read(ours, 100) == b"\x1b[c"
        os.write(ours, answer)

    thread = threading.Thread(target=answer_once)
    thread.start()
    return thread


@pytest.mark.parametrize("how", SAYS)
def test_a_terminal_says_so_in_the_environment(monkeypatch, how):
    with a_terminal():
        for name, value in SAYS[how].items():
            monkeypatch.setenv(name, value)
        assert _inline.way() == how
        for name in ("TMUX", "STY"):
            monkeypatch.setenv(name, "1")
            assert _inline.way() is None
            monkeypatch.delenv(name)
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        assert _inline.way() is None


@pytest.mark.parametrize(
    ("answer", "how"), [(b"\x1b[?62;4;22c", "sixel"), (b"\x1b[?62;22c", None), (b"\x1b[?64;14c", None), (b"q", None)]
)
def test_a_terminal_says_so_when_it_is_asked(answer, how, monkeypatch):
    # one that answers is waited for, however late it is
    patience = LONG if answer.endswith(b"c") else 0.2
    monkeypatch.setattr(_inline, "_attributes", partial(_inline._attributes, patience))
    with a_terminal() as ours:
        thread = answering(ours, answer)
        assert _inline.way() == how
        thread.join(LONG)


def test_kitty_and_iterm_are_sent_the_picture():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    sent = _inline.drawn(image, "kitty")
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert len(parts) > 1
    assert max(len(data) for _, data in parts) <= 4096
    assert [keys[-3:] for keys, _ in parts] == ["m=1"] * (len(parts) - 1) + ["m=0"]
    read = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts))))
    assert np.array_equal(np.asarray(read), np.asarray(image))
    data = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);preserveAspectRatio=1:([^\a]*)\a\n", _inline.drawn(image, "iterm")
    )
    file = base64.b64decode(data[2])
    assert len(file) == int(data[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(image))


def read_sixels(text: str) -> np.ndarray:
    """Read sixels as a terminal does."""
    wide, high, body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL).groups()
    canvas, palette, x, y, colour = np.zeros((int(high), int(wide), 3)), {}, 0, 0, 0
    for number, rgb, count, sign, ends in re.findall(r"#(\d+)(;2;\d+;\d+;\d+)?|!(\d+)(?=[?-~])|([?-~])|([$-])", body):
        if number:
            colour = int(number)
            if rgb:
                palette[colour] = [int(part) for part in rgb.split(";")[2:]]
        elif count:
            times = int(count)
            continue
        elif sign:
            for row in range(6):
                if ord(sign) - 63 >> row & 1:
                    canvas[y + row, x : x + times] = palette[colour]
            x += times
        else:
            x, y = 0, y + 6 * (ends == "-")
        times = 1
    return canvas


@pytest.mark.parametrize("size", [(40, 30), (7, 13), (1, 1), (300, 5)])
def test_sixels_show_the_picture(size):
    image = picture(3, size)
    few = np.asarray(image.convert("RGB").quantize(255, dither=Image.Dither.NONE).convert("RGB")).astype(int)
    assert np.array_equal(read_sixels(_inline.drawn(image, "sixel")), few * 100 // 255)


def test_a_strip_fits_the_terminal():
    pictures = [picture(1, (300, 200)), None, *[picture(n, (20, 90)) for n in range(5)]]
    for wide in (100, 320, 800, 4000):
        strip = _inline.strip(pictures, wide)
        assert strip.width <= max(wide, _inline.SIDE)
    assert strip.size == (7 * (_inline.SIDE + _inline.GAP) - _inline.GAP, _inline.SIDE)


def test_hits_are_shown_in_a_terminal_that_can_and_not_in_a_pipe(retr, placed, monkeypatch):
    asked = ("query", "--id", ROW, "-k", 2, "--index", placed)
    monkeypatch.setattr(_inline, "way", lambda: "iterm")
    assert "\x1b" not in retr(*asked, "--thumbnails").out
    drawn = []
    monkeypatch.setattr(_inline, "drawn", lambda strip, _: drawn.append(strip) or "<drawn>\n")
    from retr.cli import _output

    out = _output.Output()
    monkeypatch.setattr(sys, "stdout", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    from retr import Index, Query

    index = Index.open(placed)
    hits = index.search(id=ROW, k=2)
    out.pictures(lambda: _inline.of_hits(index, Query.id(ROW), hits), None)
    assert sys.stdout.getvalue() == "<drawn>\n"
    assert drawn[0].width == 3 * (_inline.SIDE + _inline.GAP) - _inline.GAP
    out.pictures(lambda: pytest.fail("not wanted"), False)
    monkeypatch.setattr(_inline, "way", lambda: None)
    out.pictures(lambda: pytest.fail("cannot be shown"), None)
    with pytest.raises(UsageError, match="does not say that it shows pictures"):
        out.pictures(list, True)
    _output.Output(json_=True).pictures(lambda: pytest.fail("for a program"), True)


def test_a_picture_by_its_address_is_fetched_where_it_is_named(retr, placed, monkeypatch):
    named = []

    def fetch(address: str) -> bytes:
        named.append(address)
        return (ROOT / "examples/hrf45" / ROW).read_bytes()

    monkeypatch.setattr("retr.retrieval.images.fetched.fetch_picture", fetch)
    by_file = retr("query", "--image", ROOT / "examples/hrf45" / ROW, "-k", 3, "--ids", "--index", placed).out
    for address in ("https://example.org/eye.jpg", "2:https://example.org/eye.jpg"):
        assert retr("query", "--image", address, "-k", 3, "--ids", "--index", placed).out == by_file
    assert named == ["https://example.org/eye.jpg"] * 2
    # in a batch, which may be somebody else's, it is a file's name
    line = b'{"image": "https://example.org/eye.jpg"}\n'
    assert "example.org/eye.jpg': No such file" in retr("query", "--batch", "-", "--index", placed, stdin=line).error(1)
    assert len(named) == 2
    done = retr("classify", "--image", "https://example.org/eye.jpg", "--by", "label", "--index", placed)
    assert done.code in {0, 3}
    assert len(named) == 3
