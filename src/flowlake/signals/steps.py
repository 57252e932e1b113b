"""Step: one signal per underlying, with the evidence and the doubts behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from flowlake.core.sessions import actionable_at
from flowlake.datasets.factors import HISTORY_SESSIONS, SCORED, Z_COLUMNS
from flowlake.datasets.model import UTC_NS, Inputs
from flowlake.datasets.scored import MAD_TO_SIGMA, MIN_HISTORY
from flowlake.datasets.signals import TIER_FLOORS, UNKNOWN
from flowlake.signals.calibration import CONFIDENCE_HORIZON, CONFIDENCE_LABEL, probability
from flowlake.signals.evidence import Doubt, Evidence, direction, gather_doubts, gather_evidence, is_large

PANEL_SESSIONS = HISTORY_SESSIONS
"""Look-back of the factor panel, for the medians that the reasons quote: the past that the robust scores refer to."""
MIN_FACTORS = 3
OPENING_SPREAD_FLOOR = 0.02
"""Least spread of oi_change_ratio, so that a quiet past cannot make its score explode."""
_QUOTED = (*(scored.name for scored in SCORED), "oi_change_ratio")

_SIGNALS = {
    "underlying": pl.String(),
    "score": pl.Float64(),
    "tier": pl.String(),
    "confidence": pl.Float64(),
    "confidence_reason": pl.String(),
    "regime": pl.String(),
    "direction": pl.String(),
    "actionable_at_utc": UTC_NS,
    "reasons": pl.Int64(),
    "history_sessions": pl.Int64(),
    "reason": pl.String(),
}
_REASONS = {
    "underlying": pl.String(),
    "rank": pl.Int64(),
    "kind": pl.String(),
    "factor": pl.String(),
    "value": pl.Float64(),
    "baseline": pl.Float64(),
    "baseline_sessions": pl.Int64(),
    "z": pl.Float64(),
    "contribution": pl.Float64(),
}


@dataclass(frozen=True)
class ScoredSignals:
    """`signals` complete; `reasons` as `signal_reasons` but for `sentence`, which `explain` writes."""

    signals: pl.DataFrame
    reasons: pl.DataFrame


def score_signals(inputs: Inputs, session: date) -> ScoredSignals:
    """Signals of `session`.

    Inputs: `factor_panel` of up to PANEL_SESSIONS; of `session` and optional: `anomaly_scores`, `regimes`, `calibrations`.
    """
    panel = _with_medians(inputs["factor_panel"], session)
    engines = _engine_percentiles(inputs.get("anomaly_scores"), session)
    regime = _regime(inputs.get("regimes"), session)
    calibration = _calibration(inputs.get("calibrations"), session)
    rows = list(panel.iter_rows(named=True))
    large = sum(is_large(row) for row in rows)
    actionable = actionable_at(session)
    signals: list[dict[str, Any]] = []
    reasons: list[dict[str, Any]] = []
    for row in rows:
        judged = _judge(row, engines.get(row["underlying"], {}), large, len(rows))
        confidence, why_not = _confidence(judged.score, calibration)
        signals.append(
            {
                "underlying": row["underlying"],
                "score": judged.score,
                "tier": tier(judged.score),
                "confidence": confidence,
                "confidence_reason": why_not,
                "regime": regime,
                "direction": direction(row),
                "actionable_at_utc": actionable,
                "reasons": len(judged.reasons),
                "history_sessions": row["history_sessions"],
                "reason": judged.abstention,
            }
        )
        reasons += judged.reasons
    return ScoredSignals(pl.DataFrame(signals, schema=_SIGNALS, orient="row"), pl.DataFrame(reasons, schema=_REASONS, orient="row"))


def tier(score: float | None) -> str:
    return next((name for name, floor in TIER_FLOORS if score is not None and score >= floor), "none")


def combined_score(evidence: Iterable[Evidence], doubts: Iterable[Doubt]) -> tuple[float, list[float], list[float]]:
    """Score, contribution of each piece of evidence, and contribution of each doubt; the contributions add up to the score.

    Noisy-or of the evidence, 100 x (1 - product of (1 - strength x weight)), times the product of (1 - discount). What a
    product gives or takes is shared out in proportion to the logarithms of its terms.
    """
    points = [piece.points for piece in evidence]
    total = math.fsum(points)
    if total == 0.0:
        return 0.0, [], []
    before = -100.0 * math.expm1(-total)
    losses = [-math.log1p(-doubt.discount) for doubt in doubts]
    loss = math.fsum(losses)
    after = before * math.exp(-loss)
    taken = [-(before - after) * one / loss for one in losses]
    return after, [before * one / total for one in points], taken


@dataclass(frozen=True)
class _Judged:
    score: float | None
    reasons: list[dict[str, Any]]
    abstention: str | None


def _judge(row: Mapping[str, Any], engines: Mapping[str, float | None], large: int, underlyings: int) -> _Judged:
    known = sum(row[name] is not None for name in Z_COLUMNS)
    if known < MIN_FACTORS:
        return _Judged(
            None,
            [],
            f"not enough history: {known} factors have a robust score, {MIN_FACTORS} needed "
            f"({row['history_sessions']} earlier sessions)",
        )
    evidence = sorted(gather_evidence(row, engines), key=lambda piece: (-piece.points, piece.factor))
    doubts = list(gather_doubts(row, large, underlyings)) if evidence else []
    score, given, taken = combined_score(evidence, doubts)
    reasons = [
        {
            "kind": piece.kind,
            "factor": piece.factor,
            "value": piece.value,
            "baseline": piece.baseline,
            "baseline_sessions": piece.baseline_sessions,
            "z": piece.z,
            "contribution": contribution,
        }
        for piece, contribution in zip(evidence, given, strict=True)
    ] + [
        {
            "kind": "doubt",
            "factor": doubt.factor,
            "value": doubt.value,
            "baseline": None,
            "baseline_sessions": 0,
            "z": doubt.z,
            "contribution": contribution,
        }
        for doubt, contribution in zip(doubts, taken, strict=True)
    ]
    ranked = [{"underlying": row["underlying"], "rank": rank, **one} for rank, one in enumerate(reasons, start=1)]
    return _Judged(round(score, 4), ranked, None)


def _with_medians(panel: pl.DataFrame, session: date) -> pl.DataFrame:
    """Rows of `session` by underlying, with `<factor>_median` and `<factor>_count` of the underlying's earlier sessions.

    And `oi_change_ratio_z`, which the panel does not score: made as the panel makes its own.
    """
    past = panel.filter(pl.col("session") < session)
    ratio = pl.col("oi_change_ratio")
    medians = past.group_by("underlying").agg(
        *(pl.col(name).cast(pl.Float64).median().alias(f"{name}_median") for name in _QUOTED),
        *(pl.col(name).count().cast(pl.Int64).alias(f"{name}_count") for name in _QUOTED),
        ((ratio - ratio.median()).abs().median() * MAD_TO_SIGMA).alias("_spread"),
    )
    today = panel.filter(pl.col("session") == session)
    counts = [f"{name}_count" for name in _QUOTED]
    return (
        today.join(medians, on="underlying", how="left")
        .with_columns(pl.col(counts).fill_null(0))
        .with_columns(
            pl.when(pl.col("oi_change_ratio_count") >= MIN_HISTORY)
            .then((ratio - pl.col("oi_change_ratio_median")) / pl.max_horizontal("_spread", pl.lit(OPENING_SPREAD_FLOOR)))
            .alias("oi_change_ratio_z")
        )
        .sort("underlying")
    )


def _engine_percentiles(scores: pl.DataFrame | None, session: date) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    if scores is not None:
        today = scores.filter(pl.col("session") == session).select("underlying", "engine", "percentile")
        for underlying, engine, percentile in today.iter_rows():
            found.setdefault(underlying, {})[engine] = percentile
    return found


def _regime(regimes: pl.DataFrame | None, session: date) -> str:
    if regimes is None:
        return UNKNOWN
    today = regimes.filter((pl.col("session") == session) & (pl.col("scope") == "market"))["regime"]
    return str(today[0]) if len(today) else UNKNOWN


def _calibration(calibrations: pl.DataFrame | None, session: date) -> dict[str, Any] | None:
    if calibrations is None:
        return None
    found = calibrations.filter(
        (pl.col("session") == session) & (pl.col("horizon_sessions") == CONFIDENCE_HORIZON) & (pl.col("label") == CONFIDENCE_LABEL)
    )
    return found.row(0, named=True) if found.height else None


def _confidence(score: float | None, calibration: dict[str, Any] | None) -> tuple[float | None, str | None]:
    if score is None:
        return None, "there is no score"
    if calibration is None:
        return None, "there is no calibration for this session"
    if not calibration["is_calibrated"]:
        return None, calibration["reason"]
    return probability(calibration["knots"], score), None
