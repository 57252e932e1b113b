"""American options on a stock with cash dividends: price, implied volatility and sensitivities, over arrays.

Conventions as in `european`: arguments broadcast, `right` is +1 or -1 and anything else raises ValueError, prices are premiums paid
today, `years` is actual/365, volatility and rates per 1.00, NaN where an input is missing or out of range.

Dividends are escrowed: the stock less the present value of the dividends that fall up to the expiry is what diffuses, with `vol`.
`dividend_times` are years from now to the ex-date, `dividend_amounts` dollars per share. A one-dimensional pair holds for all
options of the call; otherwise the last axis counts the dividends of one option, the axes before it broadcast with the other
arguments, and NaN in both fills up the rows. A dividend that is not ahead (time 0 or less), that falls after the expiry, or that is
0 changes nothing; one on the expiry itself counts: a call can still be exercised before it.

A call without yield is exercised just before an ex-date whose dividend exceeds the interest on its strike up to the next one, or
never; a put never without interest. What is never exercised early is European. For the rest `_american` describes the grid, which
has a step on every ex-date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant import _american
from flowlake.quant._arguments import broadcast, checked_right
from flowlake.quant.european import ImpliedVolGreeks, ImpliedVolReason

LOWEST_VOL = _american.LOWEST_VOL
HIGHEST_VOL = _american.HIGHEST_VOL
"""Implied volatilities of options that may be exercised early are sought between these."""

__all__ = [
    "HIGHEST_VOL",
    "LOWEST_VOL",
    "ExposureGreeks",
    "Greeks",
    "ImpliedVolGreeks",
    "ImpliedVolReason",
    "exposure_greeks",
    "greeks",
    "implied_vol",
    "implied_vol_greeks",
    "implied_vol_reason",
    "price",
]


class Greeks(NamedTuple):
    """Sensitivities of one long American option per share; units as in `european.Greeks`, dividends in cash held."""

    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    rho: Float


class ExposureGreeks(NamedTuple):
    """What exposures are made of, of one long American option per share; units as in `european.Greeks`."""

    delta: Float
    gamma: Float
    vanna: Float
    charm: Float


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

    NaN where an input is not finite, spot, strike, years or vol is not positive, vol sqrt(years) exceeds 30, rate or yield times
    years exceeds 100, or the dividends are worth the whole stock. Raises ValueError for dividends that are not a pair of arrays of
    one shape, infinite, negative, or NaN in one of the two only.
    """
    times, amounts = _dividends(dividend_times, dividend_amounts)
    shape, arrays = _broadcast(times, spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    out = np.empty(arrays[0].size)
    _american.fill_prices(_american.compiled_premiums(), out, *_scratch(times), *_rows(times, amounts, shape), np.stack(arrays))
    return out.reshape(shape)[()]


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
    """Volatility at which `american.price` gives `price`; NaN where there is none (`implied_vol_reason` says why).

    A price at the value of immediate exercise determines no volatility. Next to it the price has a corner in the volatility, and
    may by rounding have jumps of 2e-7 of the spot, which is then how exactly `american.price` gives the price back; elsewhere it
    is 1e-9. Dividends and errors as in `price`.
    """
    shape, vol, _, _ = _solved(
        price, spot, strike, years, right, rate, dividend_yield, dividend_times, dividend_amounts, with_greeks=False
    )
    return vol.reshape(shape)[()]


def implied_vol_reason(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> NDArray[np.int8]:
    """The `ImpliedVolReason` of each option as int8: OK exactly where `implied_vol` is not NaN.

    BELOW_INTRINSIC includes a price at or below the value of immediate exercise, and one at or below what exercise on the best date
    is worth when nothing moves. It costs as much as the volatility.
    """
    shape, _, reason, _ = _solved(
        price, spot, strike, years, right, rate, dividend_yield, dividend_times, dividend_amounts, with_greeks=False
    )
    return reason.reshape(shape)[()]


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

    Each is that of the European formula plus that of what early exercise adds: delta and gamma from three nodes of the grid, vega
    and rho from a second and a third grid, theta from the pricing equation. Where exercise now is best, delta is 1 or -1 and the
    others are zero.
    """
    terms = (spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    return Greeks(*_filled(_american.fill_greeks, len(Greeks._fields), terms, dividend_times, dividend_amounts))


def exposure_greeks(
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    vol: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> ExposureGreeks:
    """Delta, gamma, vanna and charm of a long option; NaN where `price` is NaN.

    Delta and gamma are those of `greeks`. Vanna and charm add to those of the European formula how the delta of what early exercise
    adds changes with the volatility and with time: central differences 5 % of the volatility, and of the time to expiry, to either
    side, and only from before where an ex-date is nearer than that. Where exercise now is best, all but delta are zero.
    """
    terms = (spot, strike, years, vol, checked_right(right), rate, dividend_yield)
    count = len(ExposureGreeks._fields)
    return ExposureGreeks(*_filled(_american.fill_exposure_greeks, count, terms, dividend_times, dividend_amounts))


def implied_vol_greeks(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike = 0.0,
    dividend_times: ArrayLike | None = None,
    dividend_amounts: ArrayLike | None = None,
) -> ImpliedVolGreeks:
    """Implied volatility and the sensitivities at it, in one pass; all NaN where no volatility exists.

    The numbers are those of `implied_vol` and then `greeks`, to 1e-5.
    """
    shape, vol, _, found = _solved(
        price, spot, strike, years, right, rate, dividend_yield, dividend_times, dividend_amounts, with_greeks=True
    )
    return ImpliedVolGreeks(vol.reshape(shape)[()], *(row.reshape(shape)[()] for row in found))


def _filled(
    fill: Callable[..., None], count: int, terms: Sequence[ArrayLike], times: ArrayLike | None, amounts: ArrayLike | None
) -> Iterator[Float]:
    """The `count` rows that a kernel fills for these terms, each of the shape they broadcast to."""
    times, amounts = _dividends(times, amounts)
    shape, arrays = _broadcast(times, *terms)
    out = np.empty((count, arrays[0].size))
    fill(_american.compiled_premiums(), out, *_scratch(times), *_rows(times, amounts, shape), np.stack(arrays))
    return (row.reshape(shape)[()] for row in out)


def _solved(
    price: ArrayLike,
    spot: ArrayLike,
    strike: ArrayLike,
    years: ArrayLike,
    right: ArrayLike,
    rate: ArrayLike,
    dividend_yield: ArrayLike,
    dividend_times: ArrayLike | None,
    dividend_amounts: ArrayLike | None,
    *,
    with_greeks: bool,
) -> tuple[tuple[int, ...], Float, NDArray[np.int8], Float]:
    times, amounts = _dividends(dividend_times, dividend_amounts)
    shape, arrays = _broadcast(times, price, spot, strike, years, checked_right(right), rate, dividend_yield)
    size = arrays[0].size
    vol, reason = np.empty(size), np.empty(size, dtype=np.int8)
    found = np.empty((len(Greeks._fields), size if with_greeks else 0))
    rows, terms = _rows(times, amounts, shape), np.stack(arrays)
    _american.fill_implied_vols(_american.compiled_premiums(), vol, reason, found, *_scratch(times), *rows, terms)
    return shape, vol, reason, found


def _dividends(times: ArrayLike | None, amounts: ArrayLike | None) -> tuple[Float, Float]:
    if (times is None) != (amounts is None):
        raise ValueError("dividend_times and dividend_amounts go together: give both or neither")
    t, a = (np.asarray(() if v is None else v, dtype=np.float64) for v in (times, amounts))
    if t.ndim == 0 or t.shape != a.shape:
        raise ValueError(
            "dividend_times and dividend_amounts must be arrays of one shape and of one length, the dividends along the last axis: "
            f"{t.shape}, {a.shape}"
        )
    padded = np.isnan(t) & np.isnan(a)
    if not (padded | (np.isfinite(t) & np.isfinite(a) & (a >= 0.0))).all():
        raise ValueError("dividend_times and dividend_amounts must be finite, and no amount negative; NaN in both is no dividend")
    # The kernels take them in order; what fills up comes last.
    latest_last = np.where(padded, np.inf, t)
    if (latest_last[..., 1:] < latest_last[..., :-1]).any():
        order = np.argsort(latest_last, axis=-1, kind="stable")
        t, a = (np.take_along_axis(values, order, axis=-1) for values in (t, a))
    return t, a


def _broadcast(times: Float, *values: ArrayLike) -> tuple[tuple[int, ...], list[Float]]:
    """As `broadcast`, also against the axes of the dividends before the last."""
    shape, (_, *arrays) = broadcast(np.zeros(times.shape[:-1]), *values)
    return shape, arrays


def _scratch(times: Float) -> tuple[Float, Float]:
    """What a kernel works in: the grid, and the dividends of one option."""
    return np.zeros(_american.WORKSPACE), np.empty((3, times.shape[-1]))


def _rows(times: Float, amounts: Float, shape: tuple[int, ...]) -> tuple[Float, Float]:
    """One row of dividends for each option, or one for all."""
    count = times.shape[-1]
    if times.size == count:
        return times.reshape(1, count), amounts.reshape(1, count)
    rows = (np.ascontiguousarray(np.broadcast_to(a, (*shape, count))).reshape(-1, count) for a in (times, amounts))
    t, a = rows
    return t, a
