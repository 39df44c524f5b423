"""Options declared once: by name, in signatures and docstrings, and for type checkers."""

from __future__ import annotations

import inspect
import re
from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, get_type_hints

import numpy as np
import pytest

from retr import Index
from retr.index.errors import UsageError
from retr.index.options import Option, Options, declared, documents, part, taken
from retr.index.search_options import RankKeywords, RankOptions
from retr.index.store import Store
from retr.retrieval.images import read_images
from retr.retrieval.images.picture import Reading, ReadingKeywords
from retr.retrieval.ingest.options import BuildKeywords, BuildOptions
from retr.retrieval.read_options import ReadKeywords, ReadOptions
from retr.retrieval.search_options import SearchKeywords, SearchOptions


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    size: Annotated[int, Option("How large.", "In pixels.", flag="-s", kept=True)] = 3
    name: Annotated[str | None, Option("What it is called.")] = None


@documents(Sample)
def draw(shape, *, name="circle", **options):
    """Draw a shape.

    Parameters
    ----------
    shape
        Which.
    options
        Fields of
        `Sample`.

    Returns
    -------
    None
    """
    return shape, name, taken(Sample, options, "draw")


@pytest.mark.parametrize(("kind", "keywords", "apart"), [
    (RankOptions, RankKeywords, {"k"}),
    (SearchOptions, SearchKeywords, set()),
    (ReadOptions, ReadKeywords, set()),
    (Reading, ReadingKeywords, set()),
    (BuildOptions, BuildKeywords, set()),
])  # fmt: skip
def test_a_type_checker_sees_every_option(kind, keywords, apart):
    meant = {name: hint for name, (hint, _) in declared(kind).items() if name not in apart}
    assert get_type_hints(keywords) == meant
    assert kind().by_name().keys() == declared(kind).keys()


class TestByName:
    def test_as_given_or_by_default(self):
        assert taken(SearchOptions, {"k": 3}, "search") == SearchOptions(k=3)
        with pytest.raises(FrozenInstanceError):
            SearchOptions().k = 4

    @pytest.mark.parametrize("wrong", ["wher", "exclude_sam", "top_k", "exactly"])
    def test_another_name_is_said(self, wrong):
        with pytest.raises(TypeError, match=rf"^search\(\) has no option '{wrong}'") as caught:
            taken(SearchOptions, {wrong: 1}, "search")
        assert "\n" not in str(caught.value)

    def test_the_nearest_is_named(self):
        with pytest.raises(TypeError, match=r"is 'where' meant\?"):
            taken(RankOptions, {"wher": "a = 1"}, "search")

    def test_a_name_of_the_function_itself_wins(self):
        assert draw("x", size=4) == ("x", "circle", Sample(size=4))


class TestGiven:
    """What is kept is asked only where it is given."""

    def test_what_was_given_is_known(self):
        assert taken(Sample, {"name": None}, "x").asked() == {"name": None}
        assert taken(Sample, {"size": 3, "name": "a"}, "x").asked() == {"size": 3, "name": "a"}

    def test_none_leaves_what_is_kept(self):
        left = taken(Sample, {"size": None}, "x")
        assert (left.size, left.asked()) == (3, {})

    @pytest.mark.parametrize(("kind", "given", "said"), [
        (SearchOptions, {"include_self": "no"}, "include_self must be true or false, got: 'no'"),
        (SearchOptions, {"strict_exclude": None}, "strict_exclude must be true or false, got: None"),
        (SearchOptions, {"exact": 1}, "exact must be true or false, got: 1"),
        (SearchOptions, {"where": b"age > 5"}, "where must be a text, got: b'age > 5'"),
        (SearchOptions, {"where": ["age > 5"]}, "where must be a text"),
        (SearchOptions, {"one_per": ["patient"]}, "one_per must be a text"),
        (SearchOptions, {"min_score": "0.5"}, "min_score must be a number, got: '0.5'"),
        (SearchOptions, {"min_score": True}, "min_score must be a number, got: True"),
        (SearchOptions, {"k": "3"}, "k must be a whole number, got: '3'"),
        (ReadOptions, {"allow_burned_in": "no"}, "allow_burned_in must be true or false, got: 'no'"),
        (BuildOptions, {"prune": "no"}, "prune must be true or false, got: 'no'"),
        (BuildOptions, {"rehash": "all"}, "rehash must be true or false, got: 'all'"),
        (BuildOptions, {"commit_rows": "3"}, "commit_rows must be a whole number, got: '3'"),
    ])  # fmt: skip
    def test_a_value_of_another_kind_is_refused(self, kind, given, said):
        with pytest.raises(UsageError, match=re.escape(said)):
            taken(kind, given, "x")
        with pytest.raises(UsageError, match=re.escape(said)):
            kind(**given)

    def test_numpy_gives_plain_values(self):
        given = {"k": np.uint8(3), "min_score": np.float32(0.5), "exact": np.True_, "where": np.str_("a = 1")}
        assert taken(SearchOptions, given, "search").asked() == given

    def test_a_part_keeps_what_was_given_of_it(self):
        whole = taken(BuildOptions, {"frames": 2, "prune": True}, "build")
        assert part(ReadOptions, whole) == ReadOptions(frames=2)
        assert part(ReadOptions, whole).asked() == {"frames": 2}


class TestDocumented:
    def test_signature_and_docstring(self):
        assert str(inspect.signature(draw)) == "(shape, *, name='circle', size: int = 3)"
        assert inspect.getdoc(draw).split("\n\n")[1].splitlines()[2:] == [
            "shape", "    Which.", "size", "    How large. In pixels."
        ]  # fmt: skip

    @pytest.mark.parametrize(("method", "kind"), [
        (Index.search, SearchOptions), (Store.search, RankOptions), (read_images, Reading),
        (Index.build, BuildOptions), (Index.add, BuildOptions),
    ])  # fmt: skip
    def test_help_shows_each_option_and_its_default(self, method, kind):
        shown, text = inspect.signature(method).parameters, inspect.getdoc(method)
        for name, (_, option) in declared(kind).items():
            assert name in shown
            if name != "k" or kind is SearchOptions:
                assert shown[name].default in (getattr(kind(), name), ...)
                assert f"\n{name}\n    {option.help[:40]}" in text
        assert "options" not in shown
