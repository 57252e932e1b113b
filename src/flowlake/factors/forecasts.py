"""A forecast of volatility by a regression on its own past.

Corsi, "A simple approximate long-memory model of realized volatility", Journal of Financial Econometrics 7 (2009), on daily returns
in place of those within the day. Slopes that are not negative and forecasts within what the sample has seen make it fit for samples
of a year: plain least squares forecast volatilities of several hundred per cent after an unusual month.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from flowlake.core.arrays import Float
from flowlake.datasets.factors import HAR_HORIZON, HAR_LAGS, HAR_MIN_RETURNS

SESSIONS_PER_YEAR = 252
LEAST_PIVOT = 1e-8
"""Share of a regressor's variance that the others must leave unexplained; less is collinear."""


def har_forecast(returns: Float) -> Float:
    """Annualised volatility over the `HAR_HORIZON` sessions after the last column, one per row of `returns`.

    `returns`: log returns, series x sessions, oldest first, NaN where one is missing. Volatility is the root of a mean squared
    return. On the sessions t that have `HAR_HORIZON` returns after them, the volatility of these is regressed on that of the last
    1, 5 and 22 sessions up to t: least squares with a constant and slopes of at least 0. The forecast is cut to the range of the
    volatilities that were regressed.

    NaN where the last 22 returns are not all there, and where the sample has fewer sessions than `HAR_MIN_RETURNS` returns without
    a gap give.
    """
    longest = HAR_LAGS[-1]
    fewest = HAR_MIN_RETURNS - longest - HAR_HORIZON + 1
    if returns.shape[1] < HAR_MIN_RETURNS:
        return np.full(returns.shape[0], np.nan)
    regressors = np.stack([_volatility(returns, lag)[:, longest - lag :] for lag in HAR_LAGS])
    now, past = regressors[:, :, -1], regressors[:, :, :-HAR_HORIZON]
    ahead = _volatility(returns, HAR_HORIZON)[:, longest:]
    known = np.isfinite(ahead) & np.isfinite(past).all(axis=0)
    count = known.sum(axis=1)
    n = np.maximum(count, 1)
    centre = _total(np.where(known, past, 0.0)) / n
    mean = _total(np.where(known, ahead, 0.0)) / n
    slopes = _non_negative_slopes(
        np.where(known, past - centre[..., np.newaxis], 0.0), np.where(known, ahead - mean[:, np.newaxis], 0.0)
    )
    moves = slopes * (now - centre)
    forecast = mean + (moves[0] + moves[1] + moves[2])
    lowest = np.where(known, ahead, np.inf).min(axis=1)
    highest = np.where(known, ahead, -np.inf).max(axis=1)
    return np.where(count >= fewest, np.sqrt(SESSIONS_PER_YEAR) * np.clip(forecast, lowest, highest), np.nan)


def _volatility(returns: Float, length: int) -> Float:
    """Root mean square of the `length` columns that end at each column, from the first with so many."""
    columns = returns.shape[1] - length + 1
    total = np.zeros((returns.shape[0], columns))
    for k in range(length):
        total += returns[:, k : k + columns] ** 2
    return np.asarray(np.sqrt(total / length))


def _non_negative_slopes(x: Float, y: Float) -> Float:
    """Least squares of y (rows x sample) on x (regressors x rows x sample), both centred, with slopes of at least 0.

    The best of the regressions on some of the regressors whose slopes are all positive, which is the constrained optimum; 0 where
    there is none.
    """
    scale = np.sqrt(_total(x * x))
    unit = np.divide(x, scale[..., np.newaxis], out=np.full(x.shape, np.nan), where=scale[..., np.newaxis] > 0.0)
    correlations = {(i, j): _total(unit[i] * unit[j]) for i in range(len(x)) for j in range(i)}
    moments = _total(unit * y)
    best = np.zeros(moments.shape)
    explained = np.zeros(moments.shape[1])
    for size in range(1, len(x) + 1):
        for chosen in combinations(range(len(x)), size):
            slopes = _solved(
                {(a, b): correlations[chosen[a], chosen[b]] for a in range(size) for b in range(a)}, moments[[*chosen]]
            )
            gain = _total(np.moveaxis(slopes * moments[[*chosen]], 0, -1))
            better = (slopes > 0.0).all(axis=0) & (gain > explained)  # false where these are collinear
            explained = np.where(better, gain, explained)
            candidate = np.zeros(moments.shape)
            candidate[[*chosen]] = slopes
            best = np.where(better, candidate, best)
    return np.divide(best, scale, out=np.zeros(best.shape), where=scale > 0.0)


def _solved(correlations: dict[tuple[int, int], Float], moments: Float) -> Float:
    """Slopes on regressors of length 1, by Cholesky's decomposition; `correlations` of each with those before it.

    NaN where they are collinear.
    """
    size = len(moments)
    factor: dict[tuple[int, int], Float] = {}
    for i in range(size):
        for j in range(i):
            inner = sum((factor[i, k] * factor[j, k] for k in range(j)), start=np.zeros(moments.shape[1]))
            factor[i, j] = (correlations[i, j] - inner) / factor[j, j]
        pivot = 1.0 - sum((factor[i, k] ** 2 for k in range(i)), start=np.zeros(moments.shape[1]))
        factor[i, i] = np.sqrt(np.where(pivot > LEAST_PIVOT, pivot, np.nan))
    slopes = list(moments)
    for i in range(size):
        for k in range(i):
            slopes[i] = slopes[i] - factor[i, k] * slopes[k]
        slopes[i] = slopes[i] / factor[i, i]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            slopes[i] = slopes[i] - factor[k, i] * slopes[k]
        slopes[i] = slopes[i] / factor[i, i]
    return np.stack(slopes)


def _total(values: Float) -> Float:
    # Added one by one: the sum of a row then does not depend on how many rows there are.
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])
