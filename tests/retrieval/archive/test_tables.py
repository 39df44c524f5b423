"""Tables of pictures: which column the pictures are, and what becomes of the others."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retr.index.errors import UsageError
from retr.index.store import Store
from retr.retrieval.archive import locations
from retr.retrieval.archive.opening import open_source
from retr.retrieval.archive.sources import Item
from retr.retrieval.ingest.build import build


def png(shade):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(stream, "png")
    return stream.getvalue()


def hub(*images):
    return pa.array([{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)])


def save(file, columns):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return file


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_several_image_columns_are_asked_about_and_pixels_are_no_metadata(tmp_path, fake_encoder, suffix):
    columns = {
        "mask": hub(png(1)),
        "image": hub(png(2)),
        "views": pa.array([[{"bytes": png(3), "path": "x"}]]),
        "age": [3],
    }
    file = save(tmp_path / f"a.{suffix}", columns)
    with pytest.raises(UsageError, match="several image columns: 'mask', 'image'; choose one with --image-column"):
        build(file, tmp_path / "index", fake_encoder)
    build(file, tmp_path / "index", fake_encoder, image_column="image")
    store = Store.open(tmp_path / "index")
    assert store.schema.names[9:] == ["age"]
    # and again, and read back, without being told
    build(file, tmp_path / "index", fake_encoder)
    assert locations.open_item(store, "0.png") == png(2)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_that_cannot_be_meant_is_refused_by_name(tmp_path, fake_encoder, suffix):
    file = tmp_path / f"a.{suffix}"
    save(file, pa.Table.from_arrays([hub(png(1)), pa.array([1]), pa.array([2])], names=["image", "x", "x"]))
    with pytest.raises(UsageError, match="has the column 'x' twice"):
        build(file, tmp_path / "index", fake_encoder)
    save(file, {"image": hub(png(1)), "x": [1]})
    with pytest.raises(UsageError, match="has no column 'eye' of pictures"):
        build(file, tmp_path / "index", fake_encoder, image_column="eye")


def test_in_a_folder_the_question_is_a_record(tmp_path, fake_encoder):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.parquet", {"mask": hub(png(1)), "image": hub(png(2))})
    (tmp_path / "in" / "b.png").write_bytes(png(3))
    report = build(tmp_path / "in", tmp_path / "index", fake_encoder)
    assert report.skipped == {"several image columns": 1}
    assert build(tmp_path / "in", tmp_path / "index", fake_encoder, image_column="mask").rows == 2


def test_a_broken_first_picture_is_a_record(tmp_path, fake_encoder):
    file = save(
        tmp_path / "a.parquet", {"image": [b"no picture", png(1), None, png(2)], "hash": [b"1", b"2", b"3", b"4"]}
    )
    report = build(file, tmp_path / "index", fake_encoder)
    assert report.rows == 2
    assert report.skipped == {"not an image": 1, "empty": 1}
    assert Store.open(tmp_path / "index").table(["hash"])["hash"].to_pylist() == [b"2", b"4"]


def test_the_other_columns_keep_their_type(tmp_path):
    day, moment = dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
    file = save(
        tmp_path / "a.arrow",
        {
            "image": hub(png(1), png(2)),
            "exam": pa.array([day, None]),
            "seen": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "dose": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2)),
            "big": pa.array([2**63 + 1, 1], pa.uint64()),
            "small": pa.array([1, 2], pa.uint64()),
            "x": pa.array([float("nan"), 0.5]),
            "boxes": [[{"x": 1}], None],
            "took": pa.array([5, None], pa.duration("s")),
            "span": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
            "at": pa.array([dt.time(1, 2), None]),
            "label": pa.array(["e\u0301", None]).dictionary_encode(),
        },
    )
    first, second = (entry.columns for entry in open_source(file).entries() if isinstance(entry, Item))
    assert first == {
        "exam": day,
        "seen": moment,
        "dose": 1.1,
        "big": str(2**63 + 1),
        "small": 1,
        "x": None,
        "boxes": '[{"x": 1}]',
        "took": "5",
        "at": "01:02:00",
        "label": "\u00e9",
    }
    assert second == dict.fromkeys(first) | {"big": "1", "small": 2, "x": 0.5}
