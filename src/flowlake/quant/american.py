"""American options on a stock with cash dividends: price, implied volatility and sensitivities, over arrays.

Conventions as in `european`: arguments broadcast, `right` is +1 or -1 and anything else raises ValueError, prices are premiums paid
today, `years` is actual/365, volatility and rates per 1.00, NaN where an input is missing or out of range.

Dividends are escrowed: the stock less the present value of the dividends that fall up to the expiry is what diffuses.
`dividend_times` (years from now to the ex-date, in (0, years] to count) and `dividend_amounts` (dollars per share) are
one-dimensional and the same for all options of a call; they belong to one underlying.

The tree is Leisen and Reimer's ("Binomial models for option valuation - examining and improving convergence", Applied
Mathematical Finance 3, 1996). Ex-dates fall between its steps: at the step before one the holder may also choose to exercise just
before it (call) or just after it (put), which pays what that choice is worth at the step. Where early exercise is worth nothing the
European formula answers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant import european
from flowlake.quant._arguments import broadcast, checked_right
from flowlake.quant._compile import kernel

STEPS = 201
"""Steps of the tree: odd, as the method wants. The error is typically 1e-4 of the price, and up to 2e-3 for a call with an
ex-date shortly before its expiry."""

LOWEST_VOL = 0.005
HIGHEST_VOL = 10.0
"""Implied volatilities are sought between these."""

# Half the width of the differences that give vega and rho.
_VOL_BUMP = 1e-3
_RATE_BUMP = 1e-4
# Beyond this many deviations the tree moves with the forward and nothing else; its probabilities would round to 0 and 1.
_FARTHEST = 40.0


# Inputs without meaning are answered with NaN, not with a warning.
_QUIET = np.errstate(over="ignore", invalid="ignore")


class Greeks(NamedTuple):
    """Sensitivities of one long American option per share; units as in `european.Greeks`, dividends in cash held."""

    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    rho: Float


@_QUIET
def price(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> Float:
    """Premium in the currency of `spot`.

    NaN where an input is not finite, spot, strike, years or vol is not positive, or the dividends are worth the whole stock. Raises
    ValueError for dividends that are no one-dimensional pair of finite, non-negative values.
    """
    shape, arrays = broadcast(spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    times, amounts = _dividends(dividend_times, dividend_amounts)
    out = np.empty(arrays[0].size)
    simple = _never_exercised(arrays[2], arrays[4], arrays[5], arrays[6], times)
    _fill_prices(out, ~simple, times, amounts, *arrays)
    s, k, t, v, sign, r, q = (a[simple] for a in arrays)
    out[simple] = _sound_only(european.price(s * np.exp((r - q) * t), k, t, v, sign, np.exp(-r * t)), t, v)
    return out.reshape(shape)[()]


@_QUIET
def implied_vol(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> Float:
    """Volatility at which `american.price` gives `price`; NaN where none between LOWEST_VOL and HIGHEST_VOL does.

    A price at the value of immediate exercise determines no volatility. Dividends as in `price`.
    """
    shape, arrays = broadcast(price, spot, strike, years, checked_right(right), rate, dividend_yield)
    times, amounts = _dividends(dividend_times, dividend_amounts)
    premium, s, k, t, sign, r, q = arrays
    simple = _never_exercised(t, sign, r, q, times)
    held = s - _present_values(t, r, times, amounts)
    held = np.where(held > 0.0, held, np.nan)
    start = european.implied_vol(premium, held * np.exp((r - q) * t), k, t, sign, np.exp(-r * t))
    out = np.array(start, dtype=np.float64, ndmin=1)
    _fill_implied_vols(out, ~simple, times, amounts, *arrays)
    return out.reshape(shape)[()]


def greeks(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> Greeks:
    """Sensitivities of a long option; NaN where `price` is NaN.

    Delta and gamma come from the tree, extended by two steps into the past so that it has three nodes today; theta from them by the
    pricing equation, zero where the option is worth exercising now; vega and rho are central differences.
    """
    shape, arrays = broadcast(spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    times, amounts = _dividends(dividend_times, dividend_amounts)
    out = np.empty((len(Greeks._fields), arrays[0].size))
    simple = _never_exercised(arrays[2], arrays[4], arrays[5], arrays[6], times)
    _fill_greeks(out, ~simple, times, amounts, *arrays)
    out[:, simple] = np.stack(european.greeks(*(a[simple] for a in arrays))[: len(Greeks._fields)])
    return Greeks(*(row.reshape(shape)[()] for row in out))


def _dividends(times: ArrayLike | None, amounts: ArrayLike | None) -> tuple[Float, Float]:
    """Both as vectors in order of time."""
    if (times is None) != (amounts is None):
        raise ValueError("dividend_times and dividend_amounts go together: give both or neither")
    t, a = (np.asarray(() if v is None else v, dtype=np.float64) for v in (times, amounts))
    if t.ndim != 1 or t.shape != a.shape:
        raise ValueError(f"dividend_times and dividend_amounts must be one-dimensional and of one length: {t.shape}, {a.shape}")
    if not (np.isfinite(t).all() and np.isfinite(a).all() and (a >= 0.0).all()):
        raise ValueError("dividend_times and dividend_amounts must be finite, and no amount negative")
    order = np.argsort(t, kind="stable")
    return t[order], a[order]


def _never_exercised(years: Float, right: Float, rate: Float, dividend_yield: Float, times: Float) -> NDArray[np.bool_]:
    """Where waiting costs nothing: calls without any dividend, and puts whose strike earns no interest."""
    first = times[times > 0.0].min() if (times > 0.0).any() else math.inf
    worthless = np.where(right > 0.0, (dividend_yield <= 0.0) & (rate >= 0.0), (rate <= 0.0) & (dividend_yield >= 0.0))
    return (first > years) & worthless


def _sound_only(value: Float, years: Float, vol: Float) -> Float:
    return np.where((years > 0.0) & (vol > 0.0), value, np.nan)


def _present_values(years: Float, rate: Float, times: Float, amounts: Float) -> Float:
    """Present value of the dividends up to each option's expiry."""
    total = np.zeros(years.shape)
    for t, a in zip(times.tolist(), amounts.tolist(), strict=True):
        total += np.where((t > 0.0) & (t <= years), a * np.exp(-rate * t), 0.0)
    return total


@kernel
def _escrow(after: float, until: float, rate: float, times: Float, amounts: Float) -> float:
    """Value at time `after` of the dividends in (after, until]."""
    total = 0.0
    for m in range(times.size):
        if after < times[m] <= until:
            total += amounts[m] * math.exp(-rate * (times[m] - after))
    return total


@kernel
def _probability(z: float) -> float:
    """Peizer and Pratt's inversion of the binomial distribution, method 2."""
    z = min(max(z, -_FARTHEST), _FARTHEST)
    scaled = z / (STEPS + 1.0 / 3.0 + 0.1 / (STEPS + 1.0))
    return 0.5 + math.copysign(0.5, z) * math.sqrt(-math.expm1(-scaled * scaled * (STEPS + 1.0 / 6.0)))


@kernel
def _tree(
    spot: float, strike: float, years: float, vol: float, right: float, rate: float, dividend_yield: float,
    times: Float, amounts: Float, stock: Float, value: Float,
) -> None:  # fmt: skip
    """Leave today's three nodes in stock[:3] (less the escrow) and value[:3], the spot in the middle; NaN without an answer."""
    held = spot - _escrow(0.0, years, rate, times, amounts)
    usable = 0.0 < held < math.inf and 0.0 < strike < math.inf and 0.0 < years < math.inf and 0.0 < vol < math.inf
    if not (usable and math.isfinite(rate) and math.isfinite(dividend_yield)):
        value[:3] = math.nan
        stock[:3] = math.nan
        return
    step = years / STEPS
    s = vol * math.sqrt(years)
    d1 = (math.log(held) - math.log(strike) + (rate - dividend_yield) * years) / s + 0.5 * s
    p = _probability(d1 - s)
    growth = math.exp((rate - dividend_yield) * step)
    up = growth * _probability(d1) / p
    down = (growth - p * up) / (1.0 - p)
    discount = math.exp(-rate * step)
    p_up = discount * p
    p_down = discount * (1.0 - p)
    # The tree starts two steps before today, at a stock that reaches the spot after one move up and one down.
    ratio = up / down
    stock[0] = held * down**STEPS / ratio
    for j in range(1, STEPS + 3):
        stock[j] = stock[j - 1] * ratio
    for j in range(STEPS + 3):
        value[j] = max(right * (stock[j] - strike), 0.0)
    back = 1.0 / down
    for i in range(STEPS - 1, -1, -1):
        now = i * step
        offset = _escrow(now, years, rate, times, amounts) - strike
        for j in range(i + 3):
            stock[j] *= back
            kept = p_up * value[j + 1] + p_down * value[j]
            value[j] = max(kept, right * (stock[j] + offset))
        for m in range(times.size):
            if now < times[m] <= min(now + step, years):
                wait = times[m] - now
                left = _escrow(times[m], years, rate, times, amounts) + (amounts[m] if right > 0.0 else 0.0)
                share = math.exp(-dividend_yield * wait)
                offset = (left - strike) * math.exp(-rate * wait)
                for j in range(i + 3):
                    value[j] = max(value[j], right * (share * stock[j] + offset))
    if not value[0] + value[1] + value[2] < math.inf:
        value[:3] = math.nan


@kernel
def _fill_prices(
    out: Float, wanted: NDArray[np.bool_], times: Float, amounts: Float,
    spot: Float, strike: Float, years: Float, vol: Float, right: Float, rate: Float, dividend_yield: Float,
) -> None:  # fmt: skip
    stock, value = np.empty(STEPS + 3), np.empty(STEPS + 3)
    for i in range(out.size):
        if wanted[i]:
            _tree(spot[i], strike[i], years[i], vol[i], right[i], rate[i], dividend_yield[i], times, amounts, stock, value)
            out[i] = value[1]


@kernel
def _fill_implied_vols(
    vol: Float, wanted: NDArray[np.bool_], times: Float, amounts: Float,
    price: Float, spot: Float, strike: Float, years: Float, right: Float, rate: Float, dividend_yield: Float,
) -> None:  # fmt: skip
    """Replace the European volatilities in `vol` where wanted: a secant inside a bracket, bisection where it leaves it."""
    stock, value = np.empty(STEPS + 3), np.empty(STEPS + 3)
    for i in range(vol.size):
        if not wanted[i]:
            continue
        lo, hi = LOWEST_VOL, HIGHEST_VOL
        start = vol[i]
        vol[i] = math.nan
        below = math.nan
        above = math.nan
        for end in (lo, hi):
            _tree(spot[i], strike[i], years[i], end, right[i], rate[i], dividend_yield[i], times, amounts, stock, value)
            below, above = above, value[1] - price[i]
        noise = 1e-12 * (spot[i] + strike[i])
        if not (below < -noise and above > noise):
            continue
        previous, previous_error = lo, below
        guess = start if lo < start < hi else 0.3
        for iteration in range(200):
            _tree(spot[i], strike[i], years[i], guess, right[i], rate[i], dividend_yield[i], times, amounts, stock, value)
            error = value[1] - price[i]
            if error < 0.0:
                lo = guess
            else:
                hi = guess
            slope = (error - previous_error) / (guess - previous)
            following = guess - error / slope
            if iteration == 0:
                # The slope across the whole range says little: a first small move gives the secant its second point.
                following = guess * (1.01 if error < 0.0 else 0.99)
            if iteration > 30 or not lo < following < hi:
                following = 0.5 * (lo + hi)
            if error == 0.0 or abs(following - guess) < 1e-11 or hi - lo < 1e-11:
                vol[i] = guess if error == 0.0 else following
                break
            previous, previous_error = guess, error
            guess = following


@kernel
def _fill_greeks(
    out: Float, wanted: NDArray[np.bool_], times: Float, amounts: Float,
    spot: Float, strike: Float, years: Float, vol: Float, right: Float, rate: Float, dividend_yield: Float,
) -> None:  # fmt: skip
    stock, value = np.empty(STEPS + 3), np.empty(STEPS + 3)
    for i in range(spot.size):
        if not wanted[i]:
            continue
        s, k, t, v, sign, r, q = spot[i], strike[i], years[i], vol[i], right[i], rate[i], dividend_yield[i]
        _tree(s, k, t, v, sign, r, q, times, amounts, stock, value)
        x0, x1, x2 = stock[0], stock[1], stock[2]
        v0, v1, v2 = value[0], value[1], value[2]
        left = (v1 - v0) / (x1 - x0)
        right_side = (v2 - v1) / (x2 - x1)
        gamma = 2.0 * (right_side - left) / (x2 - x0)
        delta = (left * (x2 - x1) + right_side * (x1 - x0)) / (x2 - x0)
        escrow = s - x1
        exercised = v1 <= sign * (s - k)
        out[0, i] = delta
        out[1, i] = gamma
        # At a fixed spot the diffusing part shrinks as the escrow earns interest.
        theta = r * v1 - (r - q) * x1 * delta - 0.5 * v * v * x1 * x1 * gamma - r * escrow * delta
        out[3, i] = 0.0 if exercised else theta
        bump = min(_VOL_BUMP, 0.5 * v)
        _tree(s, k, t, v + bump, sign, r, q, times, amounts, stock, value)
        higher = value[1]
        _tree(s, k, t, v - bump, sign, r, q, times, amounts, stock, value)
        out[2, i] = (higher - value[1]) / (2.0 * bump)
        _tree(s, k, t, v, sign, r + _RATE_BUMP, q, times, amounts, stock, value)
        higher = value[1]
        _tree(s, k, t, v, sign, r - _RATE_BUMP, q, times, amounts, stock, value)
        out[4, i] = (higher - value[1]) / (2.0 * _RATE_BUMP)
