"""``--region`` and ``--in-regions``, from the command line to a sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HRF = Path(__file__).parents[2] / "examples/hrf45"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from retr import Index

    folder = tmp_path_factory.mktemp("photographs")
    for file in sorted(HRF.glob("*/*.jpg"))[::6]:
        Image.open(file).resize((160, 120)).save(folder / f"{file.stem}.png")
    Index.build(folder, folder / "x.retr", regions="grid", transform="none")
    return folder


def test_a_region_asks_and_a_region_answers(retr, photographs):
    name = sorted(file.name for file in photographs.glob("*.png"))[2]
    asked = ("query", "--index", photographs / "x.retr", "--image", photographs / name, "--in-regions", "-k", 2)
    done = retr(*asked, "--region", "80,0,80,60", "--include-self", "--json")
    assert done.code == 0
    [answer] = done.json
    assert answer["query"].endswith("region 80,0,80,60")
    assert (answer["hits"][0]["id"], answer["hits"][0]["region"]) == (name, [80, 0, 80, 60])
    shares = retr(*asked, "--region", ".5,0,.5,.5", "--include-self")
    assert shares.out.split()[:4] == ["rank", "score", "id", "region"]
    assert "80,0,80,60" in shares.out
    rows = retr(*asked, "--region", ".5,0,.5,.5", "--include-self", "--csv").out.splitlines()
    assert rows[0].startswith("rank,score,id,region")
    assert '"80,0,80,60"' in rows[1]


def test_a_sheet_draws_where_a_hit_matched(retr, photographs, tmp_path):
    name = sorted(file.name for file in photographs.glob("*.png"))[2]
    asked = ("query", "--index", photographs / "x.retr", "--id", name, "--region", "0,0,.5,.5", "-k", 2)
    for number, regions in enumerate(((), ("--in-regions",))):
        assert retr(*asked, *regions, "--sheet", tmp_path / f"{number}.png").code == 0
    plain, framed = (np.asarray(Image.open(tmp_path / f"{number}.png").convert("RGB"), int) for number in range(2))
    bright = [int((np.abs(sheet - (0x40, 0xFF, 0xDC)).sum(axis=2) < 60).sum()) for sheet in (plain, framed)]
    assert bright[0] == 0
    assert bright[1] > 100


@pytest.mark.parametrize("region", ["200,0,10,10", "0,0,0,0", "1,2,3", "x,y,w,h", "0.9,0.9,0.2,0.2"])
def test_a_region_outside_is_one_line(retr, photographs, region):
    name = sorted(file.name for file in photographs.glob("*.png"))[2]
    done = retr("query", "--index", photographs / "x.retr", "--image", photographs / name, "--region", region)
    assert done.code != 0
    assert "region" in done.err
    assert "Traceback" not in done.err
