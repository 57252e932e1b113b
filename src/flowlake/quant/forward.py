"""The forward that put-call parity implies from one expiry's option prices, and the yield that it leaves unexplained.

What spot, rate and known cash dividends do not explain of a forward is the residual yield q:

    forward = (spot - PV(dividends)) exp((rate - q) years).

Of a stock without further dividends it is what lending it earns and borrowing it costs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant import american, european
from flowlake.quant._arguments import broadcast
from flowlake.quant._compile import kernel

# Scales a median absolute deviation to the standard deviation of a normal sample.
_MAD_TO_DEVIATION = 1.482602218505602

STRIKES = 12
"""Strikes that `implied_borrow` prices with early exercise: those nearest to the forward."""
LEAST_TIME_VALUE = 0.05
"""What either side must be worth above its exercise value, of what the other is, for a strike to tell the yield."""
_ROUNDS = 40
_SETTLED = 1e-7
_LONGEST = 4.0


class ImpliedForward(NamedTuple):
    """A parity-implied forward and how well the strikes agree on it."""

    forward: float
    """Dollars; NaN where no strike has both prices."""
    strikes_used: int
    """Strikes with a call price, a put price and a weight."""
    dispersion: float
    """Robust deviation of the strikes' forwards in dollars: 1.4826 weighted median absolute deviations; NaN below two strikes."""


class ImpliedForwards(NamedTuple):
    """The fields of `ImpliedForward`, one entry per expiry."""

    forward: Float
    strikes_used: NDArray[np.int64]
    dispersion: Float


class ImpliedBorrow(NamedTuple):
    """The residual yield of one expiry, and the forward that goes with it."""

    borrow: float
    """Continuous, per year; NaN where it cannot be told."""
    forward: float
    """Dollars."""
    strikes_used: int
    """Strikes that the answer rests on, or that there were without one."""
    dispersion: float
    """As in `ImpliedForward`, of the prices without their early exercise."""
    iterations: int
    """0 for European prices and without an answer."""


def implied_forward(
    strike: ArrayLike, call_mid: ArrayLike, put_mid: ArrayLike, weights: ArrayLike, discount: float
) -> ImpliedForward:
    """Forward from strike + (call - put)/discount over the strikes of one expiry, by a weighted median.

    One stale print moves one strike's forward by any amount, and the median hardly at all. The given weight of a strike (its
    freshness or depth, non-negative) is multiplied by the smaller of its two prices over the larger: 1 where call and put cost the
    same, which is at the forward, and next to nothing far from it, where spreads are wide and early exercise spoils parity.

    The arrays are one-dimensional and of one length, `weights` may be one number for all; prices are discounted premiums per share.
    A strike counts where everything is finite and both prices and the weight are positive. Raises ValueError for shapes that differ
    and for negative weights.
    """
    k, weight = np.asarray(strike, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    weight = np.full(k.shape, weight) if weight.ndim == 0 else weight
    found = implied_forwards(np.zeros(k.shape, dtype=np.int64), k, call_mid, put_mid, weight, np.full(k.shape, discount), 1)
    return ImpliedForward(float(found.forward[0]), int(found.strikes_used[0]), float(found.dispersion[0]))


def implied_forwards(
    expiry: NDArray[np.int64],
    strike: ArrayLike,
    call_mid: ArrayLike,
    put_mid: ArrayLike,
    weights: ArrayLike,
    discount: ArrayLike,
    expiries: int,
) -> ImpliedForwards:
    """`implied_forward` of many expiries at once: `expiry` numbers that of each strike, from 0 to `expiries` - 1, ascending."""
    k, call, put, weight, d = (np.asarray(values, dtype=np.float64) for values in (strike, call_mid, put_mid, weights, discount))
    if k.ndim != 1 or not k.shape == call.shape == put.shape == weight.shape == d.shape == expiry.shape:
        raise ValueError(
            "strike, call_mid, put_mid and weights must be one-dimensional and of one length; "
            f"their shapes are {k.shape}, {call.shape}, {put.shape}, {weight.shape}"
        )
    if (weight < 0.0).any():
        raise ValueError(f"weights must not be negative; found {weight[weight < 0.0][0]:g}")
    if (np.diff(expiry) < 0).any() or (expiry.size and not 0 <= expiry[0] <= expiry[-1] < expiries):
        raise ValueError(f"expiry must ascend from 0 to at most {expiries - 1}")
    sound = np.isfinite(k) & np.isfinite(call) & np.isfinite(put) & np.isfinite(weight) & (d > 0.0) & (d < math.inf)
    used = sound & (k > 0.0) & (call > 0.0) & (put > 0.0) & (weight > 0.0)
    k, call, put, weight, d, group = k[used], call[used], put[used], weight[used], d[used], expiry[used]
    start = np.searchsorted(group, np.arange(expiries + 1))
    count = np.diff(start)
    nearness = weight * np.minimum(call, put) / np.maximum(call, put)
    forwards = k + (call - put) / d
    forward, spread = np.full(expiries, np.nan), np.full(expiries, np.nan)
    _fill_weighted_medians(forward, start, forwards, nearness)
    forward[~(forward > 0.0)] = np.nan
    _fill_weighted_medians(spread, start, np.abs(forwards - forward[group]), nearness)
    told = np.isfinite(forward) & (count > 1)
    return ImpliedForwards(forward, count, np.where(told, _MAD_TO_DEVIATION * spread, np.nan))


def residual_yield(
    forward: ArrayLike,
    spot: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> Float:
    """The q with forward = (spot - PV(dividends)) exp((rate - q) years), continuous, per year; the first four arguments broadcast.

    The dividends, as in `american`, are one-dimensional, belong to the one underlying, and count where 0 < time <= years. NaN where
    an input is not finite, forward, spot or years is not positive, or the dividends are worth the whole spot. Raises ValueError
    for dividends that are no pair of finite, non-negative values of one length.
    """
    shape, (f, s, t, r) = broadcast(forward, spot, years, rate)
    held = s - _present_value(t, r, *_dividends(dividend_times, dividend_amounts))
    sound = (f > 0.0) & (f < math.inf) & (held > 0.0) & (held < math.inf) & (t > 0.0) & (t < math.inf) & np.isfinite(r)
    out = np.full(f.shape, np.nan)
    out[sound] = r[sound] - np.log(f[sound] / held[sound]) / t[sound]
    return out.reshape(shape)[()]


def implied_borrow(
    strike: ArrayLike,
    call_mid: ArrayLike,
    put_mid: ArrayLike,
    weights: ArrayLike,
    spot: float,
    years: float,
    rate: float,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
    is_american: bool = True,
) -> ImpliedBorrow:
    """The residual yield of one expiry at which call and put of one strike have one volatility.

    European prices give it at once, from `implied_forward`. An American price is first reduced by what early exercise adds to it:
    the American price less Black's, at the current yield and the volatility of the side worth more above its exercise value. The
    forward of the reduced prices gives the next yield, and so on until it stands still; up to `STRIKES` strikes are used. Arrays as
    in `implied_forward`, dividends as in `residual_yield`. All NaN where no strike tells the yield, an input is out of range or the
    iteration does not settle. Raises ValueError as those two do.
    """
    times, amounts = _dividends(dividend_times, dividend_amounts)
    with np.errstate(over="ignore", invalid="ignore"):
        discount = float(np.exp(-np.float64(rate) * years)) if 0.0 < years < math.inf else math.nan
    k, call, put, weight = (np.asarray(values, dtype=np.float64) for values in (strike, call_mid, put_mid, weights))
    weight = np.full(k.shape, weight) if weight.ndim == 0 else weight
    start = implied_forward(k, call, put, weight, discount)
    borrow = float(residual_yield(start.forward, spot, years, rate, times, amounts))
    if not is_american or math.isnan(borrow):
        return ImpliedBorrow(borrow, *start, 0) if math.isfinite(borrow) else _undetermined(start.strikes_used)
    near = _informative(k, call, put, weight, spot)
    k, call, put, weight = k[near], call[near], put[near], weight[near]
    previous: tuple[float, float] | None = None
    for iteration in range(1, _ROUNDS + 1):
        reduced = _european_parts(k, call, put, spot, years, rate, borrow, discount, times, amounts)
        found = implied_forward(k, *reduced, weight, discount)
        error = float(residual_yield(found.forward, spot, years, rate, times, amounts)) - borrow
        if not math.isfinite(error):
            break
        if abs(error) < _SETTLED:
            return ImpliedBorrow(borrow + error, *found, iteration)
        step = error
        if previous is not None and previous[1] != error:
            # A secant on the error, held to a few times the plain step: where exercise is worth much that one is slow.
            secant = -error * (borrow - previous[0]) / (error - previous[1])
            step = min(max(secant, -_LONGEST * abs(error)), _LONGEST * abs(error))
        previous = (borrow, error)
        borrow += step
    return _undetermined(near.size)


def _undetermined(strikes: int) -> ImpliedBorrow:
    return ImpliedBorrow(math.nan, math.nan, strikes, math.nan, 0)


def _informative(strike: Float, call: Float, put: Float, weight: Float, spot: float) -> NDArray[np.int64]:
    """Usable strikes at which call and put cost most nearly the same, at most `STRIKES`.

    A price at its exercise value agrees with any yield and is left out: each side must keep a share of the time value of the other.
    """
    used = np.isfinite(strike) & np.isfinite(call) & np.isfinite(put) & (strike > 0.0) & (call > 0.0) & (put > 0.0)
    left_call, left_put = (price - np.maximum(side * (spot - strike), 0.0) for price, side in ((call, 1.0), (put, -1.0)))
    used &= np.minimum(left_call, left_put) >= LEAST_TIME_VALUE * np.maximum(left_call, left_put)
    rows = np.flatnonzero(used & np.isfinite(weight) & (weight > 0.0))
    farness = np.abs(np.log(call[rows] / put[rows]))
    return np.sort(rows[np.lexsort((put[rows], call[rows], strike[rows], farness))[:STRIKES]])


def _european_parts(
    strike: Float, call: Float, put: Float,
    spot: float, years: float, rate: float, borrow: float, discount: float, times: Float, amounts: Float,
) -> tuple[Float, Float]:  # fmt: skip
    """Call and put prices less what early exercise adds to each at this yield."""
    held = spot - float(_present_value(np.array([years]), np.array([rate]), times, amounts)[0])
    forward = held * math.exp((rate - borrow) * years)
    # The volatility comes from the side with more left above immediate exercise: the other may be worth exercising and tell none.
    is_call = call - np.maximum(spot - strike, 0.0) >= put - np.maximum(strike - spot, 0.0)
    right = np.where(is_call, 1.0, -1.0)
    vol = american.implied_vol(np.where(is_call, call, put), spot, strike, years, right, rate, borrow, times, amounts)
    parts = []
    for price, side in ((call, 1.0), (put, -1.0)):
        whole = american.price(spot, strike, years, vol, side, rate, borrow, times, amounts)
        exercise = whole - european.price(forward, strike, years, vol, side, discount)
        parts.append(price - np.maximum(exercise, 0.0))
    return parts[0], parts[1]


def _dividends(times: ArrayLike | None, amounts: ArrayLike | None) -> tuple[Float, Float]:
    if (times is None) != (amounts is None):
        raise ValueError("dividend_times and dividend_amounts go together: give both or neither")
    t, a = (np.asarray(() if v is None else v, dtype=np.float64) for v in (times, amounts))
    if t.ndim != 1 or t.shape != a.shape:
        raise ValueError(f"dividend_times and dividend_amounts must be one-dimensional and of one length: {t.shape}, {a.shape}")
    if not (np.isfinite(t).all() and np.isfinite(a).all() and (a >= 0.0).all()):
        raise ValueError("dividend_times and dividend_amounts must be finite, and no amount negative")
    return t, a


def _present_value(years: Float, rate: Float, times: Float, amounts: Float) -> Float:
    total = np.zeros(years.shape)
    for t, a in zip(times.tolist(), amounts.tolist(), strict=True):
        total += np.where((t > 0.0) & (t <= years), a * np.exp(-rate * t), 0.0)
    return total


@kernel
def _fill_weighted_medians(out: Float, start: NDArray[np.int64], values: Float, weights: Float) -> None:
    """Per group the value that splits its weight in half; the middle of two where the split falls between them. Empty ones stay."""
    for group in range(out.size):
        first, last = start[group], start[group + 1]
        if last == first:
            continue
        order = np.argsort(values[first:last], kind="mergesort")
        total = 0.0
        for place in order:
            total += weights[first + place]
        share, half = 0.0, 0.5 * total
        for i in range(order.size):
            share += weights[first + order[i]]
            if share >= half:
                out[group] = values[first + order[i]]
                if share == half and i + 1 < order.size:
                    out[group] = 0.5 * (values[first + order[i]] + values[first + order[i + 1]])
                break
