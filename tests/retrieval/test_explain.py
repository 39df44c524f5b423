"""The map of a hit: in the picture's shape, pointing at what made it one, and at nothing that all pictures share."""

import numpy as np
import pytest
from PIL import Image

from retr.retrieval import explain

RED, BLUE = np.eye(2, dtype=np.float32)


def embed(pictures):
    """How much red and how much blue a picture has."""
    return np.array(
        [[(np.asarray(one, np.float32)[..., channel] / 255).mean() for channel in (0, 2)] for one in pictures]
    )


@pytest.fixture
def picture():
    """Black, with a red square at the right and a blue one at the left; twice as wide as high."""
    pixels = np.zeros((120, 240, 3), np.uint8)
    pixels[20:40, 180:200, 0] = 255
    pixels[80:100, 40:60, 2] = 255
    return Image.fromarray(pixels)


def peak(scores):
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    return (column + 0.5) / scores.shape[1], (row + 0.5) / scores.shape[0]


@pytest.mark.parametrize(("query", "at"), [(RED, (190 / 240, 30 / 120)), (BLUE, (50 / 240, 90 / 120))])
def test_the_map_points_at_what_the_query_asks_for(picture, query, at):
    scores = explain.heat(embed, picture, query)
    assert scores.shape == (explain.CELLS // 2, explain.CELLS)
    assert np.abs(np.subtract(peak(scores), at)).max() < 0.1


def test_what_every_picture_of_the_archive_has_does_not_stand_out(picture):
    both = RED + BLUE
    scores = explain.heat(embed, picture, both, others=RED)
    assert np.abs(np.subtract(peak(scores), (50 / 240, 90 / 120))).max() < 0.1
    nothing = explain.heat(embed, picture, both, others=both)
    assert not nothing.any()


def test_the_map_of_a_transform_is_asked_of_the_transform(picture):
    turned = np.array([[0, 1], [1, 0]], np.float32)
    scores = explain.heat(lambda some: embed(some) @ turned, picture, RED)
    assert np.array_equal(scores, explain.heat(embed, picture, BLUE))


@pytest.mark.parametrize("similarity", [True, False])
def test_patches_add_up_to_the_score_and_lose_what_other_pictures_have(similarity):
    rng = np.random.default_rng(0)
    patches, other = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    vector = rng.normal(size=3).astype(np.float32)
    mean = patches.mean((0, 1))
    score = mean @ vector / (np.linalg.norm(mean) if similarity else 1)
    added = explain.contributions(patches, vector, cosine=similarity)
    np.testing.assert_allclose(added.mean(), score, rtol=1e-4)
    assert not explain.contributions(patches, vector, [patches], cosine=similarity).any()
    odd = other[:2]
    assert np.array_equal(explain.contributions(patches, vector, [odd], cosine=similarity), added)


def test_a_scale_that_ends_higher_keeps_the_picture_dark():
    picture = Image.new("RGB", (240, 120), (200, 200, 200))
    scores = np.ones((6, 12), np.float32)
    assert (np.asarray(explain.overlay(picture, scores, least=10)) < 100).all()
    assert np.array_equal(explain.overlay(picture, scores, least=0.5), explain.overlay(picture, scores))


@pytest.mark.parametrize("size", [(240, 120), (100, 1000), (3, 5), (1, 1), (2000, 40)])
def test_any_shape_is_kept(size):
    picture = Image.new("RGB", size, (200, 30, 30))
    scores = explain.heat(embed, picture, RED)
    assert np.isfinite(scores).all()
    shown = explain.overlay(picture, scores)
    expected = picture.copy()
    expected.thumbnail((explain.SIDE, explain.SIDE))
    assert shown.size == expected.size


def test_the_overlay_is_bright_inside_the_line_and_dark_elsewhere():
    picture = Image.new("RGB", (240, 120), (200, 200, 200))
    scores = np.full((6, 12), -1, np.float32)
    scores[1, 9] = 2
    shown = np.asarray(explain.overlay(picture, scores), np.int64)
    grey = (shown == shown[..., :1]).all(axis=-1)
    y, x = np.nonzero(~grey)
    assert 170 < x.mean() < 210
    assert 15 < y.mean() < 45
    assert shown[100, 30].tolist() == [70, 70, 70]
    assert shown[30, 190].min() > 180
    dark = np.asarray(explain.overlay(picture, -np.ones((6, 12), np.float32)))
    assert (dark == 70).all()


@pytest.mark.parametrize("way", ["places", "patches", "blurring"])
def test_the_first_way_that_is_at_hand_is_taken(way, tmp_path, monkeypatch):
    """Among noise, what one picture has of another is found where pictures are asked with."""
    import retr
    from retr.retrieval.query import Query
    from retr.sample import sample_encoder

    rng = np.random.default_rng(1)
    archive = tmp_path / "a"
    archive.mkdir()
    pixels = rng.integers(60, 90, (8, 64, 96, 3)).astype(np.uint8)
    pixels[0, 8:24, 8:24] = pixels[1, 40:56, 64:80] = rng.integers(0, 255, (16, 16, 3))
    for at, one in enumerate(pixels):
        Image.fromarray(one).save(archive / f"{at}.png")

    encoder = sample_encoder()

    def places(image):
        small = np.asarray(image, np.float32).reshape(16, 4, 24, 4, 3).transpose(0, 2, 1, 3, 4)
        return small.reshape(16, 24, 48)

    monkeypatch.setattr(encoder, "place_descriptors", places if way == "places" else lambda image: None)
    monkeypatch.setattr(encoder, "patch_embeddings", places if way == "patches" else lambda image: None)
    index = retr.Index.build(archive, tmp_path / "x.retr", encoder=encoder)
    vector = encoder.encode_images([Image.fromarray(pixels[0])])[0]
    maps = explain.HitMaps(index, Query.id("0.png"), vector)
    found = maps.of("1.png", Image.fromarray(pixels[1]))
    scores, least = found.scores, found.least
    assert found.way == way
    assert np.isfinite(scores).all()
    if way == "places":
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        assert 10 <= row < 14
        assert 16 <= column < 20
        assert scores.max() > least
    words = explain.HitMaps(index, Query.vector(vector), vector)
    assert words.of("1.png", Image.fromarray(pixels[1])).way == ("patches" if way == "patches" else "blurring")
