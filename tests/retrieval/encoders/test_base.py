"""What is cut off long pictures before they are scaled."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retr.retrieval.encoders.base import limit_aspect
from retr.retrieval.encoders.torchvision_import import ensure_torchvision

ensure_torchvision()
from torchvision import transforms as T  # noqa: E402

CROPPED = T.Compose([T.Resize(24, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(24)])


def noise(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "size", [(401, 1), (1, 401), (512, 1), (37, 1009), (1009, 37), (3, 1000), (499, 2), (17, 1), (1, 16), (1, 1)]
)
def test_a_long_picture_is_what_its_authors_crop_makes_of_the_whole(size):
    image = noise(size)
    assert limit_aspect(image) is image
    np.testing.assert_array_equal(np.asarray(CROPPED(limit_aspect(image))), np.asarray(CROPPED(image)))


@pytest.mark.parametrize("size", [(513, 1), (514, 1), (1, 2001), (2002, 1), (1, 3999)])
def test_what_is_cut_lies_at_both_ends(size):
    image = noise(size)
    cut = limit_aspect(image)
    assert max(cut.size) in {512, 513}
    assert min(cut.size) == 1
    np.testing.assert_array_equal(np.asarray(CROPPED(cut)), np.asarray(CROPPED(image)))
