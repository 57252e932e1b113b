"""Derived layer: the five scores that say how unusual an underlying is, each in its own past.

What a module looks at, and how, is part of what its score means: the step imports it from here and the documentation states it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from flowlake.datasets.checks import Between, OneOf
from flowlake.datasets.curated import UNDERLYING
from flowlake.datasets.model import Column, Dataset, KnownAtDecision, Layer
from flowlake.datasets.scored import MAD_TO_SIGMA

MODULE_SESSIONS = 253
"""Sessions of the panel that a score reads, the scored one included."""
MODULE_MIN_HISTORY = 60
"""Past sessions with a value that a score needs."""
RANKED_NODE = (30, "atm_iv")
"""Tenor in days and node of `iv_ranks` whose place explains `iv_anomaly`."""


@dataclass(frozen=True)
class Statistic:
    """A number of each session that a module scores: a column of the panel, or what `formula` says of its columns."""

    name: str
    formula: str = ""


@dataclass(frozen=True)
class Module:
    """A score by name. The first of `statistics` that has a value and enough past is scored, the same one throughout the window.

    `one_sided`: the larger the value the higher the score; otherwise the farther from the median of the past.
    `explained_by`: columns of the panel, or of the ranked node, that go into `details`.
    """

    name: str
    statistics: tuple[Statistic, ...]
    explained_by: tuple[str, ...]
    one_sided: bool = False


VIOLATIONS = ("parity_violation_bps", "vertical_violation_bps", "butterfly_violation_bps", "calendar_violation_bps")
"""Columns of the panel of which `largest_violation_bps` is the largest."""
RANKS = ("iv_z", "iv_percentile", "iv_rank", "half_life_sessions")
"""Columns of `iv_ranks` among the details of `iv_anomaly`."""

MODULES = (
    Module(
        "iv_anomaly",
        (Statistic("atm_iv_30d"),),
        (*RANKS, "term_slope", "call_iv_change_21s", "put_iv_change_21s"),
    ),
    Module(
        "vol_spread",
        (Statistic("iv_minus_har"), Statistic("iv_minus_rv")),
        (
            "atm_iv_30d",
            "har_forecast_21d",
            "realized_vol_20d",
            "realized_vol_yz_20d",
            "realized_vol_parkinson_20d",
            "realized_vol_garman_klass_20d",
            "iv_minus_har",
            "iv_minus_rv",
            "iv_minus_rv_yz",
            "realized_over_implied_move",
        ),
    ),
    Module("skew", (Statistic("skew_25d"),), ("skew_10d_30d", "smirk", "call_put_iv_spread", "butterfly_25d_30d")),
    Module(
        "gamma_exposure",
        (
            Statistic("gamma_exposure_of_volume", "gamma_exposure_usd / (spot_close x stock_volume)"),
            Statistic("gamma_exposure_usd"),
        ),
        ("gamma_exposure_usd", "gamma_flip", "gamma_flip_distance", "squeeze_risk", "max_pain_distance"),
    ),
    Module(
        "mispricing",
        (Statistic("largest_violation_bps", f"the largest of {', '.join(VIOLATIONS)}"), Statistic("surface_residual")),
        (*VIOLATIONS, "violations", "surface_residual"),
        one_sided=True,
    ),
)
STATISTICS = tuple(statistic for module in MODULES for statistic in module.statistics)

_KNOWN = "Known at 09:00 New York on the next session."
_NEEDS = f"Needs {MODULE_MIN_HISTORY} past sessions with a value."


def _float(name: str, doc: str, unit: str = "", low: float | None = None, high: float | None = None) -> Column:
    checks = () if low is None else (Between(low, high),)
    return Column(name, pl.Float64(), f"{doc} {_KNOWN}", unit=unit, nullable=True, checks=checks)


def _by_module() -> str:
    said = []
    for module in MODULES:
        chosen = ", else ".join(s.name + (f" = {s.formula}" if s.formula else "") for s in module.statistics)
        said.append(f"{module.name}: {chosen}")
    return "; ".join(said)


MODULE_SCORES = Dataset(
    name="module_scores",
    layer=Layer.DERIVED,
    doc=(
        f"Five scores of an underlying, 0 to 100: its place in its own past of up to {MODULE_SESSIONS - 1} sessions. Not a "
        "probability of anything, and not comparable with the score of a signal."
    ),
    grain=("underlying", "module"),
    columns=(
        UNDERLYING,
        Column("module", pl.String(), "Which score.", checks=(OneOf(tuple(module.name for module in MODULES)),)),
        _float(
            "score",
            "100 x the share of past sessions that were less extreme, ties by half. Extreme is the distance from the median of the "
            f"past; for mispricing the value itself. Null where `reason` says why. {_NEEDS}",
            "per cent of past sessions",
            0,
            100,
        ),
        _float("value", "Today's statistic."),
        _float("median", f"Median of its past. {_NEEDS}"),
        _float("mad", f"{MAD_TO_SIGMA} x median absolute deviation of its past. {_NEEDS}", low=0),
        _float("z", f"(value - median) / mad; null where the past does not vary. {_NEEDS}", "robust deviations"),
        _float("percentile", f"Share of past sessions with a lower value. {_NEEDS}", "share of sessions", 0, 1),
        Column(
            "direction",
            pl.String(),
            f"Side of the median on which the value lies; empty at the median and without a score. {_KNOWN}",
            checks=(OneOf(("high", "low", "")),),
        ),
        Column(
            "history_sessions",
            pl.Int64(),
            f"Past sessions with a value of the statistic. {_KNOWN}",
            unit="sessions",
            checks=(Between(0, MODULE_SESSIONS - 1),),
        ),
        Column(
            "statistic",
            pl.String(),
            "What is scored, the first that has a value and enough past, one and the same throughout the window. "
            f"{_by_module()}. Columns of `factor_panel`, in their units.",
            checks=(OneOf(tuple(statistic.name for statistic in STATISTICS)),),
        ),
        Column("reason", pl.String(), "Why there is no score; empty otherwise."),
        Column("details", pl.String(), f"Factors of the session that explain it, as a JSON object; null where not known. {_KNOWN}"),
    ),
    sort_by=("underlying", "module"),
    known=KnownAtDecision(),
)
