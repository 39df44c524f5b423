"""Where a bench's vectors come from: a build that goes on after a kill, unreadable pictures, indexes that are there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from patience import until
from PIL import Image

from retr.index.errors import UsageError
from retr.index.machine.state import state_folder
from retr.index.store import Store
from retr.retrieval.evaluation.protocols import flair, kad, lvm_med, rad_dino, retizero
from retr.retrieval.evaluation.protocols.folder import read_folder, read_index
from retr.retrieval.evaluation.protocols.together import SideBySide
from retr.retrieval.evaluation.protocols.vectors import WORK, Built, Work
from retr.retrieval.ingest import decode
from retr.retrieval.ingest.build import build
from retr.retrieval.labels.label_set import load_labels

RUNS = {
    "retizero": lambda data, encoder, **given: retizero.run(data, encoder, clustered=False, **given),
    "flair": flair.run,
    "rad-dino": rad_dino.run,
    "lvm-med": lvm_med.run,
}
BROKEN = {
    "glaucoma/note.jpg": (b"no picture", "not an image"),
    "healthy/empty.png": (b"", "empty"),
    "healthy/cut.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "truncated"),
}


@pytest.fixture
def broken(archive):
    for name, (data, _) in BROKEN.items():
        (archive / name).write_bytes(data)
    return archive


@pytest.mark.parametrize("protocol", RUNS)
def test_an_unreadable_picture_is_recorded_and_changes_nothing(broken, fake_encoder, protocol):
    def listed():
        return read_folder(broken, metadata=broken / "labels.csv", group="patient")

    with_them = RUNS[protocol](listed(), fake_encoder)
    for name in BROKEN:
        (broken / name).unlink()
    without = RUNS[protocol](listed(), fake_encoder)
    left_out = with_them["data"].pop("left_out")
    assert without["data"].pop("left_out")["count"] == 0
    assert json.dumps(with_them) == json.dumps(without)
    assert {one["path"]: one["reason"] for one in left_out["images"]} == {
        name: reason for name, (_, reason) in BROKEN.items()
    }
    assert (left_out["count"], sum(left_out["reasons"].values())) == (3, 3)


def test_what_was_read_once_and_cannot_be_now_is_left_out(archive, fake_encoder, tmp_path):
    work = Work(tmp_path / "work")
    work.embed(read_folder(archive), [fake_encoder])
    name = "healthy/000.png"
    (archive / name).write_bytes(b"cut")
    found = work.embed(read_folder(archive), [fake_encoder])
    assert found.data.left_out == ((name, "not an image"),)
    assert len(found.vectors[0]) == 11


def test_no_class_without_pictures_is_measured_and_none_at_all_is_an_error(make_archive, fake_encoder):
    root = make_archive()
    (root / "drusen").mkdir()
    (root / "drusen" / "a.png").write_bytes(b"no picture")
    data = WORK.embed(read_folder(root), [fake_encoder]).data
    assert (data.classes, data.left_out) == (("glaucoma", "healthy"), (("drusen/a.png", "not an image"),))
    for file in root.glob("*/*.*"):
        file.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="no picture that can be read"):
        WORK.embed(read_folder(root), [fake_encoder])


def test_pictures_without_a_usable_label_are_left_out_with_the_reason(archive):
    table = archive / "some.csv"
    lines = ["path,label", "healthy/000.png,healthy", r".\glaucoma\001.jpg,glaucoma", "healthy/002.tif,"]
    table.write_text("\n".join([*lines, "healthy/gone.png,healthy"]) + "\n")
    data = read_folder(archive, metadata=table, label="label")
    assert data.counts() == {"glaucoma": 1, "healthy": 1}
    reasons = dict(data.left_out)
    assert reasons["healthy/gone.png"] == "missing"
    assert reasons["healthy/002.tif"] == "no value in 'label'"
    assert reasons["healthy/004.webp"] == "no row in the table"
    assert len(reasons) == 11


def test_a_class_holds_the_pictures_of_its_folders_at_any_depth(archive):
    (archive / "healthy" / "P1").mkdir()
    (archive / "healthy" / "000.png").rename(archive / "healthy" / "P1" / "000.png")
    (archive / "loose.png").write_bytes((archive / "healthy" / "P1" / "000.png").read_bytes())
    data = read_folder(archive)
    assert data.counts() == {"glaucoma": 6, "healthy": 6}
    assert data.left_out == (("loose.png", "in no class's folder"),)


def test_of_a_file_with_several_pages_the_first_is_measured(archive, make_picture, fake_encoder):
    pages = [make_picture(seed) for seed in (70, 71, 72)]
    pages[0].save(archive / "healthy" / "pages.tif", save_all=True, append_images=pages[1:])
    found = WORK.embed(read_folder(archive), [fake_encoder])
    assert len(found.data.paths) == 13
    at = found.data.paths.index("healthy/pages.tif")
    np.testing.assert_array_equal(found.vectors[0][at], fake_encoder.encode_images([pages[0]])[0])


def test_two_features_come_from_one_decode_and_are_each_encoders_own(archive, make_encoder, monkeypatch):
    read = []
    monkeypatch.setattr(
        decode, "read_images", lambda *given, _own=decode.read_images, **how: read.append(1) or _own(*given, **how)
    )
    first, second = make_encoder(batch_size=3), make_encoder(weights="1" * 64, batch_size=5)
    data = read_folder(archive)
    found = WORK.embed(data, [first, second, first])
    assert len(read) == 12
    assert found.data.left_out == ()
    np.testing.assert_array_equal(found.vectors[0], found.vectors[2])
    for encoder, vectors in zip([first, second], found.vectors, strict=False):
        np.testing.assert_array_equal(vectors, WORK.embed(data, [encoder]).vectors[0])
        own = encoder.encode_images([data.root / path for path in data.paths])
        np.testing.assert_array_equal(vectors, own)  # at their length, not made unit vectors
    with pytest.raises(UsageError, match="read pictures differently"):
        SideBySide([first, make_encoder(grey16="max")])


def test_what_was_embedded_is_not_embedded_again(archive, make_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    encoder = make_encoder()
    first = retizero.run(read_folder(archive, most=4), encoder, clustered=False, vectors=Work(kept=True))
    assert encoder.encoded == 8
    retizero.run(read_folder(archive), encoder, clustered=False, vectors=Work(kept=True))
    assert encoder.encoded == 12
    again = retizero.run(read_folder(archive, most=4), encoder, clustered=False, vectors=Work(kept=True))
    assert encoder.encoded == 12
    assert again == first
    (kept,) = (tmp_path / "cache" / "benches").iterdir()
    assert Store.open(kept).check() == []
    other = make_encoder(weights="1" * 64)
    retizero.run(read_folder(archive), other, clustered=False, vectors=Work(kept=True))
    assert other.encoded == 12, "other weights are not measured by these vectors"


def test_a_cache_that_cannot_be_written_costs_the_resumption_alone(
    archive, fake_encoder, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert len(Work(kept=True).embed(read_folder(archive), [fake_encoder]).data.paths) == 12
    assert "begins anew" in caplog.text


def test_a_cache_that_was_written_once_may_be_read_only(archive, fake_encoder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RETR_CACHE_DIR", str(tmp_path / "cache"))
    Work(kept=True).embed(read_folder(archive), [fake_encoder])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert len(Work(kept=True).embed(read_folder(archive), [fake_encoder]).data.paths) == 12
    assert "begins anew" in caplog.text


def test_an_index_of_another_command_is_not_worked_on(archive, built, fake_encoder):
    before = built.version
    with pytest.raises(UsageError, match="holds other vectors"):
        Work(built.path).embed(read_folder(archive), [fake_encoder])
    assert Store.open(built.path).version == before


def test_a_temporary_index_leaves_nothing_behind(archive, fake_encoder):
    WORK.embed(read_folder(archive), [fake_encoder])
    assert [file for file in state_folder().rglob("*") if file.is_file() and "identity" not in file.name] == []


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import threading
from fake_encoder import FakeEncoder
from retr.retrieval.evaluation.protocols import retizero
from retr.retrieval.evaluation.protocols.folder import read_folder
from retr.retrieval.evaluation.protocols.vectors import Work
class Stopping(FakeEncoder):
    batches = 0

    def encode_prepared(self, batch):
        self.batches += 1
        if self.batches == 7:
            threading.Event().wait()
        return super().encode_prepared(batch)

work = Work(Path(sys.argv[3]), commit_rows=4)
retizero.run(read_folder(Path(sys.argv[2])), Stopping(batch_size=2), clustered=False, vectors=work)
"""


def test_a_killed_run_goes_on_and_gives_the_same_figures(make_archive, make_encoder, tmp_path):
    root, work = make_archive(24), tmp_path / "work"
    tests = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", KILLED, tests, str(root), str(work)])
    # it stops by itself before its seventh batch, and has committed by then
    until(lambda: (Store.exists(work) and len(Store.open(work))) or process.poll() is not None)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(Store.open(work))
    assert 0 < done < 24
    encoder = make_encoder(batch_size=2)
    resumed = retizero.run(read_folder(root), encoder, clustered=False, vectors=Work(work, commit_rows=4))
    assert encoder.encoded == 24 - done
    assert resumed == retizero.run(read_folder(root), make_encoder(batch_size=2), clustered=False)


@pytest.fixture
def built(archive, fake_encoder, tmp_path):
    build(archive, tmp_path / "index", fake_encoder, metadata=archive / "labels.csv", group="patient")
    return Store.open(tmp_path / "index")


def test_an_index_answers_strictly_and_says_why_not_as_published(archive, built, fake_encoder):
    data = read_folder(archive, metadata=archive / "labels.csv", group="patient")
    own = retizero.run(data, fake_encoder, clustered=False)
    fake_encoder.encoded = 0
    rows = retizero.run(read_index(built), fake_encoder, vectors=Built((built,)))
    pictures = retizero.run(data, fake_encoder, vectors=Built((built,)))
    assert fake_encoder.encoded == 0
    for found in (rows, pictures):
        assert found["strict"] == own["strict"]
        assert found["data"]["classes"] == own["data"]["classes"]
        assert "unit vectors" in found["published_protocol"]["reason"]
        assert [step["step"] for step in found["steps"]] == ["strict"]
        assert set(found["intervals"]) == {"strict"}


def test_the_lengths_of_an_index_of_dot_products_are_there(archive, make_encoder, tmp_path):
    from dataclasses import replace

    encoder = make_encoder()
    encoder.info = replace(encoder.info, similarity="dot")
    build(archive, tmp_path / "index", encoder)
    stores = (Store.open(tmp_path / "index"),)
    found = retizero.run(read_index(stores[0]), encoder, clustered=False, vectors=Built(stores))
    own = retizero.run(read_folder(archive), encoder, clustered=False)
    assert found["published_protocol"] == own["published_protocol"]
    assert found["steps"] == own["steps"]


def test_what_an_index_does_not_have_is_left_out(archive, built, fake_encoder, make_picture):
    make_picture(99).save(archive / "healthy" / "new.png")
    found = Built((built,)).embed(read_folder(archive), [fake_encoder])
    assert found.data.left_out == (("healthy/new.png", "not in the index"),)
    make_picture(98, (90, 80)).save(archive / "healthy" / "000.png")
    changed = Built((built,)).embed(read_folder(archive), [fake_encoder])
    assert ("healthy/000.png", "changed since the index was built") in changed.data.left_out
    assert len(changed.vectors[0]) == 11
    by_patient = read_index(built, label="patient", without=("P00",))
    assert by_patient.counts() == {"P01": 3, "P02": 3, "P03": 3}
    assert by_patient.group == "patient"
    with pytest.raises(UsageError, match="holds 0 classes"):
        read_index(built, label="width", least=13)


def test_pages_and_copies_of_a_file_answer_no_strict_question(archive, fake_encoder, make_picture, tmp_path):
    pages = [make_picture(seed) for seed in (70, 71, 72)]
    pages[0].save(archive / "healthy" / "pages.tif", save_all=True, append_images=pages[1:])
    (archive / "healthy" / "copy.png").write_bytes((archive / "healthy" / "000.png").read_bytes())
    build(archive, tmp_path / "pages", fake_encoder)
    data = read_index(Store.open(tmp_path / "pages"))
    assert (len(data.paths), len(np.unique(data.groups)), data.alone.sum()) == (16, 13, 0)
    pages_of = {int(group) for path, group in zip(data.paths, data.groups, strict=True) if "pages" in path}
    assert len(pages_of) == 1


def test_a_score_that_is_no_number_is_left_out(archive, make_encoder):
    class Overflowing(make_encoder):
        def encode_and_score(self, batch, findings):
            scores = np.full((len(batch), len(findings)), 0.5, np.float32)
            scores[np.abs(batch - dark).max(axis=(1, 2, 3)) == 0] = np.nan
            return self.encode_prepared(batch), scores

    encoder, data = Overflowing(), read_folder(archive)
    with Image.open(archive / "healthy" / "000.png") as image:
        dark = encoder.prepare(image.convert("RGB"))
    found = WORK.embed(data, [encoder], ["glaucoma"])
    assert found.data.left_out == (("healthy/000.png", "no finite score"),)
    assert (len(found.vectors[0]), found.scores.shape) == (11, (11, 1))


def test_an_index_of_another_encoder_is_refused(built, make_encoder):
    with pytest.raises(UsageError, match="was built by 'fake'"):
        Built((built,)).embed(read_index(built), [make_encoder(weights="1" * 64)])


def test_what_a_bench_keeps_is_no_index_to_ask(archive, fake_encoder, tmp_path):
    Work(tmp_path / "work").embed(read_folder(archive), [fake_encoder])
    with pytest.raises(UsageError, match="is what a bench keeps for itself"):
        Built((Store.open(tmp_path / "work"),))


def test_members_of_containers_are_pictures_too(archive, fake_encoder):
    plain = WORK.embed(read_folder(archive), [fake_encoder])
    with tarfile.open(archive / "healthy" / "shard.tar.gz", "w:gz") as tar:
        for file in sorted((archive / "healthy").glob("0*.*")):
            tar.add(file, file.name)
            file.unlink()
    packed = WORK.embed(read_folder(archive), [fake_encoder])
    assert packed.data.counts() == {"glaucoma": 6, "healthy": 6}
    np.testing.assert_array_equal(packed.vectors[0], plain.vectors[0])


def test_findings_come_from_an_index_that_was_asked_the_same(archive, make_encoder, tmp_path):
    class Finder(make_encoder):
        def encode_and_score(self, batch, findings):
            dark = 1 - batch.mean(axis=(1, 2, 3))
            return self.encode_prepared(batch), np.stack([dark**power for power in range(1, len(findings) + 1)], axis=1)

    labels, encoder = load_labels(["glaucoma", "optic disc drusen"]), Finder()
    build(archive, tmp_path / "index", encoder, scores=labels.names)
    stores = (Store.open(tmp_path / "index"),)
    asked = {"ignore_unknown": True}
    own = kad.run(read_folder(archive), encoder, labels, **asked)
    encoder.encoded = 0
    found = kad.run(read_index(stores[0]), encoder, labels, vectors=Built(stores), **asked)
    assert (found["measured"], encoder.encoded) == (own["measured"], 0)
    with pytest.raises(UsageError, match="built with the findings glaucoma, optic disc drusen"):
        kad.run(read_index(stores[0]), encoder, load_labels(["glaucoma"]), vectors=Built(stores), **asked)


def test_patch_means_are_of_every_picture(archive, make_encoder):
    class Patched(make_encoder):
        def patch_embeddings(self, image):
            return np.asarray(image.resize((3, 2), Image.Resampling.BOX), np.float32)

    encoder, data = Patched(), read_folder(archive)
    result = retizero.run(data, encoder, clustered=False)
    assert result["encoder"]["embedding"] == "mean of patch tokens"
    retrieving, _ = retizero._published_embedding(encoder)
    found = WORK.embed(data, [retrieving, encoder])
    for path, vector in zip(data.paths, found.vectors[0], strict=True):
        with Image.open(data.root / path) as image:
            expected = encoder.patch_embeddings(image.convert("RGB")).mean((0, 1))
        np.testing.assert_array_equal(vector, expected)
    assert found.vectors[1].shape == (12, encoder.info.dim)
