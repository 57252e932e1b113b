"""European options on a forward: price, implied volatility and sensitivities, over arrays.

Conventions of every function here:

- arguments broadcast against each other; the result has the common shape, float64 (scalars in, a scalar out);
- `right` is +1 for a call and -1 for a put; anything else raises ValueError;
- every price is the discounted premium per share, what a trade pays today;
- `years` is the time to expiry, actual/365; `vol` is annualised, per 1.00 (0.2 is 20 %);
- `rate` and `dividend_yield` are continuous, per year;
- where an input is missing, not finite or out of range the result is NaN; nothing raises.

Sources: Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976); the sensitivities as in Haug, "The
Complete Guide to Option Pricing Formulas", 2nd ed. (2007), chapter 2. The inversion is described in `_black`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant import _black
from flowlake.quant._arguments import broadcast, checked_right


class ImpliedVolReason(IntEnum):
    """Why `implied_vol` gave what it gave."""

    OK = _black.OK
    """A volatility exists and is given."""
    BELOW_INTRINSIC = _black.BELOW_INTRINSIC
    """The price is at or below the discounted intrinsic value, to within rounding: no positive volatility gives it."""
    ABOVE_MAXIMUM = _black.ABOVE_MAXIMUM
    """The price is at or above the discounted forward (call) or strike (put), to within rounding: no finite volatility does."""
    BAD_INPUT = _black.BAD_INPUT
    """An input is NaN or infinite, or forward, strike, years or discount is not positive."""


class Greeks(NamedTuple):
    """Sensitivities of one long option per share."""

    delta: Float
    """dV/dS, to the spot."""
    gamma: Float
    """d2V/dS2."""
    vega: Float
    """dV/dvol per 1.00 of volatility."""
    theta: Float
    """dV/dt per year of calendar time passing."""
    rho: Float
    """dV/drate per 1.00 of rate, the dividend yield held."""
    vanna: Float
    """d delta/dvol per 1.00 of volatility."""
    volga: Float
    """d vega/dvol per 1.00 of volatility."""
    charm: Float
    """d delta/dt per year of calendar time passing."""
    speed: Float
    """d gamma/dS."""


class ImpliedVolGreeks(NamedTuple):
    """Implied volatility with the sensitivities at it; units as in `Greeks`."""

    iv: Float
    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    rho: Float


def price(
    forward: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    right: ArrayLike,
    discount: ArrayLike = 1.0,
) -> Float:
    """Discounted premium in the currency of `forward`.

    At zero `years` or zero `vol` it is the discounted intrinsic value. NaN where an input is not finite, forward, strike or
    discount is not positive, or years or vol is negative.
    """
    shape, arrays = broadcast(forward, strike, years, vol, checked_right(right), discount)
    out = np.empty(arrays[0].size)
    _black.fill_prices(out, *arrays)
    return out.reshape(shape)[()]


def implied_vol(
    price: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    discount: ArrayLike = 1.0,
) -> Float:
    """Volatility at which the discounted premium is `price`; NaN where none exists (`implied_vol_reason` says why).

    Exact to 1e-10 wherever the price, as a double, determines the volatility that well.
    """
    shape, arrays = broadcast(price, forward, strike, years, checked_right(right), discount)
    out = np.empty(arrays[0].size)
    _black.fill_implied_vols(out, *arrays)
    return out.reshape(shape)[()]


def implied_vol_reason(
    price: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    discount: ArrayLike = 1.0,
) -> NDArray[np.int8]:
    """The `ImpliedVolReason` of each option as int8: OK exactly where `implied_vol` is not NaN."""
    shape, arrays = broadcast(price, forward, strike, years, checked_right(right), discount)
    out = np.empty(arrays[0].size, dtype=np.int8)
    _black.fill_reasons(out, *arrays)
    return out.reshape(shape)[()]


def greeks(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
) -> Greeks:
    """Sensitivities of a long option; units in `Greeks`.

    NaN where an input is not finite or spot, strike, years or vol is not positive: at expiry they are not defined.
    """
    shape, arrays = broadcast(spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    out = np.empty((len(Greeks._fields), arrays[0].size))
    _black.fill_greeks(out, *arrays)
    return Greeks(*(row.reshape(shape)[()] for row in out))


def implied_vol_greeks(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
) -> ImpliedVolGreeks:
    """Implied volatility of the discounted premium `price` and the sensitivities at it, in one pass.

    The forward is spot exp((rate - dividend_yield) years) and the discount factor exp(-rate years). All are NaN where no volatility
    exists.
    """
    shape, arrays = broadcast(price, spot, strike, years, checked_right(right), rate, dividend_yield)
    out = np.empty((len(ImpliedVolGreeks._fields), arrays[0].size))
    _black.fill_implied_vol_greeks(out, *arrays)
    return ImpliedVolGreeks(*(row.reshape(shape)[()] for row in out))
