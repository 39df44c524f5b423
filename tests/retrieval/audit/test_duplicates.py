"""Duplicates and leaks on real photographs: copies are found, other eyes are not, borders are respected."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.audit.copies import MIN_AGREEMENT, perceptual_hash
from retr.retrieval.index import Index
from retr.retrieval.ingest.build import build

PHOTOGRAPHS = Path(__file__).parents[3] / "examples" / "hrf45"


def recompressed(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(io.BytesIO(buffer.getvalue()))


COPIES = {
    "recompressed": recompressed,
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@pytest.fixture
def copied(tmp_path):
    """All 45 photographs and, of some, copies; each photograph is a patient, but for one pair."""
    folder = tmp_path / "archive"
    shutil.copytree(PHOTOGRAPHS, folder)
    (folder / "labels.csv").unlink()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    lines = ["path,patient,split"]
    expected = set()
    for number, name in enumerate(names):
        lines.append(f"{name},P{number},{('train', 'test')[number % 2]}")
    for number, (kind, change) in enumerate(COPIES.items()):
        for name in names[number::15]:
            copy = f"copies/{kind}-{Path(name).stem}.png"
            (folder / copy).parent.mkdir(exist_ok=True)
            change(Image.open(folder / name)).save(folder / copy)
            owner = names.index(name)
            lines.append(f"{copy},Q{owner},{('train', 'test')[owner % 2]}")
            expected.add(frozenset({name, copy}))
    shutil.copy(folder / names[40], folder / "copies" / "same.jpg")
    lines.append("copies/same.jpg,P40,test")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder, names, expected


@pytest.fixture
def index(copied, tmp_path, fake_encoder):
    build(copied[0], tmp_path / "index", fake_encoder, metadata=tmp_path / "labels.csv", group="patient")
    return Store.open(tmp_path / "index")


def test_copies_are_found_and_other_eyes_are_not(copied, index, fake_encoder):
    _, names, expected = copied
    found = Index(index, encoder=fake_encoder).duplicates()
    near = {frozenset({pair.a, pair.b}): pair for pair in found.pairs if pair.kind == "near"}
    assert set(near) == expected
    assert all(pair.across for pair in near.values())
    (exact,) = [pair for pair in found.pairs if pair.kind == "exact"]
    assert {exact.a, exact.b} == {names[40], "copies/same.jpg"}
    assert exact.across is False
    # the hash did the work: the encoder alone takes other eyes for copies
    assert found.candidates > len(expected)
    assert 0.5 < found.threshold < 1


def test_a_mirror_image_is_told_from_a_copy(tmp_path, fake_encoder):
    folder = tmp_path / "archive"
    folder.mkdir()
    names = sorted(PHOTOGRAPHS.rglob("*.jpg"))[:6]
    for path in names:
        shutil.copy(path, folder / path.name)
    with Image.open(names[2]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    build(folder, tmp_path / "index", fake_encoder)
    found = Index(Store.open(tmp_path / "index"), encoder=fake_encoder).duplicates(threshold=0.1)
    assert [({pair.a, pair.b}, pair.kind) for pair in found.pairs] == [({names[2].name, "mirrored.png"}, "mirrored")]
    assert found.pairs[0].agreement >= MIN_AGREEMENT


def test_leaks_across_a_split(copied, index, fake_encoder):
    _, names, _ = copied
    leaks = Index(index, encoder=fake_encoder).leaks("split")
    # patient 40 is in the training part, its byte-for-byte copy in the test part
    assert leaks.groups == {"P40": {"train": 1, "test": 1}}
    assert [(pair.kind, *sorted(parts)) for pair, *parts in leaks.pairs] == [("exact", "test", "train")]
    assert names[40] in {leaks.pairs[0][0].a, leaks.pairs[0][0].b}
    assert Index(index).leaks("split", group="split", exact_only=True).groups == {}


def test_bytes_alone_need_neither_archive_nor_encoder(copied, index):
    shutil.rmtree(copied[0])
    found = Index(index).duplicates(exact_only=True)  # loading the fake encoder by its name would fail
    assert [pair.kind for pair in found.pairs] == ["exact"]


def test_near_duplicates_need_the_archive(copied, index, fake_encoder):
    shutil.rmtree(copied[0])
    with pytest.raises(RetrError, match="cannot read"):
        Index(index, encoder=fake_encoder).duplicates()


def test_rows_that_cannot_be_read_again_are_counted(copied, index, fake_encoder):
    folder, _, expected = copied
    gone = min(next(iter(expected)))
    (folder / gone).unlink()
    found = Index(index, encoder=fake_encoder).duplicates(threshold=0.5)
    assert found.unreadable == 1
    assert not [pair for pair in found.pairs if gone in {pair.a, pair.b}]


@pytest.mark.parametrize("threshold", [0, 1.5, -1])
def test_a_threshold_that_is_no_cosine(index, fake_encoder, threshold):
    with pytest.raises(UsageError, match=repr(threshold)):
        Index(index, encoder=fake_encoder).duplicates(threshold=threshold)


def test_the_hash_knows_copies_from_other_pictures():
    images = [Image.open(path) for path in sorted(PHOTOGRAPHS.rglob("*.jpg"))]
    hashes = [perceptual_hash(image) for image in images]
    for image, own in zip(images, hashes, strict=True):
        for change in COPIES.values():
            assert perceptual_hash(change(image)) @ own >= MIN_AGREEMENT
    closest = max(float(a @ b) for at, a in enumerate(hashes) for b in hashes[:at])
    assert closest < 0.97 < MIN_AGREEMENT


def test_a_picture_without_detail_has_no_twin():
    flat = perceptual_hash(Image.new("RGB", (64, 64), (30, 30, 30)))
    assert flat @ flat < MIN_AGREEMENT
