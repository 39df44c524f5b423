"""Batches: what arrives together is one call, each gets its own answer, and one at fault fails alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from patience import LONG, until

from retr import UsageError
from retr.serve.batching import Batcher, Busy

if TYPE_CHECKING:
    from concurrent.futures import Future


class Held:
    """A batcher whose first call, of the item ``first``, lasts until it is let go: what is asked meanwhile waits."""

    def __init__(self, answer=lambda key, items: items, **options):
        self.calls: list[tuple[object, list[object]]] = []
        begun, self._go = threading.Event(), threading.Event()

        def held(key, items):
            self.calls.append((key, items))
            if items == ["first"]:
                begun.set()
                assert self._go.wait(LONG)
            return answer(key, items) if items != ["first"] else items

        self.batcher = Batcher(held, **{"threads": 1, "wait": 0, **options})
        self.submit = self.batcher.submit
        self.first = self.submit("k", "first")
        assert begun.wait(LONG)

    def let_go(self):
        self._go.set()
        assert self.first.result(LONG) == "first"

    def close(self):
        self._go.set()
        self.batcher.close()


def test_items_of_one_key_go_together_and_each_gets_its_own():
    held = Held(lambda key, items: [(key, item) for item in items])
    futures = [(key, n, held.submit(key, n)) for n in range(20) for key in ("a", "b")]
    held.let_go()
    assert [future.result(LONG) for _, _, future in futures] == [(key, n) for key, n, _ in futures]
    held.close()
    # 32 at a time, by key
    assert [(key, len(items)) for key, items in held.calls[1:]] == [("a", 16), ("b", 16), ("a", 4), ("b", 4)]


def test_one_at_fault_fails_alone():
    def answer(_, items):
        if "bad" in items:
            raise UsageError("bad")
        return items

    held = Held(answer)
    good, bad, other = (held.submit("k", item) for item in ("good", "bad", "other"))
    held.let_go()
    assert (good.result(LONG), other.result(LONG)) == ("good", "other")
    with pytest.raises(UsageError):
        bad.result(LONG)
    held.close()
    assert [items for _, items in held.calls[1:]] == [["good", "bad", "other"], ["good"], ["bad"], ["other"]]


def test_a_fault_of_ours_reaches_everybody_who_waits():
    def answer(_, items):
        raise RuntimeError

    held = Held(answer)
    futures: list[Future[int]] = [held.submit("k", item) for item in range(3)]
    held.let_go()
    for future in futures:
        with pytest.raises(RuntimeError):
            future.result(LONG)
    held.close()


def test_too_many_that_wait_are_refused_at_once():
    held = Held(most=1, waiting=2)
    waiting = [held.submit("k", n) for n in (1, 2)]
    with pytest.raises(Busy):
        held.submit("k", 3)
    held.let_go()
    assert [future.result(LONG) for future in waiting] == [1, 2]
    held.close()


def test_who_gave_up_is_not_answered():
    held = Held(most=1)
    assert held.submit("k", "gone").cancel()
    held.let_go()
    held.close()
    assert [items for _, items in held.calls] == [["first"]]


def test_a_lone_item_waits_for_nobody_and_one_beside_a_call_for_others():
    # each would wait longer than this test may take
    held = Held(threads=2, wait=10 * LONG, most=2)
    second = held.submit("k", "second")
    third = held.submit("k", "third")
    assert (second.result(LONG), third.result(LONG)) == ("second", "third")
    # nobody comes: it is answered all the same
    held.batcher._wait = 0.01
    assert held.submit("k", "fourth").result(LONG) == "fourth"
    held.let_go()
    # no call runs: it does not wait
    held.batcher._wait = 10 * LONG
    until(lambda: held.batcher._calls == 0)
    assert held.submit("k", "alone").result(LONG) == "alone"
    held.close()
    assert [items for _, items in held.calls] == [["first"], ["second", "third"], ["fourth"], ["alone"]]
