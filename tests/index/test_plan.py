"""How an index is searched, described for people."""

from __future__ import annotations

from retr.index import plan, tune
from retr.index.accelerators.config import IVF, Flat


def test_a_measured_setting_is_one_line_for_people(make):
    point = tune.Point(IVF(lists=7, codec="sq8", probes=12, refine=6), {"image": 0.9512, "text": 0.91}, 0.0015)
    tuning = tune.Tuning(point.config, 0.9, {"image": 0.95, "text": 0.92}, 0.002, 1234, [point])
    with make(3).writer() as writer:
        writer.note("tuning", tuning.to_json())
        store = writer.commit()
    assert plan.describe(store.manifest) == {
        "kind": "ivf",
        "lists": 7,
        "codec": "sq8",
        "probes": 12,
        "refine": 6,
        "recall": 0.92,
        "recalls": {"image": 0.95, "text": 0.92},
        "k": 10,
        "milliseconds": 2.0,
        "bytes": 1234,
        "curve": ["ivf, codec sq8, probes 12, refine 6: recall 0.951 (image), 0.910 (text), 1.50 ms"],
    }


def test_of_what_was_measured_only_what_nothing_cheaper_reaches_is_shown(make):
    points = [
        tune.Point(IVF(probes=probes), {"image": recall}, seconds)
        for probes, recall, seconds in [(4, 0.8, 0.002), (6, 0.7, 0.003), (8, 0.9, 0.004), (2, 0.3, 0.001)]
    ]
    with make(3).writer() as writer:
        writer.note("tuning", tune.Tuning(Flat(), 0.95, {"image": 1.0}, 0.1, 0, points, "no setting").to_json())
        described = plan.describe(writer.commit().manifest)
    assert [line.partition("probes ")[2][0] for line in described["curve"]] == ["2", "4", "8"]
    assert described["reason"] == "no setting"
