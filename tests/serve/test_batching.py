"""Batches: what arrives together is one call, each gets its own answer, and one at fault fails alone."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from retr import UsageError
from retr.serve.batching import Batcher, Busy

if TYPE_CHECKING:
    from concurrent.futures import Future


def test_items_of_one_key_go_together_and_each_gets_its_own():
    calls: list[tuple[str, int]] = []
    begun = threading.Event()

    def answer(key, items):
        begun.set()
        calls.append((key, len(items)))
        time.sleep(0.05)
        return [(key, item) for item in items]

    batcher = Batcher(answer, threads=1, wait=0.02)
    futures = [(key, n, batcher.submit(key, n)) for n in range(20) for key in ("a", "b")]
    assert [future.result(5) for _, _, future in futures] == [(key, n) for key, n, _ in futures]
    batcher.close()
    assert sum(count for _, count in calls) == 40
    assert len(calls) < 10


def test_one_at_fault_fails_alone():
    def answer(_, items):
        if "bad" in items:
            raise UsageError("bad")
        return items

    batcher = Batcher(answer, threads=1, wait=0.05)
    good, bad, other = (batcher.submit("k", item) for item in ("good", "bad", "other"))
    assert (good.result(5), other.result(5)) == ("good", "other")
    with pytest.raises(UsageError):
        bad.result(5)
    batcher.close()


def test_a_fault_of_ours_reaches_everybody_who_waits():
    def answer(_, items):
        raise RuntimeError

    batcher = Batcher(answer, threads=1, wait=0.05)
    futures: list[Future[int]] = [batcher.submit("k", item) for item in range(3)]
    for future in futures:
        with pytest.raises(RuntimeError):
            future.result(5)
    batcher.close()


def test_too_many_that_wait_are_refused_at_once():
    held = threading.Event()

    def answer(_, items):
        held.wait(5)
        return items

    batcher = Batcher(answer, threads=1, most=1, wait=0, waiting=2)
    first = batcher.submit("k", 0)
    time.sleep(0.1)
    waiting = [batcher.submit("k", n) for n in (1, 2)]
    with pytest.raises(Busy):
        batcher.submit("k", 3)
    held.set()
    assert [future.result(5) for future in (first, *waiting)] == [0, 1, 2]
    batcher.close()


def test_who_gave_up_is_not_answered():
    asked = []
    held = threading.Event()

    def answer(_, items):
        held.wait(5)
        asked.extend(items)
        return items

    batcher = Batcher(answer, threads=1, most=1, wait=0)
    first = batcher.submit("k", "first")
    time.sleep(0.05)
    gone = batcher.submit("k", "gone")
    assert gone.cancel()
    held.set()
    assert first.result(5) == "first"
    batcher.close()
    assert asked == ["first"]


def test_a_lone_item_waits_for_nobody_and_one_beside_a_call_for_others():
    sizes = []
    held = threading.Event()

    def answer(_, items):
        sizes.append(len(items))
        if items == ["first"]:
            held.wait(5)
        return items

    batcher = Batcher(answer, threads=2, wait=60)
    # idle: it would wait for a minute
    assert batcher.submit("k", "alone").result(5) == "alone"
    assert batcher.submit("k", "again").result(5) == "again"
    first = batcher.submit("k", "first")
    while len(sizes) < 3:
        time.sleep(0.001)
    batcher._wait = 0.2
    second = batcher.submit("k", "second")
    time.sleep(0.02)
    third = batcher.submit("k", "third")
    assert (second.result(5), third.result(5)) == ("second", "third")
    held.set()
    assert first.result(5) == "first"
    batcher.close()
    assert sizes == [1, 1, 1, 2]
