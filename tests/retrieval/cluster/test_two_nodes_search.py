"""Two Ray nodes on this machine hold an index's shards: answers are those of one index while one of them is killed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import LONG
from search_driver import answered, made, questions

from retr import Index

TESTS = Path(__file__).parents[2]
# the extra is not installed everywhere; where it is, nothing below may be skipped
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")


def test_answers_are_the_same_while_a_node_is_killed(cluster, tmp_path):
    cluster.until_it_listens()
    cluster.start_second()
    whole, shards = made(tmp_path / "whole", 1), made(tmp_path / "shards", 3)
    command = [sys.executable, str(TESTS / "search_driver.py"), str(shards.path), cluster.address]
    driver = cluster.driver = subprocess.Popen(
        command,
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def until(word):
        for line in driver.stdout:
            if line.strip() == word:
                return
        pytest.fail(driver.communicate()[1])

    def go_on():
        driver.stdin.write("\n")
        driver.stdin.flush()

    until("asking")
    cluster.kill(cluster.second)
    go_on()
    until("answered")
    asked = questions(200)
    truth = answered(whole, asked[:160])
    gone = ["r0001", "r0100", "r0500"]
    for index in (whole, shards):
        index.delete(where=f"id in ({', '.join(map(repr, gone[1:]))}) or patient = 'p9'")
    go_on()
    out, err = driver.communicate(timeout=5 * LONG)
    assert driver.returncode == 0, err
    got = json.loads(out.splitlines()[-1])
    assert got["moved"]
    # all of them: of what differs the first is shown
    truth += answered(whole, asked[160:])
    assert next((pair for pair in zip(got["found"], truth, strict=True) if pair[0] != pair[1]), None) is None
    assert got["meanwhile"]
    assert all(one == truth[at % 60] for at, one in enumerate(got["meanwhile"]))
    mine = Index.open(whole.path).search(id="r0001", k=9, exclude_same="patient").to_json()
    assert json.loads(json.dumps(mine)) == {name: got["served"][name] for name in mine}
