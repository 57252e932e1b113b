"""Steps: fit the regime models (weekly), and name the regime of a session."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from flowlake.core.arrays import Float
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.model_rows import Recipe, Training, find_model, model_row, models_frame, same_fit, week_anchor
from flowlake.datasets.signals import STATE_NAMES, UNKNOWN
from flowlake.regimes import clusters, hmm
from flowlake.regimes.market import market_series

TRAINING_SESSIONS = 504
"""Two years: enough to hold more than one regime, recent enough to be the same market."""
PANEL_SESSIONS = TRAINING_SESSIONS + 5
"""Look-back of the factor panel: the training window as it stood on the first session of the week, and the week."""
MIN_SESSIONS = 40
THREE_STATES_FROM = 150
"""Fewer sessions than this cannot tell three variances apart; two are fitted, calm and stressed."""
MIN_VARIANCE_RATIO = 2.0
"""States closer than this are one regime with two names."""
SEED = 20_240_102

HMM_FEATURES = ("market_return_percent",)
KMEANS_FEATURES = ("absolute_market_return_percent", "log_market_volatility")


def fit_regime_models(inputs: Inputs, session: date) -> pl.DataFrame:
    """Rows `market_hmm` and `market_kmeans` of `models`.

    Inputs: `factor_panel` of up to PANEL_SESSIONS, and optionally earlier `models`, which only save time.
    """
    series = market_series(inputs["factor_panel"])
    anchor = week_anchor(session, series["session"].to_list())
    past = series.filter((pl.col("session") <= anchor) & pl.col("market_return").is_not_null()).tail(TRAINING_SESSIONS)
    prior = inputs.get("models")
    states = states_for(past.height)
    chain = Training(anchor, past["session"].to_list(), hmm_rows(past))
    with_volatility = past.filter(pl.col("market_volatility") > 0)
    days = Training(anchor, with_volatility["session"].to_list(), kmeans_rows(with_volatility))
    hmm_recipe = Recipe(
        "market_hmm",
        "regime",
        HMM_FEATURES,
        {
            "states": states,
            "iterations": hmm.ITERATIONS,
            "tolerance": hmm.TOLERANCE,
            "stay_probability": hmm.STAY_PROBABILITY,
            "prior_stays": hmm.PRIOR_STAYS,
            "prior_moves": hmm.PRIOR_MOVES,
            "prior_days": hmm.PRIOR_DAYS,
        },
    )
    kmeans_recipe = Recipe(
        "market_kmeans",
        "regime",
        KMEANS_FEATURES,
        {"clusters": states, "restarts": clusters.RESTARTS, "seed": SEED},
    )
    rows = [
        same_fit(prior, hmm_recipe, chain, session) or _fit_hmm(hmm_recipe, chain),
        same_fit(prior, kmeans_recipe, days, session) or _fit_kmeans(kmeans_recipe, days),
    ]
    return models_frame(rows)


def states_for(sessions: int) -> int:
    return len(STATE_NAMES) if sessions >= THREE_STATES_FROM else 2


def state_names(states: int) -> tuple[str, ...]:
    """Names in order of variance."""
    return STATE_NAMES if states == len(STATE_NAMES) else (STATE_NAMES[0], STATE_NAMES[-1])


def hmm_rows(series: pl.DataFrame) -> Float:
    """Market returns in percent, shape (n, 1)."""
    return series["market_return"].to_numpy().astype(np.float64).reshape(-1, 1) * 100.0


def kmeans_rows(series: pl.DataFrame) -> Float:
    """Absolute market return in percent and logarithm of the volatility, shape (n, 2)."""
    size = np.abs(hmm_rows(series))
    return np.hstack([size, np.log(series["market_volatility"].to_numpy().astype(np.float64)).reshape(-1, 1)])


def _short_history(training: Training) -> str | None:
    if training.session_count < MIN_SESSIONS:
        return f"not enough history: {training.session_count} sessions, {MIN_SESSIONS} needed"
    return None


def _fit_hmm(recipe: Recipe, training: Training) -> dict[str, Any]:
    reason = _short_history(training)
    if reason is None and np.ptp(training.rows) == 0:
        reason = "the market return never changes"
    if reason:
        return model_row(recipe, training, None, reason)
    fitted = hmm.fit(training.rows[:, 0], recipe.hyper_parameters["states"])
    if (ratio := fitted.variances[-1] / fitted.variances[0]) < MIN_VARIANCE_RATIO:
        reason = f"the history shows one regime only: the states' variances differ by a factor of {ratio:.2f}"
    return model_row(recipe, training, fitted.to_data(), reason)


def _fit_kmeans(recipe: Recipe, training: Training) -> dict[str, Any]:
    count = recipe.hyper_parameters["clusters"]
    reason = _short_history(training)
    if reason is None and len(np.unique(training.rows, axis=0)) < count:
        reason = f"fewer than {count} different market days"
    if reason:
        return model_row(recipe, training, None, reason)
    fitted = clusters.fit(training.rows, count, KMEANS_FEATURES.index("log_market_volatility"), SEED)
    return model_row(recipe, training, fitted.to_data(), None)


def label_regime(inputs: Inputs, session: date) -> Output:
    """The regime of `session`. Inputs: `factor_panel` of up to PANEL_SESSIONS and `models` of `session`."""
    series = market_series(inputs["factor_panel"].filter(pl.col("session") <= session))
    today = series.filter(pl.col("session") == session)
    market_return, volatility = ((today[name][0] if today.height else None) for name in ("market_return", "market_volatility"))
    row: dict[str, Any] = {
        "scope": "market",
        "regime": UNKNOWN,
        **dict.fromkeys(("probability", "probability_calm", "probability_normal", "probability_stressed")),
        "kmeans_regime": _kmeans_regime(find_model(inputs["models"], "market_kmeans", session), today),
        "market_return": market_return,
        "market_volatility": volatility if volatility is not None and volatility > 0 else None,
        "sessions_filtered": 0,
        "model_session": None,
        "reason": None,
    }
    model = find_model(inputs["models"], "market_hmm", session)
    if model is None or not model["is_fitted"]:
        row["reason"] = "there is no market model" if model is None else model["reason"]
    elif market_return is None:
        row["reason"] = "no underlying has a return on this session"
    else:
        row |= _filter(model, series)
    both = UNKNOWN not in (row["regime"], row["kmeans_regime"])
    row["agrees"] = row["regime"] == row["kmeans_regime"] if both else None
    return Output({"regimes": pl.DataFrame([row], schema_overrides=_NULLABLE)})


_NULLABLE = {
    **dict.fromkeys(
        (
            "probability",
            "probability_calm",
            "probability_normal",
            "probability_stressed",
            "market_return",
            "market_volatility",
        ),
        pl.Float64(),
    ),
    "model_session": pl.Date(),
    "agrees": pl.Boolean(),
    "reason": pl.String(),
}


def _filter(model: dict[str, Any], series: pl.DataFrame) -> dict[str, Any]:
    chain = hmm.GaussianHmm.from_data(json.loads(model["parameters"]))
    window = series.filter((pl.col("session") >= model["training_first_session"]) & pl.col("market_return").is_not_null())
    probabilities = hmm.filtered_probabilities(chain, hmm_rows(window)[:, 0])[-1]
    names = state_names(chain.states)
    best = int(np.argmax(probabilities))
    return {
        "regime": names[best],
        "probability": float(probabilities[best]),
        **{f"probability_{name}": float(p) for name, p in zip(names, probabilities, strict=True)},
        "sessions_filtered": window.height,
        "model_session": model["fitted_session"],
    }


def _kmeans_regime(model: dict[str, Any] | None, today: pl.DataFrame) -> str:
    complete = today.filter(pl.col("market_return").is_not_null() & (pl.col("market_volatility") > 0))
    if model is None or not model["is_fitted"] or complete.is_empty():
        return UNKNOWN
    fitted = clusters.Clusters.from_data(json.loads(model["parameters"]))
    return state_names(len(fitted.centres))[clusters.nearest(fitted, kmeans_rows(complete)[0])]
