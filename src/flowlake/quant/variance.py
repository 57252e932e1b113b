"""Model-free variance from a strip of option quotes: the method of the Cboe VIX, and a variance swap's replication.

Sources: Cboe, "VIX White Paper" (2009, 2014, 2019) and "Volatility Index Methodology: Cboe Volatility Index"; Demeterfi, Derman,
Kamal and Zou, "More than you ever wanted to know about volatility swaps", Goldman Sachs Quantitative Strategies Research Notes
(March 1999), equations 27 to 29 and appendix A.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import ArrayLike, Float, Int

MINUTES_PER_YEAR = 525_600
"""Of a year of 365 days, which is how the Cboe method counts time."""
TARGET_MINUTES = 43_200
"""30 days."""

# exp() of anything beyond overflows.
_LARGEST_GROWTH = 700.0


class VixStyleVariance(NamedTuple):
    """The variance of one expiry, and what it rests on."""

    variance: float
    """Annualised, per 1.00 (0.04 is a volatility of 20 %); NaN where `reason` is not empty."""
    forward: float
    """Dollars; NaN where no strike has a quoted call and a quoted put."""
    k0: float
    """First strike at or below the forward, of those with a quoted call and a quoted put; NaN where there is none."""
    strikes_used: int
    """Strikes in the sum: one option each, two at `k0`."""
    strikes: Float
    """These strikes, ascending."""
    contributions: Float
    """delta-K / K^2 exp(rate years) Q(K) of each of them; 2/years times their sum, less the forward's term, is the variance."""
    reason: str
    """Why there is no variance, in words; empty where there is one."""


class ReplicatedVariance(NamedTuple):
    """The fair variance of a variance swap and the portfolio that replicates it."""

    variance: float
    """Annualised, per 1.00; NaN where `reason` is not empty."""
    strike: Float
    """The strikes, ascending."""
    put_weight: Float
    """Puts of each strike per 1.00 of variance and dollar of price; zero above the split and at the lowest strike."""
    call_weight: Float
    """Calls likewise; zero below the split and at the highest strike."""
    cost: float
    """What the portfolio of options costs today, per 1.00 of variance."""
    reason: str
    """Why there is no variance, in words; empty where there is one."""


def vix_style_variance(
    strike: ArrayLike,
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    years: float,
    rate: float,
) -> VixStyleVariance:
    """Variance of one expiry by the Cboe VIX method.

        variance = 2/T sum(dK / K^2 exp(rT) Q(K)) - (F/K0 - 1)^2 / T

    F = K + exp(rT) (call - put) at the strike where the midpoints of call and put differ least (the lowest of several); K0 is the
    first strike at or below F. Both are sought among the strikes whose call and put are quoted. Q(K) is the midpoint of the put
    below K0, of the call above it, and the average of both at K0. From K0 outwards an option with a bid of zero is left out, and
    after two such neighbours nothing further out counts. dK is half the distance between the neighbouring strikes that are used, at
    either end the distance to the one neighbour.

    The arrays are one-dimensional and of one length, one entry per strike in any order, dollars per share; `years` is actual/365 to
    the minute, `rate` continuous. A quote has 0 < bid <= ask < infinity. An option whose bid is NaN is not there: it is passed over
    and parts no neighbours; one with a bid that makes no quote is passed over too. A strike that is not a positive number is left
    out. The variance is NaN, and the reason says why, where the method does not apply; in particular where a side has no option,
    since half a strip would pass for the whole. Raises ValueError for shapes that differ and for a strike that occurs twice.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (strike, call_bid, call_ask, put_bid, put_ask)]
    if any(values.ndim != 1 or values.shape != columns[0].shape for values in columns):
        shapes = ", ".join(str(values.shape) for values in columns)
        raise ValueError(f"strike, bids and asks must be one-dimensional and of one length; their shapes are {shapes}")
    usable = (columns[0] > 0.0) & (columns[0] < math.inf)
    order = np.argsort(columns[0][usable], kind="stable")
    k, call_low, call_high, put_low, put_high = (values[usable][order] for values in columns)
    _refuse_repeats(k)
    if not (0.0 < years < math.inf and abs(rate * years) < _LARGEST_GROWTH):
        return _no_strip("years must be positive, and rate such that money does not grow beyond bounds")
    call, put = _midpoints(call_low, call_high), _midpoints(put_low, put_high)
    both = np.flatnonzero(np.isfinite(call) & np.isfinite(put))
    if both.size == 0:
        return _no_strip("no strike has a quoted call and a quoted put")
    growth = math.exp(rate * years)
    nearest = both[np.argmin(np.abs(call[both] - put[both]))]
    forward = float(k[nearest]) + growth * float(call[nearest] - put[nearest])
    below = both[k[both] <= forward]
    if below.size == 0:
        return _no_strip("no strike with a quoted call and a quoted put lies at or below the forward", forward)
    at = int(below[-1])
    k0 = float(k[at])
    puts = at - 1 - _walk(put_low[:at][::-1], put[:at][::-1])[::-1]
    calls = at + 1 + _walk(call_low[at + 1 :], call[at + 1 :])
    if puts.size == 0 or calls.size == 0:
        return _no_strip("no put below or no call above the strike at the forward has a bid", forward, k0)
    strikes = k[np.concatenate([puts, [at], calls])]
    middle = np.concatenate([put[puts], [0.5 * call[at] + 0.5 * put[at]], call[calls]])
    distance = forward / k0 - 1.0
    with np.errstate(over="ignore"):
        contributions = _spacing(strikes) / strikes / strikes * growth * middle
        variance = 2.0 / years * float(contributions.sum()) - distance * distance / years
    if not 0.0 < variance < math.inf:
        return _no_strip("the strip costs no more than the distance of the forward from its strike explains", forward, k0)
    return VixStyleVariance(variance, forward, k0, strikes.size, strikes, contributions, "")


def vix_style_index(
    near_variance: ArrayLike,
    near_minutes: ArrayLike,
    next_variance: ArrayLike,
    next_minutes: ArrayLike,
    target_minutes: ArrayLike = TARGET_MINUTES,
) -> Float:
    """Volatility index in points (20.0 is 20 %) of a constant maturity, 30 days by default, from the variances of two expiries.

        100 sqrt([T1 V1 (N2 - N) / (N2 - N1) + T2 V2 (N - N1) / (N2 - N1)] N365 / N)

    with V1, V2 the annualised variances, N1, N2 the minutes to the expiries, N the target's, N365 = 525,600 and T = N/N365 years.
    Arguments broadcast. NaN where one is NaN, a variance is negative, N1 is not positive or below N2, or the target does not lie
    within [N1, N2]: nothing is extrapolated, as in the Cboe method since 2014.
    """
    v1, n1, v2, n2, n = (
        np.asarray(values, dtype=np.float64)
        for values in (near_variance, near_minutes, next_variance, next_minutes, target_minutes)
    )
    sound = (v1 >= 0.0) & (v2 >= 0.0) & (n1 > 0.0) & (n1 < n2) & (n1 <= n) & (n <= n2) & (n2 < math.inf)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (n2 - n) / (n2 - n1)
        total = n1 * v1 * share + n2 * v2 * (1.0 - share)
        return np.asarray(100.0 * np.sqrt(np.where(sound, total / n, np.nan)))[()]


def replicated_variance(
    strike: ArrayLike,
    call_price: ArrayLike,
    put_price: ArrayLike,
    forward: float,
    years: float,
    discount: float,
    split: float | None = None,
) -> ReplicatedVariance:
    """Fair variance of a variance swap by Demeterfi, Derman, Kamal and Zou's portfolio of the options that trade.

        variance = 2/T [ln(F/S*) - (F/S* - 1)] + cost / D

    The portfolio replicates f(S) = 2/T [(S - S*)/S* - ln(S/S*)] by straight lines between the strikes, with puts up to the split S*
    and calls from it. A line between two points of a convex curve lies above it, so the variance is an upper estimate as far as the
    strikes reach. The lowest and the highest strike only end the last line; their options are not held and their prices not read.

    The arrays are one-dimensional and of one length, in any order; prices are discounted premiums per share of puts up to the split
    and calls from it, the other ones are not read. `split` is one of the strikes, by default the highest at or below the forward.
    NaN, with a reason, where an input or a price that is needed is missing or there are not two strikes on each side of the split,
    itself included. Raises ValueError for shapes that differ, a strike that occurs twice, and a split that is not a strike.
    """
    k, call, put = (np.asarray(values, dtype=np.float64) for values in (strike, call_price, put_price))
    if k.ndim != 1 or not k.shape == call.shape == put.shape:
        raise ValueError(
            "strike, call_price and put_price must be one-dimensional and of one length; "
            f"their shapes are {k.shape}, {call.shape}, {put.shape}"
        )
    usable = (k > 0.0) & (k < math.inf)
    order = np.argsort(k[usable], kind="stable")
    k, call, put = k[usable][order], call[usable][order], put[usable][order]
    _refuse_repeats(k)
    nothing = np.full(k.shape, np.nan)
    if not (0.0 < years < math.inf and 0.0 < forward < math.inf and 0.0 < discount < math.inf):
        return ReplicatedVariance(math.nan, k, nothing, nothing, math.nan, "years, forward and discount must be positive")
    if split is not None and split not in k:
        raise ValueError(f"split must be one of the strikes; {split:g} is not")
    at = int(np.searchsorted(k, forward if split is None else split, side="right")) - 1
    if not 0 < at < k.size - 1:
        return ReplicatedVariance(math.nan, k, nothing, nothing, math.nan, "the strikes do not reach to both sides of the split")
    payoff = 2.0 / years * ((k - k[at]) / k[at] - np.log(k / k[at]))
    slope = np.diff(payoff) / np.diff(k)
    put_weight, call_weight = np.zeros(k.size), np.zeros(k.size)
    # An option of each strike adds the change of slope there.
    call_weight[at:-1] = np.diff(slope[at:], prepend=0.0)
    put_weight[1 : at + 1] = np.diff(-slope[:at][::-1], prepend=0.0)[::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        held = np.concatenate([put_weight[1 : at + 1] * put[1 : at + 1], call_weight[at:-1] * call[at:-1]])
    if not np.isfinite(held).all():
        return ReplicatedVariance(math.nan, k, put_weight, call_weight, math.nan, "a price that the portfolio needs is missing")
    cost = float(held.sum())
    variance = 2.0 / years * (math.log(forward / k[at]) - (forward / k[at] - 1.0)) + cost / discount
    return ReplicatedVariance(variance, k, put_weight, call_weight, cost, "")


def _midpoints(bid: Float, ask: Float) -> Float:
    """The midpoint of each quote, NaN where there is none."""
    quoted = (bid > 0.0) & (bid <= ask) & (ask < math.inf)
    return np.where(quoted, 0.5 * np.where(quoted, bid, 0.0) + 0.5 * np.where(quoted, ask, 0.0), np.nan)


def _walk(bid: Float, middle: Float) -> Int:
    """Places of the options that are used, nearest to K0 first: the quoted ones before the first two neighbours without a bid."""
    listed = np.flatnonzero(~np.isnan(bid))
    unwanted = bid[listed] == 0.0
    ends = np.flatnonzero(unwanted[1:] & unwanted[:-1])
    walked = listed[: ends[0]] if ends.size else listed
    return walked[np.isfinite(middle[walked])].astype(np.int64)


def _spacing(strikes: Float) -> Float:
    """Half the distance between the neighbours of each of three or more strikes; the whole distance to the one at the ends."""
    inner = 0.5 * (strikes[2:] - strikes[:-2])
    return np.concatenate([[strikes[1] - strikes[0]], inner, [strikes[-1] - strikes[-2]]])


def _refuse_repeats(strikes: Float) -> None:
    repeated = strikes[1:][np.diff(strikes) == 0.0]
    if repeated.size:
        raise ValueError(f"strike has two entries for {repeated[0]:g}")


def _no_strip(reason: str, forward: float = math.nan, k0: float = math.nan) -> VixStyleVariance:
    return VixStyleVariance(math.nan, forward, k0, 0, np.empty(0), np.empty(0), reason)
