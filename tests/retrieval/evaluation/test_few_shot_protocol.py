"""A few shots in FLAIR's protocol: its formulas as they are written, who is asked, what words and shots are worth."""

from __future__ import annotations

import numpy as np
import pytest

from retr.index.vectors import unit
from retr.retrieval.evaluation.protocols.few_shot import (
    SHOTS,
    draw,
    lp_text,
    measure,
    recall_interval,
    tip_adapter,
)

WAYS = ("linear probe", "Tip-Adapter", "SS-Text", "LP+text")
CLASSES, EACH = 4, 40


@pytest.fixture(scope="module")
def separable():
    """Classes around means of their own, two pictures a patient; words that lie close together and half-way wrong."""
    rng = np.random.default_rng(3)
    means = unit(rng.normal(size=(CLASSES, 24)))
    labels = np.repeat(np.arange(CLASSES), EACH)
    vectors = unit(means[labels] + 0.12 * rng.normal(size=(len(labels), 24)))
    texts = unit(rng.normal(size=24) + 0.05 * means + 0.03 * rng.normal(size=(CLASSES, 24)))
    return labels, np.arange(len(labels)) // 2, vectors, texts


def recall(answers, labels):
    return np.mean([(answers[labels == code] == code).mean() for code in range(CLASSES)])


def test_words_and_shots_are_worth_more_than_words(separable):
    labels, groups, vectors, texts = separable
    found = measure(labels, groups, vectors, (vectors, texts, 100.0))
    assert list(found) == [f"few-shot, {way}, {shots} of each class" for way in WAYS for shots in (1, 2, 4, 8)]
    words = recall((vectors @ texts.T).argmax(axis=1), labels)
    assert words < 0.8
    for way in WAYS[1:]:
        estimate = found[f"few-shot, {way}, 8 of each class"]["ACA"]
        assert estimate["low"] > words, way
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["value"] >= found[f"few-shot, {way}, 1 of each class"]["ACA"]["value"] - 0.02
    assert found == measure(labels, groups, vectors, (vectors, texts, 100.0)), "nothing is left to chance"
    assert [*measure(labels, groups, vectors, None)] == [name for name in found if "probe" in name]


def test_tip_adapter_is_its_formula(separable):
    labels, _, vectors, texts = separable
    shots = np.array([0, 41, 42, 80, 120])
    found = tip_adapter(vectors[:7], vectors[shots], labels[shots], texts)
    for i in range(7):
        for code in range(CLASSES):
            near = sum(np.exp(-5 * (1 - vectors[i] @ vectors[k])) for k in shots if labels[k] == code)
            assert found[i, code] == pytest.approx(100 * vectors[i] @ texts[code] + near, rel=1e-5)


@pytest.mark.parametrize("each", [1, 4])
def test_lp_text_is_what_torch_fits(separable, each):
    torch = pytest.importorskip("torch")
    labels, _, vectors, texts = separable
    shots = np.concatenate([np.flatnonzero(labels == code)[:each] for code in range(CLASSES)])
    found = lp_text(vectors, vectors[shots], labels[shots], texts)

    x, t = (torch.from_numpy(one.astype(np.float64)) for one in (vectors[shots], texts))
    y, near = torch.from_numpy(labels[shots]), x @ t.T
    linear = torch.nn.Linear(24, CLASSES, dtype=torch.float64)
    linear.weight.data = torch.stack([x[y == code].sum(0) for code in range(CLASSES)])
    linear.bias.data.zero_()
    own = torch.stack([near[y == code, code].mean() for code in range(CLASSES)])
    weight = (250 * own.mean() * torch.ones(CLASSES, dtype=torch.float64)).requires_grad_()
    descent = torch.optim.SGD(linear.parameters(), np.log(each + 1), momentum=0.9)
    for step in range(300):
        descent.zero_grad()
        torch.nn.functional.cross_entropy(linear(x) + weight * near, y).backward()
        descent.step()
        if step % 10 == 9:
            weight.data -= len(y) / (4 * (near**2).sum(0).max()) * weight.grad
    asked = torch.from_numpy(vectors.astype(np.float64))
    with torch.no_grad():
        expected = (linear(asked) + weight * (asked @ t.T)).numpy()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shots", SHOTS)
def test_shots_are_of_as_many_patients_and_leave_half(seed, shots):
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 3, 60), rng.integers(0, 25, 60)
    at = draw(labels, groups, shots, seed)
    for code in range(3):
        whose = groups[at[labels[at] == code]]
        assert len(set(whose)) == len(whose)
        assert len(whose) == min(shots, max(1, len(np.unique(groups[labels == code])) // 2))


def test_no_patient_is_asked_about_by_its_own_shot(separable):
    """Patients look like themselves alone: shots of their own would name them all, others name none."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    labels = np.tile(np.repeat(np.arange(CLASSES), 4), 10)
    vectors = unit(rng.normal(size=(40, 300))[groups])
    found = measure(labels, groups, vectors, (vectors, unit(rng.normal(size=(CLASSES, 300))), None))
    assert all(one["ACA"]["value"] < 0.5 for one in found.values())


def test_the_interval_is_of_draws_and_patients():
    codes, groups = np.repeat([0, 1], 50), np.arange(100)
    rng = np.random.default_rng(1)
    alike = (rng.random((1, 100)) < 0.7).astype(float).repeat(5, axis=0)
    sure, torn = recall_interval(alike, codes, groups), recall_interval(alike, codes, groups // 25)
    assert sure.value == torn.value == pytest.approx(alike[0].mean())
    assert 0.1 < sure.high - sure.low < 0.3
    unlike = np.array([[0.0], [0.25], [0.5], [0.75], [1.0]]).repeat(100, axis=1)
    assert recall_interval(unlike, codes, groups).high - recall_interval(unlike, codes, groups).low > 0.4
    nothing = recall_interval(np.full((5, 100), np.nan), codes, groups)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert np.isnan(recall_interval(alike, codes, np.repeat([0, 1], 50)).low), "of two patients nothing can be said"
