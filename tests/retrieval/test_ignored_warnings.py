"""Warnings are left out by all threads until the last is done, and every filter of others stays."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import LONG

from retr.retrieval.ignored_warnings import ignoring


class Heard(UserWarning):
    """A warning of this test's."""


def test_nothing_is_heard_within_and_all_of_it_after():
    before = list(warnings.filters)
    with ignoring(Heard):
        warnings.warn("left out", Heard, stacklevel=1)
        with ignoring(Heard):
            warnings.warn("left out", Heard, stacklevel=1)
        warnings.warn("left out", Heard, stacklevel=1)
        with pytest.raises(DeprecationWarning):
            warnings.warn("another category", DeprecationWarning, stacklevel=1)
    assert list(warnings.filters) == before
    with pytest.raises(Heard):
        warnings.warn("heard", Heard, stacklevel=1)


def test_a_filter_behind_another_is_not_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Heard)
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ignoring(Heard):
            warnings.warn("left out", Heard, stacklevel=1)
        assert list(warnings.filters) == before
        with pytest.raises(Heard):
            warnings.warn("heard", Heard, stacklevel=1)


def test_threads_that_leave_in_another_order_than_they_came():
    before = list(warnings.filters)
    first_left, both_in = threading.Event(), threading.Barrier(2)

    def first():
        with ignoring(Heard):
            both_in.wait(LONG)
        first_left.set()

    def second():
        with ignoring(Heard):
            both_in.wait(LONG)
            assert first_left.wait(LONG)
            warnings.warn("left out", Heard, stacklevel=1)

    with ThreadPoolExecutor(2) as pool:
        for found in [pool.submit(first), pool.submit(second)]:
            found.result()
    assert list(warnings.filters) == before


def test_a_filter_that_was_there_before_stays():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Heard)
        with ignoring(Heard):
            pass
        warnings.warn("the program's own filter", Heard, stacklevel=1)
