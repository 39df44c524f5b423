"""Places compared one with one: what a hit shares with the query and not with others stands out."""

import numpy as np
import pytest

from retr.retrieval.correspondence import Correspondence


def archive(seed, count=6):
    rng = np.random.default_rng(seed)
    # all pictures have the same ten kinds of places, as photographs of one kind of thing do
    kinds = rng.normal(size=(10, 12)).astype(np.float32)
    drawn = [kinds[rng.integers(10, size=(40, 30))] + rng.normal(size=(40, 30, 12)) * 0.3 for _ in range(count)]
    return [one.astype(np.float32) for one in drawn], rng


@pytest.mark.parametrize("seed", range(3))
def test_a_shared_region_is_the_peak_and_other_pictures_make_it_so(seed):
    (query, hit, *others), rng = archive(seed)
    region = rng.normal(size=(5, 5, 12)).astype(np.float32) * 0.3 + hit.mean((0, 1))
    query[2:7, 3:8] = hit[30:35, 20:25] = region
    shared = Correspondence.of([query], {str(at): one for at, one in enumerate(others)})
    scores = shared.heat(hit)
    assert scores.shape == (40, 30)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    assert 30 <= row < 35
    assert 20 <= column < 25
    unrelated = {str(at): one for at, one in enumerate(others)}
    assert scores.max() > shared.usual_peak(unrelated)


def test_a_copy_of_the_query_among_the_others_changes_little():
    (query, hit, *others), rng = archive(5, 8)
    query[2:7, 3:8] = hit[30:35, 20:25] = rng.normal(size=(5, 5, 12))
    named = {str(at): one for at, one in enumerate(others)}
    with_copy = Correspondence.of([query], named | {"copy": query}).heat(hit)
    assert 30 <= np.unravel_index(int(with_copy.argmax()), with_copy.shape)[0] < 35


def test_scales_and_offsets_of_channels_do_not_matter():
    (query, hit, *others), rng = archive(7)
    scale, offset = rng.uniform(0.1, 50, 12).astype(np.float32), rng.normal(size=12).astype(np.float32)
    named = {str(at): one for at, one in enumerate(others)}
    moved = {name: one * scale + offset for name, one in named.items()}
    np.testing.assert_allclose(
        Correspondence.of([query * scale + offset], moved).heat(hit * scale + offset),
        Correspondence.of([query], named).heat(hit),
        atol=1e-3,
    )


def test_small_maps_keep_their_places_and_no_others_leave_the_cosine():
    (query, hit, other), _ = archive(9, 3)
    shared = Correspondence.of([query[:7, :7]], {"a": other[:7, :7]})
    cosine = shared.heat(hit[:7, :7], {"a"})
    assert cosine.shape == (7, 7)
    assert -1 <= cosine.min() <= cosine.max() <= 1 + 1e-6
    assert shared.usual_peak({}) == 0.0
