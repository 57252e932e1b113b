"""Three engines with one shape: training rows and new rows in, raw scores of both out. Higher is more unusual.

References: Liu, Ting, Zhou (2008), "Isolation Forest"; Breunig, Kriegel, Ng, Sander (2000), "LOF: identifying density-based
local outliers".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from flowlake.core.arrays import Float


@dataclass(frozen=True)
class Scores:
    """Raw scores of the training rows and of the new rows."""

    training: Float
    new: Float


def robust_z(training: Float, new: Float, two_sided: list[bool]) -> Scores:
    """Root mean square of the scores that point the unusual way, over all features; a missing one counts as 0.

    The transparent baseline: one extreme factor and several moderate ones both show, and no training is needed.
    """

    def combine(rows: Float) -> Float:
        unusual = np.where(two_sided, np.abs(rows), np.maximum(rows, 0.0))
        return np.asarray(np.sqrt((unusual**2).mean(axis=1)))

    return Scores(combine(training), combine(new))


def isolation_forest(training: Float, new: Float, trees: int, samples: int, seed: int) -> Scores:
    """Anomaly score in (0, 1]: close to 1 where random cuts isolate a row early."""
    from sklearn.ensemble import IsolationForest

    with threadpool_limits(1):
        model = IsolationForest(n_estimators=trees, max_samples=min(samples, len(training)), random_state=seed, n_jobs=1).fit(
            training
        )
        return Scores(-model.score_samples(training), -model.score_samples(new))


def local_outlier_factor(training: Float, new: Float, neighbours: int) -> Scores:
    """Local density of a row's neighbours over its own; about 1 inside a cluster.

    A training row's own factor leaves the row itself out (`negative_outlier_factor_`), as a new row is not among its own
    neighbours either; `score_samples` of training rows would count each as its nearest neighbour.
    """
    from sklearn.neighbors import LocalOutlierFactor

    with threadpool_limits(1):
        model = LocalOutlierFactor(n_neighbors=min(neighbours, len(training) - 1), novelty=True, n_jobs=1).fit(training)
        return Scores(-model.negative_outlier_factor_, -model.score_samples(new))


def run_engine(engine: str, training: Float, new: Float, hyper_parameters: Mapping[str, Any]) -> Scores:
    """Scores of `new` (m, features) by the engine of that name, trained on `training` (n, features)."""
    engines: dict[str, Callable[..., Scores]] = {
        "robust_z": robust_z,
        "isolation_forest": isolation_forest,
        "local_outlier_factor": local_outlier_factor,
    }
    arguments = {name: value for name, value in hyper_parameters.items() if name != "most_rows"}
    return engines[engine](training, new, **arguments)


def percentiles(training: Float, new: Float) -> Float:
    """Share of `training` below each of `new`, ties by half, in percent."""
    ordered = np.sort(training)
    below = np.searchsorted(ordered, new, side="left")
    not_above = np.searchsorted(ordered, new, side="right")
    return np.asarray(50.0 * (below + not_above) / len(ordered))
