"""``retr adapt`` on the photographs that ship: an index of its own that every other command can use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retr.index.store import Store
from retr.retrieval.heads.adapted import head_of
from retr.retrieval.index import Index
from retr.retrieval.transforms.transform import own_vectors

IMAGE = Path(__file__).parents[2] / "examples/hrf45/glaucoma/05_g.jpg"


@pytest.fixture(scope="module")
def adapted_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapted")


@pytest.fixture
def adapted(retr, hrf_index, adapted_folder):
    """One adapted index for the whole module, from the vectors the index holds."""
    path = adapted_folder / "hrf.retr"
    if not path.exists():
        done = retr("adapt", "--label", "label", "--features", "stored", "--out", path, "--json", "--index", hrf_index)
        assert done.code == 0, done.err
        assert done.json[0]["fitted_rows"] + done.json[0]["held_out_rows"] == 45
    return path


def test_it_is_an_index_that_says_it_is_adapted(retr, hrf_index, adapted):
    info = retr("index", "info", "--json", "--index", adapted).json[0]
    assert (info["rows"], info["adapted_to"]) == (45, "label")
    assert retr("index", "info", "--json", "--index", hrf_index).json[0]["adapted_to"] is None
    assert retr("index", "check", "--index", adapted).code == 0
    facts = Store.open(adapted).manifest.extra["adapted"]
    assert facts["split_by"] == "picture"
    assert 0 <= facts["held_out"]["after"]["precision@1"]["value"] <= 1


def test_its_vectors_are_the_encoders_own_through_the_head(hrf_index, adapted):
    old, new = Store.open(hrf_index), Store.open(adapted)
    ids = old.table(["id"])["id"].to_pylist()
    moved = head_of(new)(own_vectors(old, old.rows_of(ids)))
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(new.vectors(new.rows_of(ids)), moved, atol=1e-5)


def test_a_new_picture_passes_through_the_head(retr, adapted):
    by_image = retr("query", "--image", IMAGE, "--json", "--index", adapted).json[0]["hits"]
    by_row = retr("query", "--id", "glaucoma/05_g.jpg", "--json", "--index", adapted).json[0]["hits"]
    assert [hit["id"] for hit in by_image] == [hit["id"] for hit in by_row]
    assert by_image[0]["score"] == pytest.approx(by_row[0]["score"], abs=1e-4)


def test_held_out_rows_are_measured_as_it_said(retr, adapted):
    found = retr(
        "eval",
        "retrieval",
        "--label",
        "label",
        "--queries",
        "adapt = 'held out'",
        "-k",
        "1,5",
        "--json",
        "--index",
        adapted,
    ).json[0]
    noted = Store.open(adapted).manifest.extra["adapted"]
    assert found["queries"] == noted["held_out_rows"]
    assert found["metrics"]["precision@1"]["value"] == pytest.approx(noted["held_out"]["after"]["precision@1"]["value"])


def test_a_build_brings_it_up_to_date(retr, adapted):
    done = retr("index", "build", IMAGE.parents[1], "--index", adapted)
    assert done.code == 0, done.err
    assert "45 rows" in done.out + done.err


@pytest.mark.slow
def test_better_features_are_embedded_again(retr, tmp_path):
    hrf = IMAGE.parents[1]
    Index.build(hrf, tmp_path / "x.retr", metadata=hrf / "labels.csv", quality="fast", transform="none")
    done = retr("adapt", "--label", "label", "--out", tmp_path / "a.retr", "--json", "--index", tmp_path / "x.retr")
    assert "feature=layers" in done.err
    assert retr("index", "info", "--json", "--index", tmp_path / "a.retr").json[0]["options"] == {"feature": "layers"}


def test_chosen_rows_are_fitted_on(retr, hrf_index, tmp_path):
    done = retr(
        "adapt",
        "--label",
        "label",
        "--fit",
        "path like '%0%'",
        "--features",
        "stored",
        "--json",
        "--out",
        tmp_path / "a.retr",
        "--index",
        hrf_index,
    )
    assert done.json[0]["fitted_rows"] == sum("0" in path.name for path in IMAGE.parents[1].glob("*/*.jpg"))
    assert done.json[0]["fitted_rows"] + done.json[0]["held_out_rows"] == 45


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--label", "label", "--group", "patient"), "the same patient cannot be excluded"),
        (("--label", "label", "--features", "best"), "got: 'best'"),
        (("--label", "label", "--fit", "path like '%.jpg'"), "nothing is left to measure"),
        (("--label", "label", "--fit", "label = 'healthy'"), "fewer than two classes"),
        (("--label", "label", "--group", "folder", "--fit", "path like '%0%'"), "on both sides"),
    ],
)
def test_mistakes_leave_nothing_behind(retr, hrf_index, tmp_path, arguments, words):
    out = tmp_path / "a.retr"
    assert words in retr("adapt", *arguments, "--out", out, "--index", hrf_index).err
    assert not out.exists()


def test_an_adapted_index_is_not_adapted_twice(retr, adapted, tmp_path):
    done = retr("adapt", "--label", "label", "--out", tmp_path / "b.retr", "--index", adapted)
    assert "adapted one already" in done.err
