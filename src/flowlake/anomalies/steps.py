"""Steps: state the engines' training windows (weekly), and score the underlyings of a session."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import polars as pl

from flowlake.anomalies.engines import percentiles, run_engine
from flowlake.anomalies.features import MIN_FEATURES, TWO_SIDED, Features, build_features, judged, thinned
from flowlake.datasets.factors import ENGINE_FEATURES
from flowlake.datasets.model import Finding, Inputs, Output
from flowlake.datasets.model_rows import Recipe, Training, find_model, model_row, models_frame, week_anchor
from flowlake.datasets.signals import ENGINES

TRAINING_SESSIONS = 252
PANEL_SESSIONS = TRAINING_SESSIONS + 6
"""Look-back of the factor panel: the window before the first session of the week, and the week."""
MIN_SESSIONS = 20
MIN_ROWS = 60
MOST_ROWS = 4_000
"""Training rows of the learned engines; more cost time and no longer change the order of the scores much."""
SEED = 20_240_102

_TWO_SIDED = [name in TWO_SIDED for name in ENGINE_FEATURES]
RECIPES = (
    Recipe("isolation_forest", "anomaly", ENGINE_FEATURES, {"trees": 100, "samples": 256, "seed": SEED, "most_rows": MOST_ROWS}),
    Recipe("local_outlier_factor", "anomaly", ENGINE_FEATURES, {"neighbours": 20, "most_rows": MOST_ROWS}),
    Recipe("robust_z", "anomaly", ENGINE_FEATURES, {"two_sided": _TWO_SIDED, "most_rows": MOST_ROWS}),
)

_SCORES = {
    "underlying": pl.String(),
    "engine": pl.String(),
    "raw_score": pl.Float64(),
    "percentile": pl.Float64(),
    "features_missing": pl.Int64(),
    "model_session": pl.Date(),
    "training_rows": pl.Int64(),
    "reason": pl.String(),
}


def fit_anomaly_models(inputs: Inputs, session: date) -> pl.DataFrame:
    """Rows of `models`, one per engine: the training window ends before the first session of the ISO week.

    Inputs: `factor_panel` of up to PANEL_SESSIONS. The engines have no parameters but their training rows, which
    `score_anomalies` reads again; the hash proves that they are the same.
    """
    panel = inputs["factor_panel"]
    anchor = week_anchor(session, panel["session"].unique().sort().to_list())
    earlier = panel.filter(pl.col("session") < anchor)
    window = earlier["session"].unique().sort().tail(TRAINING_SESSIONS)
    rows = judged(build_features(earlier.filter(pl.col("session").is_in(window.implode()))))
    return models_frame([_state(recipe, rows, anchor) for recipe in RECIPES])


def _state(recipe: Recipe, rows: Features, anchor: date) -> dict[str, Any]:
    sample = thinned(rows, recipe.hyper_parameters["most_rows"])
    training = Training(anchor, sample.sessions, sample.matrix)
    reason = None
    if training.session_count < MIN_SESSIONS or len(training.rows) < MIN_ROWS:
        reason = (
            f"not enough history: {training.session_count} sessions with {len(training.rows)} rows, "
            f"{MIN_SESSIONS} with {MIN_ROWS} needed"
        )
    return model_row(recipe, training, None, reason)


def score_anomalies(inputs: Inputs, session: date) -> Output:
    """Every underlying of `session` by every engine. Inputs: `factor_panel` of PANEL_SESSIONS, `models` of `session`."""
    panel, models = inputs["factor_panel"], inputs["models"]
    today = build_features(panel.filter(pl.col("session") == session))
    past = panel.filter(pl.col("session") < session)
    rows: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for engine in ENGINES:
        model = find_model(models, engine, session)
        if model is None or not model["is_fitted"]:
            reason = "there is no model of this engine" if model is None else model["reason"]
            rows += [_row(today, i, engine, model, reason=reason) for i in range(today.keys.height)]
            continue
        training = _training(past, model)
        if training.hash != model["training_hash"]:
            findings.append(_changed(engine, model))
        rows += _scored(today, engine, model, training)
    return Output({"anomaly_scores": pl.DataFrame(rows, schema=_SCORES, orient="row")}, tuple(findings))


def _training(past: pl.DataFrame, model: dict[str, Any]) -> Training:
    window = pl.col("session").is_between(model["training_first_session"], model["training_last_session"])
    rows = judged(build_features(past.filter(window), tuple(json.loads(model["features"]))))
    sample = thinned(rows, json.loads(model["hyper_parameters"])["most_rows"])
    return Training(model["fitted_session"], sample.sessions, sample.matrix)


def _changed(engine: str, model: dict[str, Any]) -> Finding:
    return Finding(
        "anomaly_scores",
        "training_rows_changed",
        f"the factor panel behind {engine} of {model['fitted_session']} differs from what the model states",
        "rebuild `models` of this session, then its scores",
    )


def _scored(today: Features, engine: str, model: dict[str, Any], training: Training) -> list[dict[str, Any]]:
    enough = len(ENGINE_FEATURES) - today.missing >= MIN_FEATURES
    rows = [
        _row(today, i, engine, model, reason=f"fewer than {MIN_FEATURES} factors have a robust score yet")
        for i in range(today.keys.height)
    ]
    positions = [i for i in range(today.keys.height) if enough[i]]
    if positions:
        scores = run_engine(engine, training.rows, today.matrix[positions], json.loads(model["hyper_parameters"]))
        ranks = percentiles(scores.training, scores.new)
        for i, raw, rank in zip(positions, scores.new.tolist(), ranks.tolist(), strict=True):
            rows[i] |= {"raw_score": raw, "percentile": rank, "reason": None}
    return rows


def _row(today: Features, i: int, engine: str, model: dict[str, Any] | None, *, reason: str) -> dict[str, Any]:
    fitted = model is not None and model["is_fitted"]
    return {
        "underlying": today.keys["underlying"][i],
        "engine": engine,
        "raw_score": None,
        "percentile": None,
        "features_missing": int(today.missing[i]),
        "model_session": model["fitted_session"] if model is not None and fitted else None,
        "training_rows": model["training_rows"] if model is not None and fitted else 0,
        "reason": reason,
    }
