"""Step `factor_panel`: scores against the underlying's own past."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import (
    CLOSE_SESSIONS,
    DAILY_FACTORS,
    FACTOR_PANEL,
    HAR_MIN_RETURNS,
    MIN_HISTORY,
    PASSED_THROUGH,
    REPEATED,
    SCORED,
    Z_COLUMNS,
)
from flowlake.datasets.model import Adjust, Dataset
from flowlake.factors.forecasts import har_forecast
from flowlake.factors.panel import factor_panel
from flowlake.quant import realized, robust

T = date(2014, 6, 9)


def days_before(count: int) -> date:
    return sessions.offset(T, -count)


def daily(values: list[dict[str, Any]], underlying: str = "AAPL") -> pl.DataFrame:
    """One row per session, the last on T."""
    first = len(values) - 1
    rows = [
        {"underlying": underlying, "not_available": [], **row, "session": days_before(first - i)} for i, row in enumerate(values)
    ]
    return pl.DataFrame(rows, schema={**DAILY_FACTORS.polars_schema(), "session": pl.Date()})


def run(**inputs: pl.DataFrame) -> dict[str, Any]:
    out = factor_panel(inputs, T).tables["factor_panel"]
    floats = out.select(pl.selectors.float())
    assert not any(floats[name].is_nan().any() or floats[name].is_infinite().any() for name in floats.columns)
    (row,) = FACTOR_PANEL.conform(out, T).rows(named=True)
    return row


def test_score_by_hand() -> None:
    past = [0.10 + 0.01 * i for i in range(21)]  # median 0.20, median absolute deviation 0.05
    row = run(daily_factors=daily([{"atm_iv_30d": v} for v in [*past, 0.35]]))
    assert row["atm_iv_30d_z"] == pytest.approx((0.35 - 0.20) / (1.4826 * 0.05), rel=1e-12)
    assert row["atm_iv_30d_percentile"] == 1.0
    assert row["history_sessions"] == 21


def test_volumes_are_scored_in_logarithms() -> None:
    past = [math.expm1(5 + 0.1 * i) for i in range(21)]
    row = run(daily_factors=daily([{"premium_usd": v} for v in [*past, math.expm1(8.0)]]))
    assert row["premium_usd_z"] == pytest.approx((8.0 - 6.0) / (1.4826 * 0.5), rel=1e-12)


def test_small_counts_are_scored_in_square_roots() -> None:
    past = [float((10 + i) ** 2) for i in range(21)]  # median root 20, median absolute deviation 5
    row = run(daily_factors=daily([{"swept_otm_call_volume": int(v)} for v in [*past, 60.0**2]]))
    assert row["swept_otm_call_volume_z"] == pytest.approx((60 - 20) / (1.4826 * 5), rel=1e-12)
    quiet = run(daily_factors=daily([{"swept_otm_call_volume": v} for v in [*[0] * 30, 16]]))
    assert quiet["swept_otm_call_volume_z"] == pytest.approx(1.0), "sixteen contracts from nothing are one deviation"


def test_too_little_history_gives_no_score() -> None:
    values = [{"atm_iv_30d": 0.2 + 0.001 * i} for i in range(MIN_HISTORY + 1)]
    assert run(daily_factors=daily(values))["atm_iv_30d_z"] is not None
    short = run(daily_factors=daily(values[1:]))
    assert (short["atm_iv_30d_z"], short["atm_iv_30d_percentile"]) == (None, None)
    assert f"atm_iv_30d_z: the past holds fewer than {MIN_HISTORY} values, or does not vary" in short["not_available"]
    holes = [*values[:-2], {"atm_iv_30d": None}, values[-1]]
    assert run(daily_factors=daily(holes))["atm_iv_30d_z"] is None, "a session without a value is no history"


def test_a_flat_past_cannot_make_a_score_explode() -> None:
    row = run(daily_factors=daily([*[{"atm_iv_30d": 0.2, "option_volume": 100}] * 30, {"atm_iv_30d": 0.21, "option_volume": 200}]))
    assert row["atm_iv_30d_z"] == pytest.approx(0.01 / 0.005, rel=1e-9)
    assert row["option_volume_z"] == pytest.approx(math.log(201 / 101) / 0.05, rel=1e-9)


def test_a_past_of_nothing_but_zero_gives_no_score_on_a_relative_floor() -> None:
    row = run(daily_factors=daily([*[{"gamma_exposure_usd": 0.0}] * 30, {"gamma_exposure_usd": 1e9}]))
    assert row["gamma_exposure_usd_z"] is None


def test_today_is_no_part_of_its_own_past_and_neither_is_the_future() -> None:
    values = [{"atm_iv_30d": 0.2 + 0.001 * (i % 7), "spot_close": 100.0 + i, "option_volume": 100 + i} for i in range(40)]
    base = daily(values)
    later = base.tail(1).with_columns(
        pl.lit(sessions.next_session(T)).alias("session"), pl.lit(9.9).alias("atm_iv_30d"), pl.lit(1e6).alias("spot_close")
    )
    bars = table_of_closes([100.0 + i for i in range(30)])
    late_bar = bars.tail(1).with_columns(pl.lit(sessions.next_session(T)).alias("session"), pl.lit(5.0).alias("close"))
    assert run(daily_factors=base, equity_bars_1d=bars) == run(
        daily_factors=pl.concat([base, later]), equity_bars_1d=pl.concat([bars, late_bar])
    )


def table_of_closes(closes: list[float]) -> pl.DataFrame:
    first = len(closes) - 1
    rows = [
        {"underlying": "AAPL", "open": c, "high": c, "low": c, "close": c, "volume": 1.0, "session": days_before(first - i)}
        for i, c in enumerate(closes)
    ]
    return pl.DataFrame(rows, schema={**curated.EQUITY_BARS_1D.polars_schema(), "session": pl.Date()})


def test_return_and_realized_volatility_need_closes_without_a_gap() -> None:
    closes = [100.0 * math.exp(0.01 * (i % 3)) for i in range(21)]
    today = daily([{"atm_iv_30d": 0.3}])
    row = run(daily_factors=today, equity_bars_1d=table_of_closes(closes))
    expected = realized.close_to_close(closes, closes, closes, closes)
    assert row["realized_vol_20d"] == pytest.approx(expected, rel=1e-12)
    assert row["realized_vol_20d"] == pytest.approx(float(np.std(np.diff(np.log(closes)), ddof=1)) * math.sqrt(252), rel=1e-12)
    assert row["iv_minus_rv"] == pytest.approx(0.3 - expected, rel=1e-12)
    assert row["log_return"] == pytest.approx(math.log(closes[-1] / closes[-2]), rel=1e-12)
    gap = table_of_closes(closes).filter(pl.col("session") != days_before(1))
    holed = run(daily_factors=today, equity_bars_1d=gap)
    assert (holed["log_return"], holed["realized_vol_20d"], holed["iv_minus_rv"]) == (None, None, None)


def bars_of(prices: list[tuple[float, float, float, float]], underlying: str = "AAPL") -> pl.DataFrame:
    """Daily stock bars of open, high, low and close, the last on T."""
    first = len(prices) - 1
    rows = [
        dict(
            zip(("underlying", "open", "high", "low", "close", "session"), (underlying, *bar, days_before(first - i)), strict=True)
        )
        for i, bar in enumerate(prices)
    ]
    return pl.DataFrame(rows, schema={**curated.EQUITY_BARS_1D.polars_schema(), "session": pl.Date()})


def walk(sessions_: int, seed: int = 3) -> list[tuple[float, float, float, float]]:
    """Bars of a price that jumps overnight and wanders by day."""
    rng = np.random.default_rng(seed)
    bars, last = [], 100.0
    for _ in range(sessions_):
        path = last * np.exp(np.cumsum(rng.normal(0, 0.005, 9)))
        bars.append((float(path[0]), float(path.max()), float(path.min()), float(path[-1])))
        last = float(path[-1])
    return bars


def test_realised_volatilities_of_the_range() -> None:
    prices = walk(30)
    row = run(daily_factors=daily([{"atm_iv_30d": 0.3}]), equity_bars_1d=bars_of(prices))
    last_21, last_20 = zip(*prices[-21:], strict=True), zip(*prices[-20:], strict=True)
    o, h, lo, c = (list(line) for line in last_20)
    assert row["realized_vol_parkinson_20d"] == realized.parkinson(o, h, lo, c)
    assert row["realized_vol_garman_klass_20d"] == realized.garman_klass(o, h, lo, c)
    yz = realized.yang_zhang(*(list(line) for line in last_21))
    assert row["realized_vol_yz_20d"] == yz
    assert row["iv_minus_rv_yz"] == pytest.approx(0.3 - yz, rel=1e-12)
    first_gap = run(daily_factors=daily([{}]), equity_bars_1d=bars_of(prices).filter(pl.col("session") != days_before(20)))
    assert first_gap["realized_vol_yz_20d"] is None, "it needs the close before the first gap"
    assert first_gap["realized_vol_parkinson_20d"] == row["realized_vol_parkinson_20d"]
    spots = run(daily_factors=daily([{"spot_close": bar[3]} for bar in prices]))
    assert (spots["realized_vol_yz_20d"], spots["realized_vol_garman_klass_20d"]) == (None, None)
    assert "realized_vol_yz_20d: fewer than 21 consecutive daily stock bars" in spots["not_available"]
    assert spots["realized_vol_20d"] == row["realized_vol_20d"]


def test_the_forecast_is_of_the_underlyings_own_closes() -> None:
    prices = walk(CLOSE_SESSIONS + 20)
    bars = bars_of(prices)
    row = run(daily_factors=daily([{"atm_iv_30d": 0.3}]), equity_bars_1d=bars)
    returns = np.diff(np.log([bar[3] for bar in prices[-CLOSE_SESSIONS:]]))[np.newaxis]
    assert row["har_forecast_21d"] == pytest.approx(har_forecast(returns)[0], rel=1e-12)
    assert row["iv_minus_har"] == pytest.approx(0.3 - row["har_forecast_21d"], rel=1e-12)
    least = run(daily_factors=daily([{}]), equity_bars_1d=bars.tail(HAR_MIN_RETURNS + 1))
    assert least["har_forecast_21d"] == pytest.approx(har_forecast(returns[:, -HAR_MIN_RETURNS:])[0], rel=1e-12)
    short = run(daily_factors=daily([{"atm_iv_30d": 0.3}]), equity_bars_1d=bars.tail(HAR_MIN_RETURNS))
    assert (short["har_forecast_21d"], short["iv_minus_har"]) == (None, None)
    assert "har_forecast_21d: fewer than 120 daily returns without a gap" in short["not_available"]


def test_the_future_is_no_part_of_any_volatility() -> None:
    bars, values = bars_of(walk(200)), [{"atm_iv_30d": 0.2, "atm_call_iv_30d": 0.2, "implied_move_1d": 0.01}] * 30
    following = {"session": pl.lit(sessions.next_session(T))}
    late_bar = bars.tail(1).with_columns(**following, close=pl.lit(500.0), high=pl.lit(500.0))
    late_row = daily(values).tail(1).with_columns(**following, atm_call_iv_30d=pl.lit(2.0), implied_move_1d=pl.lit(0.5))
    now = run(daily_factors=daily(values), equity_bars_1d=bars)
    assert now["har_forecast_21d"] is not None
    assert now == run(daily_factors=pl.concat([daily(values), late_row]), equity_bars_1d=pl.concat([bars, late_bar]))


def test_changes_of_call_and_put_volatility_are_over_21_sessions() -> None:
    values = [{"atm_call_iv_30d": 0.2 + 0.01 * i, "atm_put_iv_30d": 0.3 - 0.001 * i**2} for i in range(25)]
    row = run(daily_factors=daily(values))
    assert row["call_iv_change_21s"] == pytest.approx(0.21, rel=1e-12)
    assert row["put_iv_change_21s"] == pytest.approx(-0.001 * (24**2 - 3**2), rel=1e-12)
    missing = [*values[:3], {"atm_put_iv_30d": 0.1}, *values[4:]]
    holed = run(daily_factors=daily(missing))
    assert holed["call_iv_change_21s"] is None
    assert holed["put_iv_change_21s"] is not None
    assert "call_iv_change_21s: atm_call_iv_30d of this session or of 21 sessions before is not there" in holed["not_available"]
    assert run(daily_factors=daily(values[-21:]))["put_iv_change_21s"] is None


def test_what_happened_over_what_was_implied() -> None:
    values = [{"spot_close": 100.0, "implied_move_1d": 0.02}, {"spot_close": 97.0, "implied_move_1d": 0.5}]
    row = run(daily_factors=daily(values))
    assert row["realized_over_implied_move"] == pytest.approx(-math.log(0.97) / 0.02, rel=1e-12)
    without = run(daily_factors=daily([{"spot_close": 100.0}, values[1]]))
    assert without["realized_over_implied_move"] is None
    gap = daily([values[0], *values]).filter(pl.col("session") != days_before(1))
    assert run(daily_factors=gap, equity_bars_1d=table_of_closes([100.0, 97.0]))["realized_over_implied_move"] is None


def test_spot_closes_serve_where_there_are_no_stock_bars() -> None:
    row = run(daily_factors=daily([{"spot_close": 100.0}, {"spot_close": 110.0}]))
    assert row["log_return"] == pytest.approx(math.log(1.1), rel=1e-12)


def test_open_interest_change() -> None:
    row = run(daily_factors=daily([{"open_interest_close": 130, "open_interest_open": 100, "option_volume": 60}]))
    assert (row["open_interest_change"], row["oi_change_ratio"]) == (30, 0.5)
    closed = run(daily_factors=daily([{"open_interest_close": 100, "open_interest_open": 130, "option_volume": 0}]))
    assert (closed["open_interest_change"], closed["oi_change_ratio"]) == (-30, None)


def test_repeated_flow_is_the_lesser_of_two_sessions_that_follow_one_another() -> None:
    values = [
        {"swept_otm_call_volume": 90, "swept_opening_put_volume": 70},
        {"swept_otm_call_volume": 40, "swept_opening_put_volume": None},
    ]
    row = run(daily_factors=daily(values))
    assert (row["repeated_sweep_call_volume"], row["repeated_opening_put_volume"]) == (40, None)
    assert (
        "repeated_opening_put_volume: swept_opening_put_volume of this session or of the session before is not there"
        in row["not_available"]
    )
    gap = daily([values[0], *values]).filter(pl.col("session") != days_before(1))
    assert run(daily_factors=gap)["repeated_sweep_call_volume"] is None


def adjusted(frame: pl.DataFrame, dataset: Dataset, ratio: float) -> pl.DataFrame:
    """What the reader does to rows before a split, by the declarations."""
    divided = [pl.col(c.name) / ratio for c in dataset.columns if c.adjust is Adjust.PRICE]
    grow = (Adjust.SHARES, Adjust.CONTRACTS, Adjust.INVERSE_PRICE)
    multiplied = [(pl.col(c.name) * ratio).cast(c.dtype) for c in dataset.columns if c.adjust in grow]
    return frame.with_columns(*divided, *multiplied)


def test_a_split_leaves_no_jump() -> None:
    """AAPL split 7:1 on 2014-06-09: seven times the contracts and shares at a seventh of the price, the same dollars."""
    rng = np.random.default_rng(7)

    def session(scale: float) -> dict[str, Any]:
        volume = int(50_000 * math.exp(0.2 * rng.standard_normal()))
        return {
            "spot_close": 645.0 / scale * math.exp(0.01 * rng.standard_normal()),
            "option_volume": int(volume * scale),
            "premium_usd": 1e8 * math.exp(0.2 * rng.standard_normal()),
            "option_to_stock_volume": 0.5 * math.exp(0.2 * rng.standard_normal()),
            "atm_iv_30d": 0.22 + 0.01 * rng.standard_normal(),
            "gamma_exposure_usd": 1e9 * (1 + 0.3 * rng.standard_normal()),
            "open_interest_close": int((1_000_000 + 20_000 * rng.standard_normal()) * scale),
            "open_interest_open": int(1_000_000 * scale),
        }

    values = [*[session(1) for _ in range(60)], session(7)]
    raw = daily(values)
    before, today = raw.filter(pl.col("session") < T), raw.filter(pl.col("session") == T)
    row = run(daily_factors=pl.concat([adjusted(before, DAILY_FACTORS, 7.0), today]))
    scored = ("option_volume", "premium_usd", "option_to_stock_volume", "atm_iv_30d", "gamma_exposure_usd", "open_interest_change")
    for name in scored:
        assert abs(row[f"{name}_z"]) < 4, name
    assert abs(row["log_return"]) < 0.1
    assert row["realized_vol_20d"] < 0.5
    unadjusted = run(daily_factors=raw)
    assert unadjusted["option_volume_z"] > 6
    assert unadjusted["log_return"] < -1.5


def test_every_null_has_a_reason() -> None:
    row = run(daily_factors=daily([{"not_available": ["iso_share: needs option_trades"]}]))
    named = {text.split(":")[0] for text in row["not_available"]}
    passed_through = {column.name for column in PASSED_THROUGH}
    own = {c.name for c in FACTOR_PANEL.columns if c.nullable and row[c.name] is None} - passed_through
    assert named == {"iso_share", *own}
    assert own >= {"log_return", "har_forecast_21d", "put_iv_change_21s", *REPEATED, *Z_COLUMNS}
    assert row["not_available"] == sorted(row["not_available"])


def test_every_scored_factor_is_a_column_of_the_panel_and_documented() -> None:
    names = FACTOR_PANEL.column_names
    for scored in SCORED:
        assert {scored.name, scored.column} <= set(names)
        doc = FACTOR_PANEL.column(scored.column).doc
        assert "Known at 09:00 New York" in doc
        assert f"{MIN_HISTORY} past sessions" in doc


def test_row_median_ignores_missing_values() -> None:
    values = np.array([[3.0, np.nan, 1.0, 2.0], [4.0, 1.0, np.nan, np.nan], [np.nan] * 4])
    np.testing.assert_array_equal(robust.row_median(values), [2.0, 2.5, np.nan])


def test_the_past_must_be_a_matrix() -> None:
    with pytest.raises(ValueError, match="matrix"):
        robust.share_below([1.0], [1.0, 2.0])
