"""Regimes: filtered probabilities against slow and foreign twins, point-in-time behaviour, abstentions."""

from __future__ import annotations

import json
from datetime import date
from itertools import product

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from flowlake.core import sessions
from flowlake.datasets.model_rows import week_anchor
from flowlake.datasets.signals import MODELS, REGIMES, UNKNOWN
from flowlake.regimes import clusters, hmm
from flowlake.regimes.market import market_series
from flowlake.regimes.steps import MIN_SESSIONS, fit_regime_models, label_regime

DAYS = sessions.sessions_between(date(2023, 1, 3), date(2024, 3, 1))


def make_panel(days: list[date], underlyings: int = 5, seed: int = 1) -> pl.DataFrame:
    """Log returns and volatilities of a market whose volatility is low, then high, in turns of 70 sessions."""
    rng = np.random.default_rng(seed)
    daily = np.where((np.arange(len(days)) // 70) % 2, 0.03, 0.006)
    market = rng.normal(size=len(days)) * daily
    returns = market[:, None] + rng.normal(size=(len(days), underlyings)) * daily[:, None] * 0.3
    names = [f"U{i}" for i in range(underlyings)]
    return pl.DataFrame(
        {
            "session": [day for day in days for _ in names],
            "underlying": names * len(days),
            "log_return": returns.ravel(),
            "realized_vol_20d": np.repeat(daily * 16, underlyings) * np.exp(rng.normal(0, 0.1, len(days) * underlyings)),
        }
    )


def models_at(panel: pl.DataFrame, session: date, prior: pl.DataFrame | None = None) -> pl.DataFrame:
    inputs = {"factor_panel": panel} | ({} if prior is None else {"models": prior})
    return MODELS.conform(fit_regime_models(inputs, session), session).with_columns(pl.lit(session).alias("session"))


def regime_at(panel: pl.DataFrame, session: date) -> dict[str, object]:
    output = label_regime({"factor_panel": panel, "models": models_at(panel, session)}, session)
    return REGIMES.conform(output.tables["regimes"], session).row(0, named=True)


MODEL = hmm.GaussianHmm((0.5, 0.5), ((0.9, 0.1), (0.2, 0.8)), (0.1, -0.3), (0.5, 4.0))


def test_filtered_probabilities_equal_the_sum_over_all_paths() -> None:
    observed = np.array([0.3, -2.0, 0.1, 3.5, -0.2, 0.4])
    density = np.exp(-0.5 * (observed[:, None] - MODEL.means) ** 2 / MODEL.variances) / np.sqrt(
        2 * np.pi * np.array(MODEL.variances)
    )
    for n in range(1, len(observed) + 1):
        weight = np.zeros(2)
        for path in product(range(2), repeat=n):
            p = MODEL.start[path[0]] * density[0, path[0]]
            for i in range(1, n):
                p *= MODEL.transition[path[i - 1]][path[i]] * density[i, path[i]]
            weight[path[-1]] += p
        filtered = hmm.filtered_probabilities(MODEL, observed)[n - 1]
        np.testing.assert_allclose(filtered, weight / weight.sum(), rtol=1e-12)


def test_the_last_filtered_probability_is_hmmlearns_smoothed_one() -> None:
    from hmmlearn.hmm import GaussianHMM

    twin = GaussianHMM(n_components=2, covariance_type="diag", init_params="")
    twin.startprob_, twin.transmat_ = np.array(MODEL.start), np.array(MODEL.transition)
    twin.means_, twin.covars_ = np.array(MODEL.means)[:, None], np.array(MODEL.variances)[:, None]
    observed = np.random.default_rng(3).normal(size=80) * 2
    filtered = hmm.filtered_probabilities(MODEL, observed)
    for n in (1, 2, 17, 80):
        np.testing.assert_allclose(filtered[n - 1], twin.predict_proba(observed[:n, None])[-1], rtol=1e-9)


def test_an_absurd_observation_still_gives_probabilities() -> None:
    filtered = hmm.filtered_probabilities(MODEL, np.array([0.0, 1e6, -1e6, 0.0]))
    assert np.isfinite(filtered).all()
    np.testing.assert_allclose(filtered.sum(axis=1), 1.0)


def test_states_are_ordered_by_variance_and_find_the_regimes() -> None:
    series = market_series(make_panel(DAYS))
    observed = series["market_return"].to_numpy() * 100
    model = hmm.fit(observed, 2)
    assert model.variances[0] < model.variances[1]
    truth = (np.arange(len(DAYS)) // 70) % 2
    assert (hmm.filtered_probabilities(model, observed).argmax(axis=1) == truth).mean() > 0.93
    np.testing.assert_allclose(np.array(model.transition).sum(axis=1), 1.0)
    assert hmm.GaussianHmm.from_data(json.loads(json.dumps(model.to_data()))) == model


def test_clusters_are_ordered_and_nearest_agrees_with_sklearn() -> None:
    from sklearn.cluster import KMeans

    rows = np.random.default_rng(0).normal(size=(200, 2)) + np.repeat([[0, 0], [4, 4]], 100, axis=0)
    fitted = clusters.fit(rows, 2, 1, seed=5)
    assert fitted.centres[0][1] < fitted.centres[1][1]
    standard = (rows - fitted.mean) / np.array(fitted.scale)
    twin = KMeans(n_clusters=2, init=np.array(fitted.centres), n_init=1, max_iter=1).fit(standard)
    assert [clusters.nearest(fitted, row) for row in rows] == twin.predict(standard).tolist()


def test_regime_of_each_phase() -> None:
    panel = make_panel(DAYS)
    assert regime_at(panel.filter(pl.col("session") <= DAYS[205]), DAYS[205])["regime"] in ("calm", "normal")
    stressed = regime_at(panel.filter(pl.col("session") <= DAYS[265]), DAYS[265])
    assert stressed["regime"] == "stressed"
    assert stressed["kmeans_regime"] in ("normal", "stressed")
    assert stressed["probability"] == stressed["probability_stressed"]
    assert stressed["reason"] is None


def test_later_rows_change_nothing() -> None:
    session = DAYS[180]
    until = make_panel(DAYS).filter(pl.col("session") <= session)
    later = make_panel(DAYS).with_columns(
        pl.when(pl.col("session") > session)
        .then(pl.col("log_return") * 7 + 0.1)
        .otherwise(pl.col("log_return"))
        .alias("log_return")
    )
    assert models_at(until, session).equals(models_at(later, session))
    assert regime_at(until, session) == regime_at(later, session)


def test_row_order_changes_nothing() -> None:
    session = DAYS[180]
    panel = make_panel(DAYS[:181])
    shuffled = panel.sample(fraction=1.0, shuffle=True, seed=4)
    assert models_at(panel, session).equals(models_at(shuffled, session))
    assert regime_at(panel, session) == regime_at(shuffled, session)


@pytest.mark.parametrize("threads", [2, 4])
def test_thread_count_changes_nothing(threads: int) -> None:
    panel = make_panel(DAYS[:181])
    with threadpool_limits(1):
        alone = models_at(panel, DAYS[180])
    with threadpool_limits(threads):
        assert models_at(panel, DAYS[180]).equals(alone)


def test_a_model_of_the_week_is_the_same_carried_over_or_fitted_again() -> None:
    monday, friday = date(2024, 2, 26), date(2024, 3, 1)
    panel = make_panel(DAYS)
    first = models_at(panel.filter(pl.col("session") <= monday), monday)
    carried = models_at(panel, friday, prior=first)
    again = models_at(panel, friday)
    assert carried.equals(again)
    assert again["fitted_session"].to_list() == [monday, monday]
    assert again["training_last_session"].max() == monday


def test_a_prior_model_is_taken_only_when_its_training_rows_are_the_same() -> None:
    monday, friday = date(2024, 2, 26), date(2024, 3, 1)
    panel = make_panel(DAYS)
    first = models_at(panel.filter(pl.col("session") <= monday), monday).with_columns(
        pl.when(pl.col("model") == "market_hmm").then(pl.lit("{}")).otherwise("parameters").alias("parameters")
    )
    assert models_at(panel, friday, prior=first).row(0, named=True)["parameters"] == "{}"
    restated = panel.with_columns(pl.col("log_return") * 1.01)
    assert models_at(restated, friday, prior=first).row(0, named=True)["parameters"] != "{}"


def test_week_anchor_skips_days_without_sessions() -> None:
    tuesday, friday = date(2024, 1, 16), date(2024, 1, 19)  # Monday was Martin Luther King Day
    assert week_anchor(friday, DAYS) == tuesday
    assert week_anchor(friday, [friday]) == friday
    assert week_anchor(friday, []) == friday


def test_short_history_abstains_with_a_reason() -> None:
    days = DAYS[: MIN_SESSIONS - 1]
    models = models_at(make_panel(days), days[-1])
    assert models["is_fitted"].to_list() == [False, False]
    assert models["parameters"].null_count() == 2
    row = regime_at(make_panel(days), days[-1])
    assert row["regime"] == row["kmeans_regime"] == UNKNOWN
    assert "not enough history" in str(row["reason"])
    assert row["probability"] is None
    assert row["agrees"] is None


def test_one_variance_is_no_regime() -> None:
    days = DAYS[:60]
    rng = np.random.default_rng(2)
    panel = make_panel(days).with_columns(pl.Series("log_return", np.repeat(rng.uniform(-0.01, 0.01, 60), 5)))
    assert "one regime only" in str(regime_at(panel, days[-1])["reason"])


def test_a_session_without_returns_is_unknown() -> None:
    panel = make_panel(DAYS[:150]).with_columns(
        pl.when(pl.col("session") == DAYS[149]).then(None).otherwise(pl.col("log_return")).alias("log_return")
    )
    row = regime_at(panel, DAYS[149])
    assert row["regime"] == UNKNOWN
    assert "no underlying has a return" in str(row["reason"])


def test_constant_returns_are_refused_with_a_reason() -> None:
    panel = make_panel(DAYS[:100]).with_columns(pl.lit(0.0).alias("log_return"))
    assert regime_at(panel, DAYS[99])["reason"] == "the market return never changes"
