"""What may come after a command: one line on a terminal, never into a pipe, a file or a log."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from retr.cli import _loudness
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

# command -> what is typed next, often; {index} is --index as it was given
STEPS: Mapping[str, str] = {
    "retr query": "retr show ID{index}",
    "retr show": "retr query --id ID{index}",
    "retr classify": "retr calibrate --label COLUMN{index}",
    "retr calibrate": "retr classify --image FILE --by COLUMN{index}",
    "retr align": "retr query --text WORDS{index}",
    "retr adapt": "retr eval retrieval --label COLUMN --index OUT",
    "retr sets ls": "retr sets show SET{index}",
    "retr sets show": "retr sets export SET FILE.csv{index}",
    "retr sets add": "retr sets show SET{index}",
    "retr sets label": "retr sets show SET{index}",
    "retr sets reopen": "retr sets add SET ID{index}",
    "retr sets export": "retr sets ls{index}",
    "retr sets rm": "retr sets ls{index}",
    "retr map": "retr serve{index}",
    "retr serve": "retr audit verify FILE",
    "retr mcp": "retr index info{index}",
    "retr token": "retr serve{index}",
    "retr index build": "retr query --image FILE{index}",
    "retr index add": "retr index info{index}",
    "retr index delete": "retr index compact{index}",
    "retr index info": "retr index ls --limit 10{index}",
    "retr index ls": "retr query --id ID{index}",
    "retr index sql": "retr index ls{index}",
    "retr index group": "retr query --id ID --exclude-same COLUMN{index}",
    "retr index item": "retr query --id ID{index}",
    "retr index merge": "retr index info{index}",
    "retr index push": "retr index info{index}",
    "retr index pull": "retr index info{index}",
    "retr index check": "retr index info{index}",
    "retr index compact": "retr index info{index}",
    "retr index shard": "retr index info{index}",
    "retr index refit": "retr eval retrieval --label COLUMN{index}",
    "retr index reembed": "retr eval retrieval --label COLUMN{index}",
    "retr index regions": "retr query --id ID --region X,Y,W,H --in-regions{index}",
    "retr index words": "retr query --text WORDS --in COLUMN{index}",
    "retr index duplicates": "retr index leaks --split COLUMN{index}",
    "retr index leaks": "retr index duplicates{index}",
    "retr index outliers": "retr sets add SET ID{index}",
    "retr index suspects": "retr sets add SET ID{index}",
    "retr index sample": "retr sets add SET ID{index}",
    "retr index tune": "retr index info{index}",
    "retr index import": "retr index info{index}",
    "retr index export": "retr index info{index}",
    "retr encoders ls": "retr encoders info NAME",
    "retr encoders info": "retr encoders verify NAME",
    "retr encoders compare": "retr index build FOLDER --encoder NAME",
    "retr encoders verify": "retr index build FOLDER --encoder NAME",
    "retr eval retrieval": "retr eval neighbours --label COLUMN{index}",
    "retr eval neighbours": "retr calibrate --label COLUMN{index}",
    "retr eval probe": "retr calibrate --label COLUMN{index}",
    "retr eval zero-shot": "retr calibrate --label COLUMN --labels SET{index}",
    "retr eval graded": "retr index words --column COLUMN{index}",
    "retr eval text": "retr query --text WORDS{index}",
    "retr bench retizero": "retr bench flair --data FOLDER",
    "retr bench flair": "retr bench retizero --data FOLDER",
    "retr bench kad": "retr bench rad-dino --data FOLDER",
    "retr bench rad-dino": "retr bench lvm-med --data FOLDER",
    "retr bench lvm-med": "retr bench rad-dino --data FOLDER",
    "retr audit verify": "retr serve",
    "retr config": "retr --help",
    "retr completion": "retr --help",
}


def say(ctx: Any) -> None:
    """Print what may come next, where somebody reads both streams on a terminal and has not asked for quiet."""
    step = STEPS.get(ctx.command_path)
    if step is None or not _loudness.to_a_person() or not sys.stdout.isatty():
        return
    given = ctx.params.get("index")
    first = given[0] if isinstance(given, list | tuple) and given else given
    from_line = getattr(ctx.get_parameter_source("index"), "name", "") == "COMMANDLINE"
    index = f" --index {shlex.quote(str(first))}" if first and from_line else ""
    sys.stdout.flush()
    sys.stderr.write(visible(f"next: {step.format(index=index)}") + "\n")
