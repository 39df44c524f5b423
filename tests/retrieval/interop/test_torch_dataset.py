"""An index's pictures for torch, through its own loader and in its worker processes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from fake_encoder import picture

from retr import Index, UsageError

torch = pytest.importorskip("torch")


@pytest.fixture
def index(archive, tmp_path, fake_encoder):
    return Index.build(archive, tmp_path / "x", encoder=fake_encoder, metadata=archive / "labels.csv")


def test_pictures_and_labels_in_the_order_of_the_rows(index, archive):
    from retr.interop import IndexDataset

    dataset = IndexDataset(index, "label", where="label = 'healthy'")
    assert len(dataset) == 6
    first, label = dataset[0]
    assert (label, first.dtype, first.shape[0]) == ("healthy", torch.float32, 3)
    kept = np.asarray(index.picture(dataset.ids[0]).image)
    assert np.array_equal((first * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), kept)
    assert [label for _, label in IndexDataset(index, transform=lambda image: image.size)] == IndexDataset(index).ids
    # what is added later does not move its rows
    picture(90).save(archive / "glaucoma/000.png")
    Index.build(archive, index.path, encoder=index.encoder)
    index.refresh()
    assert dataset[0][1] == "healthy" and len(dataset) == 6
    with pytest.raises(UsageError):
        IndexDataset(index, "lable")


def small(image):
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1)


def test_a_loader_and_another_process_read_the_same(index):
    from retr.interop import IndexDataset

    dataset = IndexDataset(index, "age", transform=small)
    alone = [(pixels, label) for pixels, label in dataset]
    # as a worker process gets it
    sent = pickle.loads(pickle.dumps(dataset))
    pictures, ages = zip(*torch.utils.data.DataLoader(sent, batch_size=5), strict=True)
    assert torch.equal(torch.cat(pictures), torch.stack([pixels for pixels, _ in alone]))
    assert torch.cat(ages).tolist() == [label for _, label in alone]
