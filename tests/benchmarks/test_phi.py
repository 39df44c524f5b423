"""The planted set that ``--phi`` is measured on: halves without a name in common, none of the rules' own entries."""

from __future__ import annotations

import pytest

from retr.benchmarks.phi import measure
from retr.benchmarks.phi_cells import _parts, cells, stranger
from retr.retrieval.audit.phi.lexicon import fold, lists


@pytest.fixture(scope="module")
def halves():
    return {half: cells(half, 250) for half in ("development", "test")}


def test_halves_share_no_name_and_few_values(halves):
    one, other = ({cell.value for cell in halves[half] if cell.group == "name, latin"} for half in halves)
    assert one
    assert other
    assert one.isdisjoint(other)


def test_innocents_are_none_of_the_names_that_the_rules_know_as_nobodys():
    pairs = [pair.replace("_", " ") for pair in lists()["nobody"]]
    innocents = [fold(entry) for name in ("device", "eponym", "drug", "sentence") for entry in _parts()[name]]
    assert [entry for entry in innocents if any(entry.startswith(pair) for pair in pairs)] == []


def test_a_small_set_is_found_and_passed_over_as_is_claimed(halves):
    figures = measure(halves["development"])
    assert figures["recall"] > 0.85
    assert figures["precision"] > 0.85
    assert {cell.kind is None for cell in halves["test"]} == {True, False}


def test_a_set_written_without_knowing_the_rules_is_judged_as_is_claimed():
    figures = measure(stranger())
    assert figures["cells"] > 1200
    assert figures["recall"] > 0.88
    assert figures["precision"] > 0.92
