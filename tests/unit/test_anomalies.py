"""Anomaly engines: they see what is unusual, only the past trains them, and they abstain with a reason."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from flowlake.anomalies.engines import isolation_forest, local_outlier_factor, percentiles, robust_z
from flowlake.anomalies.features import HIGHEST, LOWEST_ONE_SIDED, TWO_SIDED, build_features, judged, thinned
from flowlake.anomalies.steps import MIN_SESSIONS, fit_anomaly_models, score_anomalies
from flowlake.core import sessions
from flowlake.datasets.factors import ENGINE_FEATURES
from flowlake.datasets.model import Output
from flowlake.datasets.signals import ANOMALY_SCORES, ENGINES, MODELS

DAYS = sessions.sessions_between(date(2023, 9, 1), date(2024, 3, 1))
SESSION = DAYS[-1]
NAMES = [f"U{i}" for i in range(6)]


def make_panel(days: list[date] = DAYS, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    count = len(days) * len(NAMES)
    scores = {name: rng.standard_t(6, count) for name in ENGINE_FEATURES}
    return pl.DataFrame({"session": [day for day in days for _ in NAMES], "underlying": NAMES * len(days), **scores})


def with_value(panel: pl.DataFrame, session: date, underlying: str, **values: float | None) -> pl.DataFrame:
    here = (pl.col("session") == session) & (pl.col("underlying") == underlying)
    return panel.with_columns(
        pl.when(here).then(pl.lit(v, dtype=pl.Float64)).otherwise(pl.col(k)).alias(k) for k, v in values.items()
    )


def models_at(panel: pl.DataFrame, session: date) -> pl.DataFrame:
    made = fit_anomaly_models({"factor_panel": panel}, session)
    return MODELS.conform(made, session).with_columns(pl.lit(session).alias("session"))


def run(panel: pl.DataFrame, session: date = SESSION) -> Output:
    return score_anomalies({"factor_panel": panel, "models": models_at(panel, session)}, session)


def scores_at(panel: pl.DataFrame, session: date = SESSION) -> pl.DataFrame:
    return ANOMALY_SCORES.conform(run(panel, session).tables["anomaly_scores"], session)


def test_every_engine_finds_the_planted_outlier() -> None:
    unusual = {"otm_short_call_premium_usd_z": 9.0, "iso_share_z": 7.0, "open_interest_change_z": 8.0, "premium_usd_z": 6.0}
    scores = scores_at(with_value(make_panel(), SESSION, "U3", **unusual))
    assert scores.height == len(NAMES) * len(ENGINES)
    for engine in ENGINES:
        mine = scores.filter(pl.col("engine") == engine).sort("raw_score")
        assert mine["underlying"][-1] == "U3"
        assert mine["percentile"][-1] > 99
    assert scores["reason"].null_count() == scores.height
    assert scores.select(pl.col("raw_score", "percentile").is_nan().any()).row(0) == (False, False)


def test_a_quiet_session_is_not_unusual_to_the_baseline() -> None:
    quiet = dict.fromkeys(ENGINE_FEATURES, -9.0) | dict.fromkeys(TWO_SIDED, 0.0)
    scores = scores_at(with_value(make_panel(), SESSION, "U2", **quiet))
    baseline = scores.filter((pl.col("engine") == "robust_z") & (pl.col("underlying") == "U2"))
    assert baseline["raw_score"].to_list() == [0.0]


def test_todays_and_later_rows_train_nothing() -> None:
    panel = make_panel()
    monday = date(2024, 2, 26)
    changed = panel.with_columns(
        pl.when(pl.col("session") >= monday).then(pl.col(name) * 5 + 3).otherwise(pl.col(name)).alias(name)
        for name in ENGINE_FEATURES
    )
    assert models_at(panel, SESSION).equals(models_at(changed, SESSION))
    assert DAYS[-5] == monday
    until = panel.filter(pl.col("session") <= DAYS[-2])
    later = with_value(panel, SESSION, "U1", premium_usd_z=50.0)
    assert scores_at(until, DAYS[-2]).equals(scores_at(later, DAYS[-2]))


def test_models_state_a_window_before_the_week() -> None:
    models = models_at(make_panel(), SESSION)
    assert models["fitted_session"].unique().to_list() == [date(2024, 2, 26)]
    assert models["training_last_session"].unique().to_list() == [date(2024, 2, 23)]
    assert json.loads(models["features"][0]) == list(ENGINE_FEATURES)
    assert models["is_fitted"].all()


def test_row_order_and_threads_change_nothing() -> None:
    panel = make_panel()
    expected = scores_at(panel)
    assert scores_at(panel.sample(fraction=1.0, shuffle=True, seed=7)).equals(expected)
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            assert scores_at(panel).equals(expected)


def test_missing_factors_are_counted_and_few_factors_abstain() -> None:
    panel = with_value(make_panel(), SESSION, "U0", iso_share_z=None, skew_25d_z=None)
    panel = with_value(panel, SESSION, "U1", **dict.fromkeys(ENGINE_FEATURES[2:]))
    scores = scores_at(panel)
    assert scores.filter(pl.col("underlying") == "U0")["features_missing"].unique().to_list() == [2]
    few = scores.filter(pl.col("underlying") == "U1")
    assert few["raw_score"].null_count() == len(ENGINES)
    assert few["reason"].str.contains("fewer than 3 factors").all()
    assert scores.filter(pl.col("underlying") == "U2")["raw_score"].null_count() == 0


def test_short_history_abstains_with_a_reason() -> None:
    days = DAYS[: MIN_SESSIONS - 1]
    scores = scores_at(make_panel(days), days[-1])
    assert scores["percentile"].null_count() == scores.height
    assert scores["reason"].str.contains("not enough history").all()
    assert scores["training_rows"].unique().to_list() == [0]


def test_the_first_session_of_a_bucket_abstains() -> None:
    scores = scores_at(make_panel(DAYS[:1]), DAYS[0])
    assert scores["reason"].str.contains("not enough history: 0 sessions").all()


def test_changed_training_rows_leave_a_finding() -> None:
    panel = make_panel()
    models = models_at(panel, SESSION)
    changed = with_value(panel, DAYS[5], "U1", premium_usd_z=1.234)
    output = score_anomalies({"factor_panel": changed, "models": models}, SESSION)
    assert {finding.rule for finding in output.findings} == {"training_rows_changed"}
    assert run(panel).findings == ()


def test_features_clip_and_fill() -> None:
    panel = with_value(
        make_panel(DAYS[:1]), DAYS[0], "U0", premium_usd_z=99.0, option_volume_z=-99.0, skew_25d_z=-99.0, iso_share_z=None
    )
    row = dict(zip(ENGINE_FEATURES, build_features(panel).matrix[0], strict=True))
    assert (row["premium_usd_z"], row["option_volume_z"]) == (HIGHEST, LOWEST_ONE_SIDED)
    assert (row["skew_25d_z"], row["iso_share_z"]) == (-HIGHEST, 0.0)


def test_thinning_is_even_and_keeps_order() -> None:
    features = judged(build_features(make_panel()))
    few = thinned(features, 100)
    assert len(few.matrix) == 100
    assert few.sessions == sorted(few.sessions)
    assert few.sessions[0] == DAYS[0]
    assert few.sessions[-1] >= DAYS[-3]
    assert thinned(features, 10_000) is features


def test_robust_z_is_the_root_mean_square_of_the_unusual_side() -> None:
    scores = robust_z(np.zeros((1, 3)), np.array([[3.0, -4.0, -12.0]]), [False, False, True])
    assert scores.new[0] == pytest.approx(np.sqrt((9 + 144) / 3))


def test_isolation_forest_equals_sklearn() -> None:
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(1)
    training, new = rng.normal(size=(300, 4)), rng.normal(size=(20, 4)) * 2
    twin = IsolationForest(n_estimators=50, max_samples=128, random_state=3).fit(training)
    ours = isolation_forest(training, new, 50, 128, 3)
    np.testing.assert_array_equal(ours.new, -twin.score_samples(new))


def test_local_outlier_factor_equals_the_definition() -> None:
    rng = np.random.default_rng(2)
    training, new = rng.normal(size=(60, 2)), np.array([[5.0, 5.0], [0.0, 0.0]])
    k = 7
    apart = np.linalg.norm(training[:, None] - training[None], axis=2)
    order = np.argsort(apart, axis=1, kind="stable")[:, 1 : k + 1]
    reach = apart[np.arange(60), order[:, -1]]

    def density(distances: np.ndarray, neighbours: np.ndarray) -> float:
        return 1.0 / np.mean(np.maximum(distances[neighbours], reach[neighbours]))

    densities = np.array([density(apart[i], order[i]) for i in range(60)])
    training_factor = np.array([densities[order[i]].mean() / densities[i] for i in range(60)])
    expected = []
    for row in new:
        distances = np.linalg.norm(training - row, axis=1)
        near = np.argsort(distances, kind="stable")[:k]
        expected.append(densities[near].mean() / density(distances, near))
    ours = local_outlier_factor(training, new, k)
    np.testing.assert_allclose(ours.training, training_factor, rtol=1e-6)
    np.testing.assert_allclose(ours.new, expected, rtol=1e-6)


def test_percentiles_count_ties_by_half() -> None:
    assert percentiles(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.0, 2.0, 3.0, 9.0])).tolist() == [0.0, 50.0, 87.5, 100.0]
