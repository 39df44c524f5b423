"""The head on synthetic classes: it must help on patients it never saw, and find nothing where there is nothing."""

import numpy as np
import pytest

from retr.index.errors import IndexCorruptError, UsageError
from retr.index.vectors import unit
from retr.retrieval.heads import head
from retr.retrieval.labels.folds import by_class


def patients(seed, *, n=120, classes=6, dim=40, signal=1.0):
    """Two rows a patient; the class moves a few directions that louder, meaningless ones drown."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), 2)
    codes = (groups % classes).astype(np.int64)
    centres = signal * np.random.default_rng(99).normal(size=(classes, dim)) * (np.arange(dim) < 8)
    loud = 4.0 * rng.normal(size=(2 * n, dim)) * (np.arange(dim) >= 30)
    own = rng.normal(size=(n, dim))[groups]
    return unit(centres[codes] + 0.7 * own + loud), codes, groups


def precision(vectors, codes, groups):
    scores = unit(vectors) @ unit(vectors).T
    scores[groups[:, None] == groups] = -np.inf
    return (codes[scores.argmax(axis=1)] == codes).mean()


def test_it_helps_on_patients_it_never_saw():
    fitted, _ = head.fit_head(*patients(0))
    vectors, codes, groups = patients(1)
    assert precision(fitted(vectors), codes, groups) > precision(vectors, codes, groups) + 0.2


def test_labels_without_meaning_give_nothing():
    vectors, codes, groups = patients(0, signal=0.0)
    fitted, tried = head.fit_head(vectors, codes, groups)
    new = patients(1, signal=0.0)
    assert precision(fitted(new[0]), *new[1:]) < 0.3
    assert max(tried.values()) < 0.55


def test_two_classes_still_rank():
    """One direction between two classes: what is left of the whole keeps the order inside a class."""
    vectors, codes, groups = patients(0, classes=2)
    fitted, _ = head.fit_head(vectors, codes, groups)
    scores = unit(fitted(vectors)) @ unit(fitted(vectors)).T
    assert len(np.unique(scores[0].round(6))) > 100


def test_the_file_gives_the_same_head_back():
    fitted, _ = head.fit_head(*patients(0, n=30))
    again = head.Head.from_bytes(fitted.to_bytes())
    assert again.sha256 == fitted.sha256
    assert again.about == fitted.about
    with pytest.raises(IndexCorruptError):
        head.Head.from_bytes(b"PK\x03\x04 something else")


def test_a_head_of_several_shrinkages_is_the_mean_of_their_similarities():
    vectors, codes, _ = patients(0, n=31)
    found = []
    for shrinkages in ([0.1], [0.6], [0.1, 0.6]):
        moved = head.head_of_shrinkages(vectors, codes, shrinkages)(vectors).astype(np.float64)
        found.append(moved @ moved.T / np.square(moved).sum(axis=1).mean())
    np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, atol=1e-4)


def test_folds_keep_patients_whole_and_cover_every_row():
    _, codes, groups = patients(0, n=31)
    seen = []
    for inside, outside in by_class(codes, groups, 4, 0):
        assert not set(groups[inside]) & set(groups[outside])
        seen += outside.tolist()
    assert sorted(seen) == list(range(62))


def test_classes_smaller_than_the_folds_are_dealt_all_the_same():
    codes = np.arange(12) % 6
    assert len(list(by_class(codes, np.arange(12), 4, 0))) == 4


@pytest.mark.parametrize("per", [1, 2])
def test_few_rows_and_equal_vectors_are_fitted_or_refused(per):
    """Folds may hold one class alone, or one vector."""
    rng = np.random.default_rng(0)
    for n in (4, 6, 8, 12):
        groups = np.arange(n) // per
        codes = groups % 2
        for vectors in (rng.normal(size=(n, 5)), np.eye(5)[codes]):
            found, tried = head.fit_head(vectors, codes, groups)
            assert np.isfinite(found(vectors)).all()
            assert np.isfinite(list(tried.values())).all()
        with pytest.raises(UsageError, match=f"the {n} rows .* have one and the same vector"):
            head.fit_head(np.ones((n, 5)), codes, groups)
