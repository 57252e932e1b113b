"""The forward that put-call parity implies from one expiry's option prices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import ArrayLike, Float

# Scales a median absolute deviation to the standard deviation of a normal sample.
_MAD_TO_DEVIATION = 1.482602218505602


class ImpliedForward(NamedTuple):
    """A parity-implied forward and how well the strikes agree on it."""

    forward: float
    """Dollars; NaN where no strike has both prices."""
    strikes_used: int
    """Strikes with a call price, a put price and a weight."""
    dispersion: float
    """Robust deviation of the strikes' forwards in dollars: 1.4826 weighted median absolute deviations; NaN below two strikes."""


def implied_forward(
    strike: ArrayLike, call_mid: ArrayLike, put_mid: ArrayLike, weights: ArrayLike, discount: float
) -> ImpliedForward:
    """Forward from strike + (call - put)/discount over the strikes of one expiry, by a weighted median.

    One stale print moves one strike's forward by any amount, and the median hardly at all. The given weight of a strike (its
    freshness or depth, non-negative) is multiplied by the smaller of its two prices over the larger: 1 where call and put cost the
    same, which is at the forward, and next to nothing far from it, where spreads are wide and early exercise spoils parity.

    All arrays are one-dimensional and of one length; prices are discounted premiums per share. A strike counts where everything is
    finite and both prices and the weight are positive. Raises ValueError for shapes that differ and for negative weights.
    """
    k, call, put, weight = (np.asarray(values, dtype=np.float64) for values in (strike, call_mid, put_mid, weights))
    if k.ndim != 1 or not k.shape == call.shape == put.shape == weight.shape:
        raise ValueError(
            "strike, call_mid, put_mid and weights must be one-dimensional and of one length; "
            f"their shapes are {k.shape}, {call.shape}, {put.shape}, {weight.shape}"
        )
    if (weight < 0.0).any():
        raise ValueError(f"weights must not be negative; found {weight[weight < 0.0][0]:g}")
    if not 0.0 < discount < math.inf:
        return ImpliedForward(math.nan, 0, math.nan)
    sound = np.isfinite(k) & np.isfinite(call) & np.isfinite(put) & np.isfinite(weight)
    used = sound & (k > 0.0) & (call > 0.0) & (put > 0.0) & (weight > 0.0)
    count = int(used.sum())
    if count == 0:
        return ImpliedForward(math.nan, 0, math.nan)
    k, call, put, weight = k[used], call[used], put[used], weight[used]
    nearness = weight * np.minimum(call, put) / np.maximum(call, put)
    forwards = k + (call - put) / discount
    forward = _weighted_median(forwards, nearness)
    if not forward > 0.0:
        return ImpliedForward(math.nan, count, math.nan)
    spread = _weighted_median(np.abs(forwards - forward), nearness)
    return ImpliedForward(forward, count, _MAD_TO_DEVIATION * spread if count > 1 else math.nan)


def _weighted_median(values: Float, weights: Float) -> float:
    """The value that splits the weight in half; the middle of two where the split falls between them."""
    order = np.argsort(values, kind="stable")
    values = values[order]
    share = np.cumsum(weights[order])
    half = 0.5 * share[-1]
    first = int(np.searchsorted(share, half))
    if share[first] == half and first + 1 < values.size:
        return float(0.5 * (values[first] + values[first + 1]))
    return float(values[first])
