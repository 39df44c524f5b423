"""RetiZero's image-to-image retrieval, exactly as published, and the same question asked strictly.

Published (arXiv 2406.09317, and its script): one pool of images is query set and gallery; the
similarity of query q and gallery item j is ``s_j / (s_j + |e_q - e_j|)`` with ``s_j = |e_j| / 2``, so it is
asymmetric; the pool is clustered by UMAP and HDBSCAN, and similarities across clusters are halved; of the k
+ 1 best the first is dropped, taken to be the query itself; the score is the share of the k that have the
query's class. Strict: the encoder's own score, the query left out by identity, and every picture of its
patient with it. The published similarity uses the length of a vector, so unit vectors answer the strict question only.

The arithmetic takes arrays; `run` brings pictures and an encoder to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.retrieval.evaluation.protocols.clusters import check_clusters, clusters, versions
from retr.retrieval.evaluation.protocols.names import no_words
from retr.retrieval.evaluation.protocols.together import PatchMeans
from retr.retrieval.evaluation.protocols.united import UnitedSets
from retr.retrieval.evaluation.protocols.vectors import WORK
from retr.retrieval.evaluation.protocols.zero_shot import KS, require_some, zero_shot
from retr.retrieval.stats.intervals import mean_interval
from retr.retrieval.stats.metrics import any_hit_at, precision_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder
    from retr.retrieval.labels.label_set import LabelSet

# Top-5 of the abstract; the paper's other cells are not known here, and stay empty.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "retrieval_top5": {"EYE-15": 0.9500, "EYE-52": 0.8860},
    "zero_shot_top5": {"EYE-15": 0.8430, "EYE-52": 0.7561},
}
PUBLISHED_SOURCE = "arXiv 2406.09317, abstract"
PROTOCOL = (
    "retrieval: one pool is query set and gallery, similarity s/(s+d), scores across clusters halved, the first of "
    "k + 1 dropped, the share of k of the query's class; whether the paper's Top-5 is that share or any hit is open. "
    "Zero-shot: the true class among the 5 most probable prompts"
)
DATA = "EYE-15 and EYE-52 are hospital data and not public, nor are the names and prompts of their classes"
NO_LENGTH = "an index keeps unit vectors, the published similarity needs their length; run on --data without --index"
_PAPER_SET = 'write {"EYE-15": {"Normal": 500, "Glaucoma": 300}}, with every class of the set'
_BLOCK = 1024  # queries scored at once: bounds the memory at block x pool


def similarity(queries: NDArray[np.floating], gallery: NDArray[np.floating]) -> NDArray[np.float32]:
    """Score every gallery row for every query by the published formula.

    Parameters
    ----------
    queries
        float ``(n, d)``, not normalised: the formula uses the length of the vectors.
    gallery
        float ``(m, d)``.

    Returns
    -------
    NDArray
        float32 ``(n, m)`` between 0 and 1; 1, but for rounding, where the vectors are equal.

    Examples
    --------
    >>> similarity(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 8.0]])).round(3)[0].astype(str).tolist()
    ['1.0', '0.444']
    """
    with needed():
        import torch

    # The published script measures distances by torch.cdist in float32: a product of matrices, whose
    # rounding leaves a vector up to 0.1 % short of 1 from itself. "Drop the first" meets that rounding, so
    # it is kept.
    left, right = (torch.tensor(np.asarray(x, np.float32)) for x in (queries, gallery))
    scale = right.norm(dim=1) / 2
    score: NDArray[np.float32] = (scale / (scale + torch.cdist(left, right))).numpy()
    return np.nan_to_num(score, copy=False, nan=1.0)  # 0 / 0: two zero vectors, equal like any equal vectors


def halve_across_clusters(
    scores: NDArray[np.float32], query_clusters: NDArray[np.integer], gallery_clusters: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Halve the score ``(n, m)`` of every pair in different clusters; noise (-1) is a cluster too."""
    same = query_clusters[:, None] == gallery_clusters
    return scores * np.where(same, np.float32(1), np.float32(0.5))


def drop_first(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Take the k + 1 best and drop the first, assumed, not checked, to be the query: int64 ``(n, k)``.

    Of equal scores the later row comes first, as in the published script (an ascending sort, read backwards).
    """
    return np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, 1 : k + 1]


def excluding(scores: NDArray[np.float32], forbidden: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """Take the k best rows that are not ``forbidden`` ``(n, m)``: int64 ``(n, k)``, padded with -1."""
    allowed = np.where(forbidden, -np.inf, scores)
    best = np.argsort(-allowed, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(allowed, best, axis=1)), best, -1)


@dataclass(frozen=True)
class Answers:
    """Who was found for each query: ``hits`` bool ``(n, max(KS))``, in rank order."""

    hits: NDArray[np.bool_]

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean precision@k and any-hit@k, as the JSON report writes them."""
        return {
            "precision": {str(k): float(precision_at(self.hits, k).mean()) for k in KS},
            "any_hit": {str(k): float(any_hit_at(self.hits, k).mean()) for k in KS},
        }


@dataclass(frozen=True)
class Pool:
    """The images of one run.

    Attributes
    ----------
    embeddings
        float32 ``(n, d)``, not normalised but where ``unit``.
    labels
        int64 ``(n,)``, the class of each image.
    groups
        int64 ``(n,)``, the patient of each image (every image its own where no patient is known).
    cosine
        Whether the encoder's own score is cosine (else the dot product).
    unit
        Whether the vectors were made unit vectors, so that only the strict question can be asked.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    cosine: bool = True
    unit: bool = False

    def own_vectors(self) -> NDArray[np.float32]:
        """Vectors whose dot product is the encoder's own score."""
        if not self.cosine:
            return self.embeddings
        length = np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        return np.asarray(self.embeddings / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


#: What is changed at each step from the published protocol to the strict one, in words and as a JSON key.
STEPS = (
    ("published", "as published, without the cluster step"),
    ("self_by_identity", "the query is left out by identity instead of dropping the first"),
    ("group_excluded", "and every picture of the query's person is left out"),
    ("strict", "and the encoder's own score replaces the published similarity: the strict protocol"),
)


def retrieve(pool: Pool, labels_of_clusters: NDArray[np.int64] | None = None) -> dict[str, Answers]:
    """Ask every image of the pool for its neighbours, by each step of `STEPS` and by the clustered protocol.

    Parameters
    ----------
    pool
        The images.
    labels_of_clusters
        From `clusters`; without them there is no ``"clustered"`` answer.

    Returns
    -------
    dict
        An `Answers` for every key of `STEPS`, and ``"clustered"``; of unit vectors ``"strict"`` alone.
    """
    n, depth = len(pool.labels), max(KS)
    if n <= depth:
        raise UsageError(f"retrieval at {depth} needs more than {depth} images, got {n}")
    vectors = pool.own_vectors()
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        itself = rows[:, None] == np.arange(n)
        patient = itself | (pool.groups[rows, None] == pool.groups)
        best = {"strict": excluding(vectors[rows] @ vectors.T, patient, depth)}
        if not pool.unit:
            scores = similarity(pool.embeddings[rows], pool.embeddings)
            best["published"] = drop_first(scores, depth)
            best["self_by_identity"] = excluding(scores, itself, depth)
            best["group_excluded"] = excluding(scores, patient, depth)
        if labels_of_clusters is not None and not pool.unit:
            halved = halve_across_clusters(scores, labels_of_clusters[rows], labels_of_clusters)
            best["clustered"] = drop_first(halved, depth)
        for name, neighbours in best.items():
            same = pool.labels[neighbours] == pool.labels[rows, None]
            found.setdefault(name, []).append(same & (neighbours >= 0))
    return {name: Answers(np.concatenate(parts)) for name, parts in found.items()}


def across_sets(pool: Pool, sets: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Ask strictly, with every picture of the query's own set left out as well.

    Within a set pictures may be alike by camera and hospital; across sets only what they show is left. A query whose
    class no other set has cannot be answered and is not asked.

    Parameters
    ----------
    pool
        The images.
    sets
        int64 ``(n,)``, the set of each.

    Returns
    -------
    tuple
        ``hits`` bool ``(n, max(KS))``, in rank order, and ``asked`` bool ``(n,)``.
    """
    n, depth = len(pool.labels), max(KS)
    vectors, hits, asked = pool.own_vectors(), np.zeros((n, depth), bool), np.zeros(n, bool)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        own = (sets[rows, None] == sets) | (pool.groups[rows, None] == pool.groups)
        same = pool.labels[rows, None] == pool.labels
        best = excluding(vectors[rows] @ vectors.T, own, depth)
        hits[rows, : best.shape[1]] = np.take_along_axis(same, best, axis=1) & (best >= 0)
        asked[rows] = (same & ~own).any(axis=1)
    return hits, asked


def near_duplicates(pool: Pool, threshold: float = 0.999) -> dict[str, Any]:
    """Count pairs of images whose cosine is at least ``threshold``, and which of them should surprise."""
    length = np.linalg.norm(pool.embeddings, axis=1, keepdims=True)
    unit = pool.embeddings / np.maximum(length, np.finfo(np.float32).tiny)
    pairs = across = conflicting = 0
    for start in range(0, len(unit), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(unit)))
        first, second = np.nonzero(unit[rows] @ unit.T >= threshold)
        first = first + start
        first, second = first[first < second], second[first < second]
        pairs += len(first)
        across += int((pool.groups[first] != pool.groups[second]).sum())
        conflicting += int((pool.labels[first] != pool.labels[second]).sum())
    return {
        "cosine_at_least": threshold,
        "pairs": pairs,
        "of_different_groups": across,
        "of_different_classes": conflicting,
    }


# a folder and an encoder


def run(
    data: ClassFolder,
    encoder: BaseEncoder,
    *,
    text_encoder: BaseEncoder | None = None,
    labels: LabelSet | None = None,
    clustered: bool = True,
    paper_sets: Mapping[str, Mapping[str, int]] | None = None,
    vectors: Embedder = WORK,
    seed: int = 0,
) -> dict[str, Any]:
    """Run everything on one set.

    Parameters
    ----------
    data
        The images.
    encoder
        Who embeds them for retrieval.
    text_encoder, labels
        Who answers zero-shot, and the classes' prompts; by default ``encoder``, and no zero-shot without ``labels``.
    clustered
        Whether to run the cluster step (minutes on large sets).
    paper_sets
        Class names and counts of the paper's sets, from somebody who holds them.
    vectors
        Where the vectors come from. An index has the encoder's own; else patch tokens are averaged where it has them.
    seed
        Taken as by the other protocols: nothing here is drawn at random but the clusters, by their published seed.

    Returns
    -------
    dict
        JSON-ready; what was not run is null, with a reason beside it.

    Raises
    ------
    UsageError
        The label set knows none of the classes, the pool is too small, or of one patient; said before anything is
        embedded.
    """
    del seed
    naming = text_encoder or encoder
    unasked = no_words(naming.info, labels)
    if labels is not None and not unasked:
        require_some(data.counts(), labels)
    unit = vectors.built and encoder.info.similarity == "cosine"
    if len(np.unique(data.groups)) < 2:
        raise UsageError(
            "all pictures are of one patient: none can answer strictly", hint="give those of more patients"
        )
    if clustered and not unit:
        check_clusters(len(data.paths))
    retrieving, how = (encoder, "the encoder's own, of an index") if vectors.built else _published_embedding(encoder)
    embedded = vectors.embed(data, [retrieving] if unasked else [retrieving, naming])
    data = embedded.data
    if clustered and not unit:
        check_clusters(len(data.paths))
    pool = Pool(embedded.vectors[0], data.labels, data.groups, encoder.info.similarity == "cosine", unit)
    found = clusters(pool.embeddings) if clustered and not unit else None
    answers = retrieve(pool, found)
    is_the_papers, why = is_paper_set(data, paper_sets or {})
    return {
        "protocol": "retizero",
        "data": data.describe(),
        "encoder": {"name": encoder.info.name, "options": dict(encoder.info.options), "embedding": how},
        "published_protocol": _published(answers, found),
        "strict": answers["strict"].summary() | {"excluded_with_the_query": data.group or "only itself"},
        "intervals": {
            name: _intervals(answers[name], data.groups)
            for name in ("published", "clustered", "strict")
            if name in answers
        },
        "other_sets": _other_sets(data, pool),
        "steps": [{"step": name, "is": words, **answers[name].summary()} for name, words in STEPS if name in answers],
        "near_duplicates": near_duplicates(pool),
        "zero_shot": zero_shot(data, naming, labels, embedded.vectors[-1], unasked),
        "paper": {**PUBLISHED, "source": PUBLISHED_SOURCE, "protocol": PROTOCOL, "data": DATA},
        "data_is_the_papers": is_the_papers,
        "data_is_the_papers_because": why,
    }


def read_paper_sets(file: Path) -> dict[str, dict[str, int]]:
    """Read class counts of the paper's sets: ``{"EYE-15": {"Normal": 500, ...}}``.

    Raises
    ------
    UsageError
        It is no such file.
    """
    try:
        sets = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise UsageError(f"the paper's sets cannot be read from {str(file)!r}: {reason}", hint=_PAPER_SET) from None
    if not isinstance(sets, dict) or not all(isinstance(counts, dict) for counts in sets.values()):
        raise UsageError(f"{str(file)!r} does not hold class counts of sets", hint=_PAPER_SET)
    if not all(type(count) is int for counts in sets.values() for count in counts.values()):
        raise UsageError(f"{str(file)!r} holds a count that is no whole number", hint=_PAPER_SET)
    return sets


def is_paper_set(data: ClassFolder, paper_sets: Mapping[str, Mapping[str, int]]) -> tuple[bool, str]:
    """Return whether the set is one of the paper's, and why."""
    for name, counts in paper_sets.items():
        if dict(counts) == data.counts():
            return True, f"class names and counts are those given for {name}"
    if paper_sets:
        return False, f"class names and counts differ from those given for {', '.join(paper_sets)}"
    if len(data.classes) not in {15, 52}:
        return False, f"{len(data.classes)} classes, where EYE-15 has 15 and EYE-52 has 52"
    return False, (
        "the class names and counts of EYE-15 and EYE-52 are not published: who holds a set gives them with --paper-set"
    )


def _published(answers: Mapping[str, Answers], found: NDArray[np.int64] | None) -> dict[str, Any]:
    """State the published protocol with and without clusters; empty with the reason where it cannot be run."""
    if "published" not in answers:
        return {"precision": {}, "any_hit": {}, "clustered": None, "reason": NO_LENGTH}
    published: dict[str, Any] = {**answers["published"].summary(), "clustered": None}
    if found is not None:
        names, sizes = np.unique(found, return_counts=True)
        published["clustered"] = answers["clustered"].summary() | {
            "cluster_sizes": dict(zip(map(str, names.tolist()), sizes.tolist(), strict=True)),
            "versions": versions(),
        }
    return published


def _published_embedding(encoder: BaseEncoder) -> tuple[BaseEncoder, str]:
    """Choose who embeds by the mean of patch tokens, where the encoder has them and does not do so already."""
    if encoder.info.options.get("feature") == "retrieval":
        return encoder, "mean of patch tokens, as published"
    from PIL import Image

    # any picture tells what the encoder's own vector is
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC)
    patches = encoder.patch_embeddings(picture)
    if patches is None:
        return encoder, "the encoder's own; it gives no patch tokens"
    own = encoder.encode_prepared(encoder.prepare(picture)[None])[0]
    means = patches.mean((0, 1))
    if means.shape == own.shape and np.allclose(means, own, atol=1e-3 * float(np.abs(own).max())):
        return encoder, "the encoder's own, which is the mean of its patches"
    return PatchMeans(encoder, patches.shape[-1]), "mean of patch tokens"


def _other_sets(data: ClassFolder, pool: Pool) -> dict[str, Any]:
    """State the strict question with the query's own set left out; empty with the reason for one set."""
    sets = data.sets() if isinstance(data, UnitedSets) else np.zeros(len(data.labels), np.int64)
    if len(np.unique(sets)) < 2:
        return {"precision": {}, "any_hit": {}, "reason": "there is one set"}
    hits, asked = across_sets(pool, sets)
    if not asked.any():
        return {"precision": {}, "any_hit": {}, "reason": "no class is in two sets"}
    found = Answers(hits[asked])
    shared = np.unique(pool.labels[asked])
    return {
        **found.summary(),
        "intervals": _intervals(found, pool.groups[asked]),
        "images": int(asked.sum()),
        "of_images": len(asked),
        "classes": [data.classes[at] for at in shared],
    }


def _intervals(answers: Answers, groups: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    return {
        name: {str(k): mean_interval(measure(answers.hits, k), groups).to_json() for k in KS}
        for name, measure in (("precision", precision_at), ("any_hit", any_hit_at))
    }
