"""Steps `flow_factors` and `flow_scores` on small sessions computed by hand."""

from __future__ import annotations

import math
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flowlake.core import sessions
from flowlake.datasets import curated
from flowlake.datasets.factors import ENGINE_FEATURES, FACTOR_PANEL
from flowlake.datasets.flow_factors import (
    EXPECTED_MIN_SESSIONS,
    FLOW_ABNORMALITY,
    FLOW_DATASETS,
    FLOW_FACTORS,
    FLOW_FEATURES,
    FLOW_KINDS,
    FLOW_PROFILES,
    FLOW_SCORES,
    FLOW_VALUES,
    PANEL_FLOW,
    PROFILE_FLOOR,
    PROFILE_MIN_HISTORY,
    SCOPES,
    SCORES,
    FlowKind,
)
from flowlake.datasets.model import SESSION
from flowlake.datasets.packets import FLOW_PACKETS
from flowlake.datasets.sides import TRADE_SIDES
from flowlake.factors.flow_columns import flow_columns
from flowlake.flow._regression import fill_expectations
from flowlake.flow.abnormality import _median_of_others, _sum_of_kind, flow_scores, minute_scores
from flowlake.flow.factors import flow_factors
from unit.test_factors_daily import CALL, FAR, LEGS, PUT, T, implied, leg, master, stock, table, trade

BY_NAME = {dataset.name: dataset for dataset in FLOW_DATASETS}
YESTERDAY = sessions.previous_session(T)
OPEN = sessions.open_utc(T)


def tape(*prints: dict[str, Any]) -> pl.DataFrame:
    rows = curated.OPTION_TRADES.conform(table(curated.OPTION_TRADES, list(prints)), T)
    return rows.with_columns(session=pl.lit(T)).with_row_index("print_no")


def sides(trades: pl.DataFrame, *probabilities: float | None, quoted: bool = True) -> pl.DataFrame:
    quote = {"bid": 1.0, "ask": 1.1} if quoted else {}
    names = zip(trades["underlying"], probabilities, strict=True)
    rows = [{"underlying": name, "print_no": i, "buy_probability": p, **quote} for i, (name, p) in enumerate(names)]
    return table(TRADE_SIDES, rows)


def run(**inputs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    made = flow_factors(inputs, T).tables
    return {name: BY_NAME[name].conform(frame, T) for name, frame in made.items()}


def row(**inputs: pl.DataFrame) -> dict[str, Any]:
    (found,) = run(**inputs)["flow_factors"].rows(named=True)
    return found


# In the order of the tape: 105 call, 101 call, 95 put.
TRADES = tape(trade(PUT, 20, 0.5), trade(CALL, 10, 1.25), trade(FAR, 4, 2.5, is_auction=True))


def test_the_order_of_the_tape_is_that_of_the_contracts() -> None:
    assert TRADES["strike"].to_list() == [101.0, 105.0, 95.0]


def test_signed_factors_by_hand() -> None:
    deltas = [{**FAR, "delta": 0.5}, {**CALL, "delta": 0.25}, {**PUT, "delta": -0.2}]
    found = row(
        contracts=master(*LEGS), option_trades=TRADES, option_iv=implied(*deltas), trade_sides=sides(TRADES, 1.0, 0.75, 0.0),
        equity_bars_1d=stock(volume=1_000.0),
    )  # fmt: skip
    expected = {
        "eligible_prints": 3,
        "eligible_volume": 34,
        "eligible_premium_usd": 1000.0 + 1250.0 + 1000.0,
        "side_coverage": 1.0,
        "nbbo_coverage": 1.0,
        "delta_coverage": 1.0,
        "net_call_premium_usd": 1000.0 + 625.0,
        "net_put_premium_usd": -1000.0,
        "net_premium_usd": 625.0,
        "net_call_atm_premium_usd": 1000.0,
        "net_call_otm_premium_usd": 625.0,
        "net_call_itm_premium_usd": 0.0,
        "net_put_otm_premium_usd": -1000.0,
        "net_call_delta_shares": 4 * 100 * 0.5 + 10 * 100 * 0.25 * 0.5,
        "net_put_delta_shares": 20 * 100 * 0.2,
        "net_delta_shares": 200.0 + 125.0 + 400.0,
        "net_call_otm_delta_shares": 125.0,
        "call_put_imbalance": 1250.0 / 3250.0,
        "net_call_put_imbalance": 2625.0 / 3250.0,
        "retail_premium_share": 1000.0 / 3250.0,
        "retail_net_premium_usd": 1000.0,
        "multi_leg_premium_share": 0.0,
        "hu_order_imbalance": 0.725,
        "glp_call_buy_to_stock": (400 + 750) / 1000,
        "glp_call_sell_to_stock": 0.25,
        "glp_put_buy_to_stock": 0.0,
        "glp_put_sell_to_stock": 2.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert {text.split(": ")[1] for text in found["not_available"]} == {"needs flow_packets", "needs sectors"}


def test_an_unknown_side_counts_in_the_total_and_in_the_coverage_alone() -> None:
    found = row(contracts=master(*LEGS), option_trades=TRADES, trade_sides=sides(TRADES, None, 1.0, None, quoted=False))
    assert found["eligible_premium_usd"] == 3250.0
    assert found["side_coverage"] == pytest.approx(1250 / 3250)
    assert found["nbbo_coverage"] == 0.0
    assert found["net_premium_usd"] == found["net_call_premium_usd"] == 1250.0
    assert found["net_put_premium_usd"] == 0.0
    assert found["net_call_put_imbalance"] == 1.0
    assert found["net_delta_shares"] is None


def test_trades_alone_give_totals_and_reasons() -> None:
    found = row(contracts=master(*LEGS), option_trades=TRADES)
    said = dict(text.split(": ", 1) for text in found["not_available"])
    assert said.keys() == {column.name for column in FLOW_VALUES if found[column.name] is None}
    assert found["side_coverage"] == 0.0
    assert said["net_premium_usd"] == "needs trade_sides"
    assert said["opening_put_share"] == "needs flow_packets"
    assert found["call_put_imbalance"] is not None


@pytest.mark.parametrize("mark", ["is_multi_leg", "is_stock_tied", "is_iso"])
def test_an_auction_of_legs_or_a_swept_one_is_not_retail(mark: str) -> None:
    prints = tape(trade(CALL, 10, 1.0, is_auction=True), trade(FAR, 10, 1.0, is_auction=True, **{mark: True}))
    assert row(contracts=master(*LEGS), option_trades=prints)["retail_premium_share"] == 0.5


def test_without_sale_conditions_nobody_knows_of_auctions_and_legs() -> None:
    bare = tape(*(trade(each, 5, 1.0, condition_group="unreported") for each in LEGS))
    found = row(contracts=master(*LEGS), option_trades=bare)
    assert found["retail_premium_share"] is found["multi_leg_premium_share"] is None
    assert "retail_premium_share: the prints carry no sale conditions" in found["not_available"]


def test_a_cancelled_print_counts_in_its_minute_and_not_in_the_session() -> None:
    trades = tape(trade(CALL, 10, 1.0), trade(CALL, 5, 1.0, is_cancelled=True), trade(CALL, 7, 1.0, in_volume=False))
    made = run(contracts=master(*LEGS), option_trades=trades)
    assert made["flow_factors"]["eligible_volume"].to_list() == [10]
    assert made["flow_minutes"]["volume"].to_list() == [15]


def test_opening_and_structures_come_from_packets() -> None:
    rows = [
        {"contract": CALL["contract"], "right": "C", "structure": "sweep", "contracts": 100, "buy_probability": 0.9,
         "opening_probability": 0.5, "premium_usd": 3000.0},
        {"contract": PUT["contract"], "right": "P", "structure": "single", "contracts": 50, "buy_probability": 0.5,
         "opening_probability": 0.8, "premium_usd": 1000.0},
        {"contract": PUT["contract"], "right": "P", "structure": "single", "contracts": 50, "buy_probability": None,
         "opening_probability": 0.8, "premium_usd": 500.0},
        {"contract": None, "right": "C", "structure": "vertical", "contracts": 20, "buy_probability": 0.9,
         "opening_probability": 0.9, "premium_usd": 500.0},
    ]  # fmt: skip
    packets = table(FLOW_PACKETS, [{"underlying": "XYZ", "size": 1, **each} for each in rows])
    made = run(contracts=master(*LEGS), option_trades=TRADES, flow_packets=packets, equity_bars_1d=stock(volume=10_000.0))
    (found,) = made["flow_factors"].rows(named=True)
    assert found["opening_buy_call_volume"] == pytest.approx(45.0)
    assert found["opening_buy_put_volume"] == pytest.approx(20.0)
    assert found["opening_put_share"] == pytest.approx(20 / 65)
    assert found["sweep_premium_share"] == pytest.approx(0.6)
    assert found["package_premium_share"] == pytest.approx(0.1)
    assert found["glp_open_call_buy_to_stock"] == pytest.approx(0.45)
    assert found["glp_open_call_sell_to_stock"] == pytest.approx(0.05)
    (profile,) = made["flow_profiles"].rows(named=True)
    assert sum(profile["premium_counts"]) == 4
    assert profile["premium_bins"] == sorted(profile["premium_bins"])


def test_minutes_use_the_delta_and_the_spot_of_before() -> None:
    at = OPEN + timedelta(minutes=30, seconds=20)
    trades = tape(trade(CALL, 10, 1.0, ts_utc=at), trade(PUT, 5, 1.0, ts_utc=at + timedelta(minutes=1)))
    before = implied({**CALL, "delta": 0.3, "spot": 90.0}, {**PUT, "delta": -0.1, "spot": 90.0}).with_columns(
        session=pl.lit(YESTERDAY)
    )
    now = implied({**CALL, "delta": 0.9, "spot": 200.0}, {**PUT, "delta": -0.9, "spot": 200.0})
    bar = {"underlying": "XYZ", "open": 104.0, "high": 104.0, "low": 104.0, "volume": 1.0, "is_regular": True}
    # The first ends as the print's minute begins; the second begins then, so that its close is of the print's own minute.
    bars = [{**bar, "ts_utc": OPEN + timedelta(minutes=m), "close": close} for m, close in ((29, 104.0), (30, 1.0))]
    made = run(
        contracts=master(*LEGS), option_trades=trades, trade_sides=sides(trades, 1.0, 1.0),
        option_iv=pl.concat([before, now]), equity_bars_1m=table(curated.EQUITY_BARS_1M, bars),
    )  # fmt: skip
    minutes = made["flow_minutes"]
    assert minutes["ts_utc"].to_list() == [OPEN + timedelta(minutes=30), OPEN + timedelta(minutes=31)]
    assert minutes["known_at_utc"].to_list() == [OPEN + timedelta(minutes=31), OPEN + timedelta(minutes=32)]
    assert minutes["spot"].to_list() == [104.0, 1.0]
    assert minutes["net_delta_shares"].to_list() == pytest.approx([300.0, -50.0])
    # ln(105 / 104) is less than the distance, ln(95 / 1) is in the money for a put.
    assert minutes["net_otm_call_premium_usd"].to_list() == [0.0, 0.0]
    assert minutes["net_call_premium_usd"].to_list() == [1000.0, 0.0]


def test_volatilities_of_older_sessions_are_not_those_of_the_session_before() -> None:
    """Where today's and yesterday's are missing, the newest two partitions are older ones."""
    trades = tape(trade(CALL, 10, 1.0), trade(PUT, 5, 6.0))
    past = [{**CALL, "delta": 0.3, "spot": 90.0}, {**PUT, "delta": -0.1, "spot": 90.0}]
    older = [implied(*past).with_columns(session=pl.lit(sessions.offset(T, -back))) for back in (3, 2)]
    given = {"contracts": master(*LEGS), "option_trades": trades, "trade_sides": sides(trades, 1.0, 0.0)}
    without, with_older = run(**given), run(**given, option_iv=pl.concat(older))
    assert with_older["flow_factors"].drop("not_available").equals(without["flow_factors"].drop("not_available"))
    assert with_older["flow_minutes"].equals(without["flow_minutes"])


def test_the_tide_adds_up_over_the_session_and_by_scope() -> None:
    index = {**leg("P", 95.0), "contract": "IDX240323P00095000", "underlying": "IDX", "root": "IDX"}
    contracts = pl.concat(
        [master(*LEGS).with_columns(exercise=pl.lit("american")), master(index).with_columns(exercise=pl.lit("european"))]
    )
    at = OPEN + timedelta(minutes=1)
    trades = tape(
        trade(index, 10, 1.0, ts_utc=at),
        trade(CALL, 10, 1.0, ts_utc=at),
        trade(CALL, 10, 1.0, ts_utc=at + timedelta(minutes=2)),
    )
    order = trades["underlying"].to_list()
    given = {
        "contracts": contracts,
        "option_trades": trades,
        "trade_sides": sides(trades, *(0.5 if name == "IDX" else 1.0 for name in order)),
    }
    made = run(**given)
    tide = made["market_tide"]
    assert set(tide["scope"]) == {"all", "index", "stock"}
    assert tide.filter(pl.col("scope") == "all")["call_tide_usd"].to_list() == [1000.0, 2000.0]
    assert tide.filter(pl.col("scope") == "all")["underlyings"].to_list() == [2, 1]
    assert tide.filter(pl.col("scope") == "index")["tide_usd"].to_list() == [0.0]
    assert tide.filter(pl.col("scope") == "stock")["premium_usd"].to_list() == [1000.0, 1000.0]
    assert made["flow_factors"].select("underlying", "is_index").rows() == [("IDX", True), ("XYZ", False)]

    of_sectors = table(
        curated.SECTORS, [{"underlying": "XYZ", "sector": "Energy"}, {"underlying": "ELSE", "sector": "Health Care"}]
    )
    with_sectors = run(**given, sectors=of_sectors)["market_tide"]
    energy = with_sectors.filter(pl.col("scope") == "sector:Energy").drop("scope")
    assert energy.equals(tide.filter(pl.col("scope") == "stock").drop("scope")), "the only stock is the only one in the sector"
    assert with_sectors.filter(~pl.col("scope").str.starts_with("sector:")).equals(tide)
    assert set(with_sectors["scope"]) == {"all", "index", "stock", "sector:Energy"}, "a sector without prints has no row"


def test_the_tide_of_a_volatility_index_is_apart() -> None:
    """Calls on VIX are bought against a fall: among the others they would count as bought for a rise."""
    index, vix = (
        {**leg("C", 95.0), "contract": f"{name}240323C00095000", "underlying": name, "root": name} for name in ("SPX", "VIX")
    )
    contracts = master(CALL, index, vix).with_columns(
        exercise=pl.when(pl.col("underlying") == "XYZ").then(pl.lit("american")).otherwise(pl.lit("european"))
    )
    at = OPEN + timedelta(minutes=1)
    trades = tape(
        trade(index, 2, 1.0, ts_utc=at), trade(vix, 100, 1.0, ts_utc=at), trade(CALL, 5, 1.0, ts_utc=at + timedelta(minutes=1))
    )
    made = run(contracts=contracts, option_trades=trades, trade_sides=sides(trades, *[1.0] * 3))
    last = made["market_tide"].group_by("scope", maintain_order=True).last()
    assert dict(last.select("scope", "tide_usd").iter_rows()) == {
        "all": 700.0, "index": 200.0, "stock": 500.0, "volatility_index": 10_000.0
    }  # fmt: skip
    assert made["flow_factors"].filter("is_index")["underlying"].to_list() == ["SPX", "VIX"]
    table = next(each for each in FLOW_DATASETS if each.name == "market_tide")
    assert set(table.conform(made["market_tide"].drop(SESSION, strict=False), T)["scope"]) <= set(SCOPES)


TIDES = ("market_tide_usd", "sector_tide_usd", "index_tide_usd")


def test_an_underlying_carries_the_last_tide_of_its_scopes() -> None:
    legs = [{**leg("C", 105.0), "contract": f"{name}240323C00105000", "underlying": name, "root": name} for name in ("BBB", "IDX")]
    american, european = (
        master(*some).with_columns(exercise=pl.lit(how)) for some, how in (([CALL, legs[0]], "american"), ([legs[1]], "european"))
    )
    trades = tape(
        trade(CALL, 10, 1.0, ts_utc=OPEN),
        trade(CALL, 30, 1.0, ts_utc=OPEN + timedelta(minutes=5)),
        trade(legs[0], 10, 1.0, ts_utc=OPEN + timedelta(minutes=2)),
        trade(legs[1], 10, 1.0, ts_utc=OPEN + timedelta(minutes=1)),
    )
    probability = {"XYZ": 0.0, "BBB": None, "IDX": 1.0}
    marks = [probability[name] for name in trades["underlying"]]
    sectors = table(curated.SECTORS, [{"underlying": "XYZ", "sector": "Energy"}, {"underlying": "BBB", "sector": "Utilities"}])
    made = run(contracts=pl.concat([american, european]), option_trades=trades, trade_sides=sides(trades, *marks), sectors=sectors)[
        "flow_factors"
    ]
    assert made.select("underlying", "sector", *TIDES).rows() == [
        ("BBB", "Utilities", -3000.0, None, 1000.0),
        ("IDX", None, -3000.0, None, 1000.0),
        ("XYZ", "Energy", -3000.0, -4000.0, 1000.0),
    ]
    said = [[text for text in reasons if "tide" in text] for reasons in made["not_available"]]
    assert said == [
        ["sector_tide_usd: no print of its sector has a known side"],
        ["sector_tide_usd: sectors does not name it"],
        [],
    ]


@pytest.mark.parametrize(
    ("marks", "breadth", "agreement"),
    [
        ((1.0, 1.0, 1.0), 400 / 150, 1.0),  # 10, 5 and 5 bought
        ((1.0, 0.0, 0.0), 400 / 150, 0.0),  # 10 bought, 5 and 5 sold
        ((0.5, 0.75, None), 1.0, 1.0),  # what is not known, and what may as well be sold, leans nowhere
        ((0.5, None, None), None, None),
    ],
)
def test_signed_volume_over_venues(marks: tuple[float | None, ...], breadth: float | None, agreement: float | None) -> None:
    trades = tape(trade(CALL, 10, 1.0, exchange=300), trade(CALL, 5, 1.0, exchange=312), trade(CALL, 5, 1.0, exchange=316))
    of_venue = dict(zip((300, 312, 316), marks, strict=True))
    found = row(
        contracts=master(*LEGS), option_trades=trades, trade_sides=sides(trades, *(of_venue[each] for each in trades["exchange"]))
    )
    assert (found["venue_net_breadth"], found["venue_agreement"]) == (breadth, agreement)
    said = "venue_agreement: no print has a known side, or none leans to one"
    assert (said in found["not_available"]) == (agreement is None)


def test_squares_of_large_volumes_do_not_overflow() -> None:
    trades = tape(*(trade(CALL, 3_000_000, 1.0, exchange=each) for each in (300, 312)))
    found = row(contracts=master(*LEGS), option_trades=trades, trade_sides=sides(trades, 1.0, 0.0))
    assert (found["venue_net_breadth"], found["venue_agreement"]) == (2.0, 0.0)


def test_venues_sum_to_the_session() -> None:
    trades = tape(trade(CALL, 10, 1.0, exchange=300), trade(CALL, 5, 1.0, exchange=312), trade(PUT, 5, 2.0, exchange=300))
    probability = {(10, 300): 1.0, (5, 312): None, (5, 300): 0.0}
    marks = [probability[key] for key in trades.select("size", "exchange").iter_rows()]
    made = run(contracts=master(*LEGS), option_trades=trades, trade_sides=sides(trades, *marks))
    assert made["venue_flow"].select("exchange", "volume", "net_volume", "side_coverage").rows() == [
        (300, 15, 5.0, 1.0),
        (312, 5, None, 0.0),
    ]
    assert made["venue_flow"]["premium_usd"].sum() == made["flow_factors"]["eligible_premium_usd"].sum()


# --- Against the past --------------------------------------------------------------------------------------------------------

DAYS = sessions.sessions_between(T - timedelta(days=200), T)


def profile(day: date, minutes: list[int], dollars: list[float], underlying: str = "XYZ") -> pl.DataFrame:
    cents = [round(100 * value) for value in dollars]
    made = {"underlying": underlying, "minutes": minutes, "minute_premium_cents": cents, "unit_contracts": 1}
    lists = {name: [] for name in ("premium_bins", "premium_counts", "size_bins", "size_counts")}
    return table(FLOW_PROFILES, [made | lists], day)


def test_a_minute_is_scored_in_the_same_minute_of_the_past() -> None:
    past = DAYS[-PROFILE_MIN_HISTORY - 1 : -1]
    assert not any(sessions.is_half_day(day) for day in past)
    frames = [profile(day, [600, 601], [100.0 + i, 50.0]) for i, day in enumerate(past)]
    found = FLOW_ABNORMALITY.conform(minute_scores(pl.concat([*frames, profile(T, [600, 605], [5_000.0, 10.0])]), T), T)
    first, second = found.rows(named=True)
    sample = np.log1p(100.0 + np.arange(PROFILE_MIN_HISTORY))
    median = 100.0 + (PROFILE_MIN_HISTORY - 1) / 2
    away = 1.4826 * np.median(np.abs(sample - math.log1p(median)))
    assert first["ts_utc"] == sessions.at_et(T, time(10))
    assert first["typical_premium_usd"] == median
    assert first["premium_z"] == pytest.approx((math.log1p(5_000) - math.log1p(median)) / max(away, PROFILE_FLOOR))
    assert first["history_sessions"] == PROFILE_MIN_HISTORY
    # No past print at 10:05: the median is 0 and the minute has no score, the sum so far has one.
    assert second["premium_z"] is None
    assert second["typical_premium_usd"] == 0.0
    assert second["cumulative_premium_usd"] == 5_010.0
    assert second["typical_cumulative_premium_usd"] == median + 50.0
    assert second["cumulative_premium_z"] > 10.0


def test_a_short_past_has_no_row_and_half_days_do_not_count_in_the_afternoon() -> None:
    past = DAYS[-PROFILE_MIN_HISTORY:-1]
    frames = [profile(day, [600], [100.0]) for day in past]
    assert minute_scores(pl.concat([*frames, profile(T, [600], [100.0])]), T).is_empty()
    half = date(2023, 11, 24)
    assert sessions.is_half_day(half)
    after = sessions.sessions_between(half, half + timedelta(days=40))
    frames = [profile(day, [600, 900], [100.0, 100.0]) for day in after[: PROFILE_MIN_HISTORY + 1]]
    found = minute_scores(pl.concat(frames), after[PROFILE_MIN_HISTORY])
    assert found["history_sessions"].to_list() == [PROFILE_MIN_HISTORY]
    assert found["cumulative_premium_usd"].to_list() == [100.0]


def test_the_regression_is_least_squares() -> None:
    rng = np.random.default_rng(5)
    k, n = 4, 90
    x = rng.normal(size=(k, 2, n))
    y = 3.0 + 0.5 * x[0] - 0.2 * x[2] + 0.1 * rng.normal(size=(2, n))
    y[0, 7] = np.nan
    x[1, 0, 20] = np.nan
    out = np.empty((4, 2))
    fill_expectations(out, y, x, EXPECTED_MIN_SESSIONS)
    for s in range(2):
        rows = [t for t in range(n - 1) if np.isfinite(y[s, t]) and np.isfinite(x[:, s, t]).all()]
        design = np.column_stack([np.ones(len(rows)), x[:, s, rows].T])
        coefficients, *_ = np.linalg.lstsq(design, y[s, rows])
        residual = y[s, rows] - design @ coefficients
        assert out[0, s] == pytest.approx(coefficients @ np.r_[1.0, x[:, s, -1]], rel=1e-9)
        assert out[1, s] == pytest.approx(math.sqrt((residual**2).sum() / (len(rows) - k - 1)), rel=1e-9)
        assert (out[2, s], out[3, s]) == (len(rows), k + 1)


@pytest.mark.parametrize("change", ["collinear", "constant", "absent today", "mostly absent"])
def test_a_regressor_that_says_nothing_is_left_out(change: str) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 1, 80))
    y = 1.0 + x[0] + 0.1 * rng.normal(size=(1, 80))
    alone, out = np.empty((4, 1)), np.empty((4, 1))
    fill_expectations(alone, y, np.ascontiguousarray(x[:1]), EXPECTED_MIN_SESSIONS)
    if change == "collinear":
        x[1] = 2.0 * x[0] + 1.0
    elif change == "constant":
        x[1] = 4.0
    elif change == "absent today":
        x[1, 0, -1] = np.nan
    else:
        x[1, 0, :60] = np.nan
    fill_expectations(out, y, x, EXPECTED_MIN_SESSIONS)
    assert out[:, 0] == pytest.approx(alone[:, 0], rel=1e-9)


def test_a_short_sample_has_no_expectation() -> None:
    x = np.random.default_rng(7).normal(size=(1, 1, EXPECTED_MIN_SESSIONS))
    out = np.empty((4, 1))
    fill_expectations(out, x[0], x, EXPECTED_MIN_SESSIONS)
    assert np.isnan(out[0, 0])
    assert out[2, 0] == EXPECTED_MIN_SESSIONS - 1


def history(volume_today: int) -> dict[str, pl.DataFrame]:
    """Seventy sessions of four underlyings; the last session of XYZ trades `volume_today`."""
    rng = np.random.default_rng(8)
    factors, profiles, daily = [], [], []
    for day in DAYS[-70:]:
        for name in ("AAA", "BBB", "CCC", "XYZ"):
            volume = volume_today if (day, name) == (T, "XYZ") else int(rng.integers(900, 1100))
            empty = {c.name: None for c in FLOW_FACTORS.columns}
            factors.append({
                **empty, "underlying": name, "is_index": False, "eligible_prints": 1, "eligible_volume": volume,
                "eligible_premium_usd": 1.0, "sweep_premium_share": float(rng.uniform(0.1, 0.2)), "not_available": [], SESSION: day,
            })  # fmt: skip
            daily.append({
                "underlying": name, "option_volume": volume, "atm_iv_30d": float(rng.uniform(0.2, 0.3)),
                "spot_close": float(rng.uniform(99, 101)), SESSION: day,
            })  # fmt: skip
            profiles.append(profile(day, [600], [100.0], name))
    schema = {**FLOW_FACTORS.polars_schema(), SESSION: pl.Date()}
    return {
        "flow_factors": pl.DataFrame(factors, schema=schema),
        "flow_profiles": pl.concat(profiles),
        "daily_factors": pl.DataFrame(daily),
    }


def test_unexpected_volume_stands_out() -> None:
    made = FLOW_SCORES.conform(flow_scores(history(20_000), T).tables["flow_scores"], T)
    *others, mine = made.rows(named=True)
    assert (mine["underlying"], mine["regression_sessions"], mine["score_sessions"]) == ("XYZ", 67, 60)
    assert 300 < mine["expected_option_volume"] < 3_000
    assert mine["volume_residual_z"] > 10
    assert max(abs(other["volume_residual_z"]) for other in others) < 4
    assert mine["sweep_premium_share_z"] is not None
    assert mine["hu_order_imbalance_z"] is None
    assert mine["peak_premium_z"] == 0.0


def test_the_score_of_a_tide_is_that_of_its_scope() -> None:
    """`XYZ` is new, and `CCC` was in another sector: both get what the others of their sector get."""
    rng = np.random.default_rng(9)
    inputs = history(1_000)
    tides = {day: (float(rng.normal(0, 1e6)), float(rng.normal(0, 1e5)), float(rng.normal(0, 1e4))) for day in DAYS[-70:]}
    tides[T] = (9e6, 4e5, 1e4)
    is_new, was_elsewhere = ((pl.col("underlying") == name) & (pl.col(SESSION) < T) for name in ("XYZ", "CCC"))
    market, energy, utilities = (pl.col(SESSION).replace_strict({day: each[i] for day, each in tides.items()}) for i in range(3))
    inputs["flow_factors"] = (
        inputs["flow_factors"]
        .filter(~is_new)
        .with_columns(market_tide_usd=market, sector=pl.when(was_elsewhere).then(pl.lit("Utilities")).otherwise(pl.lit("Energy")))
        .with_columns(sector_tide_usd=pl.when(pl.col("sector") == "Energy").then(energy).otherwise(utilities))
    )
    made = FLOW_SCORES.conform(flow_scores(inputs, T).tables["flow_scores"], T)

    def by_hand(place: int) -> float:
        past = np.array([tides[day][place] for day in DAYS[-61:-1]])
        return float((tides[T][place] - np.median(past)) / (1.4826 * np.median(np.abs(past - np.median(past)))))

    assert made["market_tide_usd_z"].to_list() == pytest.approx([by_hand(0)] * 4)
    assert made["sector_tide_usd_z"].to_list() == pytest.approx([by_hand(1)] * 4)
    assert made["index_tide_usd_z"].null_count() == 4
    assert made["sweep_premium_share_z"].null_count() == 1


def test_the_market_is_that_of_the_others() -> None:
    lines = np.array([[1.0, np.nan, 5.0], [2.0, 7.0, np.nan], [9.0, np.nan, np.nan], [4.0, 8.0, np.nan]])
    expected = np.array([[4.0, 7.5, np.nan], [4.0, 8.0, 5.0], [2.0, 7.5, 5.0], [2.0, 7.0, 5.0]])
    np.testing.assert_array_equal(_median_of_others(lines), expected)


@pytest.mark.parametrize("indexes", [("AAA", "BBB"), ()])
def test_a_volatility_index_is_no_part_of_the_market(indexes: tuple[str, ...]) -> None:
    """CCC is VIX here: whatever its volatility and its return, nobody else's expectation changes."""
    named = {
        name: frame.with_columns(pl.col("underlying").replace("CCC", "VIX")).sort(SESSION, "underlying")
        for name, frame in history(2_000).items()
    }
    given = pl.col("underlying").is_in([*indexes, "VIX"])
    named["flow_factors"] = named["flow_factors"].with_columns(is_index=given)
    wild = np.random.default_rng(3).uniform(0.5, 1.5, named["daily_factors"].height)
    moved = {
        column: pl.when(pl.col("underlying") == "VIX").then(pl.Series(wild * level)).otherwise(column)
        for column, level in (("atm_iv_30d", 0.9), ("spot_close", 15.0))
    }
    other = named | {"daily_factors": named["daily_factors"].with_columns(**moved)}
    first, second = (
        flow_scores(inputs, T).tables["flow_scores"].filter(pl.col("underlying") != "VIX").select("^expected.*|volume_res.*|reg.*$")
        for inputs in (named, other)
    )
    assert first["expected_option_volume"].null_count() == 0
    assert first["regressors"].min() > 6, "the market's volatility and return are among them"
    assert_frame_equal(first, second, check_exact=True)
    alone = {name: frame.filter(pl.col("underlying") == "VIX") for name, frame in named.items()}
    assert flow_scores(alone, T).tables["flow_scores"]["regression_sessions"].to_list() == [67]


def test_without_daily_factors_there_is_no_expectation() -> None:
    inputs = history(1_000)
    del inputs["daily_factors"]
    made = flow_scores(inputs, T).tables["flow_scores"]
    assert made["expected_option_volume"].null_count() == made.height
    assert made["regression_sessions"].to_list() == [0] * 4


# --- In the panel ------------------------------------------------------------------------------------------------------------


def test_the_panel_takes_flow_and_says_why_it_has_none() -> None:
    factors = run(contracts=master(*LEGS), option_trades=TRADES, trade_sides=sides(TRADES, 1.0, 0.75, 0.0))["flow_factors"]
    names = pl.Series("underlying", ["ABSENT", "XYZ"])
    with_flow = flow_columns(names, {"flow_factors": factors.with_columns(session=pl.lit(T))}, T)
    without = flow_columns(names, {}, T)
    for frame in (with_flow, without):
        for found in frame.rows(named=True):
            said = [text.split(": ")[0] for text in found["flow_not_available"]]
            assert said == sorted(column.name for column in PANEL_FLOW if found[column.name] is None)
    assert with_flow["net_premium_usd"].to_list() == [None, 625.0]
    assert "net_premium_usd: no eligible print" in with_flow["flow_not_available"][0]
    assert "net_premium_usd: needs option_trades" in without["flow_not_available"][1]


def test_every_kind_of_flow_reaches_the_panel_and_the_engines() -> None:
    scores = {
        *("net_call_otm_premium_usd_z", "net_put_otm_premium_usd_z", "net_delta_shares_z", "net_call_put_imbalance_z"),
        *("opening_put_share_z", "sweep_premium_share_z", "multi_leg_premium_share_z", "retail_premium_share_z"),
        *("venue_net_breadth_z", "venue_agreement_z", "hu_order_imbalance_z", "glp_call_buy_to_stock_z", "glp_put_buy_to_stock_z"),
        *("market_tide_usd_z", "sector_tide_usd_z", "index_tide_usd_z", "peak_premium_z", "volume_residual_z"),
    }
    looked_at = [name for kind in FLOW_KINDS if kind.column in ENGINE_FEATURES for name in (*kind.one_sided, *kind.two_sided)]
    assert scores <= set(looked_at) <= set(FACTOR_PANEL.column_names)
    assert len(set(looked_at)) == len(looked_at), "no score counts twice"


def test_a_kind_of_flow_is_the_root_mean_square_of_what_is_unusual() -> None:
    kind = FlowKind("kind", ("high", "quiet"), ("either", "absent"))
    schema = dict.fromkeys(("high", "quiet", "either", "absent"), pl.Float64())
    rows = pl.DataFrame([(9.0, -5.0, -3.0, None), (None, None, None, None), (None, -1.0, None, None)], schema=schema, orient="row")
    assert rows.select(_sum_of_kind(kind)).to_series().to_list() == [2.5, None, 0.0]


def test_engines_look_at_scores_that_the_panel_has() -> None:
    assert set(FLOW_FEATURES) <= {column.name for column in SCORES}
    assert ENGINE_FEATURES[-len(FLOW_FEATURES) :] == FLOW_FEATURES
    assert {column.name for column in PANEL_FLOW} <= set(FACTOR_PANEL.column_names)
