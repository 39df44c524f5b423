"""Convert scores to probabilities, and decide when to abstain; arrays only.

Three evidences become probabilities, each by a scaling that is fitted on held-out rows: logits (zero-shot, probe) by
a temperature; a vote of neighbours by the bandwidth of its weights and a prior. What makes sets of
probabilities is `retr.retrieval.stats.conformal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from numpy.typing import NDArray


# From here on one confidence is like another.
SURE = 0.97


class Scaling(Protocol):
    """Turns evidence into probabilities."""

    def probabilities(self, evidence: Any) -> NDArray[np.float64]:
        """Return float64 ``(n, c)``, rows summing to 1."""


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64.

    >>> softmax(np.array([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    wide = np.asarray(logits, dtype=np.float64)
    raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return total


def class_log_odds(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the log-odds of every class under the softmax over the last axis: they order as the probabilities do.

    Where probabilities round to 1, and are ties, the log-odds still tell which is the higher.

    >>> class_log_odds(np.array([[0.0, 0.0], [800.0, 0.0], [900.0, 0.0]])).tolist()
    [[0.0, 0.0], [800.0, -800.0], [900.0, -900.0]]
    """
    with needed():
        from scipy.special import logsumexp

    wide = np.asarray(logits, dtype=np.float64)
    if wide.shape[-1] < 2:
        return wide
    first = np.eye(wide.shape[-1], dtype=bool)[wide.argmax(axis=-1)]
    peak = wide.max(axis=-1, keepdims=True)
    # computed in one way for all that are highest: rounding must not part classes that tie
    best = wide == peak
    raised = np.exp(wide - peak)
    # all but the best leave at least its own 1: only without the best must the sum be taken anew
    others = peak + np.log(np.where(best, 1.0, raised.sum(axis=-1, keepdims=True) - raised))
    without_best = logsumexp(np.where(first, -np.inf, wide), axis=-1, keepdims=True)
    return np.asarray(wide - np.where(best, without_best, others), np.float64)


def log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Mean negative log probability of the truth."""
    own = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


@dataclass(frozen=True)
class Temperature:
    """Divides logits before the softmax, then corrects the confidence of the best class; the order stays.

    The temperature serves all classes alike; ``slope`` and ``offset`` (a logistic regression on the confidence's
    log-odds) make the best class right as often as it says. 1, 1 and 0 leave the softmax as it is.
    """

    temperature: float = 1.0
    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def fit(cls, logits: NDArray[Any], truth: NDArray[np.int64]) -> Self:
        """Find the temperature under which the truth is most probable, then the correction.

        Parameters
        ----------
        logits
            float ``(n, c)``.
        truth
            int64 ``(n,)``.
        """
        with needed():
            from scipy.optimize import minimize, minimize_scalar

        spread = float(np.std(logits)) or 1.0
        # Searched around the logits' own spread: an encoder without a logit scale gives cosines.
        found = minimize_scalar(
            lambda log_t: log_loss(softmax(logits / np.exp(log_t)), truth),
            bounds=(np.log(spread) - 6, np.log(spread) + 6),
            method="bounded",
        )
        temperature = float(np.exp(found.x))
        scaled = softmax(logits / temperature)
        odds, sign = _log_odds(scaled.max(axis=1)), np.where(scaled.argmax(axis=1) == truth, 1.0, -1.0)

        def loss(x: NDArray[np.float64]) -> float:
            wrong = np.logaddexp(0, -sign * (x[0] * odds + x[1])).mean()
            # Few rows say little about a correction: it is held near none at all.
            return float(wrong + ((x[0] - 1) ** 2 + x[1] ** 2) / len(truth))

        slope, offset = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
        return cls(temperature, float(slope), float(offset))

    def probabilities(self, evidence: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 ``(n, c)``, rows summing to 1."""
        with needed():
            from scipy.special import expit

        logits = np.asarray(evidence, np.float64) / self.temperature
        scaled = softmax(logits)
        if (self.slope, self.offset) == (1.0, 0.0) or scaled.shape[1] < 2:
            return scaled
        best = np.eye(scaled.shape[1], dtype=bool)[scaled.argmax(axis=1)]
        # from the logits: where the best is all but certain, the rest of its softmax is rounded away
        rest = softmax(np.where(best, -np.inf, logits))
        second = rest.max(axis=1)
        corrected = expit(self.slope * _log_odds(scaled.max(axis=1)) + self.offset)
        # Never below the second class, which grows by what the first gives up.
        corrected = np.maximum(corrected, second / (1 + second) * (1 + 1e-9))[:, None]
        shares: NDArray[np.float64] = np.where(best, corrected, rest * (1 - corrected))
        return shares


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds, flat beyond `SURE`: a few that are wrong at 99.99 % must not bend the correction of all."""
    clipped = np.clip(share, 1 - SURE, SURE)
    odds: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return odds


@dataclass(frozen=True)
class Votes:
    """The labelled neighbours of some queries, nearest first.

    ``scores`` float ``(n, k)``, higher is nearer; ``codes`` int64 ``(n, k)``, -1 where there is no neighbour;
    ``prior`` float64 ``(c,)``, the share of each class.
    """

    scores: NDArray[Any]
    codes: NDArray[np.int64]
    prior: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Votes:
        return Votes(self.scores[rows], self.codes[rows], self.prior)

    def first(self, k: int) -> Votes:
        """Return the ``k`` nearest only."""
        return Votes(self.scores[:, :k], self.codes[:, :k], self.prior)


@dataclass(frozen=True)
class VoteScale:
    """Weighs neighbours by ``exp((score - best score) / bandwidth)`` and adds the prior as so many votes.

    ``bandwidth=None`` takes each query's own spread, from its best to its last neighbour.
    """

    bandwidth: float | None = None
    prior_weight: float = 0.0

    @classmethod
    def fit(cls, votes: Votes, truth: NDArray[np.int64]) -> Self:
        """Find the bandwidth and prior under which the truth is most probable; see `Votes`."""
        with needed():
            from scipy.optimize import minimize

        spread = float(np.mean(_spread(votes))) or 1.0

        def loss(x: NDArray[np.float64]) -> float:
            scale = cls(spread * float(np.exp(x[0])), float(np.exp(x[1])))
            # The small penalty keeps a flat valley (one neighbour, many classes) from running away.
            return log_loss(scale.probabilities(votes), truth) + 1e-3 * float(np.square(x).sum())

        # Nelder-Mead's own first steps are far too small around zero.
        start = np.array([[0.0, 0.0], [0.7, 0.0], [0.0, 1.5]])
        options = {"initial_simplex": start, "maxiter": 200, "xatol": 1e-2, "fatol": 1e-4}
        found = minimize(loss, start[0], method="Nelder-Mead", options=options)
        return cls(spread * float(np.exp(found.x[0])), float(np.exp(found.x[1])))

    def probabilities(self, evidence: Votes) -> NDArray[np.float64]:
        """Return each class's share of the votes: float64 ``(n, c)``; the prior where nobody votes."""
        scores, codes, prior = evidence.scores, evidence.codes, evidence.prior
        found = codes >= 0
        width = _spread(evidence)[:, None] if self.bandwidth is None else self.bandwidth
        best = np.where(found[:, :1], scores[:, :1], 0.0)
        gaps = np.where(found, scores, best) - best
        weights = np.where(found, np.exp(gaps / width), 0.0)
        places = np.arange(len(codes))[:, None] * len(prior) + np.maximum(codes, 0)
        flat = np.bincount(places.ravel(), weights.ravel(), minlength=len(codes) * len(prior))
        shares = flat.reshape(len(codes), len(prior)) + self.prior_weight * prior
        total = shares.sum(axis=1, keepdims=True)
        return np.where(total > 0, shares / np.where(total > 0, total, 1), prior)


def _spread(votes: Votes) -> NDArray[np.float64]:
    """Distance from the best to the last neighbour of each query, never 0: float64 ``(n,)``."""
    last = np.where(votes.codes >= 0, votes.scores, np.inf).min(axis=1)
    spread = np.where(np.isfinite(last), votes.scores[:, 0] - last, 0.0)
    return np.maximum(spread, 1e-6)


def risk_coverage(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return the error rate among the most confident share of the queries, for twenty growing shares.

    Returns
    -------
    list
        ``{"coverage", "risk", "confidence"}``: answering only from that confidence on covers that share of the
        queries and is wrong at that rate.
    """
    confidence = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != truth
    order = np.argsort(-confidence, kind="stable")
    curve = []
    for share in np.linspace(0.05, 1, 20):
        kept = order[: max(1, round(share * len(order)))]
        curve.append(
            {
                "coverage": round(len(kept) / len(order), 4),
                "risk": round(float(wrong[kept].mean()), 4),
                "confidence": round(float(confidence[kept[-1]]), 4),
            }
        )
    return curve
