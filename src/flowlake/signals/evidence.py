"""Evidence and doubts of one underlying on one session, each with a strength from 0 to 1 and a stated weight.

Factors that measure the same thing form a family, and only the strongest of a family counts: one large trade raises volume,
premium and largest print at once, and is still one fact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WEAK_Z = 1.0
STRONG_Z = 4.0
"""A robust score up to WEAK_Z is no evidence, from STRONG_Z on it is full evidence; linear between. Most scores are of
logarithms, where 4 deviations are far out; what tells informed flow is several moderate pieces at once."""
WEAK_PERCENTILE = 90.0
STRONG_PERCENTILE = 99.9
"""The same for an engine's percentile, linear in the logarithm of the share of days that were as unusual."""


@dataclass(frozen=True)
class Family:
    """Factors of one meaning. `weight`: the score, over 100, that full evidence of this family alone would give.

    `instead`: factors that count only where none of `factors` has a score. `{side}` stands for call or put.
    """

    factors: tuple[str, ...]
    weight: float
    instead: tuple[str, ...] = ()
    two_sided: bool = False


SIDES = ("call", "put")
LEAN = "{side}_lean"
"""Not a column: premium in short-dated OTM options of the side and the put/call volume ratio, see `lean_scores`."""
FAMILIES = (
    Family(("swept_opening_{side}_volume",), 0.55, instead=("swept_otm_{side}_volume",)),
    Family(("repeated_opening_{side}_volume",), 0.45, instead=("repeated_sweep_{side}_volume",)),
    Family(("largest_contract_sweep_volume", "iso_share"), 0.20),
    Family((LEAN,), 0.10),
    Family(("oi_change_ratio", "open_interest_change"), 0.20),
    Family(("option_volume", "premium_usd", "largest_print_premium_usd", "option_to_stock_volume"), 0.03),
    Family(("atm_iv_30d", "skew_25d", "gamma_exposure_usd"), 0.03, two_sided=True),
)
"""Who knows buys before the others do, pays for speed, opens new positions, in cheap options of one side, and is not done in one
session. Sheer size says little: most large days are loud and mean nothing."""
ENGINE_WEIGHTS = {"robust_z": 0.06, "isolation_forest": 0.06, "local_outlier_factor": 0.03}

MULTI_LEG_SHARE = 0.3
MULTI_LEG_DISCOUNT = 0.30
LARGE_STRENGTH = 0.5
TWO_SIDED_Z = 2.0
TWO_SIDED_DISCOUNT = 0.25
OPENING_RATIO = 0.05
NOT_OPENING_DISCOUNT = 0.20
MARKET_WIDE_SHARE = 0.5
MARKET_WIDE_UNDERLYINGS = 4
MARKET_WIDE_DISCOUNT = 0.15
SHORT_HISTORY = 60
SHORT_HISTORY_DISCOUNT = 0.10
DIRECTION_STRENGTH = 0.25
"""Less of a difference between the two sides gives no hint of a direction."""


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


def lean_scores(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """How far flow leans to calls and to puts, in robust deviations; None where both parts are missing.

    Stouffer's sum of two scores, taken as independent, a missing one as 0: premium in short-dated OTM options of the side, and
    the put/call volume ratio in its direction.
    """
    ratio = row["put_call_volume_ratio_z"]

    def joint(premium: float | None, towards: float | None) -> float | None:
        if premium is None and towards is None:
            return None
        return ((premium or 0.0) + (towards or 0.0)) / math.sqrt(2.0)

    return (
        joint(row["otm_short_call_premium_usd_z"], None if ratio is None else -ratio),
        joint(row["otm_short_put_premium_usd_z"], ratio),
    )


def gather_evidence(panel_row: Mapping[str, Any], engines: Mapping[str, float | None]) -> list[Evidence]:
    """Pieces with a strength above 0. `panel_row`: a row of `factor_panel` with `<factor>_median` and `<factor>_count` of its
    past, and `oi_change_ratio_z`; `engines`: percentile by engine. Of calls and puts only the stronger side gives evidence: a bet
    is on one side, and flow on both is a doubt."""
    pieces = max((_of_side(panel_row, side) for side in SIDES), key=lambda found: math.fsum(piece.points for piece in found))
    pieces += [
        Evidence("engine", engine, percentile, None, 0, None, percentile_strength(percentile), ENGINE_WEIGHTS[engine])
        for engine, percentile in sorted(engines.items())
    ]
    return [piece for piece in pieces if piece.strength > 0]


def _of_side(row: Mapping[str, Any], side: str) -> list[Evidence]:
    scores = {LEAN: lean_scores(row)[SIDES.index(side)]}

    def score(factor: str) -> float | None:
        return scores[factor] if factor in scores else row[f"{factor.format(side=side)}_z"]

    return [_strongest(family, row, side, score) for family in FAMILIES]


def _strongest(family: Family, row: Mapping[str, Any], side: str, score: Callable[[str], float | None]) -> Evidence:
    def size(factor: str) -> float:
        z = score(factor)
        return -math.inf if z is None else abs(z) if family.two_sided else z

    known = [factor for factor in family.factors if score(factor) is not None]
    factor = max(known or family.instead or family.factors, key=size)
    z = score(factor)
    column = f"otm_short_{side}_premium_usd" if factor == LEAN else factor.format(side=side)
    return Evidence(
        kind="factor",
        factor=factor.format(side=side),
        value=None if row[column] is None else float(row[column]),
        baseline=row[f"{column}_median"],
        baseline_sessions=row[f"{column}_count"],
        z=z,
        strength=z_strength(z, two_sided=family.two_sided),
        weight=family.weight,
    )


def is_large(row: Mapping[str, Any]) -> bool:
    """The underlying traded unusually much."""
    return max(z_strength(row["option_volume_z"]), z_strength(row["premium_usd_z"])) >= LARGE_STRENGTH


def gather_doubts(row: Mapping[str, Any], large_underlyings: int, underlyings: int) -> Iterator[Doubt]:
    """What an honest reader would hold against the evidence of `row`.

    `large_underlyings` of the session's `underlyings` traded unusually much.
    """
    multi_leg = row["multi_leg_share"]
    if multi_leg is not None and multi_leg >= MULTI_LEG_SHARE:
        yield Doubt("multi_leg_share", multi_leg, None, MULTI_LEG_DISCOUNT)
    both = max(_both_sides(row, factor) for factor in ("otm_short_{side}_premium_usd", "swept_otm_{side}_volume"))
    if both >= TWO_SIDED_Z:
        yield Doubt("two_sided_flow", None, both, TWO_SIDED_DISCOUNT)
    opening = row["oi_change_ratio"]
    if opening is not None and opening < OPENING_RATIO:
        yield Doubt("oi_change_ratio", opening, None, NOT_OPENING_DISCOUNT)
    if underlyings >= MARKET_WIDE_UNDERLYINGS and is_large(row) and large_underlyings >= MARKET_WIDE_SHARE * underlyings:
        yield Doubt("market_wide", large_underlyings / underlyings, None, MARKET_WIDE_DISCOUNT)
    if row["history_sessions"] < SHORT_HISTORY:
        yield Doubt("history_sessions", float(row["history_sessions"]), None, SHORT_HISTORY_DISCOUNT)


def _both_sides(row: Mapping[str, Any], factor: str) -> float:
    """The lower score of the two sides, minus infinity where one has none."""
    scores = [row[f"{factor.format(side=side)}_z"] for side in SIDES]
    return -math.inf if None in scores else float(min(scores))


def direction(row: Mapping[str, Any]) -> str:
    """`up` where the evidence of calls is stronger, `down` where that of puts is, else `none`."""
    calls, puts = (max(z_strength(z) for z in _side_scores(row, side)) for side in SIDES)
    if abs(calls - puts) < DIRECTION_STRENGTH:
        return "none"
    return "up" if calls > puts else "down"


def _side_scores(row: Mapping[str, Any], side: str) -> Iterator[float | None]:
    yield lean_scores(row)[SIDES.index(side)]
    for family in FAMILIES:
        for factor in (*family.factors, *family.instead):
            if "{side}" in factor and factor != LEAN:
                yield row[f"{factor.format(side=side)}_z"]
