"""Which regions an index has: boxes within the picture, and what they may cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retr.index.errors import UsageError
from retr.retrieval.regions.kind import quantised
from retr.retrieval.regions.layout import MOST, choose, require_division


@given(
    division=st.sampled_from(["grid", "multiscale"]),
    own=st.integers(2, 4096),
    dim=st.one_of(st.none(), st.integers(1, 1024)),
    size=st.sampled_from([2, 4]),
)
def test_regions_cost_at_most_four_times_the_rows(division, own, dim, size):
    layout = choose(division, own_dim=own, dim=dim, vector_bytes=size)
    searched = own if dim is None else dim
    row = searched * size + (0 if dim is None else 2 * own) + 144
    kept = len(layout.boxes) * own if layout.kept and dim is not None else 0
    assert len(layout.boxes) * searched + kept <= MOST * row
    assert len(layout.boxes) >= 4


@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_regions_lie_within_the_picture_and_cover_it(width, height):
    for division in ("grid", "multiscale"):
        layout = choose(division, own_dim=2232, dim=256, vector_bytes=4)
        seen = np.zeros((height, width), bool)
        crops = layout.crops(Image.new("RGB", (width, height)))
        for number, crop in enumerate(crops):
            left, top, across, down = layout.pixels(number, (width, height))
            assert crop.size == (across, down)
            assert min(across, down) >= 1
            assert left >= 0
            assert top >= 0
            assert left + across <= width
            assert top + down <= height
            seen[top : top + down, left : left + across] = True
        assert seen.all()


def test_divisions():
    assert len(choose("grid", own_dim=2232, dim=256, vector_bytes=4).boxes) == 9
    assert choose("grid", own_dim=2232, dim=256, vector_bytes=4).kept
    assert len(choose("multiscale", own_dim=2232, dim=256, vector_bytes=4).boxes) == 29
    assert len(choose("multiscale", own_dim=768, dim=None, vector_bytes=4).boxes) == 13
    for wrong, said in (("patches", "not its patches"), ("tiles", "grid, multiscale"), (3, "got: 3")):
        with pytest.raises(UsageError, match=said):
            require_division(wrong)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_quantised_vectors_keep_their_direction(numbers):
    vector = np.array(numbers)
    small = quantised(vector[None])[0]
    largest = np.abs(vector).max()
    assert np.abs(small * largest / 127 - vector).max() <= largest / 254 + 1e-9
