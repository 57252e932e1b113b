"""Step: score to probability of a significant move, from outcomes that were complete by the decision time.

A logistic curve in the score, not isotonic steps: with a few dozen positives isotonic regression copies the sample, while
two parameters with a prior on the slope do not. The curve never falls with the score, and is shrunk towards the base rate by
the number of independent positives: windows of h sessions overlap, so h positives count as about one, and the underlyings of one
session move together, so a session counts as a few positives at most, however many there were.

Reference: Platt (1999), "Probabilistic outputs for support vector machines". Differs from it: a Gaussian prior on the slope,
no target smoothing, and the shrinkage above.
"""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float
from flowlake.datasets.model import KNOWN_AT, Inputs, Output
from flowlake.datasets.signals import CALIBRATIONS, LABELS

HORIZONS = (1, 5)
CONFIDENCE_HORIZON = 5
CONFIDENCE_LABEL = "sigma"
"""The probability that a signal states: of a move beyond two standard deviations within five sessions."""
LABEL_SESSIONS = 252
"""Look-back of the outcomes; of the signals as many and the longest horizon."""
SIGNAL_SESSIONS = LABEL_SESSIONS + max(HORIZONS)
MIN_LABELS = 100
MIN_POSITIVES = 10
MIN_SIGNAL_SESSIONS = 20
SESSION_POSITIVES = 5
"""Positives of one session that count as independent, at most on average."""
SHRINKAGE_POSITIVES = 20.0
"""Independent positives at which the curve and the base rate weigh the same."""
SLOPE_PRECISION = 1.0
KNOT_SCORES = tuple(range(0, 101, 5))


def calibrate(inputs: Inputs, session: date) -> Output:
    """Calibrations of every horizon and label.

    Inputs: `outcomes` of LABEL_SESSIONS (optional) and `signals` of SIGNAL_SESSIONS, without this session's (optional).
    """
    labelled = labelled_scores(inputs.get("signals"), inputs.get("outcomes"), session)
    rows = [
        _calibration(labelled.filter(pl.col("horizon_sessions") == horizon), horizon, label)
        for horizon in HORIZONS
        for label in LABELS
    ]
    schema = {name: dtype for name, dtype in CALIBRATIONS.polars_schema().items() if name != KNOWN_AT}
    return Output({"calibrations": pl.DataFrame(rows, schema=schema, orient="row")})


def labelled_scores(signals: pl.DataFrame | None, outcomes: pl.DataFrame | None, session: date) -> pl.DataFrame:
    """Scores of earlier signals with their outcomes, in total order; empty where either is missing."""
    names = ["signal_session", "underlying", "horizon_sessions", "score", *(f"is_significant_{label}" for label in LABELS)]
    if signals is None or outcomes is None:
        empty = {"signal_session": pl.Date(), "underlying": pl.String(), "horizon_sessions": pl.Int64(), "score": pl.Float64()}
        return pl.DataFrame(schema={**empty, **{name: pl.Boolean() for name in names[4:]}})
    scored = signals.filter((pl.col("session") < session) & pl.col("score").is_not_null())
    complete = outcomes.filter(pl.col("session") <= session).drop("session")
    return (
        complete.join(
            scored.select(pl.col("session").alias("signal_session"), "underlying", "score"),
            on=["signal_session", "underlying"],
            how="inner",
        )
        .select(names)
        .sort("signal_session", "underlying", "horizon_sessions")
    )


def _calibration(labelled: pl.DataFrame, horizon: int, label: str) -> dict[str, Any]:
    known = labelled.filter(pl.col(f"is_significant_{label}").is_not_null())
    happened = known[f"is_significant_{label}"].to_numpy().astype(np.bool_)
    row: dict[str, Any] = {
        "horizon_sessions": horizon,
        "label": label,
        "is_calibrated": False,
        "knots": None,
        "labels": known.height,
        "positives": int(happened.sum()),
        "base_rate": float(happened.mean()) if known.height else None,
        "shrinkage": None,
        "brier": None,
        "brier_base_rate": None,
        "first_signal_session": known["signal_session"].min(),
        "last_signal_session": known["signal_session"].max(),
        "reason": None,
    }
    sessions = known["signal_session"].n_unique()
    if row["labels"] < MIN_LABELS or row["positives"] < MIN_POSITIVES or sessions < MIN_SIGNAL_SESSIONS:
        row["reason"] = (
            f"not enough labels: {row['labels']} outcomes, {row['positives']} of them significant, of {sessions} signal sessions; "
            f"{MIN_LABELS}, {MIN_POSITIVES} and {MIN_SIGNAL_SESSIONS} needed"
        )
        return row
    scores = known["score"].to_numpy().astype(np.float64)
    shrinkage = SHRINKAGE_POSITIVES / (SHRINKAGE_POSITIVES + independent_positives(known["signal_session"], happened, horizon))
    intercept, slope = fit_logistic(scores / 100.0, happened)
    knots = [
        [float(score), shrinkage * row["base_rate"] + (1.0 - shrinkage) * sigmoid(intercept + slope * score / 100.0)]
        for score in KNOT_SCORES
    ]
    text = json.dumps(knots, separators=(",", ":"))
    stated = np.array([probability(text, score) for score in scores])
    return row | {
        "is_calibrated": True,
        "knots": text,
        "shrinkage": shrinkage,
        "brier": float(((stated - happened) ** 2).mean()),
        "brier_base_rate": row["base_rate"] * (1.0 - row["base_rate"]),
    }


def independent_positives(signal_sessions: pl.Series, happened: Bool, horizon: int) -> float:
    """Positives that count: at most SESSION_POSITIVES per session that has one, divided by the sessions that a window spans."""
    positives = signal_sessions.filter(pl.Series(happened))
    return min(len(positives), positives.n_unique() * SESSION_POSITIVES) / horizon


def probability(knots: str, score: float) -> float:
    """Probability at `score` by the `knots` of a calibration: linear between knots, flat outside."""
    at, values = np.array(json.loads(knots)).T
    return float(np.interp(score, at, values))


def sigmoid(x: float) -> float:
    return float(1.0 / (1.0 + np.exp(-x)))


def fit_logistic(x: Float, happened: Bool) -> tuple[float, float]:
    """Intercept and slope (not below 0) of the logistic curve of most posterior probability, by Newton's method.

    `x` (n) in about [0, 1], `happened` (n) with both values present. The prior is on the slope of the standardised `x`.
    """
    centre, scale = float(x.mean()), float(x.std())
    base = float(happened.mean())
    flat = float(np.log(base / (1.0 - base)))
    if scale == 0.0:
        return flat, 0.0
    design = np.column_stack([np.ones_like(x), (x - centre) / scale])
    prior = np.array([0.0, SLOPE_PRECISION])
    theta = np.array([flat, 0.0])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(design * theta).sum(axis=1)))
        gradient = (design * (happened - p)[:, None]).sum(axis=0) - prior * theta
        curvature = (p * (1.0 - p))[:, None]
        a, d = (design**2 * curvature).sum(axis=0) + prior
        b = float((design[:, 1] * curvature[:, 0]).sum())
        step = np.array([d * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * d - b * b)
        theta = theta + step
        if float(np.abs(step).max()) < 1e-12:
            break
    if theta[1] <= 0.0:
        return flat, 0.0
    slope = float(theta[1]) / scale
    return float(theta[0]) - slope * centre, slope
