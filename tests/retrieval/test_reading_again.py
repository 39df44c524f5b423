"""A picture to ask with is read as the rows it is compared with were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retr import Index, Query
from retr.retrieval.ingest.build import build

nibabel = pytest.importorskip("nibabel")


@pytest.fixture
def volume(tmp_path):
    """A volume whose slices differ along every axis."""
    path = tmp_path / "archive" / "scan.nii"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (24, 26, 28)).astype(np.int16)
    path.write_bytes(nibabel.Nifti1Image(noise, np.eye(4)).to_bytes())
    return path


def similar(index, image, row):
    """How similar a picture is to a row: 1 where both were read in one way."""
    (hit,) = index.search(image=image, k=1, where=f"id = '{row}'", include_self=True)
    return hit.score


@pytest.mark.parametrize("axis", ["axial", "sagittal"])
def test_a_slice_of_a_volume(volume, tmp_path, fake_encoder, axis):
    build(volume.parent, tmp_path / "index", fake_encoder, axis=axis)
    index = Index.open(tmp_path / "index", encoder=fake_encoder)
    assert len(index) == {"axial": 28, "sagittal": 24}[axis]
    for number in (1, 9):
        assert similar(index, f"{volume}#{number}", f"scan.nii#{number}") == pytest.approx(1, abs=1e-6)
    # one picture of it all: the middle slice
    middle = len(index) // 2 + 1
    for whole in (str(volume), volume.read_bytes()):
        assert similar(index, whole, f"scan.nii#{middle}") == pytest.approx(1, abs=1e-6)
    several = index.search([Query.image(f"{volume}#1"), Query.image(f"{volume}#9")], k=1, include_self=True)
    assert [hits.ids for hits in several] == [["scan.nii#1"], ["scan.nii#9"]]


@pytest.mark.parametrize("exact", [False, True])
def test_a_jpeg_of_an_index_that_decodes_in_full(tmp_path, make_encoder, make_picture, exact):
    encoder = make_encoder(draft_size=30)
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (480, 480, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data, "JPEG", quality=60)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "x.jpg").write_bytes(data.getvalue())
    build(tmp_path / "archive", tmp_path / "index", encoder, exact_decode=exact)
    index = Index.open(tmp_path / "index", encoder=encoder)
    assert similar(index, data.getvalue(), "x.jpg") == pytest.approx(1, abs=1e-7)
    row = index.store.vectors()[0]
    other = encoder.encode_images([Image.open(data).convert("RGB")])[0]
    in_full = np.allclose(row, other / np.linalg.norm(other), atol=1e-6)
    assert in_full is exact
