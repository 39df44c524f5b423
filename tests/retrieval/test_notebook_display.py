"""In a notebook: the question beside its hits, and a bar that moves below the cell."""

from __future__ import annotations

import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from retr import Query
from retr.retrieval import progress
from retr.sample import sample_index

ROW = "healthy/P01-left.png"


@pytest.fixture(scope="module")
def index():
    return sample_index()


def pictures(hits) -> int:
    return hits._repr_html_().count("<img ")


def test_the_question_stands_before_its_hits(index):
    file = index.path.parent / ROW
    for query in (Query.id(ROW), Query.image(file), Query.image(file.read_bytes()), Query.image(Image.open(file))):
        hits = index.search(query, k=2)
        assert hits._repr_html_().index("asked with") < hits._repr_html_().index(hits.ids[0])
        assert pictures(hits) == 3
        assert pictures(hits[:1]) == 2
        assert str(index.path.parent) not in hits._repr_html_() + repr(hits)
    assert pictures(index.search(Query.id(ROW) + Query.image(file), k=2)) == 4
    assert pictures(index.search(vector=index.store.vectors([0])[0], k=2)) == 2


def test_what_is_sent_or_asked_by_the_hundred_holds_no_question(index):
    hits = index.search(Query.id(ROW), k=2)
    assert "_question" not in vars(pickle.loads(pickle.dumps(hits)))
    assert all("_question" not in vars(one) for one in index.search([Query.id(ROW)] * 17, k=1))


def test_a_question_that_is_gone_is_left_out(index, tmp_path):
    file = tmp_path / "away.png"
    Image.new("RGB", (16, 16)).save(file)
    hits = index.search(image=file, k=2)
    file.unlink()
    assert pictures(hits) == 2


class _Handle:
    shown: list[object]

    def display(self, shown: object) -> None:
        type(self).shown = [shown]

    update = lambda self, shown: type(self).shown.append(shown)  # noqa: E731


def test_a_bar_moves_below_the_cell(monkeypatch):
    shell = SimpleNamespace(kernel=object())
    notebook, display = ModuleType("IPython"), ModuleType("IPython.display")
    notebook.get_ipython, display.DisplayHandle, said = lambda: shell, _Handle, []
    display.display = lambda one: said.append(one._repr_html_())
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(progress, "_MOVE", 0.0)
    with progress.make_progress(show=True) as bar:
        assert isinstance(bar, progress.NotebookBar)
        bar.total(40)
        bar.step(10)
        bar.say("a <b>\x1b[2J")
    first, moved, last = (one._repr_html_() for one in _Handle.shown)
    assert "<progress" not in first
    assert "<progress value='10' max='40'>" in moved
    assert "10 of 40 images" in repr(_Handle.shown[1])
    assert last.startswith("<div>10 images in ")
    assert said == ["<div>a &lt;b&gt;\\x1b[2J</div>"]
    # a shell at a terminal shows no HTML
    notebook.get_ipython = SimpleNamespace
    assert not isinstance(progress.make_progress(show=True), progress.NotebookBar)
    assert isinstance(progress.make_progress(show=False), progress.Silent)
