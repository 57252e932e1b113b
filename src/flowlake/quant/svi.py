"""SVI slices: Gatheral's five-parameter smile, its tests for arbitrage, and its fit to the quotes of one expiry.

A slice gives total variance, that is vol^2 years, at the log-moneyness k = ln(strike/forward):

    w(k) = a + b [rho (k - m) + sqrt((k - m)^2 + sigma^2)].

Its wings rise with the slopes b (1 - rho) on the left and b (1 + rho) on the right. Lee's moment formula lets neither exceed 2.
(The bound 4/years on b (1 + |rho|) that is also in print is for a slice of vol^2, and twice as loose.)

Sources: Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces", Quantitative Finance 14 (2014), whose equation numbers are
those of arXiv 1204.0646; Lee, "The moment formula for implied volatility at extreme strikes", Mathematical Finance 14 (2004). How
the fit searches is described in `_svi`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import ArrayLike, Bool, Float
from flowlake.quant import _svi
from flowlake.quant._arguments import checked_right
from flowlake.quant.smile import SmilePoint, d1_of_delta

MIN_STRIKES = 5
"""Distinct strikes below which a slice is not fitted: it has five parameters."""
WIDEST_GAP = 2.0
"""Distance of the two strikes around the forward, in total volatilities (weighted mean vol sqrt(years)), up to which it is read."""
POOR_FIT_SHARE = 0.05
"""Weighted root mean square error, of the weighted mean volatility, up to which a fit is accepted whatever the spreads are."""
LEAST_SPREAD_SHARE = 0.25
"""Half-spreads below this share of the median one count as this share of it: no single quote decides a slice."""

_QUIET = np.errstate(over="ignore", divide="ignore", invalid="ignore")


class Svi(NamedTuple):
    """Raw parameters of a slice of total variance."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float


class JumpWings(NamedTuple):
    """A slice in the traders' parametrisation (Gatheral and Jacquier, equation 3.5)."""

    variance: float
    """vol^2 at the forward."""
    skew: float
    """Slope of total volatility at the forward: half the slope of total variance over its root."""
    put_wing: float
    """b (1 - rho) over the root of the total variance at the forward."""
    call_wing: float
    """b (1 + rho) over the same."""
    lowest_variance: float
    """The least vol^2 of the slice."""


class FitReason(IntEnum):
    """Why `fit_svi` gave what it gave."""

    OK = 0
    """A slice stands for the quotes."""
    BAD_INPUT = 1
    """Years is not positive and finite."""
    NO_QUOTES = 2
    """No quote is usable: finite, with a positive volatility and weight, and out of the money where rights are given."""
    TOO_FEW_STRIKES = 3
    """Fewer distinct strikes than the fit asks for."""
    ONE_SIDED = 4
    """All strikes lie on one side of the forward."""
    GAP_AT_FORWARD = 5
    """The two strikes around the forward are more than `WIDEST_GAP` total volatilities apart."""
    POOR_FIT = 6
    """The nearest slice without arbitrage misses the quotes by more than their spread and more than `POOR_FIT_SHARE`."""


class SviFit(NamedTuple):
    """A fitted slice and how well it stands for the quotes; all NaN but `strikes` and `reason` unless `reason` is OK."""

    parameters: Svi
    years: float
    rmse_vol: float
    """Root mean square error in volatility, each quote counting once."""
    weighted_rmse_vol: float
    """The same by the weights of the fit."""
    max_error_vol: float
    inside_spread: float
    """Share of quotes that the slice meets to within their half-spread; NaN without half-spreads."""
    min_g: float
    """The least g of the slice over all strikes; not negative."""
    lowest: float
    """Least log-moneyness of the quotes."""
    highest: float
    """Greatest log-moneyness of the quotes."""
    strikes: int
    """Distinct strikes used."""
    reason: FitReason


@_QUIET
def svi_total_variance(k: ArrayLike, a: ArrayLike, b: ArrayLike, rho: ArrayLike, m: ArrayLike, sigma: ArrayLike) -> Float:
    """Total variance at the log-moneyness `k`; arguments broadcast.

    It can be negative, and then the parameters are no slice. NaN where an argument is not finite, b or sigma is negative or |rho|
    exceeds 1.
    """
    w, _, _ = _derivatives(k, a, b, rho, m, sigma)
    return np.asarray(np.where(np.isfinite(w), w, np.nan))[()]


@_QUIET
def svi_g(k: ArrayLike, a: ArrayLike, b: ArrayLike, rho: ArrayLike, m: ArrayLike, sigma: ArrayLike) -> Float:
    """Gatheral and Jacquier's g (equation 2.1), which has the sign of the implied density; arguments broadcast.

        g = (1 - k w'/(2 w))^2 - w'^2/4 (1/w + 1/4) + w''/2

    Where it is negative a butterfly costs less than nothing. NaN where `svi_total_variance` is, where the total variance is not
    positive, and at the kink of a slice with sigma = 0.
    """
    w, slope, curvature = _derivatives(k, a, b, rho, m, sigma)
    w = np.where((w > 0.0) & (w < np.inf), w, np.nan)
    lean = 1.0 - 0.5 * np.asarray(k, dtype=np.float64) * slope / w
    g = lean * lean - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * curvature
    return np.asarray(np.where(np.isfinite(g), g, np.nan))[()]


def _derivatives(k: ArrayLike, a: ArrayLike, b: ArrayLike, rho: ArrayLike, m: ArrayLike, sigma: ArrayLike) -> tuple[Float, ...]:
    """Total variance with its first and second derivative; NaN outside the parameters' domain."""
    at, level, tilt, lean, centre, width = (np.asarray(value, dtype=np.float64) for value in (k, a, b, rho, m, sigma))
    tilt = np.where((tilt >= 0.0) & (np.abs(lean) <= 1.0) & (width >= 0.0), tilt, np.nan)
    x = at - centre
    h = np.hypot(x, width)
    bowl = (width / h) ** 2 / h
    return level + tilt * (lean * x + h), tilt * (lean + x / h), tilt * np.where((width == 0.0) & (x != 0.0), 0.0, bowl)


def svi_to_jump_wings(parameters: Svi, years: float) -> JumpWings:
    """The traders' parameters of a slice (equation 3.5); NaN where the total variance at the forward is not positive."""
    a, b, rho, m, sigma = parameters
    radius = math.hypot(m, sigma)
    at_forward = a + b * (radius - rho * m)
    if not (0.0 < at_forward < math.inf and 0.0 < years < math.inf and radius > 0.0 and abs(rho) <= 1.0):
        return JumpWings(*(math.nan,) * 5)
    root = math.sqrt(at_forward)
    lowest = a + b * sigma * math.sqrt(1.0 - rho * rho)
    skew = 0.5 * b * (rho - m / radius) / root
    return JumpWings(at_forward / years, skew, b * (1.0 - rho) / root, b * (1.0 + rho) / root, lowest / years)


def svi_from_jump_wings(wings: JumpWings, years: float) -> Svi:
    """The inverse of `svi_to_jump_wings` (lemma 3.2); NaN where there is none, or more than one.

    With beta = m / sqrt(m^2 + sigma^2) the two variances give sqrt(m^2 + sigma^2), and no sign needs to be chosen.
    """
    variance, skew, put_wing, call_wing, lowest_variance = wings
    nothing = Svi(*(math.nan,) * 5)
    if not (0.0 < variance < math.inf and 0.0 < years < math.inf and 0.0 < put_wing + call_wing < math.inf):
        return nothing
    root = math.sqrt(variance * years)
    b = 0.5 * root * (put_wing + call_wing)
    rho = 1.0 - put_wing * root / b
    beta = rho - 2.0 * skew * root / b
    if not (abs(rho) <= 1.0 and abs(beta) < 1.0):
        return nothing
    bend, shape = math.sqrt(1.0 - rho * rho), math.sqrt(1.0 - beta * beta)
    spread = b * (1.0 - rho * beta - bend * shape)
    if not spread > 0.0:
        return nothing
    radius = (variance - lowest_variance) * years / spread
    sigma = radius * shape
    return Svi(lowest_variance * years - b * sigma * bend, b, rho, beta * radius, sigma) if radius > 0.0 else nothing


def svi_delta_strike_vol(parameters: Svi, years: float, delta: float) -> SmilePoint:
    """The point of a slice where an option has the given forward delta: Phi(d1) for a call, Phi(d1) - 1 for a put.

    The sign of `delta` tells the right, as in `delta_strike_vol`. A slice without arbitrage has each delta once; on another one of
    the strikes is given. NaN where there is none. Raises ValueError for a delta outside (-1, 1) or zero.
    """
    d1 = d1_of_delta(delta)
    if not (0.0 < years < math.inf and _is_slice(parameters)):
        return SmilePoint(math.nan, math.nan)
    at = _svi.delta_log_moneyness(*parameters, d1)
    return SmilePoint(at, _vol(parameters, years, at))


def svi_at_the_money(parameters: Svi, years: float) -> float:
    """Volatility of a slice at the forward."""
    return _vol(parameters, years, 0.0)


def svi_risk_reversal(parameters: Svi, years: float, delta: float = 0.25) -> float:
    """Volatility of the call less that of the put at the same absolute forward delta, on a slice."""
    return svi_delta_strike_vol(parameters, years, delta).vol - svi_delta_strike_vol(parameters, years, -delta).vol


def svi_skew(parameters: Svi, years: float, delta: float = 0.25) -> float:
    """Volatility of the put less that of the call at the same absolute forward delta, on a slice."""
    return -svi_risk_reversal(parameters, years, delta)


def svi_butterfly(parameters: Svi, years: float, delta: float = 0.25) -> float:
    """Mean volatility of the call and the put at the same absolute forward delta less that at the forward, on a slice."""
    call, put = (svi_delta_strike_vol(parameters, years, signed).vol for signed in (delta, -delta))
    return 0.5 * (call + put) - svi_at_the_money(parameters, years)


def lowest_g(parameters: Svi) -> float:
    """The least g of a slice over all strikes, with its limits 1/4 - slope^2/16 in the wings.

    NaN where the parameters are no slice, sigma is zero or the total variance is not positive everywhere.
    """
    if not (_is_slice(parameters) and parameters.sigma > 0.0):
        return math.nan
    lowest = _svi.lowest_g(*parameters)[0]
    return lowest if math.isfinite(lowest) else math.nan


def calendar_violation(near: Svi, far: Svi, low: float = -1.0, high: float = 1.0) -> float:
    """The largest total variance of the earlier slice less that of the later one for log-moneyness from `low` to `high`.

    Positive where a calendar spread costs less than nothing. The range is finite because two fitted slices nearly always cross
    somewhere beyond the last quote. NaN where a slice is missing. Raises ValueError unless low < high, both finite.
    """
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"low must be below high and both finite; they are {low:g} and {high:g}")
    if not (_is_slice(near) and _is_slice(far)):
        return math.nan
    return _svi.highest_excess(np.array(near), np.array(far), low, high)


def fit_svi(
    log_moneyness: ArrayLike,
    vol: ArrayLike,
    years: float,
    half_spread: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    right: ArrayLike | None = None,
    floor: SviFit | None = None,
    min_strikes: int = MIN_STRIKES,
) -> SviFit:
    """The SVI slice without butterfly arbitrage that is nearest to the quotes of one expiry, or the reason why there is none.

    One-dimensional arrays of one length, in any order: log-moneyness, volatility, half the bid-ask spread in volatility, a
    non-negative weight. The fit minimises the squared error in volatility, weighted by `weights` over the squared half-spread. Give
    out-of-the-money quotes, or `right` (+1 or -1), by which the others are left out. Quotes that are not finite, have no positive
    volatility or weight, or a negative half-spread do not count. The slice has g >= 0, positive variance and wing slopes of at most
    1.99. Where `floor` is given, the fit of an earlier expiry, it does not lie below that between the outermost strikes that both
    have.

    The result does not depend on the order of the quotes. Raises ValueError for shapes that differ, a right that is none, and a
    floor without a slice.
    """
    k, v = _vectors(log_moneyness, vol)
    h = np.full(k.shape, np.nan) if half_spread is None else _like(half_spread, k, "half_spread")
    weight = np.ones(k.shape) if weights is None else _like(weights, k, "weights")
    if floor is not None and floor.reason is not FitReason.OK:
        raise ValueError(f"the floor has no slice: {floor.reason.name}")
    if not 0.0 < years < math.inf:
        return _abstention(FitReason.BAD_INPUT, 0)
    used = np.isfinite(k) & np.isfinite(v) & (v > 0.0) & np.isfinite(weight) & (weight > 0.0)
    if half_spread is not None:
        used &= np.isfinite(h) & (h >= 0.0)
    if right is not None:
        used &= _like(checked_right(right), k, "right") * k >= 0.0
    k, v, h, weight = _sorted(k, v, h, weight, used)
    strikes = int(np.unique(k).size)
    if strikes == 0:
        return _abstention(FitReason.NO_QUOTES, strikes)
    if strikes < max(min_strikes, 2):
        return _abstention(FitReason.TOO_FEW_STRIKES, strikes)
    if not k[0] < 0.0 < k[-1]:
        return _abstention(FitReason.ONE_SIDED, strikes)
    scale = _scales(h, weight, half_spread is not None)
    level = float((scale * scale * v).sum())
    if k[k >= 0.0].min() - k[k <= 0.0].max() > WIDEST_GAP * level * math.sqrt(years):
        return _abstention(FitReason.GAP_AT_FORWARD, strikes)
    below = (math.nan,) * 7 if floor is None else (*floor.parameters, max(k[0], floor.lowest), min(k[-1], floor.highest))
    out = np.empty(_svi.FIT_MIN_G + 1)
    _svi.fit_slice(k, v, h, scale, float(years), np.array(below), out)
    tolerance = POOR_FIT_SHARE * level
    if half_spread is not None:
        tolerance = max(tolerance, math.sqrt(float((scale * scale * h * h).sum())))
    if not (out[_svi.FIT_WEIGHTED] <= tolerance and out[_svi.FIT_MIN_G] >= 0.0):
        return _abstention(FitReason.POOR_FIT, strikes)
    return SviFit(
        parameters=Svi(*(float(value) for value in out[:5])),
        years=float(years),
        rmse_vol=float(out[_svi.FIT_RMSE]),
        weighted_rmse_vol=float(out[_svi.FIT_WEIGHTED]),
        max_error_vol=float(out[_svi.FIT_MAX]),
        inside_spread=float(out[_svi.FIT_INSIDE]) if half_spread is not None else math.nan,
        min_g=float(out[_svi.FIT_MIN_G]),
        lowest=float(k[0]),
        highest=float(k[-1]),
        strikes=strikes,
        reason=FitReason.OK,
    )


def _abstention(reason: FitReason, strikes: int) -> SviFit:
    return SviFit(Svi(*(math.nan,) * 5), *(math.nan,) * 8, strikes, reason)


def _scales(half_spread: Float, weight: Float, has_spreads: bool) -> Float:
    """What multiplies the errors in volatility; the squares add up to 1."""
    shares = weight / weight.max()
    if has_spreads:
        least = LEAST_SPREAD_SHARE * float(np.median(half_spread))
        if least > 0.0:
            shares = shares / (np.maximum(half_spread, least) / least) ** 2
    return np.asarray(np.sqrt(shares / shares.sum()))


def _sorted(k: Float, vol: Float, half_spread: Float, weight: Float, used: Bool) -> tuple[Float, ...]:
    columns = tuple(column[used] for column in (k, vol, half_spread, weight))
    order = np.lexsort(columns[::-1])
    return tuple(np.ascontiguousarray(column[order]) for column in columns)


def _vectors(log_moneyness: ArrayLike, vol: ArrayLike) -> tuple[Float, Float]:
    k = np.asarray(log_moneyness, dtype=np.float64)
    if k.ndim != 1:
        raise ValueError(f"log_moneyness must be one-dimensional; its shape is {k.shape}")
    return k, _like(vol, k, "vol")


def _like(values: ArrayLike, k: Float, name: str) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != k.shape:
        raise ValueError(f"{name} must be as long as log_moneyness: {array.shape} and {k.shape}")
    return array


def _is_slice(parameters: Svi) -> bool:
    a, b, rho, m, sigma = parameters
    return all(math.isfinite(value) for value in (a, b, rho, m, sigma)) and b >= 0.0 and abs(rho) <= 1.0 and sigma >= 0.0


def _vol(parameters: Svi, years: float, at: float) -> float:
    """Volatility of a slice; NaN where it is no slice or its total variance is not positive."""
    if not (0.0 < years < math.inf and _is_slice(parameters)):
        return math.nan
    w = _svi.variance_at(at, *parameters)
    return math.sqrt(w / years) if w > 0.0 else math.nan
