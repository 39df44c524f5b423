"""Values that are made once, however many threads ask for them at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import LONG

from retr.index.once import Once


def from_threads(count, ask):
    """Ask from several threads at the same time; what each was answered."""
    start = threading.Barrier(count)

    def one(number):
        start.wait()
        return ask(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_eight_threads_make_a_value_once():
    once, made = Once(), []

    def make():
        time.sleep(0.02)
        made.append(object())
        return made[-1]

    found = from_threads(8, lambda _: once("x", make))
    assert len(made) == 1
    assert all(one is made[0] for one in found)


def test_values_of_other_keys_are_made_at_the_same_time():
    once, both = Once(), threading.Barrier(2)
    # each waits until the other is being made
    assert from_threads(2, lambda number: once(number, lambda: both.wait(timeout=LONG) >= 0)) == [True, True]


def test_a_value_may_be_made_of_others_and_of_none():
    once = Once()
    assert once("twice", lambda: 2 * once("one", lambda: 1)) == 2
    assert once("nothing", lambda: None) is None
    assert once("nothing", lambda: pytest.fail("made twice")) is None
    assert once.get("twice") == 2
    assert once.get("unheard of") is None


def test_an_error_is_not_kept():
    once, tries = Once(), []

    def make():
        time.sleep(0.01)
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the first time")
        return "made"

    def ask(_):
        try:
            return once("x", make)
        except OSError as error:
            return str(error)

    assert sorted(from_threads(4, ask)) == ["made", "made", "made", "the first time"]
    assert len(tries) == 2


def test_what_was_asked_for_last_is_kept():
    once, made = Once(most=2), []

    def ask(key):
        return once(key, lambda: made.append(key) or key)

    assert [ask(key) for key in "abacab"] == list("abacab")
    assert made == ["a", "b", "c", "b"]
    once.put("d", 4)
    assert once("d", list) == 4
