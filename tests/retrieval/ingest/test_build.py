"""The build pipeline: what becomes a row, what is embedded again, and what is said of the rest."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retr.index.errors import EncoderMismatchError, IndexLockedError, UsageError
from retr.index.store import Store
from retr.retrieval.archive import locations
from retr.retrieval.archive.provenance import BuildNotes
from retr.retrieval.archive.row_pictures import picture_in
from retr.retrieval.ingest.build import add, build
from retr.retrieval.read_options import ReadOptions


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


def rows_by_id(path):
    """Everything that makes an index equal to another: metadata and vectors by id."""
    store = Store.open(path)
    rows = store.table().to_pylist()
    vectors = store.vectors(store.live_rows())
    return {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}


def test_every_picture_becomes_a_row_with_its_own_vector(archive, index, fake_encoder):
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    store = Store.open(index)
    assert report.rows == report.embedded == len(store) == 12
    assert store.check() == []
    table = store.table()
    assert table.column_names == [
        *("id", "path", "size", "mtime", "sha256", "width", "height", "mode", "folder"),
        *("label", "patient", "age"),
    ]
    for row, vector in zip(table.to_pylist(), store.vectors(), strict=True):
        file = archive / row["path"]
        assert row["id"] == row["path"]
        assert (row["size"], row["mtime"]) == (file.stat().st_size, file.stat().st_mtime)
        assert (row["width"], row["height"], row["mode"]) == (48, 40, "RGB")
        assert row["folder"] == row["label"] == file.parent.name
        expected = fake_encoder.encode_images([file])[0]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_no_absolute_path_enters_the_index(archive, index, fake_encoder):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    needle = str(archive.parent).encode()
    assert not [file for file in index.rglob("*") if file.is_file() and needle in file.read_bytes()]


def test_a_second_build_does_nothing(archive, index, fake_encoder):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    version = Store.open(index).version
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    assert (report.embedded, report.unchanged, report.rows) == (0, 12, 12)
    assert Store.open(index).version == version


def test_only_what_is_new_or_changed_is_embedded(archive, index, fake_encoder, make_picture, tmp_path):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    make_picture(100).save(archive / "healthy" / "new.png")
    make_picture(101).save(archive / "healthy" / "000.png")  # other content under a known path
    os.utime(archive / "glaucoma" / "001.jpg", (1, 1))  # touched: the same bytes
    shutil.copy(archive / "healthy" / "002.tif", archive / "copy.tif")
    (archive / "healthy" / "004.webp").rename(archive / "renamed.webp")
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    assert report.embedded == 2
    assert report.reused == 3
    assert report.changed == 2
    assert report.vanished == 1
    assert report.unchanged == 9
    assert report.rows == 15
    # what was vanished goes only when that is asked for
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv", prune=True)
    assert (report.removed, report.vanished, report.embedded, report.rows) == (1, 0, 0, 14)
    fresh = tmp_path / "fresh"
    build(archive, fresh, fake_encoder, metadata=archive / "labels.csv")
    assert rows_by_id(index) == rows_by_id(fresh)
    assert Store.open(index).check() == []


def test_swapped_files_swap_their_vectors(archive, index, fake_encoder):
    build(archive, index, fake_encoder, commit_rows=1)
    before = rows_by_id(index)
    a, b = archive / "healthy" / "000.png", archive / "healthy" / "010.png"
    data = a.read_bytes(), b.read_bytes()
    b.write_bytes(data[0])
    a.write_bytes(data[1])
    # a commit each: the first drops the only segment that held the other's vector
    report = build(archive, index, fake_encoder, commit_rows=1)
    assert (report.embedded, report.reused) == (0, 2)
    after = rows_by_id(index)
    assert after["healthy/000.png"][1] == before["healthy/010.png"][1]
    assert after["healthy/010.png"][1] == before["healthy/000.png"][1]


def test_bad_files_become_records_and_shift_nothing(archive, index, fake_encoder, tmp_path):
    clean = tmp_path / "clean"
    build(archive, clean, fake_encoder)
    whole = (archive / "glaucoma" / "001.jpg").read_bytes()
    (archive / "a-truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (archive / "b-empty.png").write_bytes(b"")
    (archive / "c-text.png").write_text("not a picture")
    (archive / "glaucoma" / "broken.png").symlink_to("nowhere")
    (archive / "loop").symlink_to(".")
    (archive / "README.md").write_text("about")
    report = build(archive, index, fake_encoder)
    assert report.skipped == {
        "truncated": 1,
        "empty": 1,
        "not an image": 1,
        "broken link": 1,
        "link loop": 1,
    }
    assert report.other_files == 2  # labels.csv and README.md
    assert rows_by_id(index) == rows_by_id(clean)
    recorded = Store.open(index).skipped().to_pylist()
    assert {(row["path"], row["reason"]) for row in recorded} == {
        ("a-truncated.jpg", "truncated"),
        ("b-empty.png", "empty"),
        ("c-text.png", "not an image"),
        ("glaucoma/broken.png", "broken link"),
        ("loop", "link loop"),
    }


@pytest.mark.parametrize(
    "name", ["a::b.png", "line\nbreak.png", "a#3.png", "ünï cödé.png", "per%20cent.png", "'quote.png"]
)
def test_odd_names_are_names(tmp_path, index, fake_encoder, make_picture, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    make_picture(1).save(folder / name)
    assert build(folder, index, fake_encoder).rows == 1
    assert locations.open_item(Store.open(index), name) == (folder / name).read_bytes()
    assert build(folder, index, fake_encoder).unchanged == 1


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000)])
def test_odd_shapes_are_pictures(tmp_path, index, fake_encoder, size):
    from PIL import Image

    folder = tmp_path / "folder"
    folder.mkdir()
    Image.new("RGB", size, (200, 30, 30)).save(folder / "odd.png")
    report = build(folder, index, fake_encoder)
    assert (report.rows, report.skipped) == (1, {})


def test_a_decompression_bomb_is_a_record(archive, index, fake_encoder, monkeypatch):
    monkeypatch.setenv("RETR_MAX_PIXELS", "1900")
    from PIL import Image

    Image.new("RGB", (20, 20)).save(archive / "small.png")
    report = build(archive, index, fake_encoder)
    assert report.rows == 1
    assert report.skipped == {"too large": 12}


def test_a_file_that_may_not_be_read_keeps_its_old_row(archive, index, fake_encoder, monkeypatch):
    build(archive, index, fake_encoder)
    os.utime(archive / "healthy" / "000.png", (1, 1))
    opened = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("000.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    # the tests may run as root, to whom every file is open
    monkeypatch.setattr(os, "open", refuse)
    report = build(archive, index, fake_encoder, prune=True)
    assert report.skipped == {"no permission": 1}
    assert report.rows == 12


def test_a_file_that_no_longer_holds_a_picture_loses_its_row(archive, index, fake_encoder):
    build(archive, index, fake_encoder)
    (archive / "healthy" / "000.png").write_bytes(b"overwritten")
    report = build(archive, index, fake_encoder)
    assert report.skipped == {"not an image": 1}
    assert (report.removed, report.rows) == (1, 11)


def test_a_folder_that_cannot_be_listed_loses_nothing(archive, index, fake_encoder, monkeypatch):
    build(archive, index, fake_encoder)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("healthy"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = build(archive, index, fake_encoder, prune=True)
    assert (report.rows, report.removed, report.skipped) == (12, 0, {"no permission": 1})


def test_a_container_that_cannot_be_read_loses_nothing(archive, index, fake_encoder, tmp_path):
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", archive / "healthy"))
    shutil.move(packed, archive / "packed.zip")
    rows = build(archive, index, fake_encoder).rows
    (archive / "packed.zip").write_bytes(b"cut short")
    report = build(archive, index, fake_encoder, prune=True)
    assert (report.rows, report.removed, report.skipped) == (rows, 0, {"damaged": 1})
    assert rows > 12


@pytest.mark.parametrize("content", ["nothing", "text", "damaged"])
def test_an_archive_without_pictures_leaves_no_index(tmp_path, index, fake_encoder, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content == "text":
        (folder / "notes.txt").write_text("x")
    if content == "damaged":
        (folder / "a.png").write_text("x")
    with pytest.raises(UsageError, match="holds no picture that can be read"):
        build(folder, index, fake_encoder)
    assert not index.exists()


def test_an_archive_that_is_suddenly_empty_drops_nothing(archive, index, fake_encoder):
    build(archive, index, fake_encoder)
    shutil.rmtree(archive / "healthy")
    shutil.rmtree(archive / "glaucoma")
    with pytest.raises(UsageError, match="holds no picture"):
        build(archive, index, fake_encoder, prune=True)
    assert len(Store.open(index)) == 12


def test_metadata_that_does_not_fit_is_counted_on_both_sides(archive, index, fake_encoder):
    lines = (archive / "labels.csv").read_text().splitlines()
    (archive / "labels.csv").write_text("\n".join([*lines[:-2], "missing/x.png,none,P99,1"]) + "\n")
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    assert report.without_metadata == 2
    assert report.unmatched_metadata == 1
    assert report.unmatched_examples == ("missing/x.png",)
    assert Store.open(index).table(["age"])["age"].null_count == 2


def test_a_changed_table_changes_the_rows_without_embedding(archive, index, fake_encoder):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv", commit_rows=4)
    text = (archive / "labels.csv").read_text()
    (archive / "labels.csv").write_text(text.replace("glaucoma,P00,41", "suspect,P00,forty"))
    report = build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    assert (report.embedded, report.reused, report.unchanged) == (0, 0, 12)
    row = next(row for row in Store.open(index).table().to_pylist() if row["id"] == "glaucoma/001.jpg")
    assert (row["label"], row["age"]) == ("suspect", "forty")


def test_labels_stay_when_a_later_build_names_no_table(archive, index, fake_encoder, make_picture):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    make_picture(55).save(archive / "healthy" / "000.png")
    build(archive, index, fake_encoder)
    row = next(row for row in Store.open(index).table().to_pylist() if row["id"] == "healthy/000.png")
    assert (row["label"], row["age"]) == ("healthy", 40)


def test_a_further_folder_gets_its_name_as_prefix(archive, make_archive, index, fake_encoder):
    build(archive, index, fake_encoder, metadata=archive / "labels.csv")
    more = make_archive(5, "more")
    report = add(more, index, fake_encoder, metadata=more / "labels.csv")
    assert report.rows == 17
    assert report.reused == 5  # the same pictures
    store = Store.open(index)
    row = next(row for row in store.table().to_pylist() if row["id"] == "more/healthy/000.png")
    assert (row["path"], row["folder"], row["label"]) == ("more/healthy/000.png", "healthy", "healthy")
    # each part is brought up to date by itself
    assert build(archive, index, fake_encoder, prune=True).rows == 17
    (more / "healthy" / "000.png").unlink()
    assert add(more, index, fake_encoder, prune=True).rows == 16
    assert locations.open_item(store, "more/healthy/002.tif") == (more / "healthy" / "002.tif").read_bytes()


def test_a_name_that_ids_begin_with_is_refused(archive, make_archive, index, fake_encoder):
    build(archive, index, fake_encoder)
    more = make_archive(2, "more")
    with pytest.raises(UsageError, match="begin with 'healthy' already"):
        add(more, index, fake_encoder, name="healthy")
    with pytest.raises(UsageError, match="one plain word"):
        add(more, index, fake_encoder, name="a/b")


def test_another_archive_is_not_mistaken_for_this_one(archive, make_archive, index, fake_encoder, tmp_path):
    build(archive, index, fake_encoder)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(archive / "healthy" / "000.png", other / "else.png")
    with pytest.raises(UsageError, match="built from another archive"):
        build(other, index, fake_encoder)
    # moved is not another
    moved = archive.rename(tmp_path / "moved")
    assert build(moved, index, fake_encoder).unchanged == 12


def test_one_image_can_be_added(archive, index, fake_encoder, make_picture, tmp_path):
    build(archive, index, fake_encoder)
    make_picture(77).save(tmp_path / "single.png")
    report = add(tmp_path / "single.png", index, fake_encoder, name="later")
    assert (report.embedded, report.rows) == (1, 13)
    assert Store.open(index).rows_of(["later/single.png"])[0] >= 0


def test_another_encoder_is_refused_with_both_names(archive, index, fake_encoder, make_encoder):
    build(archive, index, fake_encoder)
    with pytest.raises(EncoderMismatchError, match=r"'fake'.*'other'"):
        build(archive, index, make_encoder(name="other"))
    with pytest.raises(EncoderMismatchError, match="weights of 'fake' changed"):
        build(archive, index, make_encoder(weights="1" * 64))


def test_a_second_writer_is_told_who_writes(archive, index, fake_encoder):
    build(archive, index, fake_encoder)
    with Store.open(index).writer(), pytest.raises(IndexLockedError, match=str(os.getpid())):
        build(archive, index, fake_encoder)


def test_a_licence_that_forbids_commercial_use_is_said(archive, index, make_encoder, capsys):
    encoder = make_encoder(noncommercial=True, licence="CC BY-NC-ND 4.0")
    report = build(archive, index, encoder, progress=True)
    assert "not for commercial use (CC BY-NC-ND 4.0)" in " ".join(report.notes)
    said = capsys.readouterr().err
    assert "not for commercial use" in said
    assert "embedding with fake (fp32) on cpu" in said


def test_exact_decoding_is_kept_for_later_builds(archive, index, make_encoder, make_picture):
    encoder = make_encoder(draft_size=64)
    make_picture(1, (1200, 900)).save(archive / "large.jpg", quality=95)
    build(archive, index, encoder, exact_decode=True)
    make_picture(2, (1200, 900)).save(archive / "large2.jpg", quality=95)
    build(archive, index, encoder)
    store = Store.open(index)
    vectors = store.vectors(store.rows_of(["large.jpg", "large2.jpg"]))
    exact = make_encoder().encode_images([archive / "large.jpg", archive / "large2.jpg"])
    np.testing.assert_allclose(vectors, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=1e-6)
    drafted = encoder.encode_images([archive / "large.jpg"])[0]
    assert not np.array_equal(vectors[0], drafted / np.linalg.norm(drafted))


def test_half_precision_is_kept_for_later_builds(archive, index, fake_encoder, make_picture):
    build(archive, index, fake_encoder, dtype="float16")
    before = rows_by_id(index)
    shutil.copy(archive / "healthy" / "002.tif", archive / "copy.tif")
    make_picture(100).save(archive / "new.png")
    report = build(archive, index, fake_encoder)
    assert (report.embedded, report.reused) == (1, 1)
    assert Store.open(index).vectors().dtype == np.float16
    assert rows_by_id(index)["copy.tif"][1] == before["healthy/002.tif"][1]
    with pytest.raises(UsageError, match="stores its vectors as 'float16', got: 'float32'"):
        build(archive, index, fake_encoder, dtype="float32")


@pytest.mark.parametrize(
    ("first", "later", "said"),
    [
        ({}, {"exact_decode": True}, "exact_decode False, got: True"),
        ({"exact_decode": True}, {"exact_decode": False}, "exact_decode True, got: False"),
        ({"frames": 4}, {"frames": 1}, "frames 4, got: 1"),
        ({"axis": "coronal"}, {"axis": "axial"}, "axis 'coronal', got: 'axial'"),
    ],
)
def test_what_is_read_otherwise_cannot_be_asked_for_afterwards(archive, index, fake_encoder, first, later, said):
    build(archive, index, fake_encoder, **first)
    for asked in ({}, dict.fromkeys(later), {name: first[name] for name in first}):
        assert build(archive, index, fake_encoder, **asked).embedded == 0
    assert BuildNotes.of(Store.open(index)).reading == ReadOptions(**first)
    with pytest.raises(UsageError, match=f"built with {said}"):
        build(archive, index, fake_encoder, **later)


def test_a_picture_is_read_again_as_the_build_read_it(archive, index, fake_encoder, make_picture):
    data = io.BytesIO()
    make_picture(5, (400, 400)).save(data, format="JPEG")
    sizes = [
        picture_in(
            data.getvalue(), "x.jpg", BuildNotes(reading=ReadOptions(exact_decode=exact)), draft_size=50
        ).image.size
        for exact in (False, True)
    ]
    assert sizes == [(50, 50), (400, 400)]


def test_another_name_is_no_option(archive, index, fake_encoder):
    with pytest.raises(TypeError, match=r"^build\(\) has no option 'frame': is 'frames' meant\?$"):
        build(archive, index, fake_encoder, frame=2)
    assert not Store.exists(index)


def test_scores_become_columns(archive, index, make_encoder, make_picture):
    class Scoring(make_encoder):
        def encode_and_score(self, batch, findings):
            brightness = batch.mean(axis=(1, 2, 3))
            return self.encode_prepared(batch), brightness[:, None] * np.arange(1, len(findings) + 1)

    encoder = Scoring()
    build(archive, index, encoder, scores=["pleural effusion", "edema"], commit_rows=4)
    assert encoder.encoded == 12  # each picture goes through the network once
    store = Store.open(index)
    table = store.table(["p_pleural_effusion", "p_edema"]).to_pydict()
    np.testing.assert_allclose(np.array(table["p_edema"]), 2 * np.array(table["p_pleural_effusion"]))
    assert store.where("p_edema > 0").sum() == 12
    make_picture(60).save(archive / "new.png")
    build(archive, index, Scoring())
    assert Store.open(index).table(["p_edema"])["p_edema"].null_count == 0
    with pytest.raises(UsageError, match="built with scores"):
        build(archive, index, Scoring(), scores=["edema"])


def test_scores_need_an_encoder_that_scores(archive, index, fake_encoder):
    with pytest.raises(UsageError, match="does not score findings"):
        build(archive, index, fake_encoder, scores=["edema"])
    assert not index.exists()


def test_a_group_column_that_is_not_there(archive, index, fake_encoder):
    with pytest.raises(UsageError, match="there is no column 'patientt'"):
        build(archive, index, fake_encoder, metadata=archive / "labels.csv", group="patientt")
    assert not index.exists()
    build(archive, index, fake_encoder, metadata=archive / "labels.csv", group="patient")
    assert Store.open(index).manifest.group == "patient"


def test_frames_of_a_file_are_rows_of_their_own(archive, index, fake_encoder, make_picture):
    pages = [make_picture(seed) for seed in (200, 201, 202)]
    pages[0].save(archive / "stack.tif", save_all=True, append_images=pages[1:])
    build(archive, index, fake_encoder)
    rows = rows_by_id(index)
    assert {f"stack.tif#{n}" for n in (1, 2, 3)} < set(rows)
    assert rows["stack.tif#2"][0]["path"] == "stack.tif"
    os.utime(archive / "stack.tif", (1, 1))
    report = build(archive, index, fake_encoder)
    assert (report.reused, report.embedded, report.rows) == (3, 0, 15)
    assert rows_by_id(index)["stack.tif#3"][1] == rows["stack.tif#3"][1]


def test_a_picture_without_a_finite_vector_is_a_record(archive, index, make_encoder):
    class Overflowing(make_encoder):
        def encode_prepared(self, batch):
            vectors = super().encode_prepared(batch)
            vectors[batch.mean(axis=(1, 2, 3)) > 0.9] = np.inf
            return vectors

    from PIL import Image

    Image.new("RGB", (30, 30), "white").save(archive / "healthy" / "005-white.png")
    report = build(archive, index, Overflowing())
    assert (report.rows, report.embedded, report.skipped) == (12, 12, {"no finite embedding": 1})
    assert Store.open(index).skipped()["path"].to_pylist() == ["healthy/005-white.png"]


def test_a_build_that_was_stopped_knows_its_archive(archive, index, make_encoder):
    class Stopping(make_encoder):
        def encode_prepared(self, batch):
            if self.encoded >= 8:
                raise KeyboardInterrupt
            return super().encode_prepared(batch)

    with pytest.raises(KeyboardInterrupt):
        build(archive, index, Stopping(), commit_rows=4)
    store = Store.open(index)
    assert 0 < len(store) < 12
    assert locations.open_item(store, store.table(["id"])["id"][0].as_py())
    assert build(archive, index, make_encoder()).rows == 12


def test_few_pictures_are_in_memory_at_any_moment(make_archive, index, make_encoder):
    alive, most = set(), 0

    class Counting(make_encoder):
        def prepare(self, image):
            nonlocal most
            prepared = super().prepare(image).copy()
            alive.add(id(prepared))
            most = max(most, len(alive))
            return prepared

        def encode_prepared(self, batch):
            vectors = super().encode_prepared(batch)
            for _ in range(min(len(batch), len(alive))):
                alive.pop()
            return vectors

    build(make_archive(200), index, Counting(), workers=2)
    assert most <= 2 * (2 * 4 + 2 * 2)


def test_the_place_of_the_archive_is_remembered_per_machine(archive, index, fake_encoder, monkeypatch, tmp_path):
    build(archive, index, fake_encoder)
    store = Store.open(index)
    assert locations.recall_sources(store.uuid) == {"": str(archive)}
    assert locations.open_item(store, "healthy/000.png") == (archive / "healthy" / "000.png").read_bytes()
    # a copy beside its archive needs no memory
    monkeypatch.setenv("RETR_STATE_DIR", str(tmp_path / "elsewhere"))
    shutil.copytree(index, archive / ".retr")
    assert locations.open_item(Store.open(archive / ".retr"), "healthy/000.png")
    from retr.index.errors import RetrError

    with pytest.raises(RetrError, match="does not know where the archive"):
        locations.open_item(store, "healthy/000.png")


def test_a_numeric_group_of_an_older_index_moves_over_with_a_word(archive, tmp_path, fake_encoder):
    import dataclasses

    (archive / "labels.csv").unlink()
    build(archive, tmp_path / "index", fake_encoder)
    store = Store.open(tmp_path / "index")
    ids = store.table(["id"])["id"]
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": ids, "patient": list(range(len(ids)))}))
        writer.draft = dataclasses.replace(writer.draft, group="patient")
        writer.commit()
    assert Store.open(store.path).schema.field("patient").type == pa.int64()
    notes = build(archive, tmp_path / "index", fake_encoder).notes
    assert any("'patient' was int64 and is text now" in note for note in notes)
    moved = Store.open(store.path)
    assert moved.table(["patient"])["patient"].to_pylist() == [str(number) for number in range(len(ids))]
    assert not any("text now" in note for note in build(archive, tmp_path / "index", fake_encoder).notes)
