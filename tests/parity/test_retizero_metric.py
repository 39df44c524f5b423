"""The published retrieval score against what the published script gave on a synthetic matrix."""

import json
from pathlib import Path

import numpy as np
import pytest

from retr.retrieval.evaluation.protocols import retizero

FOLDER = Path(__file__).parent / "retizero_metric"


def array(name):
    return np.load(FOLDER / f"{name}.npy")


@pytest.fixture(scope="module")
def expected():
    return json.loads((FOLDER / "metric.json").read_text())


@pytest.fixture(scope="module")
def pool():
    labels = array("labels")
    return retizero.Pool(array("embeddings"), labels, np.arange(len(labels)))


def assert_scores(answers, wanted, atol):
    for name, values in answers.summary().items():
        for k, value in values.items():
            assert value == pytest.approx(wanted[name][k], abs=atol), (name, k)


def test_similarity_and_weighting(pool):
    scores = retizero.similarity(pool.embeddings, pool.embeddings)
    given = array("clusters_given")
    off_diagonal = ~np.eye(20, dtype=bool)
    corner = array("similarity_corner")
    np.testing.assert_allclose(scores[:20, :20][off_diagonal], corner[off_diagonal], atol=1e-6)
    # the distance of a vector to itself is pure float32 rounding, which may differ between processors
    np.testing.assert_allclose(np.diag(scores[:20, :20]), np.diag(corner), atol=2e-3)
    halved = retizero.halve_across_clusters(scores, given, given)
    weighted = array("weighted_corner")
    np.testing.assert_allclose(halved[:20, :20][off_diagonal], weighted[off_diagonal], atol=1e-6)
    np.testing.assert_array_equal(retizero.drop_first(scores, 5), array("top5_unweighted"))
    np.testing.assert_array_equal(retizero.drop_first(halved, 5), array("top5_weighted"))


def test_scores_without_and_with_given_clusters(pool, expected):
    answers = retizero.retrieve(pool, array("clusters_given"))
    assert_scores(answers["published"], expected["unweighted"], 0.001)
    assert_scores(answers["clustered"], expected["weighted_given_clusters"], 0.001)
    assert_scores(answers["strict"], expected["cosine"], 0.001)


def test_scores_with_the_recorded_clusters(pool, expected):
    answers = retizero.retrieve(pool, array("clusters_umap_hdbscan"))
    assert_scores(answers["clustered"], expected["weighted_umap_hdbscan"], 0.001)


@pytest.mark.slow
def test_umap_and_hdbscan_at_the_recorded_versions(pool, expected):
    pytest.importorskip("umap")
    pytest.importorskip("hdbscan")
    recorded, installed = expected["umap_hdbscan"]["versions"], retizero.versions()
    different = {name for name, version in installed.items() if recorded[name] != version}
    if different:
        pytest.skip(f"recorded with other versions of {', '.join(sorted(different))}")
    answers = retizero.retrieve(pool, retizero.clusters(pool.embeddings))
    assert_scores(answers["clustered"], expected["weighted_umap_hdbscan"], 0.02)
