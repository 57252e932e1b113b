"""The probability that a buyer began a trade, from the quote in force: a declared table, calibrated, and silence elsewhere.

The side is that of the quote rule. How far to trust it depends on where in the spread the print is, how old the quote is, and
whether the print was a cross or a floor trade, whose prices are negotiated. At the midpoint, and with a locked, crossed, one-sided
or old quote, the probability is not known: NaN, never a half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flowlake.core.arrays import ArrayLike, Bool, Float, Int
from flowlake.flow._side import Sides

PRICE_UNITS = 10_000
"""Prices are compared as whole ten-thousandths of a dollar, in which midpoints and touches are exact."""
REACHES = (0.25, 0.5, 0.75)
"""Upper limits of the first places: distance from the midpoint as a share of half the spread."""
PLACES = ("up to 0.25", "up to 0.5", "up to 0.75", "below 1", "at the quote", "outside")
AGES_S = (1.0, 10.0, 60.0, 300.0)
"""Upper limits of the quote's age, included. Beyond the last one the quote is too old."""
UNDATED_AGE_S = AGES_S[1]
"""Stands for the age of a quote that a vendor puts beside the trade without saying when it was made: declared, not measured."""
KINDS = ("electronic", "cross or floor")


@dataclass(frozen=True)
class Calibration:
    """Probability that the quote rule is right: kind of print, age of the quote, place in the spread.

    `ceiling` bounds it. `tick` and `depth` are those of the fallbacks, bounded by `fallback_ceiling`.
    """

    version: str
    right: tuple[tuple[tuple[float, ...], ...], ...]
    ceiling: float
    tick: float
    depth: float
    fallback_ceiling: float

    def bounded(self) -> Float:
        """`right` between a half and the ceiling."""
        return np.asarray(np.clip(np.asarray(self.right), 0.5, self.ceiling))

    def fallback(self) -> tuple[float, float]:
        """Probabilities of the depth rule and of the tick test being right, between a half and their ceiling."""
        depth, tick = (min(max(value, 0.5), self.fallback_ceiling) for value in (self.depth, self.tick))
        return depth, tick


class Evidence(NamedTuple):
    """What the table is entered with, per print."""

    side: Sides
    """Of the quote rule; 0 where the quote tells nothing."""
    kind: Int
    age: Int
    place: Int


def buy_probability(
    price: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    quote_age_s: ArrayLike = 0.0,
    is_cross_or_floor: ArrayLike = False,
    calibration: Calibration | None = None,
) -> Float:
    """Probability that a buyer began each trade, by the quote in force at it; NaN where that is not known.

    Prices in dollars; arguments broadcast, scalars in, a scalar out. Not known: at the midpoint; without both sides of a market
    whose bid is below its ask; with a quote that is older than the last of `AGES_S`, or later than the trade. It is meant for
    single-leg prints reported on time: legs of packages print anywhere in the spread.
    """
    found = evidence(price, bid, ask, quote_age_s, is_cross_or_floor)
    right = np.asarray((calibration or CALIBRATION).bounded())[found.kind, found.age, found.place]
    return np.asarray(np.where(found.side == 0, np.nan, 0.5 + found.side * (right - 0.5)))[()]


def evidence(price: ArrayLike, bid: ArrayLike, ask: ArrayLike, quote_age_s: ArrayLike, is_cross_or_floor: ArrayLike) -> Evidence:
    """The side by the quote rule, and where in the table its probability stands."""
    values = (np.asarray(value, dtype=np.float64) for value in (price, bid, ask, quote_age_s, is_cross_or_floor))
    p, b, a, seconds, kind = np.broadcast_arrays(*values)
    with np.errstate(invalid="ignore", over="ignore"):
        p, b, a = (np.rint(value * PRICE_UNITS) for value in (p, b, a))
        spread, off = a - b, 2.0 * p - (b + a)
        is_usable = (b > 0) & np.isfinite(spread) & (spread > 0) & np.isfinite(off) & (seconds >= 0) & (seconds <= AGES_S[-1])
        share = np.abs(off) / np.where(is_usable, spread, np.inf)
    side = np.where(is_usable, np.sign(off), 0.0).astype(np.int8)
    inside = np.searchsorted(REACHES, share)
    place = np.where(share < 1.0, inside, np.where(share == 1.0, len(REACHES) + 1, len(REACHES) + 2))
    age = np.minimum(np.searchsorted(AGES_S, seconds), len(AGES_S) - 1)
    return Evidence(side, kind.astype(np.int64), age, place)


def at_midpoint(price: ArrayLike, bid: ArrayLike, ask: ArrayLike) -> Bool:
    """The print is exactly between the quotes."""
    p, b, a = (np.rint(np.asarray(value, dtype=np.float64) * PRICE_UNITS) for value in (price, bid, ask))
    return np.asarray(2.0 * p == b + a)


CALIBRATION = Calibration(
    version="synthetic-1",
    right=(
        (  # electronic
            (0.658, 0.999, 1.000, 1.000, 1.000, 0.978),  # up to 1 s
            (0.658, 0.909, 0.964, 0.982, 0.995, 0.976),  # up to 10 s
            (0.612, 0.790, 0.902, 0.937, 0.952, 0.877),  # up to 60 s
            (0.604, 0.676, 0.810, 0.820, 0.880, 0.762),  # up to 300 s
        ),
        (  # cross or floor
            (0.555, 0.966, 1.000, 1.000, 1.000, 0.978),  # up to 1 s
            (0.666, 0.910, 0.967, 0.982, 0.995, 0.971),  # up to 10 s
            (0.614, 0.767, 0.886, 0.931, 0.939, 0.809),  # up to 60 s
            (0.520, 0.624, 0.741, 0.811, 0.825, 0.636),  # up to 300 s
        ),
    ),
    ceiling=0.97,
    tick=0.685,
    depth=0.502,
    fallback_ceiling=0.55,
)
