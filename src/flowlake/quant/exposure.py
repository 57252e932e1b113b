"""What dealers' option positions add up to, under a stated assumption about which side they hold.

Every function takes a `convention`, which names the dealers' side:

- `long_calls_short_puts`: dealers are long every open call and short every open put (customers sell calls over their shares and
  buy puts to protect them), the naive assumption of most published figures;
- `short_calls_long_puts`: its opposite;
- `absolute`: no side, long all of it: the size alone;
- `flow_signed`: dealers hold the opposite of what customers bought less what they sold, `customer_position` contracts per line,
  cut to the open interest: nobody can hold more than is open.

Open interest is in contracts, sensitivities are those of one long option per share in the units of `european.Greeks`, `multiplier`
is shares per contract. Positive gamma exposure: dealers sell into a rise and dampen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from flowlake.core.arrays import ArrayLike, Bool, Float, Int
from flowlake.quant._arguments import broadcast, checked_right
from flowlake.quant._gamma_profile import fill_sticky_delta, fill_sticky_strike

DEALER_SIDES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "long_calls_short_puts": (1.0, -1.0),
        "short_calls_long_puts": (-1.0, 1.0),
        "absolute": (1.0, 1.0),
    }
)
"""Sign of the dealers' position in (calls, puts) by convention. Open interest alone does not tell who is long."""

FLOW_SIGNED = "flow_signed"
"""The convention that needs `customer_position`."""

CONVENTIONS = (*DEALER_SIDES, FLOW_SIGNED)

DYNAMICS = ("sticky_strike", "sticky_delta")
"""What a contract's volatility does when the spot moves.

`sticky_strike`: it stays. `sticky_delta`: the smile of its expiry and right, a function of strike/spot, stays, and with it the
volatility at each delta; the contract takes the volatility of the strike that had its strike/spot before the move. The smile is
linear in ln(strike) between the given strikes, the mean where one occurs twice, and flat beyond them."""

_PER_CENT = 0.01
_VOL_POINT = 0.01
_DAYS_PER_YEAR = 365.0
_INV_SQRT_TWO_PI = 0.3989422804014327
# Outside these the squares in a kernel overflow; no option is near them.
_LEAST_TOTAL_VOL, _MOST_TOTAL_VOL, _MOST_CARRY = 1e-100, 1e100, 700.0

# Writes sums and their smallest squares for log spots; see the kernels.
_Fill = Callable[[Float, Float, Float], None]


class GammaProfile(NamedTuple):
    """Total gamma exposure of a chain over a range of prices of the underlying."""

    spot: Float
    """Prices of the underlying, ascending, dollars; empty where the present spot is not a positive number."""
    exposure_usd: Float
    """Dollars of the underlying by which the dealers' delta changes when it rises by 1 % from there."""
    contracts_used: int
    """Contract lines in the total. A line without open interest adds nothing and counts as used."""
    contracts_left_out: int
    """Lines with open interest, or an unknown one, whose gamma or position cannot be computed: what the total lacks."""


class StrikeProfile(NamedTuple):
    """Exposures summed by strike."""

    strike: Float
    """Ascending, each once; NaN last, where the strike of a line is unknown."""
    calls: Float
    """Sum over the calls of the strike, zero where there is none; NaN where one of them is NaN."""
    puts: Float
    """Likewise over the puts."""


def dealer_position(
    open_interest: ArrayLike,
    right: ArrayLike,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
) -> Float:
    """Contracts that dealers hold, negative where they are short; never more than `open_interest` either way.

    NaN where the open interest is negative or not finite, or the customers' position, under `flow_signed`, is NaN. Raises
    ValueError for an unknown convention (`CONVENTIONS` lists them), for a right other than +1 or -1, and unless
    `customer_position` is given with `flow_signed` and with nothing else.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown dealer convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    if (customer_position is not None) != (convention == FLOW_SIGNED):
        raise ValueError(f"customer_position goes with the convention {FLOW_SIGNED!r} and with no other; it is {convention!r}")
    sides = checked_right(right)
    contracts = np.asarray(open_interest, dtype=np.float64)
    contracts = np.where((contracts >= 0.0) & (contracts < math.inf), contracts, np.nan)
    if customer_position is not None:
        bought, contracts, _ = np.broadcast_arrays(np.asarray(customer_position, dtype=np.float64), contracts, sides)
        return np.asarray(np.clip(-bought, -contracts, contracts))[()]
    call_sign, put_sign = DEALER_SIDES[convention]
    return np.asarray(np.where(sides > 0.0, call_sign, put_sign) * contracts)[()]


def gamma_exposure(
    gamma: ArrayLike,
    open_interest: ArrayLike,
    spot: ArrayLike,
    right: ArrayLike,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
) -> Float:
    """Dollars of the underlying by which the dealers' delta changes when the spot rises by 1 %, per contract line.

    position x gamma x multiplier x spot^2 x 0.01, with gamma per share and `dealer_position` contracts. Arguments broadcast; NaN
    where one is not finite, spot or multiplier is not positive, or there is no position. `dealer_position` says what raises.
    """
    position = dealer_position(open_interest, right, convention, customer_position)
    g, s, shares = _finite(gamma), _positive(spot), _positive(multiplier)
    with np.errstate(over="ignore"):
        return np.asarray(g * position * shares * s * s * _PER_CENT)[()]


def vanna_exposure(
    vanna: ArrayLike,
    open_interest: ArrayLike,
    spot: ArrayLike,
    right: ArrayLike,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
) -> Float:
    """Dollars of the underlying by which the dealers' delta changes when volatility rises by one point (0.01), per contract line.

    position x vanna x multiplier x spot x 0.01, with vanna per share and 1.00 of volatility. Otherwise as `gamma_exposure`.
    """
    position = dealer_position(open_interest, right, convention, customer_position)
    with np.errstate(over="ignore"):
        return np.asarray(_finite(vanna) * position * _positive(multiplier) * _positive(spot) * _VOL_POINT)[()]


def charm_exposure(
    charm: ArrayLike,
    open_interest: ArrayLike,
    spot: ArrayLike,
    right: ArrayLike,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
) -> Float:
    """Dollars of the underlying by which the dealers' delta changes when one calendar day passes, per contract line.

    position x charm / 365 x multiplier x spot, with charm per share and year of calendar time passing. Otherwise as
    `gamma_exposure`.
    """
    position = dealer_position(open_interest, right, convention, customer_position)
    with np.errstate(over="ignore"):
        return np.asarray(_finite(charm) * position * _positive(multiplier) * _positive(spot) / _DAYS_PER_YEAR)[()]


def by_strike(strike: ArrayLike, exposure: ArrayLike, right: ArrayLike) -> StrikeProfile:
    """Any exposure, of one contract line each, summed by strike; lines come in any order and the sums do not depend on it.

    Nothing is left out: a NaN makes the sum of its strike and right NaN.
    """
    _, (k, dollars, sides) = broadcast(strike, exposure, checked_right(right))
    order = np.lexsort((dollars, sides, k))
    strikes, place = np.unique(k[order], return_inverse=True)
    dollars, sides = dollars[order], sides[order]
    calls, puts = (_sums(place[sides == side], dollars[sides == side], strikes.size) for side in (1.0, -1.0))
    return StrikeProfile(strikes, calls, puts)


def gamma_profile(
    spot: float,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    open_interest: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
    dynamics: str = "sticky_strike",
    lowest: float = 0.5,
    highest: float = 1.5,
    points: int = 401,
) -> GammaProfile:
    """Total `gamma_exposure` of a chain, repriced at `points` spots from `lowest` to `highest` times the present one.

    The spots are equally spaced in their logarithm. Gamma is Black and Scholes's with the contract's own `vol`, `years`, `rate`
    and `dividend_yield`; `dynamics` (`DYNAMICS`) says what `vol` does when the spot moves. Contract arguments broadcast, one line
    each, in any order: the result does not depend on it. A line is left out, and counted, where its open interest is not zero and
    strike, years, vol or multiplier is not positive, or something is not finite. Raises ValueError for an unknown convention or
    dynamics, a wrong right, a range not within 0 < lowest < highest, and fewer than 2 points.
    """
    total = _total_gamma(
        spot, strike, years, vol, open_interest, right, rate, dividend_yield, multiplier, convention, customer_position, dynamics
    )
    spots = _grid(spot, lowest, highest, points)
    value, square = total.scaled(spots)
    exposure = value * np.exp(-0.5 * square) * spots
    return GammaProfile(spots, exposure, total.used, total.left_out)


def gamma_flip(
    spot: float,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    open_interest: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    multiplier: ArrayLike = 100,
    convention: str = "long_calls_short_puts",
    customer_position: ArrayLike | None = None,
    dynamics: str = "sticky_strike",
    lowest: float = 0.5,
    highest: float = 1.5,
    points: int = 401,
) -> Float:
    """The spots, ascending, at which the chain's total gamma exposure changes its sign; empty where it does not.

    Arguments and errors as in `gamma_profile`, whose counts tell what the total lacks. The sign is looked up at the profile's spots
    and at every strike within them, since close to expiry gamma lives at the strikes, and each change is refined by Brent's method
    to the last digits. Two changes between neighbouring spots of that grid cancel out and are not seen; more `points` see more. A
    change far from every strike, where the total is next to nothing, is given like any other. Empty too where the spot is not a
    positive number or no line can be used.
    """
    total = _total_gamma(
        spot, strike, years, vol, open_interest, right, rate, dividend_yield, multiplier, convention, customer_position, dynamics
    )
    grid = _grid(spot, lowest, highest, points)
    if grid.size == 0:
        return grid
    strikes = total.strikes[(total.strikes > grid[0]) & (total.strikes < grid[-1])]
    grid = np.unique(np.concatenate([grid, strikes]))
    values = total.scaled(grid)[0]
    seen = np.flatnonzero(values != 0.0)
    flips = []
    for low, high in pairwise(seen):
        if (values[low] > 0.0) != (values[high] > 0.0):
            # Where the total is zero on the grid between them, Brent's method still finds one zero.
            flips.append(float(brentq(total.sign, grid[low], grid[high], xtol=1e-13 * grid[low], rtol=1e-15)))
    return np.array(flips, dtype=np.float64)


def max_pain(strike: ArrayLike, call_open_interest: ArrayLike, put_open_interest: ArrayLike) -> float:
    """The strike at which, were the underlying to settle there, all open options together would pay the least.

    Strikes come in any order and may repeat; their open interest adds up. Of several such strikes the lowest. NaN where there is no
    open interest, or where a strike is not a positive number or an open interest is negative or not finite: what is unknown
    could move it. All calls and puts have the same multiplier. Arguments broadcast.
    """
    _, (k, calls, puts) = broadcast(strike, call_open_interest, put_open_interest)
    sound = (k > 0.0) & (k < math.inf) & (calls >= 0.0) & (calls < math.inf) & (puts >= 0.0) & (puts < math.inf)
    if not sound.all() or not (calls.any() or puts.any()):
        return math.nan
    order = np.lexsort((puts, calls, k))
    strikes, place = np.unique(k[order], return_inverse=True)
    calls, puts = _sums(place, calls[order], strikes.size), _sums(place, puts[order], strikes.size)
    # The payout is convex in the settlement price. Above a strike it rises by the calls from there down less the puts higher up.
    slope = np.cumsum(calls) - np.append(np.cumsum(puts[::-1])[::-1][1:], 0.0)
    return float(strikes[np.argmax(slope >= 0.0)])


def _sums(place: Int, values: Float, count: int) -> Float:
    """Sum of the values at each place, in their order."""
    return np.bincount(place, values, count).astype(np.float64)


def _finite(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _positive(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    return np.where((array > 0.0) & (array < math.inf), array, np.nan)


class _TotalGamma(NamedTuple):
    """A chain's total gamma as a function of the spot."""

    fill: _Fill
    spot: float
    strikes: Float
    used: int
    left_out: int

    def scaled(self, spots: Float) -> tuple[Float, Float]:
        """Total exposure over spot, as value exp(-square/2): value has its sign also where it underflows."""
        value, square = np.zeros(spots.size), np.zeros(spots.size)
        self.fill(value, square, np.log(spots / self.spot))
        return value * _PER_CENT, square

    def sign(self, spot: float) -> float:
        """A number with the sign and the zeros of the total exposure at `spot`."""
        return float(self.scaled(np.array([spot]))[0][0])


def _total_gamma(
    spot: float,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    open_interest: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike,
    multiplier: ArrayLike,
    convention: str,
    customer_position: ArrayLike | None,
    dynamics: str,
) -> _TotalGamma:
    if dynamics not in DYNAMICS:
        raise ValueError(f"unknown dynamics {dynamics!r}; known: {', '.join(DYNAMICS)}")
    if np.ndim(spot) != 0:
        raise ValueError(f"spot must be one number, the price of the chain's underlying; its shape is {np.shape(spot)}")
    position = dealer_position(open_interest, right, convention, customer_position)
    _, (k, t, v, held, side, r, q, shares) = broadcast(
        strike, years, vol, position, checked_right(right), rate, dividend_yield, multiplier
    )
    with np.errstate(all="ignore"):
        s = v * np.sqrt(t)
        log_strike, carry = np.log(k / spot), (r - q) * t
        weight = _INV_SQRT_TWO_PI * held * shares * np.exp(-q * t)
        priced = (v > 0.0) & (t > 0.0) & (s > _LEAST_TOTAL_VOL) & (s < _MOST_TOTAL_VOL) & np.isfinite(log_strike)
        live = priced & (held != 0.0) & (shares > 0.0) & np.isfinite(weight / s) & (np.abs(carry) < _MOST_CARRY)
        used = int((live | (held == 0.0)).sum())
        fill: _Fill
        if dynamics == "sticky_strike":
            fill = _sticky_strike(*_in_order(live, weight / s, (carry - log_strike) / s + 0.5 * s, 1.0 / s))
        else:
            smile, start, knot, knot_vol = _smiles(priced, t, side, log_strike, v)
            contracts = _in_order(live, weight, log_strike, t, carry, smile.astype(np.float64))
            fill = _sticky_delta(contracts, start, knot, knot_vol)
    return _TotalGamma(fill, spot, np.unique(k[live]), used, k.size - used)


def _in_order(which: Bool, *columns: Float) -> list[Float]:
    """The chosen rows of the columns in an order that depends on their values alone, so that sums do too."""
    chosen = [column[which] for column in columns]
    order = np.lexsort(chosen)
    return [column[order] for column in chosen]


def _sticky_strike(weight: Float, level: Float, slope: Float) -> _Fill:
    return lambda value, square, log_spot: fill_sticky_strike(value, square, log_spot, weight, level, slope)


def _sticky_delta(contracts: list[Float], start: Int, knot: Float, knot_vol: Float) -> _Fill:
    weight, log_strike, years, carry, smile = contracts
    which = smile.astype(np.int64)
    return lambda value, square, log_spot: fill_sticky_delta(
        value, square, log_spot, weight, log_strike, years, carry, which, start, knot, knot_vol
    )


def _smiles(priced: Bool, years: Float, side: Float, log_strike: Float, vol: Float) -> tuple[Int, Int, Float, Float]:
    """The smile of each line (one per expiry and right), where each smile starts, and its points; equal strikes are averaged."""
    # The expiry with the sign of the right names the smile.
    smile = np.unique(years * side, return_inverse=True)[1].astype(np.int64)
    rows = np.flatnonzero(priced)
    order = rows[np.lexsort((vol[rows], log_strike[rows], smile[rows]))]
    first = np.ones(order.size, dtype=np.bool_)
    first[1:] = (np.diff(smile[order]) != 0) | (np.diff(log_strike[order]) != 0.0)
    place = np.cumsum(first) - 1
    knot_vol = np.bincount(place, vol[order]) / np.bincount(place)
    count = int(smile.max(initial=-1)) + 1
    start = np.searchsorted(smile[order][first], np.arange(count + 1))
    return smile, start.astype(np.int64), log_strike[order][first], knot_vol


def _grid(spot: float, lowest: float, highest: float, points: int) -> Float:
    if not 0.0 < lowest < highest < math.inf:
        raise ValueError(f"the range must be 0 < lowest < highest; it is {lowest:g} to {highest:g}")
    if points < 2:
        raise ValueError(f"a profile needs 2 points or more; points is {points}")
    if not 0.0 < spot * lowest < spot * highest < math.inf:
        return np.empty(0)
    return np.asarray(np.geomspace(lowest * spot, highest * spot, points))
