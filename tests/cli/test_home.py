"""``~`` is the home, for the command line, variables, batches and Python alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retr import Index
from retr.cli._options import unfold
from retr.index.errors import UsageError
from retr.index.machine.home import cache_folder, home, index_folder
from retr.index.store import Store
from retr.retrieval.ingest.build import build


def test_a_home_of_the_user_and_of_others(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home("~") == tmp_path
    assert home("~/x/y") == home(Path("~/x/y")) == tmp_path / "x/y"
    assert home("~root/x").is_absolute()
    assert home("~nobody.of.that.name.png") == Path("~nobody.of.that.name.png")
    assert home("a/~/b") == Path("a/~/b")
    monkeypatch.setenv("RETR_CACHE_DIR", "~/cache")
    assert cache_folder() == tmp_path / "cache"


def test_without_a_home_no_folder_of_that_name_is_made(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UsageError, match="no home folder for '~/x'; set HOME"):
        home("~/x")


@dataclass(frozen=True, kw_only=True)
class Files:
    given: Path | None = None
    missing: Path | None = None


def test_in_every_option_of_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    @unfold
    def command(*, out: Path, text: str, files: Files) -> None:
        assert (out, text, files) == (tmp_path / "o", "~/t", Files(given=tmp_path / "g"))

    command(out=Path("~/o"), text="~/t", given=Path("~/g"), missing=None)


def test_wherever_a_path_is_given(monkeypatch, tmp_path):
    from retr import Index
    from retr.cli import _errors
    from retr.cli.main import app

    def retr(*arguments: object) -> int:
        return _errors.run(lambda: app(args=[*map(str, arguments)], standalone_mode=False))

    monkeypatch.setenv("RETR_CACHE_DIR", str(cache_folder()))  # loops are compiled once, not in every home
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RETR_STATE_DIR", "~/state")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        (tmp_path / "arc").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / f"arc/{number}.png")
    (tmp_path / "l.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,b\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"image": "~/arc/0.png"}))
    index = Index.build("~/arc", "~/i", metadata="~/l.csv")
    assert index.path == tmp_path / "i"
    assert Index.open(Path("~/i")).search(image="~/arc/0.png", k=1).ids == index.search(id="0.png", k=1).ids
    assert retr("index", "build", "~/arc", "--index=~/i", "--metadata", "~/l.csv") == 0
    monkeypatch.setenv("RETR_INDEX", "~/i")
    assert retr("query", "--image=~/arc/0.png", "--sheet", "~/s.html") == 0
    assert retr("query", "--batch", "~/q.jsonl") == 0
    assert retr("classify", "--image=~/arc/0.png", "--by", "label", "-k", 1) == 0
    assert retr("classify", "--folder=~/arc", "--by", "label", "-k", 1) == 0
    assert retr("show", "0.png", "--out", "~/p.png") == 0
    assert retr("index", "check") == 0
    (tmp_path / "list.csv").write_text("path,label\n~/arc/0.png,a\n~/arc/2.png,b\n")
    assert Index.build("~/list.csv", "~/i2").table()["label"].to_pylist() == ["a", "b"]
    assert list((tmp_path / "work").iterdir()) == []
    assert {"i", "s.html", "p.png", "state"} <= {file.name for file in tmp_path.iterdir()}


URLS = [
    "s3://bucket/a.retr",
    "S3://bucket/a.retr",
    "gs://b/c",
    "https://host/x?y=1",
    "file:///data/a.retr",
    "hf://",
    "az+x://a",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_url_is_no_folder_of_an_index(url, kind, tmp_path, monkeypatch, archive, fake_encoder):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    given = kind(url)
    ways = [
        lambda: Index.build(archive, given, encoder=fake_encoder),
        lambda: Index.build_several(archive, {"a": fake_encoder, given: fake_encoder}),
        lambda: build(archive, given, fake_encoder),
        lambda: Index.open(given),
        lambda: Index.from_vectors(np.eye(2), {"id": ["a", "b"]}, given, encoder="mine", fingerprint="1"),
        lambda: Store.create(given, encoder=fake_encoder.info),
        lambda: Store.exists(given),
    ]
    for way in ways:
        with pytest.raises(UsageError, match="an index is a folder, got the URL") as error:
            way()
        assert "\n" not in str(error.value)
    assert fake_encoder.encoded == 0
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_line_refuses_a_url_before_an_encoder_is_loaded(retr, archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("index", "build", archive), ("query", "--id", "a"), ("index", "info"), ("index", "check")):
        said = retr(*arguments, "--index", "s3://bucket/a.retr").error(2)
        assert said.startswith("error: an index is a folder, got the URL 's3://bucket/a.retr'; build in a folder")
    assert not (tmp_path / "s3:").exists()


@pytest.mark.parametrize("name", ["a:b", "c:/x", "x/s3:/y", "~/s3:/y", "1s:/x"])
def test_a_folder_with_a_colon_is_a_folder(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    index_folder(name)
