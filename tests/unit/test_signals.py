"""Signals, reasons and calibration: what raises and lowers a score, that reasons add up, and that only the past is used."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets.factors import FACTOR_PANEL, SCORED, Z_COLUMNS
from flowlake.datasets.signals import (
    ANOMALY_SCORES,
    CALIBRATIONS,
    ENGINES,
    SIGNAL_REASONS,
    SIGNALS_DATASET,
    UNKNOWN,
)
from flowlake.explain import sentences
from flowlake.explain.sentences import sentence, with_sentences, written
from flowlake.signals import evidence
from flowlake.signals.calibration import (
    MIN_LABELS,
    MIN_SIGNAL_SESSIONS,
    SESSION_POSITIVES,
    calibrate,
    fit_logistic,
    independent_positives,
    labelled_scores,
    probability,
)
from flowlake.signals.steps import ScoredSignals, combined_score, score_signals, tier

DAYS = sessions.sessions_between(date(2023, 11, 1), date(2024, 3, 1))
SESSION = DAYS[-1]
NAMES = ["AAA", "BBB", "CCC", "DDD", "EEE"]
CALM = dict.fromkeys(Z_COLUMNS, 0.3) | {"multi_leg_share": 0.1, "oi_change_ratio": 0.25}
INFORMED: dict[str, float | None] = {
    "swept_opening_call_volume_z": 5.0,
    "swept_otm_call_volume_z": 4.5,
    "repeated_opening_call_volume_z": 4.0,
    "otm_short_call_premium_usd_z": 3.5,
    "put_call_volume_ratio_z": -2.0,
    "open_interest_change_z": 3.0,
    "iso_share_z": 4.0,
    "option_volume_z": 1.5,
    "premium_usd_z": 2.5,
    "oi_change_ratio": 0.33,
}


def make_panel(today: dict[str, dict[str, float | None]] | None = None, days: list[date] = DAYS, history: int = 80) -> pl.DataFrame:
    """A calm panel, in which `today` replaces values of the last session by underlying."""
    names = [
        "session",
        "underlying",
        *(s.name for s in SCORED),
        *Z_COLUMNS,
        "multi_leg_share",
        "oi_change_ratio",
        "history_sessions",
    ]
    rows = []
    for position, day in enumerate(days):
        for name in NAMES:
            row = {"session": day, "underlying": name, "history_sessions": history, **CALM}
            row |= {s.name: 100.0 + position for s in SCORED}
            if day == days[-1]:
                row |= (today or {}).get(name, {})
            rows.append(row)
    return pl.DataFrame(rows, schema_overrides={name: pl.Float64() for name in names[2:-1]}).select(names)


def engines_at(session: date, percentile: float, underlying: str) -> pl.DataFrame:
    rows = [
        {"session": session, "underlying": name, "engine": engine, "percentile": percentile if name == underlying else 50.0}
        for name in NAMES
        for engine in ENGINES
    ]
    return pl.DataFrame(rows)


def score(today: dict[str, dict[str, float | None]], **inputs: pl.DataFrame) -> ScoredSignals:
    return score_signals({"factor_panel": make_panel(today), **inputs}, SESSION)


def of(scored: ScoredSignals, underlying: str) -> dict[str, object]:
    return scored.signals.filter(pl.col("underlying") == underlying).row(0, named=True)


def score_of(today: dict[str, float | None]) -> float:
    value = of(score({"AAA": today}), "AAA")["score"]
    assert isinstance(value, float)
    return value


def test_the_panel_has_every_column_that_signals_read() -> None:
    assert set(make_panel().columns) - {"session"} <= set(FACTOR_PANEL.column_names)
    used = {
        factor.format(side=side)
        for family in evidence.FAMILIES
        for factor in (*family.factors, *family.instead)
        for side in evidence.SIDES
    }
    lean = {"otm_short_call_premium_usd", "otm_short_put_premium_usd", "put_call_volume_ratio"}
    assert used - set(sentences.LEANS) | lean == {scored.name for scored in SCORED} | {"oi_change_ratio"}
    assert set(sentences.FACTORS) == used
    assert set(evidence.ENGINE_WEIGHTS) == set(sentences.ENGINES) == set(ENGINES)


def test_informed_flow_is_top_and_calm_flow_is_nothing() -> None:
    scored = score({"BBB": INFORMED}, anomaly_scores=engines_at(SESSION, 99.95, "BBB"))
    informed, calm = of(scored, "BBB"), of(scored, "AAA")
    assert informed["tier"] == "top"
    assert informed["direction"] == "up"
    assert (calm["score"], calm["tier"], calm["direction"], calm["reasons"]) == (0.0, "none", "none", 0)
    assert scored.signals["underlying"].to_list() == NAMES


def test_contributions_add_up_to_the_score() -> None:
    doubtful = INFORMED | {"multi_leg_share": 0.7, "oi_change_ratio": -0.2, "otm_short_put_premium_usd_z": 3.0}
    scored = score({"BBB": INFORMED, "CCC": doubtful}, anomaly_scores=engines_at(SESSION, 99.5, "CCC"))
    for name in ("BBB", "CCC"):
        reasons = scored.reasons.filter(pl.col("underlying") == name)
        assert reasons["contribution"].sum() == pytest.approx(of(scored, name)["score"], abs=1e-4)
        assert reasons["rank"].to_list() == list(range(1, reasons.height + 1))
        assert of(scored, name)["reasons"] == reasons.height
        raising = reasons.filter(pl.col("kind") != "doubt")
        assert raising["contribution"].is_sorted(descending=True)
        assert raising["contribution"].min() > 0
    doubts = scored.reasons.filter((pl.col("underlying") == "CCC") & (pl.col("kind") == "doubt"))
    assert doubts["factor"].to_list() == ["multi_leg_share", "two_sided_flow", "oi_change_ratio"]
    assert doubts["contribution"].max() < 0


def test_noisy_or_is_the_product_formula() -> None:
    pieces = [evidence.Evidence("factor", "x", None, None, 0, None, s, w) for s, w in ((1.0, 0.6), (0.5, 0.3), (0.2, 0.25))]
    doubts = [evidence.Doubt("multi_leg_share", None, None, 0.3), evidence.Doubt("market_wide", None, None, 0.15)]
    total, given, taken = combined_score(pieces, doubts)
    expected = 100 * (1 - 0.4 * 0.85 * 0.95) * 0.7 * 0.85
    assert total == pytest.approx(expected, rel=1e-12)
    assert sum(given) + sum(taken) == pytest.approx(expected, rel=1e-12)
    assert combined_score([], doubts) == (0.0, [], [])


@pytest.mark.parametrize(
    "doubt",
    [{"multi_leg_share": 0.6}, {"otm_short_put_premium_usd_z": 2.6}, {"oi_change_ratio": 0.0}, {"history_sessions": 25}],
)
def test_each_doubt_lowers_the_score(doubt: dict[str, float | None]) -> None:
    assert score_of(INFORMED | doubt) < score_of(INFORMED) * 0.95


def test_a_market_wide_day_is_doubted() -> None:
    alone = of(score({"AAA": INFORMED}), "AAA")["score"]
    busy: dict[str, float | None] = {"option_volume_z": 6.0}
    together = of(score({"AAA": INFORMED, "BBB": busy, "CCC": busy}), "AAA")["score"]
    assert isinstance(alone, float)
    assert together == pytest.approx(alone * (1 - evidence.MARKET_WIDE_DISCOUNT), abs=1e-3)


def test_one_family_counts_once() -> None:
    one = score_of({"premium_usd_z": 3.0})
    assert score_of({"premium_usd_z": 3.0, "option_volume_z": 3.0, "largest_print_premium_usd_z": 2.9}) == one > 0


def test_quiet_factors_are_no_evidence_but_two_sided_ones_are() -> None:
    assert score_of({"otm_short_call_premium_usd_z": -9.0, "iso_share_z": -9.0, "oi_change_ratio": 0.24}) == 0.0
    assert score_of({"skew_25d_z": -4.0}) == pytest.approx(3.0)


def test_sweeps_stand_in_where_nobody_knows_what_was_opened() -> None:
    unknown: dict[str, float | None] = {"swept_opening_call_volume_z": None, "swept_opening_put_volume_z": None}
    scored = score({"AAA": unknown | {"swept_otm_put_volume_z": 4.0}, "BBB": {"swept_otm_put_volume_z": 4.0}})
    factors = dict(scored.reasons.group_by("underlying").agg("factor").iter_rows())
    assert factors["AAA"] == ["swept_otm_put_volume"]
    assert "BBB" not in factors, "what was swept says no more where it is known what of it was opened"
    assert of(scored, "AAA")["direction"] == "down"


def test_a_bet_is_on_one_side() -> None:
    calls: dict[str, float | None] = {"swept_opening_call_volume_z": 4.0, "repeated_opening_call_volume_z": 4.0}
    across: dict[str, float | None] = {"swept_opening_call_volume_z": 4.0, "repeated_opening_put_volume_z": 4.0}
    assert score_of(calls) == pytest.approx(100 * (1 - 0.45 * 0.55))
    assert score_of(across) == pytest.approx(55.0)
    both = score({"AAA": calls | {"swept_otm_call_volume_z": 3.0, "swept_otm_put_volume_z": 2.0}})
    doubts = both.reasons.filter(pl.col("kind") == "doubt")
    assert doubts["factor"].to_list() == ["two_sided_flow"]
    assert doubts["z"].to_list() == [2.0]
    assert of(both, "AAA")["score"] == pytest.approx(score_of(calls) * (1 - evidence.TWO_SIDED_DISCOUNT), abs=1e-3)


def test_direction_and_lean_follow_the_side() -> None:
    assert of(score({"AAA": {"otm_short_put_premium_usd_z": 5.0}}), "AAA")["direction"] == "down"
    row = dict.fromkeys(Z_COLUMNS) | {"otm_short_call_premium_usd_z": 3.0, "put_call_volume_ratio_z": -1.0}
    assert evidence.lean_scores(row) == (pytest.approx(4 / math.sqrt(2)), pytest.approx(-1 / math.sqrt(2)))
    assert evidence.lean_scores(dict.fromkeys(Z_COLUMNS)) == (None, None)
    assert evidence.lean_scores(row | {"put_call_volume_ratio_z": None}) == (pytest.approx(3 / math.sqrt(2)), None)


def test_opening_trades_are_scored_against_the_underlyings_own_past() -> None:
    panel = make_panel({"AAA": {"oi_change_ratio": 0.25 + 0.02 * 4}})
    reasons = score_signals({"factor_panel": panel}, SESSION).reasons.filter(pl.col("factor") == "oi_change_ratio")
    assert reasons["underlying"].to_list() == ["AAA"]
    assert reasons["z"][0] == pytest.approx(4.0)
    assert reasons["contribution"][0] == pytest.approx(20.0)
    short = make_panel({"AAA": {"oi_change_ratio": 0.9}}, days=DAYS[-20:])
    assert score_signals({"factor_panel": short}, SESSION).reasons.filter(pl.col("factor") == "oi_change_ratio").is_empty()


def test_too_few_factors_abstain() -> None:
    scored = score({"AAA": dict.fromkeys(Z_COLUMNS)})
    row = of(scored, "AAA")
    assert row["score"] is None
    assert row["tier"] == "none"
    assert "not enough history" in str(row["reason"])
    assert row["confidence_reason"] == "there is no score"


def test_engines_alone_suffice_for_a_reason_and_absent_inputs_are_said() -> None:
    scored = score({}, anomaly_scores=engines_at(SESSION, 99.9, "DDD"))
    row = of(scored, "DDD")
    assert row["score"] == pytest.approx(100 * (1 - 0.94 * 0.94 * 0.97), abs=1e-3)
    assert row["regime"] == UNKNOWN
    assert row["confidence"] is None
    assert row["confidence_reason"] == "there is no calibration for this session"


def test_regime_confidence_and_moment_come_from_their_inputs() -> None:
    regimes = pl.DataFrame({"session": [DAYS[-2], SESSION], "scope": ["market"] * 2, "regime": ["calm", "stressed"]})
    calibrations = pl.DataFrame(
        {
            "session": [SESSION] * 2,
            "horizon_sessions": [1, 5],
            "label": ["sigma"] * 2,
            "is_calibrated": [True] * 2,
            "knots": ["[[0,0.9],[100,0.9]]", "[[0,0.0],[100,0.5]]"],
            "reason": [None, None],
        }
    )
    row = of(score({"AAA": INFORMED}, regimes=regimes, calibrations=calibrations), "AAA")
    assert row["regime"] == "stressed"
    assert isinstance(row["score"], float)
    assert row["confidence"] == pytest.approx(row["score"] / 200)
    # A Friday: the files are published on Saturday, so Monday 09:00 New York counts.
    assert row["actionable_at_utc"] == datetime(2024, 3, 4, 14, 0, tzinfo=UTC)


def test_later_rows_and_row_order_change_nothing() -> None:
    panel = make_panel({"AAA": INFORMED})
    after = sessions.next_session(SESSION)
    later = pl.concat([panel, panel.filter(pl.col("session") == SESSION).with_columns(pl.lit(after).alias("session"))])
    expected = score_signals({"factor_panel": panel}, SESSION)
    for frame in (later, later.sample(fraction=1.0, shuffle=True, seed=3)):
        got = score_signals({"factor_panel": frame}, SESSION)
        assert got.signals.equals(expected.signals)
        assert got.reasons.equals(expected.reasons)


def test_outputs_fit_their_declarations() -> None:
    scored = score({"AAA": INFORMED, "BBB": dict.fromkeys(Z_COLUMNS)})
    signals = SIGNALS_DATASET.conform(scored.signals, SESSION)
    reasons = SIGNAL_REASONS.conform(with_sentences(scored.reasons), SESSION)
    for ds, frame in ((SIGNALS_DATASET, signals), (SIGNAL_REASONS, reasons)):
        for column in ds.columns:
            for check in column.all_checks():
                assert frame.filter(check.failing(column.name)).is_empty(), (column.name, check)
    empty = score_signals({"factor_panel": make_panel().clear()}, SESSION)
    assert SIGNALS_DATASET.conform(empty.signals, SESSION).is_empty()
    assert SIGNAL_REASONS.conform(with_sentences(empty.reasons), SESSION).is_empty()


def test_tiers() -> None:
    assert [tier(x) for x in (100.0, 80.0, 79.9, 70.0, 50.0, 49.9, None)] == ["top", "top", "high", "high", "watch", "none", "none"]


def test_sentences_name_numbers_and_baseline() -> None:
    scored = score({"AAA": INFORMED | {"otm_short_call_premium_usd": 2_410_000.0}})
    texts = with_sentences(scored.reasons)["sentence"].to_list()
    median = 100 + (len(DAYS) - 2) / 2
    assert (
        "Premium in short-dated OTM calls, taken with the put/call volume ratio, leaned 3.9 robust deviations towards calls: "
        f"it was 2.41 million USD against its median of the last {len(DAYS) - 1} sessions, {median:,.0f} USD."
    ) in texts


def test_every_doubt_has_a_sentence_that_needs_no_other_number() -> None:
    row = (
        CALM
        | INFORMED
        | {"multi_leg_share": 0.5, "oi_change_ratio": -0.3, "otm_short_put_premium_usd_z": 6.0, "history_sessions": 21}
    )
    doubts = list(evidence.gather_doubts(row, 4, 5))
    assert len(doubts) == 5
    for doubt in doubts:
        text = sentence({"kind": "doubt", "factor": doubt.factor, "value": doubt.value, "z": doubt.z})
        assert text.endswith(".")
        assert "nan" not in text.lower()
        assert "none" not in text.lower()


def test_numbers_as_written() -> None:
    assert written(1.5e9, "usd") == "1.50 billion USD"
    assert written(-2_300_000, "count") == "-2.30 million"
    assert written(1234, "count") == "1,234"
    assert written(0.1234, "percent") == "12.3 %"
    assert written(0.01234, "ratio") == "0.0123"
    assert written(0.015, "points") == "1.5 volatility points"


def make_labels(count: int, seed: int, horizon: int = 5) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Signals and outcomes whose probability of a move rises with the score from 2 % to 42 %."""
    rng = np.random.default_rng(seed)
    days = sessions.sessions_between(date(2022, 1, 3), date(2024, 2, 1))[-(count // 10) :]
    scores = rng.uniform(0, 100, len(days) * 10)
    names = [f"U{i}" for i in range(10)]
    key = {"session": [day for day in days for _ in names], "underlying": names * len(days)}
    signals = pl.DataFrame(key | {"score": scores})
    happened = rng.random(len(scores)) < 0.02 + 0.4 * scores / 100
    outcomes = pl.DataFrame(
        {
            "signal_session": key["session"],
            "session": [sessions.offset(day, horizon) for day in key["session"]],
            "underlying": key["underlying"],
            "horizon_sessions": [horizon] * len(scores),
            "is_significant_sigma": happened,
            "is_significant_top": [None] * len(scores),
        },
        schema_overrides={"is_significant_top": pl.Boolean()},
    )
    return signals, outcomes


def calibration(signals: pl.DataFrame, outcomes: pl.DataFrame, session: date = SESSION) -> dict[str, object]:
    made = calibrate({"signals": signals, "outcomes": outcomes}, session).tables["calibrations"]
    frame = CALIBRATIONS.conform(made, session)
    assert frame.height == 4
    return frame.filter((pl.col("horizon_sessions") == 5) & (pl.col("label") == "sigma")).row(0, named=True)


def test_calibration_recovers_the_probabilities() -> None:
    row = calibration(*make_labels(4000, 1))
    assert row["is_calibrated"]
    knots = str(row["knots"])
    assert probability(knots, 90.0) == pytest.approx(0.36, abs=0.08)
    assert probability(knots, 10.0) == pytest.approx(0.08, abs=0.06)
    values = [p for _, p in json.loads(knots)]
    assert values == sorted(values)
    assert row["brier"] < row["brier_base_rate"]  # type: ignore[operator]


def test_few_labels_lean_on_the_base_rate() -> None:
    row = calibration(*make_labels(200, 2))
    spread = probability(str(row["knots"]), 100.0) - probability(str(row["knots"]), 0.0)
    many = calibration(*make_labels(4000, 2))
    assert spread < probability(str(many["knots"]), 100.0) - probability(str(many["knots"]), 0.0)
    assert row["shrinkage"] > many["shrinkage"]  # type: ignore[operator]


def test_too_few_labels_give_none() -> None:
    row = calibration(*make_labels(MIN_LABELS - 10, 3))
    assert not row["is_calibrated"]
    assert row["knots"] is None
    assert "not enough labels" in str(row["reason"])
    nothing = calibrate({}, SESSION).tables["calibrations"]
    assert nothing["labels"].to_list() == [0] * 4


def one_session_each(labels: int, spread: int) -> dict[str, object]:
    """The calibration of `labels` outcomes, a tenth of them significant, dealt out over `spread` signal sessions."""
    days = sessions.sessions_between(date(2022, 1, 3), date(2024, 2, 1))[-spread:]
    of = [days[i % spread] for i in range(labels)]
    names = [f"U{i}" for i in range(labels)]
    signals = pl.DataFrame({"session": of, "underlying": names, "score": [float(i % 101) for i in range(labels)]})
    outcomes = pl.DataFrame(
        {
            "signal_session": of,
            "session": [sessions.offset(day, 5) for day in of],
            "underlying": names,
            "horizon_sessions": [5] * labels,
            "is_significant_sigma": [i // spread % 10 == 0 for i in range(labels)],
            "is_significant_top": [False] * labels,
        }
    )
    return calibration(signals, outcomes)


def test_the_cross_section_of_a_few_sessions_is_no_calibration() -> None:
    alone = one_session_each(4500, 1)
    assert (alone["labels"], alone["positives"], alone["is_calibrated"], alone["knots"]) == (4500, 450, False, None)
    assert "of 1 signal sessions; 100, 10 and 20 needed" in str(alone["reason"])
    assert not one_session_each(4500, MIN_SIGNAL_SESSIONS - 1)["is_calibrated"]
    assert one_session_each(4500, MIN_SIGNAL_SESSIONS)["is_calibrated"]


def test_the_positives_of_one_session_are_not_independent() -> None:
    wide, wider = one_session_each(2000, 20), one_session_each(8000, 20)
    independent = 20 * SESSION_POSITIVES / 5
    assert wide["shrinkage"] == wider["shrinkage"] == pytest.approx(20 / (20 + independent))
    days = pl.Series([date(2024, 1, 2), date(2024, 1, 2), date(2024, 1, 3)])
    assert independent_positives(days, np.array([True, True, True]), 1) == 3.0, "few of a session count in full"
    assert independent_positives(days, np.array([False, False, False]), 1) == 0.0


def test_calibration_never_falls_with_the_score() -> None:
    signals, outcomes = make_labels(2000, 4)
    row = calibration(signals.with_columns((100 - pl.col("score")).alias("score")), outcomes)
    values = {p for _, p in json.loads(str(row["knots"]))}
    assert max(values) - min(values) < 1e-12
    assert max(values) == pytest.approx(row["base_rate"])


def test_calibration_uses_only_outcomes_complete_by_then() -> None:
    signals, outcomes = make_labels(2000, 5)
    session = outcomes["session"].unique().sort()[150]
    known = outcomes.filter(pl.col("session") <= session)
    flipped = outcomes.with_columns(
        pl.when(pl.col("session") > session)
        .then(~pl.col("is_significant_sigma"))
        .otherwise("is_significant_sigma")
        .alias("is_significant_sigma")
    )
    assert calibration(signals, flipped, session) == calibration(signals, known, session)
    used = labelled_scores(signals, outcomes, session)
    assert used["signal_session"].max() == sessions.offset(session, -5)


def test_logistic_fit_equals_sklearn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(6)
    x = rng.random(500)
    happened = rng.random(500) < 1 / (1 + np.exp(2 - 3 * x))
    standard = (x - x.mean()) / x.std()
    twin = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(standard[:, None], happened)
    intercept, slope = fit_logistic(x, happened)
    assert slope == pytest.approx(twin.coef_[0, 0] / x.std(), rel=1e-5)
    assert intercept == pytest.approx(twin.intercept_[0] - slope * x.mean(), rel=1e-5)
    assert fit_logistic(np.full(10, 0.5), happened[:10])[1] == 0.0


def test_strengths_are_monotone_and_bounded() -> None:
    grid = [evidence.percentile_strength(p) for p in (None, 0.0, 90.0, 99.0, 99.9, 100.0)]
    assert grid == sorted(grid)
    assert grid[3] == pytest.approx(0.5)
    assert grid[-1] == 1.0
    assert [evidence.z_strength(z) for z in (None, -8.0, 1.0, 2.5, 4.0, 60.0)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    assert math.isclose(evidence.z_strength(-2.5, two_sided=True), 0.5)


def test_engine_input_columns_are_declared() -> None:
    assert set(engines_at(SESSION, 50.0, "AAA").columns) - {"session"} <= set(ANOMALY_SCORES.column_names)
