"""Gaussian hidden Markov model of one series: fitted by hmmlearn, filtered by the forward recursion below.

Filtered means P(state at t | observations up to t). The Viterbi path and smoothed probabilities use later observations, so
neither may be read as of t.

Reference: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77(2), section III.A.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from flowlake.core.arrays import Float

ITERATIONS = 200
TOLERANCE = 1e-4
STAY_PROBABILITY = 0.95
"""Where expectation-maximisation starts from; a start without randomness makes the fit repeatable."""
PRIOR_STAYS = 40.0
PRIOR_MOVES = 1.0
"""Moves per state that the prior has seen. Without it a handful of similar days becomes a state of its own."""
PRIOR_DAYS = 5.0
"""Days of half the sample's variance that the prior has seen in every state, so that no variance collapses to nothing."""


@dataclass(frozen=True)
class GaussianHmm:
    """K states in order of variance: `start` (K), `transition` (K, K; rows add up to 1), `means` (K), `variances` (K)."""

    start: tuple[float, ...]
    transition: tuple[tuple[float, ...], ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    @property
    def states(self) -> int:
        return len(self.means)

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_data(data: dict[str, Any]) -> GaussianHmm:
        return GaussianHmm(
            tuple(data["start"]),
            tuple(tuple(row) for row in data["transition"]),
            tuple(data["means"]),
            tuple(data["variances"]),
        )


def fit(observations: Float, states: int) -> GaussianHmm:
    """Maximum a posteriori fit to `observations` (n), oldest first; they must vary, and n must exceed the number of states.

    The start is fixed: all means at the sample mean, variances at the mean squares of the sample's parts by absolute deviation.
    """
    from hmmlearn.hmm import GaussianHMM

    variance = float(observations.var())
    deviations = np.sort(np.abs(observations - observations.mean()))
    variances = np.array([max(float(np.mean(part**2)), 0.01 * variance) for part in np.array_split(deviations, states)])
    model = GaussianHMM(
        n_components=states,
        covariance_type="diag",
        n_iter=ITERATIONS,
        tol=TOLERANCE,
        min_covar=1e-9,
        startprob_prior=1.0 + PRIOR_MOVES,
        transmat_prior=1.0 + PRIOR_MOVES + np.eye(states) * (PRIOR_STAYS - PRIOR_MOVES),
        covars_prior=PRIOR_DAYS * variance / 2,
        covars_weight=1.0 + PRIOR_DAYS,
        random_state=0,
        init_params="",
        params="stmc",
    )
    model.startprob_ = np.full(states, 1.0 / states)
    move = (1.0 - STAY_PROBABILITY) / max(states - 1, 1)
    model.transmat_ = np.full((states, states), move) + np.eye(states) * (STAY_PROBABILITY - move)
    model.means_ = np.full((states, 1), observations.mean())
    model.covars_ = variances[:, None]
    logger = logging.getLogger("hmmlearn")
    level = logger.level
    logger.setLevel(logging.ERROR)  # "not converging" is a likelihood that fell by less than the tolerance
    try:
        with threadpool_limits(1):
            model.fit(observations[:, None])
    finally:
        logger.setLevel(level)
    return _ordered(model.startprob_, model.transmat_, model.means_[:, 0], model.covars_[:, 0, 0])


def _ordered(start: Float, transition: Float, means: Float, variances: Float) -> GaussianHmm:
    order = np.lexsort((means, variances))
    return GaussianHmm(
        tuple(start[order].tolist()),
        tuple(tuple(row) for row in transition[np.ix_(order, order)].tolist()),
        tuple(means[order].tolist()),
        tuple(variances[order].tolist()),
    )


def filtered_probabilities(model: GaussianHmm, observations: Float) -> Float:
    """P(state | observations up to and including each one), shape (n, K); row i uses `observations[: i + 1]` alone.

    In logarithms, so an observation far outside every state gives probabilities and never 0/0.
    """
    means, variances = np.array(model.means), np.array(model.variances)
    with np.errstate(divide="ignore"):  # a state or move of probability 0 is -inf, as it should be
        log_move = np.log(np.array(model.transition))
        log_prior = np.log(np.array(model.start))
    log_density = -0.5 * (np.log(2.0 * np.pi * variances) + (observations[:, None] - means) ** 2 / variances)
    filtered = np.empty_like(log_density)
    for i, density in enumerate(log_density):
        if i:
            log_prior = _log_sum(filtered[i - 1][:, None] + log_move)
        joint = log_prior + density
        joint = joint - joint.max()  # near 0 logarithms keep their digits, and none of the results exceeds 0
        filtered[i] = joint - _log_sum(joint[:, None])
    return np.asarray(np.exp(filtered))


def _log_sum(values: Float) -> Float:
    """log of the sum of exponentials down the first axis."""
    peak = values.max(axis=0)
    finite = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(finite + np.log(np.exp(values - finite).sum(axis=0)))
