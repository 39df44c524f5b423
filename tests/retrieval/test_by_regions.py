"""Regions of pictures, from a build to an answer: where a hit matched, and what becomes of them with their rows."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_encoder import FakeEncoder, picture
from PIL import Image
from shards_standin import Shards

from retr import Index, Query
from retr.index.errors import ImageReadError, RetrError, UsageError
from retr.retrieval.archive import locations
from retr.retrieval.deletion import delete
from retr.retrieval.hits_arrow import from_arrow, to_arrow
from retr.retrieval.ingest import pipeline
from retr.retrieval.regions import adding
from retr.retrieval.regions.kind import quantised
from retr.retrieval.regions.layout import OWN_REGIONS, REGIONS, Layout

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (96, 80)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions") / "archive"
    folder.mkdir()
    lines = ["path,patient"]
    for number in range(36):
        picture(number, SIZE).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,P{number // 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def build(archive: Path, path: Path, **options) -> Index:
    asked = {"regions": "grid", "transform": "whitening", **options}
    return Index.build(archive, path, encoder=FakeEncoder(), metadata=archive / "labels.csv", group="patient", **asked)


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory):
    return {name: build(archive, tmp_path_factory.mktemp(name) / "x", transform=name) for name in ("none", "whitening")}


@pytest.fixture(autouse=True)
def known(built, archive):
    """What a machine knows of where archives lie is each test's own."""
    for one in built.values():
        locations.remember_source(one.store.uuid, "", str(archive))


@pytest.fixture
def index(built, archive, tmp_path):
    shutil.copytree(built["whitening"].path, tmp_path / "x")
    return Index.open(tmp_path / "x", encoder=FakeEncoder())


def same_answers(one, other):
    asked = [Query.id(name, region=(0.25, 0.25, 0.5, 0.5)) for name in ("03.png", "20.png")]
    for mine, theirs in zip(
        one.search(asked, k=8, in_regions=True), other.search(asked, k=8, in_regions=True), strict=True
    ):
        assert mine.ids == theirs.ids
        assert mine.scores.tobytes() == theirs.scores.tobytes()
        assert mine.regions == theirs.regions


@pytest.mark.parametrize("transform", ["none", "whitening"])
def test_every_region_finds_its_picture_and_its_box(built, archive, transform):
    index = built[transform]
    layout = Layout.of(index.store)
    for number in range(len(layout.boxes)):
        box = layout.pixels(number, SIZE)
        asked = Query.image(archive / "07.png", region=box)
        hits = index.search(asked, k=3, in_regions=True, include_self=True)
        assert (hits.ids[0], hits.regions[0]) == ("07.png", box)
        assert hits.scores[0] > 0.999
        assert hits[0].to_json()["region"] == list(box)
        assert hits.table["region"].to_pylist()[0] == list(box)
        # what is asked with is left out otherwise
        assert "07.png" not in index.search(asked, k=40, in_regions=True).ids
    shares = index.search(Query.id("07.png").cut("0.5,0.5,0.5,0.5"), k=3, in_regions=True)
    assert (
        shares.ids == index.search(Query.image(archive / "07.png", region=(48, 40, 48, 40)), k=3, in_regions=True).ids
    )
    assert from_arrow(to_arrow([shares]))[0].regions == shares.regions


def test_regions_are_searched_where_shards_are_held_elsewhere(index):
    near = Index.open(index.path, encoder=FakeEncoder())
    index.shard(3)
    index.store.remote = Shards(index.path)
    same_answers(index, near)
    asked = Query.id("03.png", region=(0.25, 0.25, 0.5, 0.5))
    for options in ({"where": "patient != 'P1'"}, {"one_per": "patient"}, {"k": 40}, {"min_score": 0.5, "k": 40}):
        mine, theirs = (one.search(asked, in_regions=True, **options) for one in (index, near))
        assert (mine.ids, mine.regions, mine.scores.tobytes()) == (theirs.ids, theirs.regions, theirs.scores.tobytes())
        assert (mine.note, mine.exact, mine.searched) == (theirs.note, theirs.exact, 1)
    index.store.remote.down = {0}
    with pytest.raises(RetrError, match="shard 0 did not answer"):
        index.search(asked, in_regions=True)
    part = index.search(asked, k=40, in_regions=True, partial=True)
    assert 0 < part.to_json()["searched"] < 1
    assert set(part.ids) < set(near.search(asked, k=40, in_regions=True).ids)
    assert "shard 0 did not answer" in part.note
    assert from_arrow(to_arrow([part]))[0].searched == part.searched


def test_whole_pictures_are_searched_as_without_regions(built, archive, tmp_path):
    plain = build(archive, tmp_path / "plain", regions=None)
    asked = Query.image(archive / "07.png")
    one, other = plain.search(asked, k=9), built["whitening"].search(asked, k=9)
    assert one.ids == other.ids
    assert one.scores.tobytes() == other.scores.tobytes()
    assert other.regions is None
    with pytest.raises(UsageError, match="no regions"):
        plain.search(asked, in_regions=True)


def test_conditions_and_pages_are_those_of_rows(built, archive):
    index, asked = built["whitening"], Query.id("07.png", region=(0, 0, 0.5, 0.5))
    every = index.search(asked, k=40, in_regions=True)
    assert len(every) == 35
    assert "06.png" not in index.search(asked, k=40, in_regions=True, exclude_same="patient").ids
    assert len(index.search(asked, k=40, in_regions=True, one_per="patient")) == 18
    assert index.search(asked, k=3, offset=4, in_regions=True).ids == every.ids[4:7]
    least = float(every.scores[5])
    assert index.search(asked, k=40, in_regions=True, min_score=least).ids == every.ids[:6]
    assert (
        index.search(asked, k=2, in_regions=True, where="id like '2%'").ids
        == [name for name in every.ids if name.startswith("2")][:2]
    )
    for option in ({"diverse": 0.3}, {"in_": "patient"}, {"effort": 3}, {"item": "patient"}):
        with pytest.raises(UsageError):
            index.search(asked, in_regions=True, **option)


@pytest.mark.parametrize(
    "region",
    [(0, 0, 0, 4), (90, 0, 20, 4), (0.5, 0, 0.6, 0.1), (-1, 0, 4, 4), (1, 2, 3), "a,b,c,d", "", (0, 0, 9e9, 1)],
)
def test_a_region_outside_or_empty_is_refused(built, archive, region):
    with pytest.raises(UsageError, match="region"):
        built["none"].search(Query.image(archive / "07.png").cut(region))
    with pytest.raises((UsageError, ImageReadError), match="region"):
        built["none"].search(Query.text("drusen").cut(region or "0,0,1,1"))


def test_a_region_of_a_picture_is_the_picture_cut(built, archive):
    index = built["none"]
    cut = Image.open(archive / "07.png").crop((10, 20, 60, 70))
    asked = index.search(Query.image(archive / "07.png", region=(10, 20, 50, 50)), k=5, include_self=True)
    assert asked.scores.tobytes() == index.search(image=cut, k=5).scores.tobytes()
    line = {"image": str(archive / "07.png"), "region": [10, 20, 50, 50]}
    assert index.search(Query.from_json(line), k=5, include_self=True).ids == asked.ids


def test_rows_keep_their_regions(index, archive, tmp_path):
    picture(99, SIZE).save(tmp_path / "99.png")
    shutil.copy(archive / "03.png", tmp_path / "copy.png")
    index.add(tmp_path / "99.png", name="new")
    index.add(tmp_path / "copy.png", name="copy")
    store = index.store
    lines = {
        name: dict(zip(store.ids(np.arange(store.n_total)), store.array(name), strict=True)) for name in _arrays(index)
    }
    for name in _arrays(index):
        assert (lines[name]["copy/copy.png"] == lines[name]["03.png"]).all()
    box = Layout.of(store).pixels(4, SIZE)
    asked = Query.image(tmp_path / "99.png", region=box)
    assert index.search(asked, k=1, in_regions=True, include_self=True).ids == ["new/99.png"]
    delete(index, ids=["05.png"])
    index.compact()
    index.shard(3)
    assert index.check() == []
    for name in _arrays(index):
        after = dict(
            zip(index.store.ids(index.store.live_rows()), index.store.array(name, index.store.live_rows()), strict=True)
        )
        assert after.keys() == lines[name].keys() - {"05.png"}
        assert all((after[row] == lines[name][row]).all() for row in after)


def _arrays(index):
    return [name for name, array in index.store.manifest.row_arrays.items() if array.kind == "regions"]


def test_a_purge_puts_regions_behind_the_transform_of_the_others(index, archive):
    gone = index.store.rows_of(["05.png"])
    planted = [index.store.array(name, gone)[0].tobytes() for name in _arrays(index)]
    before = index.store.array(REGIONS, index.store.rows_of(["07.png"]))
    delete(index, ids=["05.png"], purge=True)
    held = b"".join(file.read_bytes() for file in index.path.rglob("*") if file.is_file())
    assert not any(needle in held for needle in planted)
    assert index.check() == []
    row = index.store.rows_of(["07.png"])
    own = index.store.array(OWN_REGIONS, row).reshape(9, -1)
    led = quantised(index.encoder.transform(own.astype(np.float32)))
    assert (index.store.array(REGIONS, row).reshape(9, -1) == led).all()
    assert index.store.array(REGIONS, row).shape[1] % index.store.manifest.encoder.dim == 0
    assert not np.array_equal(before, index.store.array(REGIONS, row))


def test_regions_whose_own_vectors_are_not_kept_go_with_the_transform(archive, tmp_path):
    index = build(archive, tmp_path / "x", regions="multiscale")
    assert _arrays(index) == [REGIONS]
    asked = Query.id("07.png", region=(0, 0, 1 / 3, 1 / 3))
    [hit] = index.search(asked, k=1, in_regions=True, include_self=True)
    assert (hit.id, hit.region) == ("07.png", (0, 0, 32, 27))
    done = delete(index, ids=["05.png"], purge=True)
    assert any("retr index regions" in phrase for phrase in done.dropped)
    assert _arrays(index) == []
    assert index.check() == []
    with pytest.raises(UsageError, match="no regions"):
        index.search(asked, in_regions=True)


def test_an_interrupted_build_and_shards_give_the_same_bits(built, archive, tmp_path, monkeypatch):
    sharded = build(archive, tmp_path / "sharded", shards=3)
    same_answers(sharded, built["whitening"])
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", 0.0)
    encoder, calls = FakeEncoder(), []
    embed = encoder.encode_prepared

    def stopped(batch):
        calls.append(len(batch))
        if len(calls) == 40:
            raise KeyboardInterrupt
        return embed(batch)

    encoder.encode_prepared = stopped
    options = {"metadata": archive / "labels.csv", "group": "patient", "regions": "grid", "transform": "whitening"}
    with pytest.raises(KeyboardInterrupt):
        Index.build(archive, tmp_path / "y", encoder=encoder, **options)
    assert 0 < len(Index.open(tmp_path / "y").store) < 36
    same_answers(build(archive, tmp_path / "y"), built["whitening"])


def test_other_regions_than_an_index_has_are_refused(built, archive, tmp_path):
    path = built["none"].path
    with pytest.raises(UsageError, match="'grid', got: 'multiscale'"):
        build(archive, path, regions="multiscale", transform="auto")
    with pytest.raises(UsageError, match="not its patches"):
        build(archive, path, regions="patches", transform="auto")
    build(archive, path, regions="grid", transform="auto")
    with pytest.raises(UsageError, match="in parts"):
        Index.build_part(archive, tmp_path / "y", part="1/2", encoder=FakeEncoder(), regions="grid")


@pytest.mark.parametrize("division", ["grid", "multiscale"])
@pytest.mark.parametrize("transform", ["none", "whitening"])
def test_regions_given_later_are_those_of_a_build(archive, tmp_path, transform, division):
    later = build(archive, tmp_path / "later", transform=transform, regions=None, shards=2)
    later.delete(ids=["05.png"])
    whole = later.store.vectors()
    done = later.add_regions(division)
    built = build(archive, tmp_path / "built", transform=transform, regions=division)
    built.delete(ids=["05.png"])
    assert (done.rows, done.embedded, done.regions) == (35, 35, len(Layout.of(built.store).boxes))
    assert np.array_equal(later.store.vectors(), whole)
    assert Layout.of(later.store) == Layout.of(built.store)
    assert later.store.manifest.row_arrays == built.store.manifest.row_arrays
    same_answers(later, built)
    assert not later.path.with_name("later.regions").exists()
    # the same again reads nothing, and another division replaces it
    assert later.add_regions(division).embedded == 0
    other = "multiscale" if division == "grid" else "grid"
    assert later.add_regions(other).division == Layout.of(later.store).division == other


def test_a_run_that_was_stopped_goes_on_and_other_pixels_are_refused(archive, tmp_path, monkeypatch):
    mine = tmp_path / "archive"
    shutil.copytree(archive, mine)
    index = build(mine, tmp_path / "x", regions=None)
    monkeypatch.setattr(adding, "_AT_ONCE", 8)
    kept = (mine / "30.png").read_bytes()
    picture(77, SIZE).save(mine / "30.png")
    with pytest.raises(RetrError, match=r"'30\.png' cannot be read again: .* has changed since"):
        index.add_regions("grid")
    index.refresh()
    assert Layout.of(index.store) is None
    with pytest.raises(UsageError, match="has no regions"):
        index.search(id="03.png", in_regions=True)
    (mine / "30.png").write_bytes(kept)
    assert index.add_regions("grid").embedded == 36 - 24
    same_answers(index, build(archive, tmp_path / "built"))


def test_regions_lost_to_a_refit_are_given_again(archive, tmp_path):
    index = build(archive, tmp_path / "x", regions="multiscale")
    assert not Layout.of(index.store).kept
    index.refit(dim=4)
    assert Layout.of(index.store) is None
    index.add_regions("multiscale")
    [hits] = index.search([Query.id("07.png", region=(0, 0, 0.5, 0.5))], k=1, in_regions=True, include_self=True)
    assert (hits.ids, hits.regions) == (["07.png"], [(0, 0, 48, 40)])
