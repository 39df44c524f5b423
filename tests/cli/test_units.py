"""Without a column that tells patients apart no output speaks of patients: nobody knows how many there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retr.index.encoder import EncoderInfo
from retr.index.store import Store

ROWS, DIM = 40, 4
INFO = EncoderInfo(
    name="lite", dim=DIM, similarity="cosine", modality="many", text=False, weights_sha256="0", preprocessing="none"
)
ADAPTED = ["--index", "adapted.retr"]
COMMANDS = [
    ["index", "info"],
    ["index", "ls", "--limit", 3],
    ["index", "check", "--phi"],
    ["index", "leaks", "--split", "split", "--exact-only"],
    ["index", "duplicates", "--exact-only"],
    ["index", "duplicates", "--exact-only", "--across"],
    ["query", "--id", "00.png", "-k", 2],
    ["show", "00.png"],
    ["calibrate", "--label", "label"],
    ["calibrate", "--label", "label", "--alpha", 0.001],
    ["calibrate", "--label", "one"],
    ["classify", "--all", "--by", "label"],
    ["classify", "--all", "--probe", "rare"],
    ["eval", "retrieval", "--label", "label", "--subgroups", "split", "--html", "page.html"],
    ["eval", "neighbours", "--label", "label", "--json"],
    ["eval", "probe", "--label", "label"],
    ["eval", "probe", "--label", "label", "--folds", 1],
    ["align", "--text-column", "label"],
    ["adapt", "--label", "label", "--out", "adapted.retr"],
    ["eval", "retrieval", "--label", "label", *ADAPTED],
    ["eval", "probe", "--label", "label", "--queries", "adapt = 'fitted'", *ADAPTED],
    ["calibrate", "--label", "label", "--json", *ADAPTED],
    ["adapt", "--label", "label", "--refit", "--out", "refitted.retr"],
    ["eval", "probe", "--label", "label", "--index", "refitted.retr"],
    ["align", "--text-column", "label", "--index", "refitted.retr"],
    ["classify", "--all", "--by", "label", *ADAPTED],
    ["index", "delete", "00.png", "--purge", "--yes"],
    ["query", "--id", "01.png", "-k", 2],
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An index with a split and classes, and no column that says whose a picture is."""
    rng = np.random.default_rng(0)
    truth = np.arange(ROWS) % 2
    ids = [f"{at:02d}.png" for at in range(ROWS)]
    table = {
        "id": ids,
        "path": ids,
        "sha256": [f"{at - (at == 1):064x}" for at in range(ROWS)],
        "label": [("a", "b")[code] for code in truth],
        "one": ["x"] * ROWS,
        "rare": ["y", *["x"] * (ROWS - 1)],
        "split": [("train", "test")[at % 3 > 0] for at in range(ROWS)],
    }
    store = Store.create(tmp_path / "x.retr", encoder=INFO)
    with store.writer() as writer:
        writer.append(pa.table(table), np.eye(DIM, dtype=np.float32)[truth] + 0.5 * rng.normal(size=(ROWS, DIM)))
        writer.commit()
    monkeypatch.chdir(tmp_path)


def test_no_output_speaks_of_patients(retr, place):
    spoke = {}
    for command in COMMANDS:
        done = retr(*command, *([] if "--index" in command else ["--index", "x.retr"]))
        assert "Traceback" not in done.err
        said = done.out + done.err
        if Path("page.html").exists():
            said += Path("page.html").read_text(encoding="utf-8")
            Path("page.html").unlink()
        if "patient" in said.casefold():
            spoke[" ".join(map(str, command))] = [
                line[:300] for line in said.splitlines() if "patient" in line.casefold()
            ]
    assert spoke == {}
