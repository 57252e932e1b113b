"""Constant maturities of one underlying: the volatility at fixed tenors and forward deltas, from slices fitted to each expiry.

Between expiries a node is interpolated at its own delta: the total variance vol^2 years of the 25-delta put of a tenor is linear
in time between those of the 25-delta puts of the two expiries around it. This is the custom of surfaces quoted by delta (Clark,
"Foreign Exchange Option Pricing", 2011). Gatheral and Jacquier interpolate at equal log-moneyness, which cannot create calendar
arbitrage; but a node is a delta, and a fixed strike passes through ever different deltas.

No node lies beyond the quotes: neither at a strike outside those of its expiry, nor after the last expiry. Before the first one
total variance is linear from zero at zero, so that the volatility is that of the first expiry, and only up to `HELD_RATIO`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowlake.core.arrays import ArrayLike, Float
from flowlake.quant._arguments import checked_right
from flowlake.quant.smile import term_slope
from flowlake.quant.svi import MIN_STRIKES, FitReason, SviFit, calendar_violation, fit_svi, svi_at_the_money, svi_delta_strike_vol

TENOR_DAYS = (7, 14, 30, 60, 90, 180, 365)
"""Constant maturities in calendar days; in years they are divided by 365."""
NODES = ("atm", "p10", "p25", "c25", "c10")
"""At the forward, and the puts and calls of 10 and 25 forward delta."""
ZERO_DTE_YEARS = 0.5 / 365.0
"""An expiry nearer than this is of today's session: it stands apart and takes no part in any tenor."""
HELD_RATIO = 1.5
"""The first expiry speaks for a tenor before it up to this multiple of the tenor."""

_DELTAS = (-0.10, -0.25, 0.25, 0.10)
_ATM, _P10, _P25, _C25, _C10 = range(len(NODES))


class NodeReason(IntEnum):
    """Why a node has what it has; only OK and HELD have a volatility."""

    OK = 0
    """Read from a slice, or interpolated between two."""
    HELD = 1
    """The tenor lies before the first expiry, whose volatility it takes."""
    NO_SLICE = 2
    """The quotes of the expiry do not carry a slice: its `FitReason` says why."""
    OUTSIDE_STRIKES = 3
    """The strike of this delta lies beyond the outermost quote of the expiry."""
    NO_EXPIRY = 4
    """No expiry, 0DTE apart, has this node."""
    BEFORE_FIRST = 5
    """The first expiry that has this node is too far after the tenor."""
    AFTER_LAST = 6
    """The tenor lies after the last expiry that has this node."""


class SurfaceNodes(NamedTuple):
    """The surface of one underlying. Tenors are rows in order of `TENOR_DAYS`, nodes columns in order of `NODES`."""

    vol: Float
    """Tenors by nodes, annualised; NaN where `reason` says why."""
    reason: NDArray[np.int8]
    """`NodeReason` of each."""
    near_years: Float
    """Tenors by nodes: the expiry at or before the tenor that the node rests on; NaN where there is none."""
    far_years: Float
    """The expiry after it, or the same where the tenor is an expiry."""
    zero_dte_vol: Float
    """Nodes of today's expiry, the last where there are several; NaN without one."""
    zero_dte_reason: NDArray[np.int8]
    expiry_years: Float
    """Expiries, rising, 0DTE included."""
    expiry_vol: Float
    """Expiries by nodes."""
    expiry_reason: NDArray[np.int8]
    fits: tuple[SviFit, ...]
    """One per expiry."""
    calendar_violation: Float
    """Per expiry: what is left of the largest total variance of the slice before it less its own where both have strikes; not
    positive without calendar arbitrage, NaN where there is no slice before it."""

    @property
    def risk_reversal_25d(self) -> Float:
        """Call less put, per tenor."""
        return np.asarray(self.vol[:, _C25] - self.vol[:, _P25])

    @property
    def risk_reversal_10d(self) -> Float:
        return np.asarray(self.vol[:, _C10] - self.vol[:, _P10])

    @property
    def skew_25d(self) -> Float:
        """Put less call, per tenor."""
        return np.asarray(self.vol[:, _P25] - self.vol[:, _C25])

    @property
    def butterfly_25d(self) -> Float:
        """Mean of call and put less the volatility at the forward, per tenor."""
        return np.asarray(0.5 * (self.vol[:, _C25] + self.vol[:, _P25]) - self.vol[:, _ATM])

    @property
    def butterfly_10d(self) -> Float:
        return np.asarray(0.5 * (self.vol[:, _C10] + self.vol[:, _P10]) - self.vol[:, _ATM])

    @property
    def term_slope(self) -> float:
        """At the forward, 90 days less 30 days."""
        return term_slope(np.array(TENOR_DAYS) / 365.0, self.vol[:, _ATM])


def surface_nodes(
    years: ArrayLike,
    log_moneyness: ArrayLike,
    vol: ArrayLike,
    half_spread: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    right: ArrayLike | None = None,
    min_strikes: int = MIN_STRIKES,
) -> SurfaceNodes:
    """The nodes of one underlying from all its quotes, one entry each, in any order; arguments as in `fit_svi`.

    Quotes with the same `years` make an expiry; those with no positive finite years are left out. Expiries are fitted from the
    nearest on. A slice that comes to lie below the one before is fitted again with that as its floor, and keeps its own fit, with
    its violation, where the quotes do not allow that. Raises ValueError for shapes that differ or a right that is none.
    """
    sides = None if right is None else checked_right(right)
    columns = [None if c is None else np.asarray(c, dtype=np.float64) for c in (log_moneyness, vol, half_spread, weights, sides)]
    t = np.asarray(years, dtype=np.float64)
    if t.ndim != 1 or any(column is not None and column.shape != t.shape for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns if column is not None)
        raise ValueError(f"the arguments must be one-dimensional and of one length: {t.shape}, {shapes}")
    order = np.argsort(t, kind="stable")
    order = order[(t[order] > 0.0) & np.isfinite(t[order])]
    expiries, starts = np.unique(t[order], return_index=True)
    fits: list[SviFit] = []
    violations = np.full(expiries.size, np.nan)
    before: SviFit | None = None
    for i, rows in enumerate(np.split(order, starts[1:]) if expiries.size else []):
        k, v, h, w, side = (None if column is None else column[rows] for column in columns)
        assert k is not None
        assert v is not None
        expiry = float(expiries[i])
        fit = fit_svi(k, v, expiry, h, w, side, min_strikes=min_strikes)
        if fit.reason is FitReason.OK and expiry >= ZERO_DTE_YEARS:
            if before is not None:
                violations[i] = _violation(before, fit)
                if violations[i] > 0.0:
                    above = fit_svi(k, v, expiry, h, w, side, before, min_strikes)
                    if above.reason is FitReason.OK:
                        fit, violations[i] = above, _violation(before, above)
            before = fit
        fits.append(fit)
    return _assembled(expiries, fits, violations)


def _violation(near: SviFit, far: SviFit) -> float:
    return calendar_violation(near.parameters, far.parameters, max(near.lowest, far.lowest), min(near.highest, far.highest))


def _assembled(expiries: Float, fits: list[SviFit], violations: Float) -> SurfaceNodes:
    expiry_vol = np.full((expiries.size, len(NODES)), np.nan)
    expiry_reason = np.full(expiry_vol.shape, NodeReason.NO_SLICE, dtype=np.int8)
    for i, fit in enumerate(fits):
        if fit.reason is FitReason.OK:
            expiry_vol[i], expiry_reason[i] = _slice_nodes(fit)
    today = np.flatnonzero(expiries < ZERO_DTE_YEARS)[-1:]
    zero_vol, zero_reason = np.full(len(NODES), np.nan), np.full(len(NODES), NodeReason.NO_EXPIRY, dtype=np.int8)
    if today.size:
        zero_vol, zero_reason = expiry_vol[today[0]], expiry_reason[today[0]]
    later = expiries >= ZERO_DTE_YEARS
    shape = (len(TENOR_DAYS), len(NODES))
    vol, near, far = (np.full(shape, np.nan) for _ in range(3))
    reason = np.empty(shape, dtype=np.int8)
    for j in range(len(NODES)):
        known = later & np.isfinite(expiry_vol[:, j])
        for i, days in enumerate(TENOR_DAYS):
            vol[i, j], near[i, j], far[i, j], reason[i, j] = _at_tenor(expiries[known], expiry_vol[known, j], days / 365.0)
    return SurfaceNodes(vol, reason, near, far, zero_vol, zero_reason, expiries, expiry_vol, expiry_reason, tuple(fits), violations)


def _slice_nodes(fit: SviFit) -> tuple[list[float], list[NodeReason]]:
    vols, reasons = [svi_at_the_money(fit.parameters, fit.years)], [NodeReason.OK]
    for delta in _DELTAS:
        point = svi_delta_strike_vol(fit.parameters, fit.years, delta)
        quoted = fit.lowest <= point.log_moneyness <= fit.highest
        vols.append(point.vol if quoted else math.nan)
        reasons.append(NodeReason.OK if quoted else NodeReason.OUTSIDE_STRIKES)
    return vols, reasons


def _at_tenor(years: Float, vol: Float, tenor: float) -> tuple[float, float, float, NodeReason]:
    """Volatility, the expiries before and after, and the reason; `years` rise."""
    if years.size == 0:
        return math.nan, math.nan, math.nan, NodeReason.NO_EXPIRY
    after = int(np.searchsorted(years, tenor))
    if after == years.size:
        return math.nan, float(years[-1]), math.nan, NodeReason.AFTER_LAST
    far = float(years[after])
    if far == tenor:
        return float(vol[after]), far, far, NodeReason.OK
    if after == 0:
        held = far <= HELD_RATIO * tenor
        return (float(vol[0]) if held else math.nan), math.nan, far, NodeReason.HELD if held else NodeReason.BEFORE_FIRST
    near = float(years[after - 1])
    share = (tenor - near) / (far - near)
    variance = (1.0 - share) * vol[after - 1] ** 2 * near + share * vol[after] ** 2 * far
    return math.sqrt(variance / tenor), near, far, NodeReason.OK
