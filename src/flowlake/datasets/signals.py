"""Fitted models, regimes, anomaly scores, calibrations, signals with their reasons, outcomes, and backtest trials.

`models` to `signal_reasons` are of the derived layer. `outcomes` looks forward by design, so it is a layer of its own that only
the calibration and the backtest read. `trials` counts every backtest configuration that was ever tried.
"""

from __future__ import annotations

import polars as pl

from flowlake.datasets.checks import Between, Check, NotAbove, OneOf
from flowlake.datasets.model import UTC_NS, Column, Dataset, KnownAt, KnownAtDecision, Layer

MODEL_NAMES = ("isolation_forest", "local_outlier_factor", "market_hmm", "market_kmeans", "robust_z")
ENGINES = ("isolation_forest", "local_outlier_factor", "robust_z")
STATE_NAMES = ("calm", "normal", "stressed")
UNKNOWN = "unknown"
TIER_FLOORS = (("top", 80.0), ("high", 70.0), ("watch", 50.0))
"""Lowest score of each tier, highest tier first; below the last the tier is `none`."""
TIERS = (*(name for name, _ in TIER_FLOORS), "none")
SIGMAS = 2.0
"""A move is significant (`sigma`) beyond so many expected moves."""
TOP_SHARE = 0.05
"""A move is significant (`top`) among this share of the largest absolute returns."""
DIRECTIONS = ("up", "down", "none")
LABELS = ("sigma", "top")
REASON_KINDS = ("factor", "engine", "doubt")

PERCENT: tuple[Check, ...] = (Between(0, 100),)
PROBABILITY: tuple[Check, ...] = (Between(0, 1),)
NOT_NEGATIVE: tuple[Check, ...] = (Between(0),)
POSITIVE: tuple[Check, ...] = (Between(0, above=True),)
UNDERLYING = Column("underlying", pl.String(), "Ticker.")


def _text(name: str, doc: str, *, nullable: bool = False, one_of: tuple[str, ...] = ()) -> Column:
    return Column(name, pl.String(), doc, nullable=nullable, checks=(OneOf(one_of),) if one_of else ())


def _number(name: str, doc: str, *, unit: str = "", nullable: bool = True, checks: tuple[Check, ...] = ()) -> Column:
    return Column(name, pl.Float64(), doc, unit=unit, nullable=nullable, checks=checks)


def _count(name: str, doc: str, unit: str = "") -> Column:
    return Column(name, pl.Int64(), doc, unit=unit, checks=NOT_NEGATIVE)


def _reason(what: str) -> Column:
    return _text("reason", f"Why {what}; null otherwise.", nullable=True)


def _model_session(doc: str) -> Column:
    return Column("model_session", pl.Date(), doc, nullable=True)


MODELS = Dataset(
    name="models",
    layer=Layer.DERIVED,
    doc="Fitted models as data: parameters, training window and hash of the training rows. Refitted once per ISO week.",
    grain=("model",),
    columns=(
        _text("model", "Model.", one_of=MODEL_NAMES),
        _text("purpose", "What it serves.", one_of=("regime", "anomaly")),
        Column("fitted_session", pl.Date(), "Last session whose rows the fit may have seen: the first of the ISO week."),
        Column("training_first_session", pl.Date(), "First session of the training rows.", nullable=True),
        Column("training_last_session", pl.Date(), "Last session of the training rows.", nullable=True),
        _count("training_sessions", "Sessions with training rows.", "sessions"),
        _count("training_rows", "Training rows."),
        _text("training_hash", "SHA-256 of the training rows, bit by bit, in the order of the fit."),
        _text("features", "Columns of the training rows, a JSON list."),
        _text("hyper_parameters", "Hyper-parameters with the seed, a JSON object with sorted keys."),
        _text(
            "parameters",
            "Fitted parameters, a JSON object; null where the model has none but its training rows, or was not fitted.",
            nullable=True,
        ),
        Column("is_fitted", pl.Boolean(), "There was enough history."),
        _reason("it was not fitted"),
    ),
    sort_by=("model",),
    known=KnownAtDecision(),
    checks=(NotAbove("training_first_session", "training_last_session"),),
)
REGIMES = Dataset(
    name="regimes",
    layer=Layer.DERIVED,
    doc="The market's regime: filtered state probabilities of a hidden Markov model, and a K-means label beside it.",
    grain=("scope",),
    columns=(
        _text("scope", "What the regime is of.", one_of=("market",)),
        _text("regime", "Most probable state; states are named in order of variance.", one_of=(*STATE_NAMES, UNKNOWN)),
        _number("probability", "Filtered probability of that state.", checks=PROBABILITY),
        _number("probability_calm", "Filtered probability of the state of least variance.", checks=PROBABILITY),
        _number("probability_normal", "Of the middle state; null where the model has two.", checks=PROBABILITY),
        _number("probability_stressed", "Of the state of most variance.", checks=PROBABILITY),
        _text("kmeans_regime", "Nearest K-means centre, in order of volatility.", one_of=(*STATE_NAMES, UNKNOWN)),
        Column("agrees", pl.Boolean(), "Both methods name the same regime; null where one abstains.", nullable=True),
        _number("market_return", "Median log return of the underlyings.", unit="per session, decimal"),
        _number("market_volatility", "Median 20-session realized volatility.", unit="per year, decimal", checks=POSITIVE),
        _count("sessions_filtered", "Sessions that the filter ran through.", "sessions"),
        _model_session("Session up to which the model's rows reach."),
        _reason("the regime is unknown"),
    ),
    sort_by=("scope",),
    known=KnownAtDecision(),
)
ANOMALY_SCORES = Dataset(
    name="anomaly_scores",
    layer=Layer.DERIVED,
    doc="How unusual the session's factors are, by three engines trained on earlier sessions only.",
    grain=("underlying", "engine"),
    columns=(
        UNDERLYING,
        _text("engine", "Engine.", one_of=ENGINES),
        _number("raw_score", "The engine's own score; higher is more unusual.", unit="of the engine"),
        _number("percentile", "Share of the engine's training scores below it, ties by half.", unit="%", checks=PERCENT),
        _count("features_missing", "Factors without a value, taken as their own median."),
        _model_session("Session up to which the engine's model may have seen rows."),
        _count("training_rows", "Rows that the engine was trained on."),
        _reason("there is no score"),
    ),
    sort_by=("underlying", "engine"),
    known=KnownAtDecision(),
    may_be_empty=True,
)
CALIBRATIONS = Dataset(
    name="calibrations",
    layer=Layer.DERIVED,
    doc="Score to probability of a significant move, from outcomes complete by the decision time.",
    grain=("horizon_sessions", "label"),
    columns=(
        Column("horizon_sessions", pl.Int64(), "Horizon.", unit="sessions", checks=POSITIVE),
        _text("label", "sigma: beyond so many standard deviations; top: among the largest moves.", one_of=LABELS),
        Column("is_calibrated", pl.Boolean(), "There were enough labels."),
        _text("knots", "Pairs of score and probability, a JSON list; linear between them.", nullable=True),
        _count("labels", "Signals with a complete outcome."),
        _count("positives", "Labels with a significant move."),
        _number("base_rate", "Positives over labels.", checks=PROBABILITY),
        _number("shrinkage", "Weight of the base rate in the probabilities.", checks=PROBABILITY),
        _number("brier", "Brier score on the labels that it was fitted to.", checks=PROBABILITY),
        _number("brier_base_rate", "Brier score of always saying the base rate, on the same labels.", checks=PROBABILITY),
        Column("first_signal_session", pl.Date(), "First signal session of the labels.", nullable=True),
        Column("last_signal_session", pl.Date(), "Last signal session of the labels.", nullable=True),
        _reason("there is no calibration"),
    ),
    sort_by=("horizon_sessions", "label"),
    known=KnownAtDecision(),
)
SIGNALS_DATASET = Dataset(
    name="signals",
    layer=Layer.DERIVED,
    doc="One score per underlying: how strongly the evidence speaks for unusual, possibly informed, option flow.",
    grain=("underlying",),
    columns=(
        UNDERLYING,
        _number("score", "Evidence combined by noisy-or, less doubts; the reasons' contributions add up to it.", checks=PERCENT),
        _text(
            "tier",
            "Class of the score: " + ", ".join(f"{name} from {floor:g}" for name, floor in TIER_FLOORS) + ", else none.",
            one_of=TIERS,
        ),
        _number("confidence", "Calibrated probability of a significant move.", checks=PROBABILITY),
        _text("confidence_reason", "Why there is no confidence; null otherwise.", nullable=True),
        _text("regime", "Market regime.", one_of=(*STATE_NAMES, UNKNOWN)),
        _text("direction", "Side towards which the evidence leans; a hint, never scored.", one_of=DIRECTIONS),
        Column("actionable_at_utc", UTC_NS, "First moment at which a person could act on it."),
        _count("reasons", "Rows of `signal_reasons`, doubts included."),
        _count("history_sessions", "Earlier sessions with factors of the underlying.", "sessions"),
        _reason("there is no score"),
    ),
    sort_by=("underlying",),
    known=KnownAtDecision(),
    may_be_empty=True,
)
SIGNAL_REASONS = Dataset(
    name="signal_reasons",
    layer=Layer.DERIVED,
    doc="Why a signal has its score: one row per piece of evidence or doubt, with the number behind it.",
    grain=("underlying", "rank"),
    columns=(
        UNDERLYING,
        Column("rank", pl.Int64(), "1 for the largest contribution; doubts come last.", checks=(Between(1),)),
        _text("kind", "factor and engine raise the score, doubt lowers it or only warns.", one_of=REASON_KINDS),
        _text("factor", "Factor, engine, or name of the doubt."),
        _number("value", "Value of the factor, or percentile of the engine.", unit="of the factor"),
        _number("baseline", "Median of the factor over the baseline sessions.", unit="of the factor"),
        _count("baseline_sessions", "Sessions in the baseline.", "sessions"),
        _number("z", "Robust deviations of the value from its own past.", unit="robust standard deviations"),
        _number("contribution", "Points of the score; all of a signal add up to it.", nullable=False, checks=(Between(-100, 100),)),
        _text("sentence", "The reason in words."),
    ),
    sort_by=("underlying", "rank"),
    known=KnownAtDecision(),
    may_be_empty=True,
)
OUTCOMES = Dataset(
    name="outcomes",
    layer=Layer.LABELS,
    doc="What followed a signal session, filed under the session at whose close it was complete. Price returns, no dividends.",
    grain=("signal_session", "underlying", "horizon_sessions"),
    columns=(
        Column("signal_session", pl.Date(), "Session of the signal."),
        UNDERLYING,
        Column("horizon_sessions", pl.Int64(), "Sessions from the signal's to this one.", unit="sessions", checks=POSITIVE),
        Column("actionable_at_utc", UTC_NS, "First moment at which the signal could be acted on."),
        Column("entry_utc", UTC_NS, "Moment of the entry price, not before it was actionable.", nullable=True),
        _number("entry_price", "First tradable price from then on.", unit="USD per share, basis of this session", checks=POSITIVE),
        _text("entry_source", "Where it is from.", nullable=True, one_of=("minute_open", "day_open", "spot_close")),
        _number("exit_price", "Close of this session.", unit="USD per share", checks=POSITIVE),
        _text("exit_source", "Where it is from.", nullable=True, one_of=("day_close", "spot_close")),
        _number("forward_return", "Exit over entry, less one.", unit="decimal"),
        _number(
            "from_close_return",
            "Exit over the close of the signal session, less one: not tradable, for comparison only.",
            unit="decimal",
        ),
        _number("volatility", "Volatility known with the signal.", unit="per year, decimal", checks=POSITIVE),
        _text("volatility_source", "Factor that it is from.", nullable=True, one_of=("realized_vol_20d", "atm_iv_30d")),
        _number(
            "expected_move",
            "One standard deviation by that volatility over h full days, close to close; the move itself starts at `entry_utc`, "
            "later than the signal's close, so that it has less time.",
            unit="decimal",
            checks=POSITIVE,
        ),
        _number(
            "top_threshold",
            f"Absolute return that the largest {TOP_SHARE:.0%} of recent outcomes of this horizon exceed.",
            unit="decimal",
            checks=NOT_NEGATIVE,
        ),
        _count("top_threshold_labels", "Absolute returns, none later than this session's, behind the threshold."),
        Column("is_significant_sigma", pl.Boolean(), f"Absolute return above {SIGMAS:g} expected moves.", nullable=True),
        Column("is_significant_top", pl.Boolean(), "Absolute return above the threshold of the largest moves.", nullable=True),
        _reason("there is no forward return"),
    ),
    sort_by=("signal_session", "underlying", "horizon_sessions"),
    known=KnownAtDecision(),
    may_be_empty=True,
)
TRIALS = Dataset(
    name="trials",
    layer=Layer.OPS,
    doc="Every backtest configuration that was ever tried: a result means little without the number of tries behind it.",
    grain=("run_id", "config_hash", "label", "horizon_sessions", "scorer"),
    columns=(
        _text("run_id", "Run that wrote the row."),
        Column("tested_at_utc", UTC_NS, "Moment of the backtest."),
        _text("config_hash", "SHA-256 of the configuration."),
        _text("config", "Configuration, a JSON object with sorted keys."),
        _text("vintage", "Signals as published at their time, or restated since.", one_of=("as_published", "restated")),
        _text("label", "Definition of a significant move.", one_of=LABELS),
        Column("horizon_sessions", pl.Int64(), "Horizon.", unit="sessions", checks=POSITIVE),
        _text("scorer", "The signal, an engine or a simple baseline."),
        Column("first_session", pl.Date(), "First tested signal session.", nullable=True),
        Column("last_session", pl.Date(), "Last tested signal session.", nullable=True),
        _count("sessions", "Tested signal sessions.", "sessions"),
        _count("labels", "Tested labels."),
        _text("metrics", "Metrics with their intervals, a JSON object; empty where the backtest abstained."),
    ),
    sort_by=("run_id", "config_hash", "label", "horizon_sessions", "scorer"),
    known=KnownAt("tested_at_utc"),
    unique=False,
    may_be_empty=True,
)

SIGNALS = (MODELS, REGIMES, ANOMALY_SCORES, CALIBRATIONS, SIGNALS_DATASET, SIGNAL_REASONS, OUTCOMES, TRIALS)
