"""Reading an expression; what it means is in `test_evaluate.py`."""

from __future__ import annotations

from retr.index.where.parse import MOST_KEPT, parse


def test_the_trees_of_long_lists_are_not_kept():
    asked = "age in (" + ", ".join(map(str, range(MOST_KEPT))) + ")"
    assert parse(asked) == parse(asked)
    assert parse(asked) is not parse(asked)
    assert parse("age < 60") is parse("age < 60")
