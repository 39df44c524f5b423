"""A head mixed with the space that was searched before: what is mixed, and which share is chosen."""

import numpy as np
import pytest
from fake_encoder import FakeEncoder

from retr.index.errors import UsageError
from retr.index.vectors import unit
from retr.retrieval.heads.head import Head, fit_head
from retr.retrieval.heads.mixing import SHARES, Mixing, mixed, space_of
from retr.retrieval.index import Index

CLASSES, DIM = 4, 40


def rows(n=160, seed=0, spread=0.35):
    """Four classes along few directions; two of them hardly differ but in one."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, DIM)) * 0.15
    return unit(np.eye(DIM)[0] + centres[codes] + spread * rng.normal(size=(n, DIM))), codes, np.arange(n) // 2 * 2


def similarities(head, vectors):
    moved = unit(head(vectors)).astype(np.float64)
    return moved @ moved.T


@pytest.fixture
def fitted():
    vectors, codes, groups = rows()
    return fit_head(vectors, codes, groups)[0], vectors, codes, groups


def test_nothing_of_the_space_is_the_head_and_all_of_it_the_space(fitted):
    head, vectors, _, _ = fitted
    space = Head(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), {})
    assert np.array_equal(mixed(head, space, vectors, 0.0)(vectors), head(vectors))
    np.testing.assert_allclose(similarities(mixed(head, space, vectors, 1.0), vectors), vectors @ vectors.T, atol=1e-6)


@pytest.mark.parametrize("dims", [8, DIM])
def test_a_mix_is_the_sum_of_both_similarities(fitted, monkeypatch, dims):
    monkeypatch.setattr("retr.retrieval.heads.mixing.MOST_DIMS", 2 * DIM)
    head, vectors, _, _ = fitted
    rng = np.random.default_rng(1)
    space = Head(rng.normal(size=DIM).astype(np.float32), rng.normal(size=(DIM, dims)).astype(np.float32), {})
    parts = []
    for one in (head, space):
        moved = (vectors - space.mean) @ one.weights.astype(np.float64)
        parts.append(moved @ moved.T / np.square(moved).sum(axis=1).mean())
    moved = mixed(head, space, vectors, 0.75)(vectors).astype(np.float64)
    np.testing.assert_allclose(moved @ moved.T, 0.25 * parts[0] + 0.75 * parts[1], atol=1e-4)


def test_a_mix_has_no_more_dimensions_than_a_head_may(fitted, monkeypatch):
    monkeypatch.setattr("retr.retrieval.heads.mixing.MOST_DIMS", 16)
    head, vectors, _, _ = fitted
    space = Head(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), {})
    assert mixed(head, space, vectors, 0.5).dim == 16


def test_a_head_that_finds_fewer_gets_a_larger_share_of_the_space():
    vectors, codes, groups = rows()
    everyone = np.ones(len(codes), bool)
    # the space knows the classes; the head was fitted on others
    space = Head(np.zeros(DIM, np.float32), np.random.default_rng(99).normal(size=(CLASSES, DIM)).T.astype("f4"), {})
    useless = np.random.default_rng(5).permutation(codes)
    mixing = Mixing(space, vectors, everyone)
    bad = fit_head(vectors, useless, groups)[0]
    assert mixing.chosen(bad, everyone, useless, groups, seed=0) == 1
    assert Mixing(None, vectors, everyone).chosen(bad, everyone, codes, groups, seed=0) == 0
    # a space of noise is no loss
    noise = Head(np.zeros(DIM, np.float32), np.eye(DIM, 2, -20, dtype=np.float32), {})
    good = fit_head(vectors, codes, groups)[0]
    assert Mixing(noise, vectors, everyone).chosen(good, everyone, codes, groups, seed=0) < 0.5


def test_a_share_that_loses_more_than_noise_is_not_chosen_however_precise(monkeypatch):
    """Each share's hits are given: the less of the space, the more first ones are right, and the more any-hits lost."""
    vectors, codes, groups = rows()
    everyone = np.ones(len(codes), bool)
    space = Head(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), {})
    good = fit_head(vectors, codes, groups)[0]
    # how many of the 40 rows of a fold are lost; one alone, in the first fold, may be chance
    lost = {0.0: (10, 10), 0.25: (5, 5), 0.5: (1, 0), 0.75: (0, 0), 0.9: (0, 0), 1.0: (0, 0)}
    asked = iter([(share, min(fold, 1)) for fold in range(4) for share in sorted(lost)])

    def given(moved, codes, groups, asks):
        share, fold = next(asked)
        any_hit = np.arange(len(asks)) >= lost[share][fold]
        return iter([np.stack([np.full(len(asks), 0.9 - share / 2), any_hit])] * 2)

    monkeypatch.setattr("retr.retrieval.heads.mixing._first_and_any", given)
    assert Mixing(space, vectors, everyone).chosen(good, everyone, codes, groups, seed=0) == 0.5


@pytest.mark.parametrize("transform", ["none", "whitening"])
def test_an_adapted_index_says_what_is_gained_and_lost(make_archive, tmp_path, transform):
    archive = make_archive(count=48)
    labels = {"metadata": archive / "labels.csv", "group": "patient"}
    index = Index.build(archive, tmp_path / "x.retr", encoder=FakeEncoder(), transform=transform, **labels)
    for seed in range(2):
        done = index.adapt("label", tmp_path / f"{seed}.retr", seed=seed)
        assert done.facts["mix"] in SHARES
        noted = done.store.manifest.extra["adapted"]
        assert noted["mix"] == done.facts["mix"]
        for name, one in done.difference.items():
            assert one.value == pytest.approx(done.after[name].value - done.before[name].value, abs=1e-9)
            assert one.low <= one.value <= one.high
            assert noted["held_out"]["difference"][name] == one.to_json()
        keeps = done.facts["mix_that_keeps_any_hit"]
        assert done.facts["mix"] <= keeps
        kept = index.adapt("label", tmp_path / f"kept{seed}.retr", seed=seed, mix=keeps)
        for name, one in kept.difference.items():
            assert one.value >= 0 or not name.startswith("any_hit")
    whole = index.adapt("label", tmp_path / "whole.retr", mix=1)
    for name, one in whole.before.items():
        assert whole.after[name].value == pytest.approx(one.value, abs=1e-9)
    ids = index.search(id="healthy/000.png", k=5).ids
    assert Index(whole.store).search(id="healthy/000.png", k=5).ids == ids
    assert space_of(index.store).dim == index.store.manifest.encoder.dim
    with pytest.raises(UsageError, match="lies between 0 and 1, got: 7"):
        index.adapt("label", tmp_path / "no.retr", mix=7)
