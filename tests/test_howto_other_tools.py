"""docs/howto/other-tools.md: its snippets, run one after the other."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from retr.cli import _errors
from retr.cli.main import app

pytest.importorskip("datasets", reason="needs the extra `dev`")
PAGE = Path(__file__).parents[1] / "docs/howto/other-tools.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_snippets_run(archive, tmp_path, monkeypatch, capsys):
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    (archive / "labels.csv").rename("labels.csv")
    found = {
        "images": [{"id": 1, "file_name": "healthy/000.png"}],
        "categories": [{"id": 1, "name": "drusen"}],
        "annotations": [{"image_id": 1, "category_id": 1}],
    }
    Path("instances.json").write_text(json.dumps(found), encoding="utf-8")
    names: dict[str, object] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif kind == "sh":
            for line in text.splitlines():
                monkeypatch.setattr("sys.argv", shlex.split(line))
                assert _errors.run(lambda: app(standalone_mode=False)) == 0
    assert len(blocks) >= 11
    printed = capsys.readouterr().out
    assert "glaucoma" in printed and "healthy" in printed
    assert names["with_findings"]["healthy/000.png"]["finding"] == "drusen"
    assert sorted(row["label"] for row in names["from_hub"].store.table(["label"]).to_pylist()) == [
        "glaucoma",
        "healthy",
    ]
    assert len(names["pictures"]) == 12
    assert sorted(path.name for path in Path("fiftyone").iterdir()) == [
        "data",
        "labels.json",
        "names.json",
        "vectors.npy",
    ]
