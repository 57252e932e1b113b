"""Outcomes by hand: when a signal can be acted on, at which price, and what counts as a significant move."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from flowlake.backtest.outcomes import (
    HORIZONS,
    LOOK_BACK_SESSIONS,
    MIN_TOP_LABELS,
    complete_outcomes,
    first_tradable,
    top_threshold,
)
from flowlake.core import sessions
from flowlake.datasets.factors import FACTOR_PANEL
from flowlake.datasets.model import UTC_NS, Inputs
from flowlake.datasets.signals import OUTCOMES
from flowlake.pipeline.plan import by_name

WEDNESDAY = date(2024, 3, 6)


def days_to(session: date) -> list[date]:
    return [sessions.offset(session, -back) for back in range(LOOK_BACK_SESSIONS - 1, -1, -1)]


def panel(days: list[date], underlying: str = "AAA", closes: list[float] | None = None, **values: float | None) -> pl.DataFrame:
    count = len(days)
    columns = {"realized_vol_20d": 0.32, "atm_iv_30d": 0.4} | values
    return pl.DataFrame(
        {
            "session": days,
            "underlying": [underlying] * count,
            "spot_close": closes or [100.0 + i for i in range(count)],
            **{name: [value] * count for name, value in columns.items()},
        },
        schema_overrides=dict.fromkeys(("spot_close", "realized_vol_20d", "atm_iv_30d"), pl.Float64()),
    )


def day_bars(days: list[date], underlying: str = "AAA", start: float = 100.0) -> pl.DataFrame:
    """Opens start + i + 0.5, closes start + i."""
    return pl.DataFrame(
        {
            "session": days,
            "underlying": [underlying] * len(days),
            "open": [start + i + 0.5 for i in range(len(days))],
            "close": [start + i for i in range(len(days))],
        }
    )


def minute_bars(session: date, opens: dict[datetime, float], underlying: str = "AAA", *, is_regular: bool = True) -> pl.DataFrame:
    count = len(opens)
    return pl.DataFrame(
        {
            "session": [session] * count,
            "underlying": [underlying] * count,
            "ts_utc": pl.Series(list(opens), dtype=UTC_NS),
            "open": list(opens.values()),
            "is_regular": [is_regular] * count,
        }
    )


def outcome(inputs: Inputs, session: date, horizon: int, underlying: str = "AAA") -> dict[str, object]:
    made = OUTCOMES.conform(complete_outcomes(inputs, session).tables["outcomes"], session)
    for column in OUTCOMES.columns:
        for check in column.all_checks():
            assert made.filter(check.failing(column.name)).is_empty(), (column.name, check.describe())
    here = made.filter((pl.col("horizon_sessions") == horizon) & (pl.col("underlying") == underlying))
    assert here.height == 1
    return here.row(0, named=True)


def test_columns_read_are_declared() -> None:
    assert set(panel([WEDNESDAY]).columns) - {"session"} <= set(FACTOR_PANEL.column_names)


def test_a_weekday_signal_enters_at_eleven_on_the_next_day() -> None:
    days = days_to(WEDNESDAY)
    at_1059, at_1100 = datetime(2024, 3, 6, 15, 59, tzinfo=UTC), datetime(2024, 3, 6, 16, 0, tzinfo=UTC)
    minutes = minute_bars(WEDNESDAY, {at_1059: 200.0, at_1100: 101.0, at_1100 + timedelta(minutes=1): 300.0})
    inputs = {"factor_panel": panel(days), "equity_bars_1d": day_bars(days), "equity_bars_1m": minutes}
    row = outcome(inputs, WEDNESDAY, 1)
    assert row["signal_session"] == date(2024, 3, 5)
    assert row["actionable_at_utc"] == row["entry_utc"] == at_1100
    assert (row["entry_price"], row["entry_source"], row["exit_source"]) == (101.0, "minute_open", "day_close")
    assert row["forward_return"] == pytest.approx(105.0 / 101.0 - 1)
    assert row["from_close_return"] == pytest.approx(105.0 / 104.0 - 1)
    assert row["reason"] is None


def test_a_friday_signal_enters_at_mondays_open() -> None:
    monday = date(2024, 3, 4)
    days = days_to(monday)
    open_utc = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
    before = minute_bars(monday, {open_utc - timedelta(minutes=20): 50.0}, is_regular=False)
    regular = minute_bars(monday, {open_utc: 104.0, open_utc + timedelta(minutes=1): 60.0})
    inputs = {"factor_panel": panel(days), "equity_bars_1d": day_bars(days), "equity_bars_1m": pl.concat([before, regular])}
    row = outcome(inputs, monday, 1)
    assert row["signal_session"] == date(2024, 3, 1)
    assert row["actionable_at_utc"] == datetime(2024, 3, 4, 14, 0, tzinfo=UTC)
    assert (row["entry_utc"], row["entry_price"]) == (open_utc, 104.0)
    without_minutes = outcome({"factor_panel": panel(days), "equity_bars_1d": day_bars(days)}, monday, 1)
    assert (without_minutes["entry_source"], without_minutes["entry_price"]) == ("day_open", 105.5)
    assert without_minutes["entry_utc"] == open_utc


def test_a_session_of_stock_bars_alone_completes_the_outcomes_of_the_session_before() -> None:
    days = days_to(WEDNESDAY)
    at_1100 = datetime(2024, 3, 6, 16, 0, tzinfo=UTC)
    stocks = {"equity_bars_1d": day_bars(days), "equity_bars_1m": minute_bars(WEDNESDAY, {at_1100: 101.0})}
    without = {"factor_panel": panel(days[:-1])} | stocks
    row = outcome(without, WEDNESDAY, 1)
    assert (row["entry_price"], row["exit_source"], row["reason"]) == (101.0, "day_close", None)
    assert row == outcome({"factor_panel": panel(days)} | stocks, WEDNESDAY, 1)
    assert complete_outcomes(stocks, WEDNESDAY).tables["outcomes"].is_empty(), "where there never was a panel there was no signal"


def test_the_plan_completes_outcomes_from_the_panel_or_stock_bars_of_the_session() -> None:
    step = by_name()["complete_outcomes"]
    assert step.any_of == ("factor_panel", "equity_bars_1d")
    assert not any(read.required for read in step.reads)


def test_a_half_day_ends_the_outcome_at_its_close() -> None:
    half = date(2023, 11, 24)  # the day after Thanksgiving closes at 13:00 New York
    days = days_to(half)
    signal = date(2023, 11, 22)
    late = datetime(2023, 11, 24, 18, 0, tzinfo=UTC)
    inputs = {"factor_panel": panel(days), "equity_bars_1d": day_bars(days), "equity_bars_1m": minute_bars(half, {late: 99.0})}
    row = outcome(inputs, half, 1)
    assert row["signal_session"] == signal
    # Published on Thanksgiving, so Friday 09:00 counts and the day bar's open is tradable; 13:00 is not inside the session.
    assert row["actionable_at_utc"] == datetime(2023, 11, 24, 14, 0, tzinfo=UTC)
    assert row["entry_source"] == "day_open"
    bare = {"factor_panel": panel(days)}
    assert outcome(bare | {"equity_bars_1m": minute_bars(half, {late: 99.0})}, half, 1)["entry_price"] is None
    last_minute = minute_bars(half, {late - timedelta(minutes=1): 99.0})
    assert outcome(bare | {"equity_bars_1m": last_minute}, half, 1)["entry_price"] == 99.0


def test_day_bars_alone_cannot_trade_at_eleven_the_same_day() -> None:
    days = days_to(WEDNESDAY)
    inputs = {"factor_panel": panel(days), "equity_bars_1d": day_bars(days)}
    short = outcome(inputs, WEDNESDAY, 1)
    assert short["forward_return"] is None
    assert short["is_significant_sigma"] is None
    assert "no tradable price" in str(short["reason"])
    long = outcome(inputs, WEDNESDAY, 5)
    # Signal of Wednesday 28 February, published Thursday 11:00: Friday's open is the first that is not before it.
    assert long["signal_session"] == date(2024, 2, 28)
    assert long["entry_utc"] == sessions.open_utc(date(2024, 3, 1))
    assert long["entry_price"] == 102.5
    assert long["forward_return"] == pytest.approx(105.0 / 102.5 - 1)


def test_options_only_uses_the_spot_at_the_next_close() -> None:
    days = days_to(WEDNESDAY)
    row = outcome({"factor_panel": panel(days)}, WEDNESDAY, 5)
    assert (row["entry_source"], row["exit_source"]) == ("spot_close", "spot_close")
    assert row["entry_utc"] == sessions.close_utc(date(2024, 2, 29))
    assert row["forward_return"] == pytest.approx(105.0 / 101.0 - 1)
    assert outcome({"factor_panel": panel(days)}, WEDNESDAY, 1)["forward_return"] is None


def test_an_index_without_stock_bars_keeps_its_spot_beside_stocks() -> None:
    days = days_to(WEDNESDAY)
    both = pl.concat([panel(days), panel(days, "SPX")])
    row = outcome({"factor_panel": both, "equity_bars_1d": day_bars(days)}, WEDNESDAY, 5, "SPX")
    assert row["entry_source"] == "spot_close"
    # A stock with day bars never falls back to spot, which would be a later price of another source.
    stock = day_bars(days[:1])
    entries = first_tradable({"factor_panel": panel(days), "equity_bars_1d": stock}, days[0], WEDNESDAY)
    assert entries.is_empty()


def test_an_entry_is_never_before_the_signal_can_be_acted_on() -> None:
    for session in sessions.sessions_between(date(2023, 11, 1), date(2024, 1, 31)):
        days = days_to(session)
        opens = {sessions.open_utc(day) + timedelta(minutes=minute): 100.0 for day in days for minute in range(0, 210, 10)}
        minutes = pl.concat(
            minute_bars(day, {ts: price for ts, price in opens.items() if sessions.open_utc(day) <= ts < sessions.close_utc(day)})
            for day in days
        )
        for inputs in (
            {"factor_panel": panel(days), "equity_bars_1d": day_bars(days), "equity_bars_1m": minutes},
            {"factor_panel": panel(days), "equity_bars_1d": day_bars(days)},
            {"factor_panel": panel(days)},
        ):
            made = complete_outcomes(inputs, session).tables["outcomes"].filter(pl.col("entry_utc").is_not_null())
            assert (made["entry_utc"] >= made["actionable_at_utc"]).all()
            assert (made["entry_utc"] < sessions.close_utc(session)).all()
            assert made["signal_session"].max() is None or made["signal_session"].max() < session  # type: ignore[operator]


def test_the_expected_move_uses_the_volatility_of_the_signal_session() -> None:
    days = days_to(WEDNESDAY)
    then = panel(days).with_columns(pl.when(pl.col("session") == days[0]).then(0.16).otherwise(9.0).alias("realized_vol_20d"))
    row = outcome({"factor_panel": then, "equity_bars_1d": day_bars(days)}, WEDNESDAY, 5)
    assert row["expected_move"] == pytest.approx(0.16 * np.sqrt(5 / 252))
    assert row["volatility_source"] == "realized_vol_20d"
    assert row["is_significant_sigma"] == (abs(105 / 102.5 - 1) > 2 * 0.16 * np.sqrt(5 / 252))


def test_significance_and_the_fallback_to_implied_volatility() -> None:
    days = days_to(WEDNESDAY)
    calm = outcome({"factor_panel": panel(days, realized_vol_20d=None, atm_iv_30d=0.05)}, WEDNESDAY, 5)
    assert calm["volatility_source"] == "atm_iv_30d"
    assert calm["is_significant_sigma"] is True
    wild = outcome({"factor_panel": panel(days, realized_vol_20d=0.0, atm_iv_30d=0.9)}, WEDNESDAY, 5)
    assert wild["volatility"] == 0.9
    assert wild["is_significant_sigma"] is False
    unknown = outcome({"factor_panel": panel(days, realized_vol_20d=None, atm_iv_30d=None)}, WEDNESDAY, 5)
    assert unknown["expected_move"] is None
    assert unknown["is_significant_sigma"] is None
    assert unknown["forward_return"] is not None


def earlier_outcomes(count: int, horizon: int, last: date) -> pl.DataFrame:
    returns = np.linspace(-0.02, 0.02, count)
    return pl.DataFrame({"session": [last] * count, "horizon_sessions": [horizon] * count, "forward_return": returns})


def test_the_largest_moves_are_judged_by_earlier_outcomes_of_the_same_horizon() -> None:
    days = days_to(WEDNESDAY)
    inputs = {"factor_panel": panel(days)}
    none = outcome(inputs, WEDNESDAY, 5)
    assert (none["is_significant_top"], none["top_threshold"], none["top_threshold_labels"]) == (None, None, 1)
    many = pl.concat([earlier_outcomes(300, 5, days[-2]), earlier_outcomes(300, 1, days[-2])])
    row = outcome(inputs | {"outcomes": many}, WEDNESDAY, 5)
    assert row["top_threshold_labels"] == 301
    assert row["top_threshold"] == pytest.approx(0.019, abs=3e-4)
    assert row["is_significant_top"] is True
    later = earlier_outcomes(300, 5, WEDNESDAY).with_columns(pl.col("forward_return") * 100)
    assert outcome(inputs | {"outcomes": pl.concat([many, later])}, WEDNESDAY, 5) == row


def test_the_threshold_leaves_the_stated_share_above() -> None:
    sizes = np.abs(np.random.default_rng(0).normal(size=2000))
    assert (sizes > top_threshold(sizes)).mean() == pytest.approx(0.05, abs=1e-3)
    assert top_threshold(sizes[: MIN_TOP_LABELS - 1]) is None


def test_row_order_changes_nothing_and_missing_closes_are_said() -> None:
    days = days_to(WEDNESDAY)
    both = pl.concat([panel(days, "BBB"), panel(days, "AAA")])
    bars = pl.concat([day_bars(days, "BBB"), day_bars(days, "AAA")])
    inputs = {"factor_panel": both, "equity_bars_1d": bars}
    shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=2) for name, frame in inputs.items()}
    expected = complete_outcomes(inputs, WEDNESDAY).tables["outcomes"]
    assert complete_outcomes(shuffled, WEDNESDAY).tables["outcomes"].equals(expected)
    assert expected.height == 2 * len(HORIZONS)
    gone = {name: frame.filter(pl.col("session") < WEDNESDAY) for name, frame in inputs.items()}
    row = outcome(gone, WEDNESDAY, 5)
    assert row["reason"] == "there is no close of 2024-03-06"
    assert row["forward_return"] is None


def test_no_signal_session_in_the_look_back_gives_no_rows() -> None:
    made = complete_outcomes({"factor_panel": panel([WEDNESDAY])}, WEDNESDAY).tables["outcomes"]
    assert OUTCOMES.conform(made, WEDNESDAY).is_empty()
