"""Crops and turned copies: found on photographs and on textures, across patients and splits, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from retr.index.errors import MissingExtraError, UsageError
from retr.index.store import Store
from retr.retrieval.audit.geometry import overlay
from retr.retrieval.audit.keypoints import find_detail, find_keypoints
from retr.retrieval.index import Index
from retr.retrieval.ingest.build import build

PHOTOGRAPHS = Path(__file__).parents[3] / "examples" / "hrf45"
SMOOTH = Image.Resampling.BICUBIC


def crop(image, share, x=0.5, y=0.5):
    """The part that is so wide; ``x`` and ``y`` from 0 (left, top) to 1."""
    width, height = int(image.width * share), int(image.height * share)
    left, top = int((image.width - width) * x), int((image.height - height) * y)
    return image.crop((left, top, left + width, top + height))


def compress(image, quality):
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return Image.open(sink).convert("RGB")


def mirror(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


#: What is done, and what is said of it.
PLANTED = {
    "half": (lambda image: crop(image, 0.5, 0.4, 0.6), "crop"),
    "turned-2": (lambda image: image.rotate(2, SMOOTH), "rotated"),
    "turned-8": (lambda image: image.rotate(-8, SMOOTH), "rotated"),
    "mirrored": (lambda image: mirror(compress(crop(image, 0.9, 0, 0.3), 60)), "crop"),
    "both": (lambda image: crop(image.rotate(4, SMOOTH), 0.7), "crop"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops") / "archive"
    folder.mkdir()
    originals = sorted(PHOTOGRAPHS.rglob("*.jpg"))[::8]
    lines = ["path,patient"]
    for number, (name, (change, _)) in enumerate(PLANTED.items()):
        with Image.open(originals[number]) as image:
            change(image.convert("RGB")).save(folder / f"{name}.png")
        shutil.copy(originals[number], folder / f"{name}-whole.jpg")
        lines += [f"{name}-whole.jpg,P{number}", f"{name}.png,{'Q' if name == 'half' else 'P'}{number}"]
    # the same patient's other picture is no duplicate
    shutil.copy(originals[0].with_name("02_dr.jpg"), folder / "other.jpg")
    lines.append("other.jpg,P0")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(folder / "plain.png")
    lines.append("plain.png,P9")
    (folder.parent / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def index(folder, tmp_path, fake_encoder):
    build(folder, tmp_path / "index", fake_encoder, metadata=folder.parent / "labels.csv", group="patient")
    return Index(Store.open(tmp_path / "index"), encoder=fake_encoder)


def test_crops_and_turned_copies_of_photographs_are_found(index):
    found = index.duplicates(threshold=0.999, geometry=True)
    assert {frozenset({pair.a, pair.b}): pair.kind for pair in found.pairs} == {
        frozenset({f"{name}.png", f"{name}-whole.jpg"}): kind for name, (_, kind) in PLANTED.items()
    }
    said = {pair.a.partition("-whole")[0].removesuffix(".png"): pair for pair in found.pairs}
    assert said["turned-2"].how == "copy, rotated by 2 degrees"
    assert said["turned-8"].how == "copy, rotated by 8 degrees"
    assert said["mirrored"].how.startswith("mirrored crop to ")
    assert said["both"].how.endswith("of the area, rotated by 4 degrees")
    assert [pair.a for pair in found.pairs if pair.across] == [said["half"].a] == [pair.a for pair in found.crossing]
    assert found.plain == 1
    assert found.overlaid <= 48 * len(index)
    assert len(found.clusters) == len(PLANTED)


def test_geometry_needs_pixels_and_its_library(index, monkeypatch):
    with pytest.raises(UsageError, match="only bytes"):
        index.duplicates(exact_only=True, geometry=True)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError) as caught:
        index.duplicates(geometry=True)
    assert 'pip install "retr[geometry]"' in str(caught.value)


def texture(seed, size=128):
    """Blots of several sizes, grey on grey."""
    rng = np.random.default_rng(seed)
    drawn = sum(gaussian_filter(rng.normal(size=(size, size)), sigma) * sigma for sigma in (2, 4, 6))
    return np.clip(128 + 60 * drawn / drawn.std(), 30, 255)


def compare(one, other):
    one, other = (Image.fromarray(np.asarray(each).astype(np.uint8)) for each in (one, other))
    return overlay(find_keypoints(one), find_keypoints(other), lambda: (find_detail(one), find_detail(other)))


def test_a_part_lies_on_its_whole_either_way_round():
    whole = texture(0)
    part = whole[25:115, 5:105]
    for one, other in ((whole, part), (part, whole)):
        found = compare(one, other)
        assert found.kind == "crop"
        assert not found.mirrored
        assert found.share == pytest.approx(90 * 100 / 128**2, abs=0.06)
        assert compare(one[:, ::-1], other).mirrored


def test_another_texture_and_another_view_of_the_same_are_no_copies():
    rng = np.random.default_rng(3)
    whole = texture(1)
    assert compare(whole, texture(2)) is None
    # another photograph of the same: tissue has moved, by up to some pixels and everywhere otherwise
    moved = [gaussian_filter(rng.normal(size=whole.shape), 15) for _ in range(2)]
    places = np.mgrid[:128, :128] + [4 * one / one.std() for one in moved]
    again = map_coordinates(whole, places, order=1, mode="nearest") + rng.normal(0, 4, whole.shape)
    assert compare(whole, np.clip(again, 0, 255)) is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (8, 8), (64, 64)])
def test_pictures_without_structure_have_no_keypoints(shape):
    flat = Image.fromarray(np.full(shape, 90, np.uint8))
    assert not len(find_keypoints(flat).points)
    assert find_detail(flat).fine.shape == shape


SPLIT = {
    # two halves of one picture, the whole of which is in no part
    "a-whole.png": ("P1", "", lambda: texture(11)),
    "a-left.png": ("P1", "train", lambda: texture(11)[:, :76]),
    "a-right.png": ("P2", "test", lambda: texture(11)[:, 52:]),
    # a part beside its whole, and beside a copy of the whole's file
    "b-whole.png": ("P3", "train", lambda: texture(12)),
    "b-again.png": ("P3", "train", lambda: texture(12)),
    "b-part.png": ("P4", "test", lambda: texture(12)[25:115, 5:105]),
    # a part and its whole in one part of the split
    "c-whole.png": ("P5", "train", lambda: texture(13)),
    "c-part.png": ("P6", "train", lambda: texture(13)[10:100, 20:120]),
    "d.png": ("P7", "test", lambda: texture(14)),
}


def write(path, pixels):
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def divided(tmp_path, fake_encoder):
    folder = tmp_path / "divided"
    folder.mkdir()
    lines = ["path,patient,split"]
    for name, (patient, part, pixels) in SPLIT.items():
        write(folder / name, pixels())
        lines.append(f"{name},{patient},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    build(folder, tmp_path / "index", fake_encoder, metadata=tmp_path / "labels.csv", group="patient")
    return Index(Store.open(tmp_path / "index"), encoder=fake_encoder)


def crossing(found):
    return {frozenset({pair.a, pair.b}): (pair.kind, {one, other}) for pair, one, other in found.pairs}


B_PARTS = {frozenset({"b-part.png", whole}): ("crop", {"train", "test"}) for whole in ("b-whole.png", "b-again.png")}
A_HALVES = {frozenset({"a-left.png", "a-right.png"}): ("linked", {"train", "test"})}


def test_crops_that_cross_a_split_are_leaks(divided):
    assert not divided.leaks("split", threshold=0.9999)
    found = divided.leaks("split", threshold=0.9999, geometry=True)
    assert crossing(found) == A_HALVES | B_PARTS
    assert found.n_pairs == len(found.pairs)
    assert not found.groups
    # each half of the first picture is a crop, also where it is no pair of the split
    kinds = {frozenset({pair.a, pair.b}): pair.kind for pair in found.duplicates.pairs}
    assert kinds[frozenset({"a-whole.png", "a-left.png"})] == kinds[frozenset({"a-whole.png", "a-right.png"})] == "crop"
    assert kinds[frozenset({"c-whole.png", "c-part.png"})] == "crop"
    how = {pair.how for pair, *_ in found.pairs if pair.kind == "crop"}
    assert len(how) == 1
    assert how.pop().startswith("crop to ")
    # by patients, the same pairs as duplicates has
    by_patient = divided.leaks("patient", threshold=0.9999, geometry=True)
    assert [pair for pair, *_ in by_patient.pairs] == list(found.duplicates.crossing)


def test_files_that_changed_since_they_were_indexed_are_not_compared(divided, tmp_path):
    """The vector is of the old picture: neither what lies there now nor its absence says anything of the row."""
    folder = tmp_path / "divided"
    # a picture without a copy becomes a crop of another row's; the same pixels are saved in other bytes
    write(folder / "d.png", texture(13)[10:100, 20:120])
    part = folder / "b-part.png"
    before = part.read_bytes()
    with Image.open(io.BytesIO(before)) as image:
        image.save(part, compress_level=1)
    assert hashlib.sha256(part.read_bytes()).digest() != hashlib.sha256(before).digest()
    (folder / "a-right.png").unlink()
    found = divided.leaks("split", threshold=0.9999, geometry=True)
    assert not found
    assert found.duplicates.unreadable == 3
    part.write_bytes(before)
    # the copy of the same bytes is read instead
    (folder / "b-again.png").unlink()
    again = divided.leaks("split", threshold=0.9999, geometry=True)
    assert crossing(again) == B_PARTS
    assert again.duplicates.unreadable == 2


def test_leaks_by_geometry_needs_pixels_and_its_library(divided, monkeypatch):
    with pytest.raises(UsageError, match="only bytes"):
        divided.leaks("split", exact_only=True, geometry=True)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingExtraError):
        divided.leaks("split", geometry=True)
