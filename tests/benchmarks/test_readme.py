"""The page of numbers is what the result files say."""

import json

from retr.benchmarks import readme
from retr.benchmarks.record import RESULTS


def test_the_page_is_up_to_date():
    assert readme.PAGE.read_text(encoding="utf-8") == readme.page(), "run `python -m retr.benchmarks.readme`"


def test_every_result_says_how_it_was_made():
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["name"] == path.stem
        assert result["command"]
        assert result["machine"]["cores"]
        assert result["commit"]


def test_a_table_cell_holds_no_bar():
    assert "a\\|b" in readme.section(
        {"name": "x", "command": "c", "figures": {"y": "a|b"}, "machine": {}, "commit": "0", "date": "d"}
    )
