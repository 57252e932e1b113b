"""Walk-forward evaluation of the signal score beside simple baselines, on the same rows and by the same rule.

For each tested session an alarm threshold is the quantile of the scorer's own scores over a window of earlier sessions. The
window ends `horizon + embargo` sessions before the test: outcomes inside that gap were not complete, or overlap the test's.
Every scorer gets the same alarm share, so precision, lift and recall compare like with like. Nothing here is fitted to labels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import polars as pl

from flowlake.backtest import metrics
from flowlake.backtest.metrics import Interval
from flowlake.backtest.outcomes import HORIZONS
from flowlake.backtest.outcomes import parameters as label_parameters
from flowlake.core.arrays import Bool, Float, Int
from flowlake.core.errors import UsageError
from flowlake.datasets.model import UTC_NS
from flowlake.datasets.signals import ENGINES, LABELS, SIGMAS, TOP_SHARE

SIGNAL = "signal"
RANDOM = "random"
Vintage = Literal["as_published", "restated"]


@dataclass(frozen=True)
class BacktestConfig:
    """Everything that a result depends on but the data. All counts are sessions unless the name says otherwise."""

    horizons: tuple[int, ...] = HORIZONS
    labels: tuple[str, ...] = LABELS
    alarm_share: float = 0.05
    window_sessions: int = 120
    min_window_sessions: int = 10
    embargo_sessions: int = 1
    min_test_sessions: int = 20
    min_positives: int = 10
    picks: tuple[int, ...] = (1, 3, 5)
    bootstrap_samples: int = 1000
    block_sessions: int = 5
    confidence: float = 0.95
    seed: int = 20_240_102
    vintage: Vintage = "as_published"

    def __post_init__(self) -> None:
        if not 0 < self.alarm_share < 1 or not 0 < self.confidence < 1:
            raise UsageError("alarm_share and confidence are shares", "give numbers between 0 and 1")
        if min(self.window_sessions, self.min_window_sessions, self.block_sessions, self.bootstrap_samples, *self.picks) < 1:
            raise UsageError("windows, blocks, samples and picks count things", "give whole numbers of at least 1")
        if self.embargo_sessions < 0:
            raise UsageError("embargo_sessions is negative", "give 0 or more")

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"outcomes": label_parameters()}, sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


METRICS_SCHEMA = {
    "label": pl.String(),
    "horizon_sessions": pl.Int64(),
    "scorer": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "interval": pl.String(),
}
COMPARISONS_SCHEMA = {
    "label": pl.String(),
    "horizon_sessions": pl.Int64(),
    "baseline": pl.String(),
    "metric": pl.String(),
    "difference": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "beats": pl.Boolean(),
}
COVERAGE_SCHEMA = {
    "label": pl.String(),
    "horizon_sessions": pl.Int64(),
    "first_session": pl.Date(),
    "last_session": pl.Date(),
    "sessions": pl.Int64(),
    "labels": pl.Int64(),
    "positives": pl.Int64(),
    "alarms": pl.Int64(),
    "abstained": pl.String(),
}


@dataclass(frozen=True)
class BacktestResult:
    """`metrics`, `comparisons` (signal less baseline), `coverage` (what was tested, or why not), `verdicts` in words."""

    config: BacktestConfig
    metrics: pl.DataFrame
    comparisons: pl.DataFrame
    coverage: pl.DataFrame
    verdicts: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON: dates as text, undefined numbers as null."""
        return {
            "config": json.loads(self.config.to_json()),
            "config_hash": self.config.hash,
            "vintage": self.config.vintage,
            "verdicts": list(self.verdicts),
            **{
                name: json.loads(frame.write_json())
                for name, frame in (("coverage", self.coverage), ("metrics", self.metrics), ("comparisons", self.comparisons))
            },
        }

    def to_text(self) -> str:
        from flowlake.backtest.text import summary

        return summary(self)

    def trials(self, run_id: str, tested_at_utc: datetime) -> pl.DataFrame:
        """Rows of the ops dataset `trials`, one per label, horizon and scorer; an abstention is a trial too."""
        rows = []
        for covered in self.coverage.iter_rows(named=True):
            here = self.metrics.filter(
                (pl.col("label") == covered["label"]) & (pl.col("horizon_sessions") == covered["horizon_sessions"])
            )
            scorers = here["scorer"].unique().sort().to_list() or [SIGNAL]
            rows += [self._trial(run_id, tested_at_utc, covered, scorer, here) for scorer in scorers]
        schema = {
            "run_id": pl.String(),
            "tested_at_utc": UTC_NS,
            **dict.fromkeys(("config_hash", "config", "vintage", "label"), pl.String()),
            "horizon_sessions": pl.Int64(),
            "scorer": pl.String(),
            "first_session": pl.Date(),
            "last_session": pl.Date(),
            "sessions": pl.Int64(),
            "labels": pl.Int64(),
            "metrics": pl.String(),
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    def _trial(
        self, run_id: str, moment: datetime, covered: dict[str, Any], scorer: str, metrics_here: pl.DataFrame
    ) -> dict[str, Any]:
        mine = metrics_here.filter(pl.col("scorer") == scorer)
        values = {row["metric"]: [row["value"], row["low"], row["high"]] for row in mine.iter_rows(named=True)}
        return {
            "run_id": run_id,
            "tested_at_utc": moment,
            "config_hash": self.config.hash,
            "config": self.config.to_json(),
            "vintage": self.config.vintage,
            "scorer": scorer,
            "metrics": json.dumps(values, sort_keys=True, separators=(",", ":")),
            **{
                name: covered[name] for name in ("label", "horizon_sessions", "first_session", "last_session", "sessions", "labels")
            },
        }


def evaluate(
    signals: pl.DataFrame,
    outcomes: pl.DataFrame,
    factors: pl.DataFrame | None = None,
    anomaly_scores: pl.DataFrame | None = None,
    config: BacktestConfig | None = None,
) -> BacktestResult:
    """How the signal would have done, and whether anything simpler does as well.

    `signals`: session, underlying, score. `outcomes`: as the dataset. `factors`: rows of `factor_panel`, for the baselines
    option volume, premium and today's return. `anomaly_scores`: as the dataset, for the engines. Rows without a score or a
    label are left out for every scorer; a baseline without a value raises no alarm there.
    """
    config = config or BacktestConfig()
    table = score_table(signals, factors, anomaly_scores, config.seed)
    scorers = [name for name in table.columns if name not in ("session", "underlying")]
    parts = [
        _evaluate_one(table, scorers, outcomes, label, horizon, config) for label in config.labels for horizon in config.horizons
    ]
    return BacktestResult(
        config,
        pl.DataFrame([row for part in parts for row in part.metrics], schema=METRICS_SCHEMA, orient="row"),
        pl.DataFrame([row for part in parts for row in part.comparisons], schema=COMPARISONS_SCHEMA, orient="row"),
        pl.DataFrame([part.coverage for part in parts], schema=COVERAGE_SCHEMA, orient="row"),
        tuple(part.verdict for part in parts),
    )


def score_table(
    signals: pl.DataFrame, factors: pl.DataFrame | None, anomaly_scores: pl.DataFrame | None, seed: int
) -> pl.DataFrame:
    """Session, underlying, and one column of scores per scorer, in order of session and underlying."""
    key = ["session", "underlying"]
    table = signals.filter(pl.col("score").is_not_null()).select(*key, pl.col("score").alias(SIGNAL))
    if factors is not None:
        simple = factors.select(
            *key,
            pl.col("option_volume_z").alias("option_volume"),
            pl.col("premium_usd_z").alias("premium"),
            pl.col("log_return").abs().alias("absolute_return"),
        )
        table = table.join(simple, on=key, how="left")
    if anomaly_scores is not None:
        for engine in ENGINES:
            one = anomaly_scores.filter(pl.col("engine") == engine)
            table = table.join(one.select(*key, pl.col("raw_score").alias(engine)), on=key, how="left")
    table = table.sort(key)
    return table.with_columns(pl.Series(RANDOM, np.random.default_rng(seed).random(table.height)))


@dataclass(frozen=True)
class _Part:
    metrics: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    coverage: dict[str, Any]
    verdict: str


@dataclass(frozen=True)
class _Sample:
    """One tested sample: replicates of each metric share their draws, so differences between scorers are paired."""

    intervals: dict[str, Interval]
    replicates: dict[str, Float]
    alarms: int


def _evaluate_one(
    table: pl.DataFrame, scorers: list[str], outcomes: pl.DataFrame, label: str, horizon: int, config: BacktestConfig
) -> _Part:
    rows = _labelled(table, outcomes, label, horizon)
    days = rows["session"].unique().sort().to_list()
    first = config.min_window_sessions + horizon + config.embargo_sessions
    tested = days[first:]
    groups = rows["session"].rank("dense").cast(pl.Int64).to_numpy() - 1
    happened = rows["happened"].to_numpy().astype(np.bool_)
    inside = groups >= first
    coverage: dict[str, Any] = {
        "label": label,
        "horizon_sessions": horizon,
        "first_session": tested[0] if tested else None,
        "last_session": tested[-1] if tested else None,
        "sessions": len(tested),
        "labels": int(inside.sum()),
        "positives": int((happened & inside).sum()),
        "alarms": 0,
        "abstained": None,
    }
    if (reason := _abstention(coverage, config)) is not None:
        coverage["abstained"] = reason
        return _Part([], [], coverage, f"{_title(label, horizon)}: no verdict, {reason}.")
    draws = metrics.block_draws(len(tested), max(config.block_sessions, horizon), config.bootstrap_samples, config.seed)
    samples = {}
    for scorer in scorers:
        scores = rows[scorer].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        alarms = walk_forward_alarms(scores, groups, len(days), horizon, config)
        samples[scorer] = _measure(scores[inside], alarms[inside], happened[inside], groups[inside] - first, draws, config)
    coverage["alarms"] = samples[SIGNAL].alarms
    place = {"label": label, "horizon_sessions": horizon}
    comparisons = [
        place | row for scorer in scorers if scorer != SIGNAL for row in _compare(samples[SIGNAL], samples[scorer], scorer, config)
    ]
    measured = [
        place
        | {
            "scorer": scorer,
            "metric": metric,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "interval": one.method,
        }
        for scorer, sample in samples.items()
        for metric, one in sample.intervals.items()
    ]
    return _Part(measured, comparisons, coverage, _verdict(label, horizon, samples[SIGNAL], comparisons, coverage))


def _labelled(table: pl.DataFrame, outcomes: pl.DataFrame, label: str, horizon: int) -> pl.DataFrame:
    known = outcomes.filter((pl.col("horizon_sessions") == horizon) & pl.col(f"is_significant_{label}").is_not_null()).select(
        pl.col("signal_session").alias("session"),
        "underlying",
        pl.col(f"is_significant_{label}").alias("happened"),
    )
    return table.join(known, on=["session", "underlying"], how="inner").sort("session", "underlying")


def _abstention(coverage: dict[str, Any], config: BacktestConfig) -> str | None:
    if coverage["sessions"] < config.min_test_sessions:
        return f"not enough labelled sessions: {coverage['sessions']} to test, {config.min_test_sessions} needed"
    if coverage["positives"] < config.min_positives:
        return f"not enough significant moves: {coverage['positives']} to test on, {config.min_positives} needed"
    return None


def walk_forward_alarms(scores: Float, groups: Int, days: int, horizon: int, config: BacktestConfig) -> Bool:
    """Whether each row's score exceeds the quantile of the scores of its window of earlier sessions.

    `groups` (n, ascending): position of each row's session among `days`. NaN scores raise no alarm and set no threshold;
    a window with too few scores to have `alarm_share` of them sets none either.
    """
    alarms = np.zeros(len(scores), dtype=np.bool_)
    bounds = np.searchsorted(groups, np.arange(days + 1))
    gap = horizon + config.embargo_sessions
    for day in range(config.min_window_sessions + gap, days):
        end = day - gap
        past = scores[bounds[max(end - config.window_sessions, 0)] : bounds[end]]
        past = past[~np.isnan(past)]
        if len(past) * config.alarm_share >= 1:
            here = slice(bounds[day], bounds[day + 1])
            alarms[here] = scores[here] > np.quantile(past, 1.0 - config.alarm_share)
    return alarms


def _measure(scores: Float, alarms: Bool, happened: Bool, groups: Int, draws: Int, config: BacktestConfig) -> _Sample:
    days = draws.shape[1]
    counts = metrics.confusion(alarms, happened, groups, days)
    total = counts.sum(axis=0)
    values = metrics.rates(total)
    replicates = metrics.rates(metrics.drawn_sums(draws, counts))
    intervals = {
        name: metrics.percentile_interval(float(values[name]), replicates[name], config.confidence) for name in metrics.METRICS
    }
    for name, (successes, trials) in metrics.shares(total).items():
        # Resampling cannot say how uncertain 0 of n or n of n is: every sample repeats it.
        if name == "base_rate" or successes in (0, trials):
            intervals[name] = metrics.wilson(successes, trials, config.confidence)
    precision, base_rate = intervals["precision"], intervals["base_rate"].value
    if total[0] == 0 and precision.high is not None and base_rate:
        intervals["lift"] = Interval(0.0, 0.0, precision.high / base_rate, precision.method)
    for k in config.picks:
        hits = metrics.hits_at(scores, happened, groups, days, k)
        name = f"precision_at_{k}"
        replicates[name] = metrics.hit_rate(metrics.drawn_sums(draws, hits))
        intervals[name] = metrics.percentile_interval(
            float(metrics.hit_rate(hits.sum(axis=0))), replicates[name], config.confidence
        )
    return _Sample(intervals, replicates, int(total[0] + total[1]))


def _compare(signal: _Sample, baseline: _Sample, name: str, config: BacktestConfig) -> list[dict[str, Any]]:
    rows = []
    for metric in ("precision", "lift", *(f"precision_at_{k}" for k in config.picks)):
        ours, theirs = signal.intervals[metric].value, baseline.intervals[metric].value
        difference = float("nan") if ours is None or theirs is None else ours - theirs
        interval = metrics.percentile_interval(
            difference, signal.replicates[metric] - baseline.replicates[metric], config.confidence
        )
        rows.append(
            {
                "baseline": name,
                "metric": metric,
                "difference": interval.value,
                "low": interval.low,
                "high": interval.high,
                "beats": interval.low is not None and interval.low > 0,
            }
        )
    return rows


def _title(label: str, horizon: int) -> str:
    meaning = {"sigma": f"beyond {SIGMAS:g} expected moves", "top": f"in the top {TOP_SHARE:.0%}"}[label]
    return f"Moves {meaning} within {horizon} session{'s' if horizon > 1 else ''}"


def _verdict(label: str, horizon: int, signal: _Sample, comparisons: list[dict[str, Any]], coverage: dict[str, Any]) -> str:
    lift = signal.intervals["lift"]
    basis = f"{coverage['sessions']} sessions, {coverage['labels']} labels, {signal.alarms} alarms"
    if lift.value is None or lift.low is None or lift.high is None:
        return f"{_title(label, horizon)}: no verdict, the lift is undefined ({basis})."
    better = lift.low > 1
    says = "The signal is better than chance" if better else "The signal is not shown to be better than chance"
    precision = [row for row in comparisons if row["metric"] == "precision"]
    beaten = [row["baseline"] for row in precision if row["beats"]] if better else []
    rest = [row["baseline"] for row in precision if row["baseline"] not in beaten]
    text = f"{_title(label, horizon)}: {says}: lift {lift.value:.2f} ({lift.low:.2f} to {lift.high:.2f}; {basis})."
    if beaten:
        text += f" It beats {', '.join(beaten)}."
    if rest:
        text += f" It is not shown to beat {', '.join(rest)}."
    return text
