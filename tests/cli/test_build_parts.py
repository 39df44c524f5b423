"""``retr index build --part`` and ``retr index merge``, on real photographs."""

from __future__ import annotations

import shutil
from pathlib import Path

from retr.index.store import Store

HRF = Path(__file__).parents[2] / "examples/hrf45"


def test_two_parts_are_merged_to_what_one_build_makes(retr, tmp_path):
    archive = shutil.copytree(HRF / "healthy", tmp_path / "archive")
    (archive / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    index = tmp_path / "x.retr"
    asked = ("index", "build", archive, "--index", index, "--transform", "none")
    error = retr("index", "merge", "--index", index).error(2)
    assert "there are no parts beside 'x.retr'" in error
    first = retr(*asked, "--part", "1/2")
    assert first.code == 0
    assert first.out.startswith("part 1/2: ")
    assert "1 of 2 parts are missing or not finished: 2/2" in retr("index", "merge", "--index", index).error(2)
    files = retr(*asked, "--part", "2/2", "--json").json[0]["files"]
    assert first.out.startswith(f"part 1/2: {16 - files} files")
    done = retr("index", "merge", "--index", index, "--json").json[0]
    assert (done["rows"], done["embedded"], done["skipped"]) == (15, 15, {"truncated": 1})
    alone = ("index", "build", archive, "--index", tmp_path / "alone.retr", "--transform", "none")
    assert retr(*alone).code == 0
    one, other = Store.open(index), Store.open(tmp_path / "alone.retr")
    assert one.table().equals(other.table())
    assert one.vectors(one.live_rows()).tobytes() == other.vectors(other.live_rows()).tobytes()


def test_several_encoders_take_no_part(retr, tmp_path):
    asked = ("index", "build", HRF, "--part", "1/2", "--encoder", "lite", "--encoder", "lite,feature=layers")
    error = retr(*asked, "--index", tmp_path / "a", "--index", tmp_path / "b").error(2)
    assert "a part is built for one index" in error
