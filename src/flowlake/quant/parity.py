"""Where quotes contradict each other: put-call parity, strikes, expiries, and a model.

A severity is what a trade locks in today, in dollars per share of the option named, selling at bids and buying at asks: positive
where that is possible, zero where it is not, NaN where a quote that it needs is missing. Less than a billionth of a dollar is
rounding, and zero. It is before commissions, and before what the underlying itself costs to trade unless that is given. A quote
counts where 0 <= bid <= ask and 0 < ask < infinity; a crossed one is an error of the tape, not a gift. A bid of zero can be sold
for nothing. Arguments broadcast, prices are dollars per share.

Sources: Hull, "Options, Futures, and Other Derivatives", chapters "Properties of stock options" and "Options on stock indices and
currencies"; Cox and Rubinstein, "Options Markets" (1985), chapter 4; Merton, "Theory of rational option pricing", Bell Journal of
Economics 4 (1973); Carr and Madan, "A note on sufficient conditions for no arbitrage", Finance Research Letters 2 (2005).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant._arguments import checked_right

_ROUNDING_USD = 1e-9


class Parity(NamedTuple):
    """A call and a put of one strike and expiry against the underlying."""

    lower_usd: Float
    """Least value of call - put without arbitrage."""
    upper_usd: Float
    """Greatest; the same as the least for European exercise."""
    deviation_usd: Float
    """Midpoint of the call less that of the put, less the nearest of the two: positive where calls are dear, zero within them."""
    conversion_usd: Float
    """Severity of dear calls: call sold at the bid, put bought at the ask, underlying bought and financed."""
    reversal_usd: Float
    """Severity of dear puts: put sold at the bid, call bought at the ask, underlying sold short and the proceeds lent."""
    severity_usd: Float
    """The greater of the two; NaN where either is."""


class Vertical(NamedTuple):
    """Two neighbouring strikes of one expiry and right."""

    low_strike: Float
    high_strike: Float
    monotone_usd: Float
    """Severity of a spread that pays to be held: the better option (low call, high put) asks less than the other bids."""
    slope_usd: Float
    """Severity of a spread that costs more than the most it can pay."""
    severity_usd: Float
    """The greater of the two; NaN where either is."""


class Butterfly(NamedTuple):
    """Three neighbouring strikes of one expiry and right."""

    low_strike: Float
    middle_strike: Float
    high_strike: Float
    severity_usd: Float
    """Bid of the middle strike less the asks of its neighbours, weighted by their distances, per share of the middle one."""


class Theoretical(NamedTuple):
    """A model's price against a quote."""

    mid_usd: Float
    difference_usd: Float
    """Model less midpoint: positive where the market is cheap."""
    half_spreads: Float
    """The same in halves of the bid-ask spread: beyond -1 or 1 the model lies outside the quote; NaN where the quote is locked."""
    edge_usd: Float
    """Model less ask where the model lies above it, model less bid where it lies below that, zero within the quote."""


def european_parity(
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividends: ArrayLike = 0.0,
    underlying_cost: ArrayLike = 0.0,
) -> Parity:
    """Put-call parity of European options: C - P = S exp(-qT) - PV(dividends) - K exp(-rT).

    `dividends` is the present value of the cash dividends until expiry, dollars per share. `dividend_yield` holds what else the
    underlying earns (a borrow fee too). `underlying_cost` is what trading the underlying costs, dollars per share, and is taken off
    both severities. NaN where spot or strike is not positive, years is negative, or an input is not finite.
    """
    stock, bond, paid = _carried(spot, strike, years, rate, dividend_yield, dividends)
    value = stock - paid - bond
    return _parity(call_bid, call_ask, put_bid, put_ask, value, value, underlying_cost)


def american_parity(
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividends: ArrayLike = 0.0,
    underlying_cost: ArrayLike = 0.0,
) -> Parity:
    """The bounds of put-call parity for American options: S exp(-qT) - PV(dividends) - K <= C - P <= S - K exp(-rT).

    As in Hull for a rate and a yield that are not negative. Where the rate is negative it is the strike of the upper bound that is
    not discounted and that of the lower one that is; where the yield is negative, the spot likewise: whoever is short may be
    assigned at any time, and has to be covered at the worst. Arguments as in `european_parity`.
    """
    stock, bond, paid = _carried(spot, strike, years, rate, dividend_yield, dividends)
    s, k = np.asarray(spot, dtype=np.float64), np.asarray(strike, dtype=np.float64)
    lower = np.minimum(s, stock) - paid - np.maximum(k, bond)
    upper = np.maximum(s, stock) - np.minimum(k, bond)
    return _parity(call_bid, call_ask, put_bid, put_ask, lower, np.where(np.isnan(lower), np.nan, upper), underlying_cost)


def vertical(strike: ArrayLike, bid: ArrayLike, ask: ArrayLike, right: int, discount: float = 1.0) -> Vertical:
    """Vertical spreads of neighbouring strikes: 0 <= C(K1) - C(K2) <= D (K2 - K1), and the same of P(K2) - P(K1).

    With `discount` 1, the default, the upper bound is the one of American options; European ones have D = exp(-rT). The quotes are
    those of one expiry and right, one-dimensional, in any order; the result has a row for each two neighbours, ascending. A
    violation between strikes further apart shows when those between are left out, as is a strike that is not a positive number.
    Raises ValueError for shapes that differ, a strike that occurs twice, and a right other than +1 or -1.
    """
    k, sell, buy = _chain(strike, bid, ask)
    if np.ndim(right) != 0:
        raise ValueError("right must be one of +1 and -1: the quotes of one right at a time")
    dear, cheap = (slice(None, -1), slice(1, None)) if float(checked_right(right)) > 0.0 else (slice(1, None), slice(None, -1))
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.diff(k) * (discount if 0.0 < discount < math.inf else math.nan)
        monotone = _severity(sell[cheap] - buy[dear])
        slope = _severity(sell[dear] - buy[cheap] - width)
    return Vertical(k[:-1], k[1:], monotone, slope, np.maximum(monotone, slope))


def butterfly(strike: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Butterfly:
    """Butterflies of neighbouring strikes: prices are convex in the strike, the middle is worth no more than a mix of the others.

    C(K2) <= w C(K1) + (1 - w) C(K3) with w = (K3 - K2) / (K3 - K1), for calls and puts, European and American. Chain, order and
    errors as in `vertical`; the result has a row for each three neighbours, ascending.
    """
    k, sell, buy = _chain(strike, bid, ask)
    low, middle, high = k[:-2], k[1:-1], k[2:]
    weight = (high - middle) / (high - low)
    with np.errstate(over="ignore", invalid="ignore"):
        severity = _severity(sell[1:-1] - weight * buy[:-2] - (1.0 - weight) * buy[2:])
    return Butterfly(low, middle, high, severity)


def american_calendar(near_bid: ArrayLike, near_ask: ArrayLike, far_bid: ArrayLike, far_ask: ArrayLike) -> Float:
    """Severity of two American options of one strike and right: the one that expires later is worth no less.

    It can do whatever the other can. European ones need `european_calendar`.
    """
    near, far = _quotes(near_bid, near_ask), _quotes(far_bid, far_ask)
    return _severity(near[0] - far[1])[()]


def european_calendar(
    near_bid: ArrayLike,
    near_ask: ArrayLike,
    far_bid: ArrayLike,
    far_ask: ArrayLike,
    near_strike: ArrayLike,
    far_strike: ArrayLike,
    near_forward: ArrayLike,
    far_forward: ArrayLike,
    near_discount: ArrayLike,
    far_discount: ArrayLike,
    right: ArrayLike,
) -> Float:
    """Severity of two European options of one right at the same forward moneyness K/F: the later one is worth no less over D F.

    Per share of the near option, against which n = D1 F1 / (D2 F2) far ones are bought; that covers it whatever happens as long as
    F2/F1 does not move (dividends in proportion to the price). A far option that is further in the money, a call with lower K/F, a
    put with higher, covers it all the more and may be given; for one further out of the money (by more than 1e-12) there is no
    bound, and the result is NaN.
    """
    near, far = _quotes(near_bid, near_ask), _quotes(far_bid, far_ask)
    k1, k2, f1, f2, d1, d2 = (
        _positive(v) for v in (near_strike, far_strike, near_forward, far_forward, near_discount, far_discount)
    )
    side = checked_right(right)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        short_of = side * ((k2 / f2) / (k1 / f1) - 1.0)
        covering = np.where(short_of <= 1e-12, d1 * f1 / (d2 * f2), np.nan)
        return _severity(near[0] - covering * far[1])[()]


def theoretical(model_price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Theoretical:
    """A model's price against the market: distance from the midpoint, and what of it lies beyond the quote.

    NaN where the quote is missing, one-sided, crossed, or the model's price is not finite.
    """
    model = np.asarray(model_price, dtype=np.float64)
    model = np.where(np.isfinite(model), model, np.nan)
    low, high = _quotes(bid, ask)
    middle, half = _middle(low, high), 0.5 * (high - low)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = model - middle
        edge = np.maximum(model - high, 0.0) + np.minimum(model - low, 0.0)
        half_spreads = difference / np.where(half > 0.0, half, np.nan)
    return Theoretical(*(np.asarray(result)[()] for result in (middle, difference, half_spreads, edge)))


def _parity(
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    lower: Float,
    upper: Float,
    underlying_cost: ArrayLike,
) -> Parity:
    call, put = _quotes(call_bid, call_ask), _quotes(put_bid, put_ask)
    cost = np.asarray(underlying_cost, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        middle = _middle(*call) - _middle(*put)
        deviation = np.maximum(middle - upper, 0.0) + np.minimum(middle - lower, 0.0)
        conversion = _severity(call[0] - put[1] - upper - cost)
        reversal = _severity(lower - (call[1] - put[0]) - cost)
    results = np.broadcast_arrays(lower, upper, deviation, conversion, reversal, np.maximum(conversion, reversal))
    return Parity(*(result[()] for result in results))


def _carried(
    spot: ArrayLike, strike: ArrayLike, years: ArrayLike, rate: ArrayLike, dividend_yield: ArrayLike, dividends: ArrayLike
) -> tuple[Float, Float, Float]:
    """Spot exp(-qT), strike exp(-rT) and the dividends, NaN where they are not defined."""
    t, r, q, paid = (np.asarray(v, dtype=np.float64) for v in (years, rate, dividend_yield, dividends))
    t = np.where((t >= 0.0) & (t < math.inf), t, np.nan)
    paid = np.where(np.isfinite(paid), paid, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        stock, bond = _positive(spot) * np.exp(-q * t), _positive(strike) * np.exp(-r * t)
    return np.where(np.isfinite(stock), stock, np.nan), np.where(np.isfinite(bond), bond, np.nan), paid


def _chain(strike: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> tuple[Float, Float, Float]:
    """Strikes ascending with their bids and asks, NaN where there is no quote."""
    k, low, high = (np.asarray(v, dtype=np.float64) for v in (strike, bid, ask))
    if k.ndim != 1 or not k.shape == low.shape == high.shape:
        raise ValueError(
            f"strike, bid and ask must be one-dimensional and of one length; their shapes are {k.shape}, {low.shape}, {high.shape}"
        )
    usable = (k > 0.0) & (k < math.inf)
    order = np.argsort(k[usable], kind="stable")
    k, low, high = (values[usable][order] for values in (k, low, high))
    if (np.diff(k) == 0.0).any():
        raise ValueError(f"strike has two entries for {k[:-1][np.diff(k) == 0.0][0]:g}")
    return k, *_quotes(low, high)


def _quotes(bid: ArrayLike, ask: ArrayLike) -> tuple[Float, Float]:
    """Bid and ask, both NaN where they are no quote."""
    low, high = np.broadcast_arrays(np.asarray(bid, dtype=np.float64), np.asarray(ask, dtype=np.float64))
    sound = (low >= 0.0) & (low <= high) & (high > 0.0) & (high < math.inf)
    return np.where(sound, low, np.nan), np.where(sound, high, np.nan)


def _middle(bid: Float, ask: Float) -> Float:
    return 0.5 * bid + 0.5 * ask


def _positive(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    return np.where((array > 0.0) & (array < math.inf), array, np.nan)


def _severity(gain: ArrayLike) -> Float:
    """What the trade locks in: the gain, zero where it is a loss, NaN where it is unknown."""
    dollars = np.asarray(gain, dtype=np.float64)
    return np.where(dollars <= _ROUNDING_USD, 0.0, dollars)
