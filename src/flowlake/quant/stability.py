"""Whether a sample still comes from the distribution that an earlier one came from: the population stability index.

    PSI = sum over bins of (c_i - r_i) ln(c_i / r_i)

r_i and c_i are the shares of the reference and of the current sample in bin i. The bins end at the reference's quantiles 1/10 to
9/10 and hold their upper end; equal quantiles make one bin. A bin with less than half a value counts as half a value, so that the
logarithm exists: an empty bin means little in a small sample, and the floor follows its size.

Source: B. Yurdakul, J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation 14(4),
2020. Where both samples, of N and M independent values, come from one distribution, PSI is about (1/N + 1/M) times chi-square with
one degree of freedom less than bins. Where this differs from the source: the floor, and merged bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from flowlake.core.arrays import ArrayLike, Float

BINS = 10
EMPTY_BIN_VALUES = 0.5
CHANCE_PROBABILITY = 0.999


@dataclass(frozen=True)
class Stability:
    """`index` is the PSI; `chance` what it stays below with `CHANCE_PROBABILITY` if nothing changed and values are independent."""

    index: float
    chance: float


def population_stability(reference: ArrayLike, current: ArrayLike) -> Stability:
    """PSI of two samples of any shape and order, without the values that are not finite; NaN in both fields for an empty sample."""
    earlier, now = _finite(reference), _finite(current)
    if not earlier.size or not now.size:
        return Stability(float("nan"), float("nan"))
    edges = np.unique(np.quantile(earlier, np.arange(1, BINS) / BINS))
    r, c = _shares(earlier, edges), _shares(now, edges)
    index = float(np.sum((c - r) * np.log(c / r)))
    chance = float(chi2.ppf(CHANCE_PROBABILITY, edges.size)) * (1.0 / earlier.size + 1.0 / now.size)
    return Stability(index, chance)


def _finite(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _shares(values: Float, edges: Float) -> Float:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)
    return np.asarray(np.maximum(counts, EMPTY_BIN_VALUES) / values.size, dtype=np.float64)
