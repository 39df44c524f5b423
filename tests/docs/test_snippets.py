"""Every page of the documentation: its snippets run as they stand, and every command it names is one.

A snippet that cannot run here has ``<!-- not run: why -->`` in front of it; its commands are compared with the command
line all the same. On the tutorials, what is shown behind a snippet is what it prints.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pydicom
import pytest
from dicom_file import dicom
from doc_snippets import PAGES, run, same_print, snippets, spoken_commands, tree, unknown
from PIL import Image

from retr import Index
from retr.retrieval.encoders.systems.lite import LiteEncoder

# pages whose snippets are run as one, by tests of their own
ELSEWHERE = {"docs/howto/pacs.md": "test_howto_pacs", "docs/howto/other-tools.md": "test_howto_other_tools"}
EXAMPLES = Path(__file__).parents[2] / "examples"
IDS = ("glaucoma/05_g.jpg", "a/1.png", "b/7.png", "c/2.png", "d/4.png", "left/0017.jpg")


def paint(path: Path, number: int) -> None:
    """Save a picture in the colours of its class that no other number gives."""
    rng = np.random.default_rng(number)
    colours = np.array([[200, 80, 40], [90, 150, 60], [60, 70, 180]])[number % 3]
    small = np.clip(rng.normal(colours, 45, (6, 6, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((64, 64)).save(path)


def coarse(encoder: LiteEncoder, batch: np.ndarray) -> np.ndarray:
    """Return a fixed projection of coarse pixels, in the place of the network: the pages are many."""
    pooled = np.asarray(batch, np.float32).reshape(len(batch), 3, 8, 40, 8, 40).mean(axis=(3, 5)) / 255
    weights = np.random.default_rng(0).normal(size=(192, 2232))
    return np.tanh(pooled.reshape(len(batch), -1) @ weights).astype(np.float32)


def without_network(patch: pytest.MonkeyPatch) -> None:
    """Leave the default encoder's network out."""
    patch.setattr(LiteEncoder, "encode_prepared", coarse)
    patch.setattr(LiteEncoder, "_open", lambda *_: None, raising=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the files that the pages name, and an index of its archive by the default encoder."""
    world = tmp_path_factory.mktemp("world")
    files = [*IDS, *(f"{('healthy', 'glaucoma', 'drusen')[number % 3]}/{number:03d}.png" for number in range(24))]
    rows = []
    for number, name in enumerate(files):
        paint(world / "archive" / name, number)
        kind, half = number % 3, number // 2 % 2
        label = ("healthy", "glaucoma", "drusen")[kind]
        row = {"path": name, "label": label, "diagnosis": label, "finding": label if number % 2 else ""}
        row |= {"patient": f"P{number // 2:02d}", "age": 58 + number, "sex": ("Female", "Male")[half]}
        row["findings"] = ("no effusion, laser scars", "pleural effusion, haze", "drusen near the macula")[kind]
        row |= {
            "impression": "effusion" if kind else "",
            "split": ("train", "test")[half],
            "camera": "AB"[half],
            "device": "AB"[half],
        }
        rows.append(row | {"accuracy": 0.5 + number / 100, "ward": number % 4})
    pd.DataFrame(rows).to_csv(world / "labels.csv", index=False)
    for number in range(4):
        paint(world / f"second-hospital/{number}.png", 2000 + number)
    paint(world / "x.png", 1000)
    shutil.copy(world / "x.png", world / "new.jpg")
    (world / "new.dcm").write_bytes(dicom("MRN1003", 1))
    (world / "questions.jsonl").write_text('{"id": "a/1.png"}\n{"image": "x.png"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETR_STATE_DIR", str(world / "state"))
        patch.setenv("XDG_CONFIG_HOME", str(world / "state"))
        without_network(patch)
        Index.build(world / "archive", world / "index", metadata=world / "labels.csv", group="patient").close()
    return world


@pytest.fixture
def at_work(world, tmp_path, monkeypatch):
    """A copy of that folder to work in, whose machine knows where the archive lies."""
    work = Path(shutil.copytree(world, tmp_path / "work", ignore=shutil.ignore_patterns("index")))
    for name in (".retr", "fundus.retr", "archive.retr"):
        shutil.copytree(world / "index", work / name)
    monkeypatch.setenv("RETR_STATE_DIR", str(work / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(work / "state"))
    monkeypatch.chdir(work)
    return work


def prepared(page: str, work: Path) -> dict[str, Any]:
    """Make the files that a page alone names; return the names that its Python takes as given."""
    if page.startswith("docs/tutorials/"):
        shutil.copytree(EXAMPLES / "hrf45", work / "hrf45")
    elif page.endswith("command-line.md"):
        (work / "picked").mkdir()
    elif page.endswith("a-million-images.md"):
        shutil.rmtree(work / "archive.retr")
    elif page.endswith("fundus-archive.md"):
        shutil.rmtree(work / ".retr")
        shutil.copytree(work / "archive", work / "fundus")
    elif page.endswith("asking-and-trusting.md"):
        for name in (".retr", "fundus.retr"):
            Index.open(name).align(text_column="findings")
        (work / "shots.csv").write_text("id,label\nb/7.png,healthy\na/1.png,glaucoma\nd/4.png,healthy\n")
    elif page.endswith("chest-x-ray-archive.md"):
        for number in range(6):
            file = work / f"dicom/study{number + 4}/view1.dcm"
            file.parent.mkdir(parents=True)
            dataset = pydicom.dcmread(io.BytesIO(dicom(f"MRN{1000 + number}", number)))
            dataset.ViewPosition, dataset.Modality = "PA", "DX"
            dataset.save_as(file)
        Index.build("dicom", "cxr.retr", group="patient")
    elif page.endswith("many-machines.md"):
        return {"vectors": Index.open("fundus.retr").store.vectors()[:1]}
    elif page.endswith("my-own-checkpoint.md"):
        return {"network": lambda batch: batch.reshape(len(batch), -1)[:, :768] + 1.0, "transform": pixels}
    elif page.endswith("threads.md"):
        return {"paths": sorted((work / "archive/healthy").iterdir())[:3]}
    elif page == "docs/python.md":
        index = Index.open("fundus.retr").align(text_column="findings") and Index.open("fundus.retr")
        frame = pd.read_csv("labels.csv").assign(path=lambda table: "archive/" + table["path"])
        more = [work / f"second-hospital/{number}.png" for number in range(4)]
        pl.DataFrame({"path": [f"{number}.png" for number in range(4)], "label": "healthy"}).write_csv("site2.csv")
        vectors = np.random.default_rng(0).normal(size=(6, 8))
        table = {"id": list("abcdef"), "label": ["glaucoma", "healthy"] * 3, "patient": list("ppqqrr")}
        array = index.store.vectors()[:2]
        names = {"array": array, "frame": frame, "more_paths": more, "pl": pl}
        return names | {"vectors": vectors, "table": table, "v": vectors[0]}
    return {}


def pixels(picture: Image.Image) -> np.ndarray:
    """Return a picture as a network takes it."""
    return np.asarray(picture.resize((16, 16)), np.float32).transpose(2, 0, 1) / 255


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_snippets_of_a_page_run(page, request, monkeypatch, capsys):
    found = [one for one in snippets(PAGES[page].read_text()) if one.not_run is None]
    if not found:
        return
    # what the tutorials show is what the network finds
    if not page.startswith("docs/tutorials/"):
        without_network(monkeypatch)
    names = prepared(page, request.getfixturevalue("at_work"))
    for snippet in found:
        try:
            run(snippet, names, monkeypatch)
        except BaseException as error:
            said = "".join(capsys.readouterr())
            raise AssertionError(f"{page}:{snippet.line}: {error!r}\n{snippet.text}\n{said}") from error
        printed = capsys.readouterr().out
        assert not page.startswith("docs/tutorials/") or same_print(snippet.shown, printed), printed


def test_the_other_pages_are_run_by_tests_of_their_own():
    for page, test in ELSEWHERE.items():
        assert page in (Path(__file__).parents[1] / f"{test}.py").read_text()


def test_every_command_that_is_named_is_one_and_has_its_options():
    known, named, wrong = tree(), 0, {}
    for page, path in PAGES.items():
        text = path.read_text()
        commands = list(spoken_commands(text))
        for snippet in snippets(text):
            if snippet.kind == "sh":
                commands += [re.sub(r"^(nohup |\S*/bin/)(?=retr )", "", line) for line in snippet.commands()]
        named += len(commands := [command for command in commands if command.startswith("retr ")])
        for command in commands:
            if found := unknown(command, known):
                wrong[f"{page}: {command}"] = found
    assert named > 200
    assert wrong == {}


def test_a_reason_says_something():
    reasons = [one.not_run for path in PAGES.values() for one in snippets(path.read_text()) if one.not_run is not None]
    assert all(re.search(r"\w+ \w+", reason) for reason in reasons)
