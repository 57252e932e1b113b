"""Reading a volatility between the points of a smile, and between expiries."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from flowlake.core.arrays import ArrayLike, Float


class SmilePoint(NamedTuple):
    """A point of one expiry's smile."""

    log_moneyness: float
    """ln(strike/forward)."""
    vol: float
    """Annualised, per 1.00."""


def interpolate(years: ArrayLike, vol: ArrayLike, target_years: ArrayLike) -> Float:
    """Constant-maturity volatility: total variance vol^2 years, linear in time between the two neighbouring expiries.

    `years` and `vol` are one-dimensional, one entry per expiry in any order; an expiry whose volatility is no positive number is
    left out. The result has the shape of `target_years`, and is NaN outside the expiries: nothing is extrapolated. Raises
    ValueError for shapes that differ, years that are not positive, or two entries for one expiry.
    """
    t, v = _paired(years, vol, "years", "vol")
    if (t <= 0.0).any():
        raise ValueError("years must be positive")
    t, v = _sorted_distinct(t, v, "years")
    target = np.asarray(target_years, dtype=np.float64)
    if t.size == 0:
        return np.full(target.shape, np.nan)[()]
    variance = np.interp(target, t, v * v * t, left=np.nan, right=np.nan)
    return np.asarray(np.sqrt(variance / np.where(target > 0.0, target, np.nan)))[()]


def delta_strike_vol(log_moneyness: ArrayLike, vol: ArrayLike, years: float, delta: float) -> SmilePoint:
    """The point of a smile where an option has the given forward delta: Phi(d1) for a call, Phi(d1) - 1 for a put.

    The sign of `delta` tells the right: 0.25 is the 25-delta call, -0.25 the 25-delta put. The volatility is linear in
    log-moneyness between the points, which come in any order; one that is no positive number is left out. NaN where the smile does
    not reach the delta; where a crooked smile has it more than once, the strike nearest to the forward. Raises ValueError for a
    delta outside (-1, 1) or zero, and for points at the same strike.
    """
    d1 = d1_of_delta(delta)
    k, v = _smile(log_moneyness, vol)
    if k.size < 2 or not 0.0 < years < math.inf:
        return SmilePoint(math.nan, math.nan)
    root = math.sqrt(years)

    def excess(at: float) -> float:
        # s (d1(at) - d1): free of the division by s = vol sqrt(years), with the same root.
        s = float(np.interp(at, k, v)) * root
        return 0.5 * s * s - at - d1 * s

    values = [excess(at) for at in k]
    crossings = [float(at) for at, value in zip(k, values, strict=True) if value == 0.0]
    crossings += [float(brentq(excess, k[i], k[i + 1], xtol=1e-14)) for i in range(k.size - 1) if values[i] * values[i + 1] < 0.0]
    if not crossings:
        return SmilePoint(math.nan, math.nan)
    nearest = min(crossings, key=lambda at: (abs(at), at))
    return SmilePoint(nearest, float(np.interp(nearest, k, v)))


def at_the_money(log_moneyness: ArrayLike, vol: ArrayLike) -> float:
    """Volatility at the forward, linear between the two neighbouring strikes; NaN where the smile lies to one side of it."""
    k, v = _smile(log_moneyness, vol)
    return float(np.interp(0.0, k, v, left=np.nan, right=np.nan)) if k.size else math.nan


def risk_reversal(log_moneyness: ArrayLike, vol: ArrayLike, years: float, delta: float = 0.25) -> float:
    """Volatility of the call less that of the put at the same absolute forward delta; NaN where the smile does not reach both."""
    call = delta_strike_vol(log_moneyness, vol, years, delta)
    put = delta_strike_vol(log_moneyness, vol, years, -delta)
    return call.vol - put.vol


def skew(log_moneyness: ArrayLike, vol: ArrayLike, years: float, delta: float = 0.25) -> float:
    """Volatility of the put less that of the call at the same absolute forward delta: the risk reversal with its sign turned."""
    return -risk_reversal(log_moneyness, vol, years, delta)


def butterfly(log_moneyness: ArrayLike, vol: ArrayLike, years: float, delta: float = 0.25) -> float:
    """Mean volatility of the call and the put at the same absolute forward delta less that at the forward."""
    call = delta_strike_vol(log_moneyness, vol, years, delta)
    put = delta_strike_vol(log_moneyness, vol, years, -delta)
    return 0.5 * (call.vol + put.vol) - at_the_money(log_moneyness, vol)


def term_slope(years: ArrayLike, vol: ArrayLike, near_years: float = 30 / 365, far_years: float = 90 / 365) -> float:
    """Volatility at the far maturity less that at the near one, both by `interpolate`; positive where the term structure rises.

    `vol` is one point of each expiry's smile, usually that at the forward. NaN where the expiries do not enclose both maturities.
    """
    near, far = interpolate(years, vol, [near_years, far_years])
    return float(far - near)


def d1_of_delta(delta: float) -> float:
    """The d1 of an option of the given forward delta, whose sign tells the right.

    Raises ValueError for a delta outside (-1, 1) or zero.
    """
    if not 0.0 < abs(delta) < 1.0:
        raise ValueError(f"delta must lie in (0, 1) for a call or (-1, 0) for a put; it is {delta:g}")
    return float(ndtri(delta if delta > 0.0 else 1.0 + delta))


def _smile(log_moneyness: ArrayLike, vol: ArrayLike) -> tuple[Float, Float]:
    k, v = _paired(log_moneyness, vol, "log_moneyness", "vol")
    return _sorted_distinct(k, v, "log_moneyness")


def _paired(x: ArrayLike, y: ArrayLike, x_name: str, y_name: str) -> tuple[Float, Float]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"{x_name} and {y_name} must be one-dimensional and of one length: {a.shape} and {b.shape}")
    return a, b


def _sorted_distinct(x: Float, vol: Float, x_name: str) -> tuple[Float, Float]:
    known = np.isfinite(x) & (vol > 0.0) & (vol < math.inf)
    x, vol = x[known], vol[known]
    order = np.argsort(x, kind="stable")
    x, vol = x[order], vol[order]
    if (np.diff(x) == 0.0).any():
        raise ValueError(f"{x_name} has two entries for {x[:-1][np.diff(x) == 0.0][0]:g}")
    return x, vol
