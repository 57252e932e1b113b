"""K-means of standardised market days, as a second opinion that knows nothing of time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from flowlake.core.arrays import Float

RESTARTS = 10


@dataclass(frozen=True)
class Clusters:
    """`centres` (K, features) in standard units: a row is standardised as (row - `mean`) / `scale`."""

    centres: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_data(data: dict[str, Any]) -> Clusters:
        return Clusters(tuple(tuple(row) for row in data["centres"]), tuple(data["mean"]), tuple(data["scale"]))


def fit(rows: Float, count: int, order_by: int, seed: int) -> Clusters:
    """K-means of `rows` (n, features); at least `count` rows must differ. Centres are ordered by the feature `order_by`."""
    from sklearn.cluster import KMeans

    mean = rows.mean(axis=0)
    spread = rows.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    with threadpool_limits(1):
        model = KMeans(n_clusters=count, n_init=RESTARTS, random_state=seed, algorithm="lloyd").fit((rows - mean) / scale)
    order = np.argsort(model.cluster_centers_[:, order_by], kind="stable")
    return Clusters(
        tuple(tuple(row) for row in model.cluster_centers_[order].tolist()), tuple(mean.tolist()), tuple(scale.tolist())
    )


def nearest(clusters: Clusters, row: Float) -> int:
    """Index of the nearest centre; the first of equals."""
    standard = (row - np.array(clusters.mean)) / np.array(clusters.scale)
    return int(np.argmin(((np.array(clusters.centres) - standard) ** 2).sum(axis=1)))
