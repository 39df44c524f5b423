"""Data sets of Hugging Face: in memory, as Parquet and as saved, with the names of their classes."""

from __future__ import annotations

import pytest
from fake_encoder import FakeEncoder, picture

from retr import Index
from retr.index.errors import UsageError

datasets = pytest.importorskip("datasets", reason="needs the extra `dev`")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LABELS = ["healthy", "glaucoma", "healthy", "glaucoma", None, "healthy"]
FINDINGS = ["a", "a|c", None, "b", "c", "c"]


@pytest.fixture
def dataset():
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["healthy", "glaucoma"]),
            "findings": datasets.List(datasets.ClassLabel(names=["a", "b", "c"])),
            "age": datasets.Value("int32"),
        }
    )
    columns = {
        "image": [picture(number) for number in range(6)],
        "label": [0, 1, 0, 1, -1, 0],
        "findings": [[0], [0, 2], [], [1], [2], [2]],
        "age": list(range(6)),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def rows_of(index):
    return [tuple(row.values()) for row in index.store.table(["label", "findings", "age"]).to_pylist()]


EXPECTED = list(zip(LABELS, FINDINGS, range(6), strict=True))


def test_names_of_classes_are_kept_whichever_way_it_comes(dataset, tmp_path):
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    dataset.save_to_disk(str(tmp_path / "saved"))
    built = [
        Index.build(archive, tmp_path / f"i{number}", encoder=FakeEncoder())
        for number, archive in enumerate((dataset, tmp_path / "x.parquet", tmp_path / "saved"))
    ]
    assert [rows_of(index) for index in built] == [EXPECTED] * 3
    (first, second, third) = (index.store.vectors().tobytes() for index in built)
    assert first == second == third


def test_a_selection_is_what_it_is(dataset, tmp_path):
    chosen = dataset.shuffle(seed=1).filter(lambda row: row["age"] != 2).select(range(4))
    index = Index.build(chosen, tmp_path / "x", encoder=FakeEncoder())
    assert rows_of(index) == [EXPECTED[age] for age in chosen["age"]]
    again = Index.build(chosen, tmp_path / "x", encoder=FakeEncoder())
    assert (again.report.unchanged, again.report.embedded) == (4, 0)
    # another order is other pictures under the same numbers
    other = Index.build(chosen.select([3, 2, 1, 0]), tmp_path / "x", encoder=FakeEncoder())
    assert (other.report.changed, other.report.embedded) == (4, 0)
    assert rows_of(other) == [EXPECTED[age] for age in reversed(chosen["age"])]


def test_pictures_that_are_named_by_a_path_are_read(tmp_path):
    for number in range(4):
        file = tmp_path / "folder" / ("healthy", "glaucoma")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    files = sorted((tmp_path / "folder").rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["g", "h"])})
    columns = {"image": [{"bytes": None, "path": str(file)} for file in files], "label": [0, 0, 1, 1]}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    index = Index.build(dataset, tmp_path / "x", encoder=FakeEncoder())
    assert index.store.table(["label"])["label"].to_pylist() == ["g", "g", "h", "h"]
    assert str(tmp_path) not in str(index.store.table().to_pylist())


def test_what_is_no_archive_is_said(dataset, tmp_path):
    for given, said in (
        (datasets.DatasetDict(train=dataset), "several archives"),
        (dataset.to_iterable_dataset(), "a stream of rows"),
        (dataset.remove_columns("image"), "no column of pictures"),
    ):
        with pytest.raises(UsageError, match=said):
            Index.build(given, tmp_path / "x", encoder=FakeEncoder())
    assert not (tmp_path / "x").exists()


def test_an_export_comes_back_with_the_names(dataset, tmp_path, capfd):
    index = Index.build(dataset, tmp_path / "x", encoder=FakeEncoder())
    index.export(tmp_path / "out", form="datasets")
    assert capfd.readouterr() == ("", ""), "no bar of another library's"
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert found["label"][:] == LABELS
    coded = found.filter(lambda row: row["label"] is not None).class_encode_column("label")
    assert coded.features["label"].names == ["glaucoma", "healthy"]
