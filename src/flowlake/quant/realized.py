"""Realised volatility of a window of price bars.

Every estimator takes the window's opens, highs, lows and closes (oldest first, one row per period) and gives one annualised
volatility per 1.00; its `rolling_` companion gives one per row, over the `window` rows that end there, NaN before the first
full window. `periods_per_year` is what a variance per bar is multiplied by; ValueError where it is not a positive number.

Bars are never skipped or filled: a window with a missing, non-positive or contradictory bar (a high below its low, an open or close
outside them) has the volatility NaN, and so has a window with too few bars.

Sources: Parkinson, "The extreme value method for estimating the variance of the rate of return", Journal of Business 53
(1980); Garman and Klass, "On the estimation of security price volatilities from historical data", ibid.; Rogers and Satchell,
"Estimating variance from high, low and closing prices", Annals of Applied Probability 1 (1991); Yang and Zhang,
"Drift-independent volatility estimation based on high, low, open, and close prices", Journal of Business 73 (2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowlake.core.arrays import ArrayLike, Float

# Log prices of the bars of one or many windows, the window along the last axis, to a variance per period.
_Estimator = Callable[[Float, Float, Float, Float], Float]


def close_to_close(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, periods_per_year: float = 252) -> float:
    """Sample deviation of the close-to-close log returns; at least three bars."""
    return _of_window(_close_to_close, 3, open, high, low, close, periods_per_year)


def parkinson(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, periods_per_year: float = 252) -> float:
    """Parkinson's estimator from the high-low range: no drift, no gap between bars; at least one bar."""
    return _of_window(_parkinson, 1, open, high, low, close, periods_per_year)


def garman_klass(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, periods_per_year: float = 252) -> float:
    """Garman and Klass's estimator from range and open-to-close move: no drift, no gap between bars; at least one bar.

    Their practical form, 0.5 ln(high/low)^2 - (2 ln 2 - 1) ln(close/open)^2; the best one has other weights
    (0.511, 0.019, 0.383), nearly the same efficiency, and a cross term.
    """
    return _of_window(_garman_klass, 1, open, high, low, close, periods_per_year)


def rogers_satchell(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, periods_per_year: float = 252) -> float:
    """Rogers and Satchell's estimator: right under any drift, no gap between bars; at least one bar."""
    return _of_window(_rogers_satchell, 1, open, high, low, close, periods_per_year)


def yang_zhang(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, periods_per_year: float = 252) -> float:
    """Yang and Zhang's estimator: right under any drift and with gaps between bars; at least three bars.

    The first bar gives only the close from which the first gap is measured.
    """
    return _of_window(_yang_zhang, 3, open, high, low, close, periods_per_year)


def rolling_close_to_close(
    open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, window: int, periods_per_year: float = 252
) -> Float:
    """`close_to_close` of the `window` bars that end at each row."""
    return _rolling(_close_to_close, 3, open, high, low, close, window, periods_per_year)


def rolling_parkinson(
    open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, window: int, periods_per_year: float = 252
) -> Float:
    """`parkinson` of the `window` bars that end at each row."""
    return _rolling(_parkinson, 1, open, high, low, close, window, periods_per_year)


def rolling_garman_klass(
    open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, window: int, periods_per_year: float = 252
) -> Float:
    """`garman_klass` of the `window` bars that end at each row."""
    return _rolling(_garman_klass, 1, open, high, low, close, window, periods_per_year)


def rolling_rogers_satchell(
    open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, window: int, periods_per_year: float = 252
) -> Float:
    """`rogers_satchell` of the `window` bars that end at each row."""
    return _rolling(_rogers_satchell, 1, open, high, low, close, window, periods_per_year)


def rolling_yang_zhang(
    open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike, window: int, periods_per_year: float = 252
) -> Float:
    """`yang_zhang` of the `window` bars that end at each row."""
    return _rolling(_yang_zhang, 3, open, high, low, close, window, periods_per_year)


def _close_to_close(o: Float, h: Float, lo: Float, c: Float) -> Float:
    return _sample_variance(np.diff(c, axis=-1))


def _parkinson(o: Float, h: Float, lo: Float, c: Float) -> Float:
    return np.asarray(_mean((h - lo) ** 2) / (4.0 * math.log(2.0)))


def _garman_klass(o: Float, h: Float, lo: Float, c: Float) -> Float:
    return _mean(0.5 * (h - lo) ** 2 - (2.0 * math.log(2.0) - 1.0) * (c - o) ** 2)


def _rogers_satchell(o: Float, h: Float, lo: Float, c: Float) -> Float:
    return _mean((h - c) * (h - o) + (lo - c) * (lo - o))


def _yang_zhang(o: Float, h: Float, lo: Float, c: Float) -> Float:
    gap = o[..., 1:] - c[..., :-1]
    o, h, lo, c = o[..., 1:], h[..., 1:], lo[..., 1:], c[..., 1:]
    n = gap.shape[-1]
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    return np.asarray(_sample_variance(gap) + k * _sample_variance(c - o) + (1.0 - k) * _rogers_satchell(o, h, lo, c))


def _mean(values: Float) -> Float:
    # Added row by row, oldest first: the sum of a window then does not depend on how many windows there are.
    return np.asarray(np.cumsum(values, axis=-1)[..., -1] / values.shape[-1])


def _sample_variance(values: Float) -> Float:
    n = values.shape[-1]
    return np.asarray(_mean((values - _mean(values)[..., np.newaxis]) ** 2) * (n / (n - 1)))


def _log_bars(open: ArrayLike, high: ArrayLike, low: ArrayLike, close: ArrayLike) -> Float:
    """The four log-price series as rows, NaN for a whole bar that is not one.

    Raises ValueError unless they are one-dimensional and of one length.
    """
    series = [np.asarray(values, dtype=np.float64) for values in (open, high, low, close)]
    if any(values.ndim != 1 or values.shape != series[0].shape for values in series):
        shapes = ", ".join(str(values.shape) for values in series)
        raise ValueError(f"open, high, low and close must be one-dimensional and of one length; their shapes are {shapes}")
    bars = np.stack(series)
    o, h, lo, c = bars
    sound = (lo > 0.0) & (h < math.inf) & (lo <= o) & (o <= h) & (lo <= c) & (c <= h)
    return np.log(np.where(sound, bars, np.nan))


def _refuse_periods(periods_per_year: float) -> None:
    if not 0.0 < periods_per_year < math.inf:
        raise ValueError(f"periods_per_year must be a positive number; it is {periods_per_year:g}")


def _of_window(
    estimator: _Estimator,
    fewest: int,
    open: ArrayLike,
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    periods_per_year: float,
) -> float:
    _refuse_periods(periods_per_year)
    o, h, lo, c = _log_bars(open, high, low, close)
    if o.size < fewest:
        return math.nan
    return math.sqrt(float(estimator(o, h, lo, c)) * periods_per_year)


def _rolling(
    estimator: _Estimator,
    fewest: int,
    open: ArrayLike,
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    window: int,
    periods_per_year: float,
) -> Float:
    if window < fewest:
        raise ValueError(f"this estimator needs a window of at least {fewest} bars; window is {window}")
    _refuse_periods(periods_per_year)
    bars = _log_bars(open, high, low, close)
    out = np.full(bars.shape[1], np.nan)
    if bars.shape[1] >= window:
        o, h, lo, c = np.lib.stride_tricks.sliding_window_view(bars, window, axis=1)
        out[window - 1 :] = np.sqrt(estimator(o, h, lo, c) * periods_per_year)
    return out
