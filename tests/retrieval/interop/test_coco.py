"""COCO's annotations become labels, and folders of classes are labels already."""

from __future__ import annotations

import json

import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.index.errors import UsageError
from retr.interop import read_coco

FOUND = {
    "images": [{"id": 3, "file_name": "a/1.png"}, {"id": 4, "file_name": "a/2.png"}, {"id": 9, "file_name": "b/3.png"}],
    "categories": [{"id": 1, "name": "nodule"}, {"id": 2, "name": "effusion"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 2, "bbox": [0, 0, 4, 4]},
        {"id": 2, "image_id": 3, "category_id": 1},
        {"id": 3, "image_id": 3, "category_id": 1},
        {"id": 4, "image_id": 9, "category_id": 2},
    ],
}


def test_annotations_are_joined_as_labels(tmp_path):
    for image in FOUND["images"]:
        file = tmp_path / "pictures" / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(image["id"]).save(file)
    (tmp_path / "instances.json").write_text(json.dumps(FOUND))
    labels = read_coco(tmp_path / "instances.json", column="finding")
    index = Index.build(tmp_path / "pictures", tmp_path / "x", encoder=FakeEncoder(), metadata=labels)
    rows = index.store.table(["id", "finding", "folder"]).to_pylist()
    assert {row["id"]: row["finding"] for row in rows} == {
        "a/1.png": "nodule|effusion",
        "a/2.png": None,
        "b/3.png": "effusion",
    }
    # an ImageFolder says the class by the folder
    assert [row["folder"] for row in rows] == ["a", "a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        {"images": None},
        {"categories": [{"id": 1}]},
        {"annotations": [{"image_id": 77, "category_id": 1}]},
        {"annotations": [{"image_id": 3, "category_id": 77}]},
        {"annotations": [{"image_id": [], "category_id": 1}]},
        {"images": [{"id": {}, "file_name": "a"}]},
    ],
)
def test_what_is_not_cocos_is_refused(tmp_path, change):
    (tmp_path / "x.json").write_text(json.dumps({**FOUND, **change}))
    with pytest.raises(UsageError):
        read_coco(tmp_path / "x.json")


def test_what_is_no_file_of_json_is_refused(tmp_path):
    for data in (b"", b"[", b"[]", b"\xff", b"[" * 10_000, b'{"images": [], "categories": [], "annotations": 5}'):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(UsageError):
            read_coco(tmp_path / "x.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_coco(tmp_path / "missing.json")
