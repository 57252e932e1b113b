"""The feature matrix of the engines: robust z scores of the factor panel, clipped and complete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import Float, Int
from flowlake.datasets.factors import ENGINE_FEATURES

TWO_SIDED = frozenset(
    {
        "put_call_volume_ratio_z",
        "skew_25d_z",
        "gamma_exposure_usd_z",
    }
)
"""Factors that are unusual on either side. The others are unusual only when high: a quiet day is no evidence."""
HIGHEST = 12.0
LOWEST_ONE_SIDED = -2.0
"""Quiet days keep some spread, so that they do not all become one point, but cannot look like outliers."""
MIN_FEATURES = 3
"""Factors with a score that a row needs before any engine judges it."""


@dataclass(frozen=True)
class Features:
    """`matrix` (n, features) without NaN, `missing` (n) factors taken as 0, their own median, per row of `keys`.

    `keys`: session and underlying, in that order, which is also the order of the rows.
    """

    keys: pl.DataFrame
    matrix: Float
    missing: Int

    @property
    def sessions(self) -> list[date]:
        return self.keys["session"].to_list()

    def take(self, positions: Int) -> Features:
        return Features(self.keys[positions], self.matrix[positions], self.missing[positions])


def build_features(panel: pl.DataFrame, columns: tuple[str, ...] = ENGINE_FEATURES) -> Features:
    """Features of the panel's rows, ordered by session and underlying whatever the order of the panel."""
    rows = panel.select("session", "underlying", *columns).sort("session", "underlying")
    clipped = rows.select(
        pl.col(name).cast(pl.Float64).clip(-HIGHEST if name in TWO_SIDED else LOWEST_ONE_SIDED, HIGHEST) for name in columns
    )
    missing = rows.select(pl.sum_horizontal(pl.col(name).is_null().cast(pl.Int64) for name in columns)).to_series()
    return Features(
        rows.select("session", "underlying"),
        np.ascontiguousarray(clipped.fill_null(0.0).to_numpy(), dtype=np.float64),
        missing.to_numpy().astype(np.int64),
    )


def judged(features: Features) -> Features:
    """Rows with at least MIN_FEATURES factors."""
    present = features.matrix.shape[1] - features.missing
    return features.take(np.flatnonzero(present >= MIN_FEATURES))


def thinned(features: Features, most: int) -> Features:
    """At most `most` rows, evenly spaced over sessions and underlyings."""
    count = len(features.matrix)
    if count <= most:
        return features
    return features.take(np.floor(np.arange(most) * (count / most)).astype(np.int64))
