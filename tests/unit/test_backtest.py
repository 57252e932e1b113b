"""The backtest: metrics against scikit-learn, thresholds from the past only, honest verdicts, and the score card."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from flowlake.backtest import metrics
from flowlake.backtest.episodes import episode_scorecard
from flowlake.backtest.evaluate import BacktestConfig, BacktestResult, evaluate, walk_forward_alarms
from flowlake.core import sessions
from flowlake.core.errors import UsageError
from flowlake.datasets.signals import ENGINES, TRIALS

DAYS = sessions.sessions_between(date(2023, 1, 3), date(2023, 10, 31))
NAMES = [f"U{i:02d}" for i in range(12)]
CONFIG = BacktestConfig(bootstrap_samples=300, horizons=(5,), labels=("sigma",))


def make_market(skill: float, seed: int = 0, base_rate: float = 0.06, horizon: int = 5) -> dict[str, pl.DataFrame]:
    """Scores that know of a share `skill` of the significant moves, and baselines that know nothing."""
    rng = np.random.default_rng(seed)
    count = len(DAYS) * len(NAMES)
    happened = rng.random(count) < base_rate
    scores = rng.uniform(0, 80, count) + np.where(happened & (rng.random(count) < skill), 20.0, 0.0)
    key = {"session": [day for day in DAYS for _ in NAMES], "underlying": NAMES * len(DAYS)}
    noise = {name: rng.normal(size=count) for name in ("option_volume_z", "premium_usd_z", "log_return")}
    return {
        "signals": pl.DataFrame(key | {"score": scores}),
        "factors": pl.DataFrame(key | noise),
        "anomaly_scores": pl.concat(
            pl.DataFrame(key | {"engine": [engine] * count, "raw_score": rng.normal(size=count)}) for engine in ENGINES
        ),
        "outcomes": pl.DataFrame(
            {
                "signal_session": key["session"],
                "underlying": key["underlying"],
                "horizon_sessions": [horizon] * count,
                "is_significant_sigma": happened,
                "is_significant_top": happened,
            }
        ),
    }


def run(market: dict[str, pl.DataFrame], config: BacktestConfig = CONFIG) -> BacktestResult:
    return evaluate(market["signals"], market["outcomes"], market["factors"], market["anomaly_scores"], config)


def metric(result: BacktestResult, scorer: str, name: str) -> dict[str, float]:
    found = result.metrics.filter((pl.col("scorer") == scorer) & (pl.col("metric") == name))
    assert found.height == 1
    return found.row(0, named=True)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    happened, alarms = rng.random(400) < 0.2, rng.random(400) < 0.3
    groups = np.sort(rng.integers(0, 30, 400))
    counts = metrics.confusion(alarms, happened, groups, 30)
    tn, fp, fn, tp = sk.confusion_matrix(happened, alarms).ravel()
    assert counts.sum(axis=0).tolist() == [tp, fp, fn, tn]
    got = {name: float(value) for name, value in metrics.rates(counts.sum(axis=0)).items()}
    assert got["precision"] == pytest.approx(sk.precision_score(happened, alarms))
    assert got["recall"] == pytest.approx(sk.recall_score(happened, alarms))
    assert got["f1"] == pytest.approx(sk.f1_score(happened, alarms))
    assert got["false_positive_rate"] == pytest.approx(fp / (fp + tn))
    assert got["false_discovery_rate"] == pytest.approx(fp / (fp + tp)) == pytest.approx(1 - got["precision"])
    assert got["lift"] == pytest.approx(got["precision"] / happened.mean())
    per_group = metrics.rates(counts)
    one = int(groups[200])
    here = groups == one
    assert per_group["base_rate"][one] == pytest.approx(happened[here].mean())


def test_shares_divide_to_the_rates_and_no_hits_are_no_certainty() -> None:
    total = np.array([3, 5, 7, 11])
    for name, (successes, trials) in metrics.shares(total).items():
        assert successes / trials == pytest.approx(float(metrics.rates(total)[name]))
    market = make_market(skill=0.0)
    losing = market["signals"].join(market["outcomes"].rename({"signal_session": "session"}), on=["session", "underlying"])
    blind = losing.with_columns(pl.when("is_significant_sigma").then(0.0).otherwise("score").alias("score"))
    result = run(market | {"signals": blind})
    for name in ("precision", "lift"):
        none = metric(result, "signal", name)
        assert none["value"] == none["low"] == 0.0
        assert none["high"] > 0.0


def test_a_window_too_small_for_one_alarm_sets_no_threshold() -> None:
    config = BacktestConfig(window_sessions=12, min_window_sessions=5, embargo_sessions=0)
    scores = np.random.default_rng(0).random(60)
    assert not walk_forward_alarms(scores, np.arange(60), 60, 1, config).any()
    wider = BacktestConfig(window_sessions=30, min_window_sessions=5, embargo_sessions=0)
    assert walk_forward_alarms(scores, np.arange(60), 60, 1, wider).any()


def test_undefined_metrics_are_nan_without_a_warning() -> None:
    values = metrics.rates(np.array([0, 0, 0, 5]))
    assert np.isnan(values["precision"])
    assert np.isnan(values["recall"])
    assert values["false_positive_rate"] == 0.0
    assert np.isnan(values["lift"])


def test_precision_at_k_picks_the_highest_of_each_day() -> None:
    scores = np.array([0.1, 0.9, 0.5, np.nan, 0.7, 0.7, 0.2])
    happened = np.array([True, False, True, True, True, False, False])
    groups = np.array([0, 0, 0, 1, 1, 1, 1])
    assert metrics.hits_at(scores, happened, groups, 2, 1).tolist() == [[0, 1], [1, 1]]
    assert metrics.hits_at(scores, happened, groups, 2, 2).tolist() == [[1, 2], [1, 2]]
    assert metrics.hits_at(scores, happened, groups, 2, 9).tolist() == [[2, 3], [1, 3]]
    assert metrics.hit_rate(np.array([3, 4])) == 0.75


def test_wilson_against_its_formula() -> None:
    from scipy.stats import binomtest

    for successes, trials in ((0, 10), (3, 10), (50, 1000), (10, 10)):
        ours = metrics.wilson(successes, trials, 0.95)
        theirs = binomtest(successes, trials).proportion_ci(0.95, "wilson")
        assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-12), pytest.approx(theirs.high, abs=1e-12))
    assert metrics.wilson(0, 0, 0.95).value is None


def test_block_draws_take_whole_blocks_and_every_group_alike() -> None:
    draws = metrics.block_draws(50, 5, 4000, seed=1)
    assert draws.sum(axis=1).tolist() == [50] * 4000
    np.testing.assert_allclose(draws.mean(axis=0), 1.0, atol=0.1)
    assert np.array_equal(draws, metrics.block_draws(50, 5, 4000, seed=1))
    together = np.corrcoef(draws[:, 10], draws[:, 11])[0, 1]
    assert together > 0.6 > abs(np.corrcoef(draws[:, 10], draws[:, 30])[0, 1])


def test_the_bootstrap_covers_the_truth() -> None:
    """About 95 % of the intervals hold the true rate, where all rows of a session share a part of their fate."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rate = np.repeat(np.where(rng.random(80) < 0.3, 0.6, 0.1), 6)
        happened = rng.random(480) < rate
        counts = metrics.confusion(np.ones(480, dtype=bool), happened, np.repeat(np.arange(80), 6), 80)
        replicates = metrics.rates(metrics.drawn_sums(metrics.block_draws(80, 3, 300, seed), counts))["precision"]
        interval = metrics.percentile_interval(float(happened.mean()), replicates, 0.95)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 0.25 <= interval.high
    assert 0.88 <= covered / 200 <= 0.98


def test_a_skilled_signal_beats_the_baselines() -> None:
    result = run(make_market(skill=0.7))
    assert metric(result, "signal", "lift")["low"] > 1
    for baseline in ("option_volume", "premium", "absolute_return", "random", *ENGINES):
        compared = result.comparisons.filter((pl.col("baseline") == baseline) & (pl.col("metric") == "precision"))
        assert compared["beats"].to_list() == [True]
        assert abs(metric(result, baseline, "lift")["value"] - 1) < 0.8
    assert "better than chance" in result.verdicts[0]
    assert "It beats" in result.verdicts[0]
    assert "not shown" not in result.verdicts[0]


def test_luck_is_not_called_skill() -> None:
    claims = sum("The signal is better" in run(make_market(skill=0.0, seed=seed)).verdicts[0] for seed in range(20))
    assert claims <= 3


def test_every_metric_agrees_with_a_plain_recount() -> None:
    market = make_market(skill=0.5)
    result = run(market)
    rows = (
        market["signals"]
        .join(market["outcomes"].rename({"signal_session": "session"}), on=["session", "underlying"])
        .sort("session", "underlying")
    )
    gap, start = 5 + CONFIG.embargo_sessions, CONFIG.min_window_sessions + 5 + CONFIG.embargo_sessions
    alarms, truth = [], []
    for position, day in enumerate(DAYS[start:], start=start):
        window = DAYS[max(position - gap - CONFIG.window_sessions, 0) : position - gap]
        past = rows.filter(pl.col("session").is_in(window))["score"].to_numpy()
        today = rows.filter(pl.col("session") == day)
        alarms += (today["score"].to_numpy() > np.quantile(past, 0.95)).tolist()
        truth += today["is_significant_sigma"].to_list()
    assert metric(result, "signal", "precision")["value"] == pytest.approx(sk.precision_score(truth, alarms))
    assert metric(result, "signal", "recall")["value"] == pytest.approx(sk.recall_score(truth, alarms))
    assert metric(result, "signal", "base_rate")["value"] == pytest.approx(np.mean(truth))
    covered = result.coverage.row(0, named=True)
    assert (covered["labels"], covered["positives"], covered["alarms"]) == (len(truth), sum(truth), sum(alarms))
    assert (covered["first_session"], covered["last_session"]) == (DAYS[start], DAYS[-1])


def test_thresholds_use_only_sessions_before_the_gap() -> None:
    config = BacktestConfig(window_sessions=30, min_window_sessions=10, embargo_sessions=2)
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    scores = rng.random(240)
    alarms = walk_forward_alarms(scores, groups, 60, 5, config)
    for day in (17, 30, 59):
        changed = np.where((groups > day) | ((groups >= day - 7) & (groups < day)), scores + 100, scores)
        here = groups == day
        assert np.array_equal(walk_forward_alarms(changed, groups, 60, 5, config)[here], alarms[here])
    assert not alarms[groups < 17].any()


def test_missing_scores_raise_no_alarm() -> None:
    config = BacktestConfig(window_sessions=30, min_window_sessions=5, embargo_sessions=0)
    groups = np.repeat(np.arange(40), 3)
    scores = np.random.default_rng(0).random(120)
    scores[::3] = np.nan
    alarms = walk_forward_alarms(scores, groups, 40, 1, config)
    assert alarms.any()
    assert not alarms[::3].any()
    assert not walk_forward_alarms(np.full(120, np.nan), groups, 40, 1, config).any()


def test_row_order_changes_nothing() -> None:
    market = make_market(skill=0.5)
    expected = run(market)
    shuffled = run({name: frame.sample(fraction=1.0, shuffle=True, seed=9) for name, frame in market.items()})
    assert shuffled.metrics.equals(expected.metrics)
    assert shuffled.comparisons.equals(expected.comparisons)
    assert shuffled.verdicts == expected.verdicts


def test_short_samples_abstain() -> None:
    market = make_market(skill=0.9)
    few = market | {"signals": market["signals"].filter(pl.col("session") <= DAYS[30])}
    result = run(few)
    assert "not enough labelled sessions" in result.verdicts[0]
    assert result.metrics.is_empty()
    assert result.comparisons.is_empty()
    rare = run(make_market(skill=0.9, base_rate=0.001))
    assert "not enough significant moves" in rare.verdicts[0]
    empty = evaluate(market["signals"].clear(), market["outcomes"], config=CONFIG)
    assert "not enough labelled sessions: 0" in empty.verdicts[0]
    assert "no verdict" in empty.to_text()


def test_both_labels_and_horizons_are_reported() -> None:
    market = make_market(skill=0.6)
    both = market["outcomes"].with_columns(pl.lit(1, dtype=pl.Int64).alias("horizon_sessions"))
    result = run(market | {"outcomes": pl.concat([market["outcomes"], both])}, BacktestConfig(bootstrap_samples=100))
    assert len(result.verdicts) == 4
    assert result.coverage["abstained"].null_count() == 4
    text = result.to_text()
    for words in ("P@1", "FD rate: FP / (FP + TP)", "FP rate: FP / (FP + TN)", "label top, 1 session ahead", "random"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 120
    assert text.splitlines()[0].startswith("Moves beyond 2 expected moves within 1 session")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("label")]
    assert len(tables) == 4
    for _, heading, *rows in tables:
        assert rows[0].split()[0] == "signal"
        assert len(rows) == 8
        assert {row.index("[") for row in rows if "[" in row[:45]} == {rows[0].index("[")}, "columns are aligned"
        assert heading.split() == ["scorer", "precision", "recall", "FP", "rate", "FD", "rate", "lift", "P@1", "P@3"]
    facts = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert facts["config_hash"] == result.config.hash
    assert len(facts["metrics"]) == result.metrics.height == 4 * 8 * 10


def test_baselines_are_optional() -> None:
    market = make_market(skill=0.6)
    result = evaluate(market["signals"], market["outcomes"], config=CONFIG)
    assert result.metrics["scorer"].unique().sort().to_list() == ["random", "signal"]


def test_trials_record_every_configuration() -> None:
    result = run(make_market(skill=0.5))
    moment = datetime(2024, 1, 2, 3, 4, tzinfo=UTC)
    rows = TRIALS.conform(result.trials("run-1", moment), DAYS[-1])
    assert rows["scorer"].to_list() == sorted(["signal", "random", "option_volume", "premium", "absolute_return", *ENGINES])
    assert rows["config_hash"].unique().to_list() == [CONFIG.hash]
    stored = json.loads(rows.filter(pl.col("scorer") == "signal")["metrics"][0])
    assert stored["precision"][0] == metric(result, "signal", "precision")["value"]
    abstained = evaluate(make_market(0.5)["signals"].clear(), make_market(0.5)["outcomes"], config=CONFIG)
    assert TRIALS.conform(abstained.trials("run-2", moment), DAYS[-1])["metrics"].to_list() == ["{}"]
    assert BacktestConfig(alarm_share=0.1).hash != BacktestConfig().hash


@pytest.mark.parametrize("wrong", [{"alarm_share": 0.0}, {"confidence": 1.0}, {"picks": (0,)}, {"embargo_sessions": -1}])
def test_wrong_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        BacktestConfig(**wrong)  # type: ignore[arg-type]


def scorecard_inputs() -> tuple[pl.DataFrame, pl.DataFrame]:
    d = DAYS
    signals = pl.DataFrame(
        [
            {"session": d[10], "underlying": "AAA", "score": 95.0, "tier": "top"},  # found
            {"session": d[12], "underlying": "BBB", "score": 80.0, "tier": "high"},  # on the session of the move: too late
            {"session": d[11], "underlying": "BBB", "score": 60.0, "tier": "watch"},  # no alarm
            {"session": d[20], "underlying": "CCC", "score": 91.0, "tier": "top"},  # a decoy fires
            {"session": d[30], "underlying": "AAA", "score": 76.0, "tier": "high"},  # outside every episode
        ]
    )
    truth = pl.DataFrame(
        [
            {"underlying": "AAA", "kind": "informed", "first_session": d[9], "last_session": d[12], "move_session": d[13]},
            {"underlying": "BBB", "kind": "informed", "first_session": d[9], "last_session": d[12], "move_session": d[12]},
            {"underlying": "CCC", "kind": "decoy:earnings", "first_session": d[19], "last_session": d[20], "move_session": d[20]},
            {"underlying": "EEE", "kind": "informed", "first_session": d[1], "last_session": d[2], "move_session": d[3]},
            {"underlying": "DDD", "kind": "decoy:roll", "first_session": d[19], "last_session": d[20], "move_session": None},
        ]
    )
    return signals, truth


def test_scorecard_by_hand() -> None:
    card = episode_scorecard(*scorecard_inputs())
    assert (card.found, card.findable, card.planted, card.false_alarms, card.alarms.height) == (1, 2, 3, 3, 4)
    facts = card.to_dict()
    assert facts["recall"] == 0.5
    assert facts["false_discovery_rate"] == 0.75
    assert facts["decoys"] == {"decoy:earnings": {"episodes": 1, "fired": 1}, "decoy:roll": {"episodes": 1, "fired": 0}}
    assert facts["false_alarms_outside_episodes"] == 2
    assert card.episodes["first_alarm"].to_list() == [DAYS[10], None, DAYS[20], None, None]
    assert card.episodes["scored_sessions"].to_list() == [1, 1, 1, 0, 0]
    assert "3 informed episodes were planted; 2 could be found" in card.to_text()
    assert "1 of the 2 were found" in card.to_text()
    json.dumps(facts, allow_nan=False)


def test_scorecard_without_alarms_or_truth() -> None:
    signals, truth = scorecard_inputs()
    silent = episode_scorecard(signals.clear(), truth)
    assert (silent.found, silent.false_alarms) == (0, 0)
    assert silent.to_dict()["false_discovery_rate"] is None
    assert episode_scorecard(signals, truth.clear()).false_alarms == 4
    with pytest.raises(UsageError, match="lacks move_session"):
        episode_scorecard(signals, truth.drop("move_session"))
