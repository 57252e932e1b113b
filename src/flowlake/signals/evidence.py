"""Evidence and doubts of one underlying on one session, each with a strength from 0 to 1 and a stated weight.

Factors that measure the same thing form a family, and only the strongest of a family counts: one large trade raises volume,
premium and largest print at once, and is still one fact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WEAK_Z = 2.0
STRONG_Z = 6.0
"""A robust score up to WEAK_Z is no evidence, from STRONG_Z on it is full evidence; linear between."""
WEAK_PERCENTILE = 90.0
STRONG_PERCENTILE = 99.9
"""The same for an engine's percentile, linear in the logarithm of the share of days that were as unusual."""


@dataclass(frozen=True)
class Family:
    """Factors of one meaning. `weight`: the score, over 100, that full evidence of this family alone would give."""

    factors: tuple[str, ...]
    weight: float
    two_sided: bool = False


FAMILIES = (
    Family(("otm_short_call_premium_usd", "otm_short_put_premium_usd"), 0.60),
    Family(("open_interest_change",), 0.35),
    Family(("iso_share",), 0.30),
    Family(("option_volume", "premium_usd", "largest_print_premium_usd"), 0.25),
    Family(("option_to_stock_volume",), 0.15),
    Family(("atm_iv_30d",), 0.15),
    Family(("put_call_volume_ratio", "skew_25d", "gamma_exposure_usd"), 0.10, two_sided=True),
)
"""Cheap leverage bought shortly before it pays is what informed flow looks like, so it weighs most; opening trades and sweeps
say that someone wanted in, and fast; sheer size says little of its own."""
ENGINE_WEIGHTS = {"robust_z": 0.25, "isolation_forest": 0.25, "local_outlier_factor": 0.15}

MULTI_LEG_SHARE = 0.4
MULTI_LEG_DISCOUNT = 0.30
TWO_SIDED_STRENGTH = 0.5
TWO_SIDED_DISCOUNT = 0.25
OPENING_RATIO = 0.05
NOT_OPENING_DISCOUNT = 0.20
MARKET_WIDE_SHARE = 0.5
MARKET_WIDE_UNDERLYINGS = 4
MARKET_WIDE_DISCOUNT = 0.15
SHORT_HISTORY = 60
SHORT_HISTORY_DISCOUNT = 0.10


@dataclass(frozen=True)
class Evidence:
    """One piece: `strength` x `weight` is the score, over 100, that it would give alone."""

    kind: str
    factor: str
    value: float | None
    baseline: float | None
    baseline_sessions: int
    z: float | None
    strength: float
    weight: float

    @property
    def points(self) -> float:
        """Additive form of noisy-or: the points of independent pieces add up, and 1 - exp(-sum) is their joint score."""
        return -math.log1p(-self.strength * self.weight)


@dataclass(frozen=True)
class Doubt:
    """A reason to trust the score less: it takes the share `discount` of it."""

    factor: str
    value: float | None
    z: float | None
    discount: float


def z_strength(z: float | None, *, two_sided: bool = False) -> float:
    if z is None:
        return 0.0
    size = abs(z) if two_sided else z
    return min(max((size - WEAK_Z) / (STRONG_Z - WEAK_Z), 0.0), 1.0)


def percentile_strength(percentile: float | None) -> float:
    if percentile is None:
        return 0.0
    rarity = -math.log10(max(1.0 - percentile / 100.0, 1e-12))
    weak, strong = (-math.log10(1.0 - bound / 100.0) for bound in (WEAK_PERCENTILE, STRONG_PERCENTILE))
    return min(max((rarity - weak) / (strong - weak), 0.0), 1.0)


def gather_evidence(panel_row: Mapping[str, Any], engines: Mapping[str, float | None]) -> list[Evidence]:
    """Pieces with a strength above 0. `panel_row`: a row of `factor_panel` with `<factor>_median` and `<factor>_count`
    of its past; `engines`: percentile by engine."""
    pieces = [_strongest(family, panel_row) for family in FAMILIES]
    pieces += [
        Evidence("engine", engine, percentile, None, 0, None, percentile_strength(percentile), ENGINE_WEIGHTS[engine])
        for engine, percentile in sorted(engines.items())
    ]
    return [piece for piece in pieces if piece.strength > 0]


def _strongest(family: Family, row: Mapping[str, Any]) -> Evidence:
    def size(factor: str) -> float:
        z = row[f"{factor}_z"]
        return -math.inf if z is None else abs(z) if family.two_sided else z

    factor = max(family.factors, key=size)
    z = row[f"{factor}_z"]
    return Evidence(
        "factor",
        factor,
        None if row[factor] is None else float(row[factor]),
        row[f"{factor}_median"],
        row[f"{factor}_count"],
        z,
        z_strength(z, two_sided=family.two_sided),
        family.weight,
    )


def is_large(row: Mapping[str, Any]) -> bool:
    """The underlying traded unusually much."""
    return max(z_strength(row["option_volume_z"]), z_strength(row["premium_usd_z"])) >= TWO_SIDED_STRENGTH


def gather_doubts(row: Mapping[str, Any], large_underlyings: int, underlyings: int) -> Iterator[Doubt]:
    """What an honest reader would hold against the evidence of `row`.

    `large_underlyings` of the session's `underlyings` traded unusually much.
    """
    multi_leg = row["multi_leg_share"]
    if multi_leg is not None and multi_leg >= MULTI_LEG_SHARE:
        yield Doubt("multi_leg_share", multi_leg, None, MULTI_LEG_DISCOUNT)
    call, put = row["otm_short_call_premium_usd_z"], row["otm_short_put_premium_usd_z"]
    if min(z_strength(call), z_strength(put)) >= TWO_SIDED_STRENGTH:
        yield Doubt("two_sided_flow", None, min(call, put), TWO_SIDED_DISCOUNT)
    opening = row["oi_change_ratio"]
    if opening is not None and opening < OPENING_RATIO:
        yield Doubt("oi_change_ratio", opening, None, NOT_OPENING_DISCOUNT)
    if underlyings >= MARKET_WIDE_UNDERLYINGS and is_large(row) and large_underlyings >= MARKET_WIDE_SHARE * underlyings:
        yield Doubt("market_wide", large_underlyings / underlyings, None, MARKET_WIDE_DISCOUNT)
    if row["history_sessions"] < SHORT_HISTORY:
        yield Doubt("history_sessions", float(row["history_sessions"]), None, SHORT_HISTORY_DISCOUNT)


def direction(row: Mapping[str, Any]) -> str:
    """`up` where short-dated calls stand out and puts do not, `down` the other way round, else `none`."""
    lean = z_strength(row["otm_short_call_premium_usd_z"]) - z_strength(row["otm_short_put_premium_usd_z"])
    if abs(lean) < 0.25:
        return "none"
    return "up" if lean > 0 else "down"
