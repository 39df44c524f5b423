"""Several indexes from one reading of an archive: each as if it had been built alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retr import Index
from retr.index.errors import EncoderMismatchError, UsageError
from retr.index.store import Store
from retr.retrieval.archive.folders import FolderSource
from retr.retrieval.images import read_image
from retr.retrieval.images.raster import decoded_size
from retr.retrieval.ingest import decode
from retr.retrieval.ingest.build import build, build_each


def rows_by_id(path):
    store = Store.open(path)
    rows = store.table().to_pylist()
    vectors = store.vectors(store.live_rows())
    return {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}


@pytest.fixture
def mixed(archive, make_picture):
    """Pictures of which encoders with other needs get other pixels, and files of several pictures or of none."""
    make_picture(50, (640, 480)).save(archive / "large.jpg")
    make_picture(51, (300, 900)).save(archive / "tall.jpg", quality=80)
    grey = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    Image.fromarray(grey).save(archive / "deep.png")
    pages = [make_picture(seed) for seed in (60, 61, 62)]
    pages[0].save(archive / "pages.tif", save_all=True, append_images=pages[1:])
    (archive / "cut.jpg").write_bytes((archive / "large.jpg").read_bytes()[:3000])
    return archive


@pytest.fixture
def three(make_encoder):
    """Encoders that read JPEGs in full, and at two reduced sizes."""
    return [
        make_encoder(name="full"),
        make_encoder(name="half", weights="1" * 64, draft_size=200, batch_size=3),
        make_encoder(name="small", weights="2" * 64, draft_size=100, grey16="max", batch_size=5),
    ]


def test_each_is_what_it_would_be_alone(mixed, three, tmp_path):
    for encoder in three:
        build(mixed, tmp_path / f"{encoder.info.name}.alone", encoder, metadata=mixed / "labels.csv")
    together = {tmp_path / one.info.name: one for one in three}
    reports = build_each(mixed, together, metadata=mixed / "labels.csv")
    assert [report.embedded for report in reports] == [18, 18, 18]
    assert [dict(report.skipped) for report in reports] == [{"truncated": 1}] * 3
    for path in together:
        assert rows_by_id(path) == rows_by_id(path.with_suffix(".alone"))
        assert Store.open(path).skipped().equals(Store.open(path.with_suffix(".alone")).skipped())
        assert Store.open(path).check() == []
    # the pixels were not the same for all
    assert len({rows_by_id(path)["large.jpg"][1] for path in together}) == 3


def test_a_file_is_read_once_and_decoded_once_for_encoders_that_see_the_same(
    mixed, make_encoder, tmp_path, monkeypatch
):
    files, decoded = [], []
    read, read_images = FolderSource.read, decode.read_images
    monkeypatch.setattr(FolderSource, "read", lambda self, path: files.append(path) or read(self, path))
    monkeypatch.setattr(decode, "read_images", lambda data, **how: decoded.append(how) or read_images(data, **how))
    # at 210 and at 200 a JPEG of 480 is reduced alike, at 100 once more
    sizes = {"a": 210, "b": 200, "c": 100}
    encoders = {
        tmp_path / name: make_encoder(name=name, weights=name * 64, draft_size=size) for name, size in sizes.items()
    }
    build_each(mixed, encoders)
    assert len(files) == len(set(files)) == 17
    # only the three larger JPEGs come out otherwise
    assert len(decoded) == 17 + 3


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.lists(st.none() | st.integers(1, 200), min_size=2, max_size=2),
)
def test_jpegs_decoded_at_one_size_have_the_same_pixels(shape, needs):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    pictures = [np.asarray(read_image(file.getvalue(), draft_size=need).image) for need in needs]
    sizes = [decoded_size(file.getvalue(), need) for need in needs]
    assert sizes == [picture.shape[1::-1] for picture in pictures]
    if sizes[0] == sizes[1]:
        np.testing.assert_array_equal(*pictures)


def test_no_other_file_is_reduced(mixed):
    assert decoded_size((mixed / "large.jpg").read_bytes(), 100) == (160, 120)
    assert decoded_size((mixed / "large.jpg").read_bytes(), None) == (640, 480)
    for name in ("deep.png", "pages.tif", "labels.csv"):
        assert decoded_size((mixed / name).read_bytes(), 1) is None
    assert decoded_size(b"\xff\xd8\xff\xe0 no more", 1) is None


def test_each_goes_on_where_it_was(mixed, three, tmp_path):
    full, half, small = three
    build(mixed, tmp_path / "half.alone", half)
    build(mixed / "healthy", tmp_path / "full", full)
    together = {tmp_path / "half": half, tmp_path / "small": small}

    calls = []
    encode = type(small).encode_prepared

    class Stops(type(small)):
        def encode_prepared(self, batch):
            calls.append(len(batch))
            if len(calls) == 3:
                raise MemoryError
            return encode(self, batch)

    stops = Stops(name="small", weights="2" * 64, draft_size=100, grey16="max", batch_size=5)
    with pytest.raises(MemoryError):
        build_each(mixed, {**together, tmp_path / "small": stops}, commit_rows=2)
    held = {path: len(Store.open(path)) for path in together if Store.exists(path)}
    assert any(0 < count < 18 for count in held.values())
    reports = build_each(mixed, together)
    for path, report in zip(together, reports, strict=True):
        assert (report.rows, report.embedded) == (18, 18 - held.get(path, 0))
    assert rows_by_id(tmp_path / "half") == rows_by_id(tmp_path / "half.alone")
    again = build_each(mixed, together)
    assert [(report.embedded, report.unchanged) for report in again] == [(0, 18), (0, 18)]


def test_one_that_is_there_is_brought_up_to_date_beside_a_new_one(archive, three, make_picture, tmp_path):
    full, half, _ = three
    build(archive, tmp_path / "full", full)
    make_picture(90).save(archive / "new.png")
    first, second = build_each(archive, {tmp_path / "full": full, tmp_path / "half": half})
    assert (first.embedded, first.unchanged) == (1, 12)
    assert (second.embedded, second.unchanged) == (13, 0)


def test_nothing_is_written_where_one_of_them_cannot_be_meant(archive, three, make_encoder, tmp_path):
    full, half, small = three
    build(archive, tmp_path / "half", half)
    before = Store.open(tmp_path / "half").version
    new = tmp_path / "new"
    with pytest.raises(EncoderMismatchError):
        build_each(archive, {new: full, tmp_path / "half": small})
    with pytest.raises(UsageError, match="stores its vectors as 'float32'"):
        build_each(archive, {new: full, tmp_path / "half": half}, dtype="float16")
    with pytest.raises(UsageError, match="there is no column 'ward'"):
        build_each(archive, {new: full, tmp_path / "half": half}, group="ward")
    with pytest.raises(UsageError, match="does not score findings"):
        build_each(archive, {new: full, tmp_path / "other": half}, scores=["oedema"])
    with pytest.raises(UsageError, match="lie one in the other"):
        build_each(archive, {new: full, new / "inner": half})
    (tmp_path / "link").symlink_to(tmp_path / "half")
    with pytest.raises(UsageError, match="are one folder"):
        build_each(archive, {tmp_path / "half": half, tmp_path / "link": half})
    assert not new.exists()
    assert not (tmp_path / "other").exists()
    assert Store.open(tmp_path / "half").version == before


def test_an_archive_without_a_picture_that_can_be_read_leaves_no_index(three, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    together = {tmp_path / one.info.name: one for one in three}
    with pytest.raises(UsageError, match="no picture that can be read"):
        build_each(tmp_path / "bad", together)
    assert not any(path.exists() for path in together)


def test_indexes_are_open_in_the_order_that_was_asked(archive, three, tmp_path):
    full, half, _ = three
    found = Index.build_several(archive, {f"{tmp_path}/b": half, f"{tmp_path}/a": full})
    assert [(one.path.name, one.info()["encoder"], one.report.embedded) for one in found] == [
        ("b", "half", 12),
        ("a", "full", 12),
    ]
    with pytest.raises(UsageError, match="an option of one encoder"):
        Index.build_several(archive, {f"{tmp_path}/b": "lite", f"{tmp_path}/a": "lite,quality=fast"}, weights="x")
