"""The compiled part of `exposure`: total gamma of a chain of contracts at many prices of the underlying.

A contract's gamma times spot^2 is spot weight exp(-d1^2/2). Minutes before expiry that underflows between the strikes, where the
total still has a sign, so each sum is kept relative to its largest term. The innermost loops run over the spots, without branches
and calls, and are vectorised; each sum is added up in the order of the contracts.
"""

from __future__ import annotations

import math

import numpy as np

from flowlake.core.arrays import Float, Int
from flowlake.quant._black import LARGEST_EXPONENT, exponential
from flowlake.quant._compile import inlined, kernel


@inlined
def add(total: Float, smallest: Float, weight: Float, square: Float) -> None:
    """Add weight exp(-square/2) to each sum, which is total exp(-smallest/2) with the smallest square so far."""
    for j in range(total.size):
        excess = square[j] - smallest[j]
        factor = exponential(max(-0.5 * abs(excess), 1.0 - LARGEST_EXPONENT))
        # Of the two, the one with the greater square is scaled down.
        closer = excess < 0.0
        total[j] = total[j] * (factor if closer else 1.0) + weight[j] * (1.0 if closer else factor)
        smallest[j] = min(smallest[j], square[j])


@kernel
def fill_sticky_strike(total: Float, smallest: Float, log_spot: Float, weight: Float, level: Float, slope: Float) -> None:
    """Write sum(weight exp(-d1^2/2)) = total exp(-smallest/2) with d1 = level + slope log_spot, for each spot.

    `log_spot` is ln(spot / present spot). One row per contract in `weight`, `level` and `slope`.
    """
    total[:] = 0.0
    smallest[:] = math.inf
    weights = np.empty(log_spot.size)
    squares = np.empty(log_spot.size)
    for i in range(weight.size):
        for j in range(log_spot.size):
            d1 = level[i] + slope[i] * log_spot[j]
            squares[j] = d1 * d1
            weights[j] = weight[i]
        add(total, smallest, weights, squares)


@kernel
def fill_sticky_delta(
    total: Float,
    smallest: Float,
    log_spot: Float,
    weight: Float,
    log_strike: Float,
    years: Float,
    carry: Float,
    smile: Int,
    start: Int,
    knot: Float,
    knot_vol: Float,
) -> None:
    """As `fill_sticky_strike`, with each contract's volatility read from its smile at the moneyness that it has at each spot.

    `log_spot` must ascend. `log_strike` is ln(strike / present spot), `carry` is (rate - dividend_yield) years, `weight` lacks the
    division by vol sqrt(years). Smile m has the points knot[start[m]:start[m + 1]], ascending; between them the volatility is
    linear, beyond them flat.
    """
    total[:] = 0.0
    smallest[:] = math.inf
    weights = np.empty(log_spot.size)
    squares = np.empty(log_spot.size)
    vols = np.empty(log_spot.size)
    for i in range(weight.size):
        first, last = start[smile[i]], start[smile[i] + 1] - 1
        right = min(first + int(np.searchsorted(knot[first : last + 1], log_strike[i] - log_spot[0])), last)
        for j in range(log_spot.size):
            # The moneyness falls as the spot rises, so the interval is found by walking down.
            at = log_strike[i] - log_spot[j]
            while right > first and knot[right - 1] >= at:
                right -= 1
            if right == first or at >= knot[right]:
                vols[j] = knot_vol[right]
            else:
                part = (at - knot[right - 1]) / (knot[right] - knot[right - 1])
                vols[j] = knot_vol[right - 1] + part * (knot_vol[right] - knot_vol[right - 1])
        root = math.sqrt(years[i])
        for j in range(log_spot.size):
            s = vols[j] * root
            d1 = (log_spot[j] - log_strike[i] + carry[i]) / s + 0.5 * s
            squares[j] = d1 * d1
            weights[j] = weight[i] / s
        add(total, smallest, weights, squares)
