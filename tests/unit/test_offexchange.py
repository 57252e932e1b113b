"""Off-exchange prints: curation, sides, blocks, levels, accumulation and the link with options, on rows written by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from flowlake.core import sessions
from flowlake.curate import stock_conditions
from flowlake.curate.offexchange import offexchange_prints
from flowlake.datasets import offexchange as declared
from flowlake.datasets.model import SESSION, Inputs, Output
from flowlake.datasets.registry import DATASETS
from flowlake.flow import lit, offexchange_history
from flowlake.flow._offexchange_kernels import rank_correlations
from flowlake.flow.offexchange import offexchange_activity
from flowlake.flow.offexchange_blocks import absorbed_probability
from flowlake.flow.offexchange_levels import level_width
from flowlake.lake.asof import adjust_for_splits
from flowlake.market import MarketSpec, build
from flowlake.pipeline.plan import by_name
from flowlake.sources import massive

DAY = date(2024, 3, 13)
OPEN = int(sessions.open_utc(DAY).timestamp())
SECOND = 10**9
HEADER = (
    "ticker,conditions,correction,exchange,id,participant_timestamp,price,sequence_number,sip_timestamp,size,tape,"
    "trf_id,trf_timestamp"
)


def trade(at: float = 0.0, **given: Any) -> dict[str, Any]:
    """A trade `at` seconds after the open; off exchange unless `lit`."""
    sip = OPEN * SECOND + round(at * SECOND)
    is_lit = given.pop("lit", False)
    return {
        "ticker": "ABC",
        "conditions": None,
        "correction": "0",
        "exchange": 11 if is_lit else 4,
        "id": "1",
        "participant_timestamp": sip - 1_000_000,
        "price": 50.0,
        "sequence_number": 1,
        "sip_timestamp": sip,
        "size": 100.0,
        "tape": 1,
        "trf_id": 0 if is_lit else 202,
        "trf_timestamp": 0 if is_lit else sip - 1_000,
    } | given


def raw(*trades: dict[str, Any]) -> pl.DataFrame:
    """Raw trades as the lake holds them."""
    ds = DATASETS["massive_stock_trades"]
    schema = {c.name: c.dtype for c in ds.columns if c.name not in ("row", "extra")}
    frame = pl.DataFrame(list(trades), schema=schema).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), pl.lit(None, dtype=pl.String).alias("extra")
    )
    return ds.conform(frame, DAY).with_columns(pl.lit(DAY).alias(SESSION))


def conformed(name: str, frame: pl.DataFrame, session: date = DAY) -> pl.DataFrame:
    """The table as the lake would publish it; every check of the declaration holds."""
    ds = DATASETS[name]
    typed = ds.conform(frame, session)
    for column in ds.columns:
        for check in column.all_checks():
            assert not typed.filter(check.failing(column.name)).height, (name, column.name, check.describe())
    for table_check in ds.table_checks():
        assert not typed.filter(table_check.failing()).height, (name, table_check.describe())
    return typed.with_columns(pl.lit(session).alias(SESSION))


def curated(*trades: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame, Output]:
    out = offexchange_prints({"massive_stock_trades": raw(*trades)}, DAY)
    prints, bars = (conformed(name, out.tables[name]) for name in ("offexchange_prints", "lit_bars_1m"))
    return prints, bars, out


def rules(out: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in out.findings}


def derived(*trades: dict[str, Any], daily: pl.DataFrame | None = None) -> dict[str, pl.DataFrame]:
    prints, bars, _ = curated(*trades)
    inputs: Inputs = {"offexchange_prints": prints, "lit_bars_1m": bars} | ({} if daily is None else {"equity_bars_1d": daily})
    return {name: conformed(name, table) for name, table in offexchange_activity(inputs, DAY).tables.items()}


# --- The policy ------------------------------------------------------------------------------------------------------------------


def test_the_policy_has_each_id_once_and_marks_what_it_says() -> None:
    frame = stock_conditions.STOCK_MASSIVE.frame()
    assert frame["id"].is_unique().all()
    assert stock_conditions.STOCK_MASSIVE.version == 1
    assert frame.filter("is_average_price")["id"].to_list() == [2]
    assert frame.filter("is_derivatively_priced")["id"].to_list() == [10, 22]
    assert frame.filter("is_contingent")["id"].to_list() == [35, 52, 53]
    assert frame.filter(~pl.col("in_volume"))["id"].to_list() == [15, 16, 38]
    not_now = frame.filter(pl.any_horizontal("is_average_price", "is_derivatively_priced", "is_contingent", "is_out_of_sequence"))
    assert not not_now["has_current_price"].any()


@pytest.mark.parametrize(
    ("text", "group", "in_volume", "sets_price", "current"),
    [
        (None, "regular", True, True, True),
        ("", "regular", True, True, True),
        ("14,41", "iso", True, True, True),
        ("12,37", "extended_hours", True, False, True),
        ("37", "odd_lot", True, False, True),
        ("2,41", "average_price", True, False, False),
        ("53, 52, 41", "contingent", True, False, False),
        ("10", "derivatively_priced", True, False, False),
        ("22", "prior_reference_price", True, False, False),
        ("16", "price_marker", False, False, False),
        ("14,250", "unknown", False, False, False),
        ("56", "unknown", False, False, False),
        ("x", "unknown", False, False, False),
    ],
)
def test_conditions_are_decoded(text: str | None, group: str, in_volume: bool, sets_price: bool, current: bool) -> None:
    row = stock_conditions.decode(pl.Series([text], dtype=pl.String)).row(0, named=True)
    assert (row["condition_group"], row["in_volume"], row["sets_price"], row["has_current_price"]) == (
        group,
        in_volume,
        sets_price,
        current,
    )


# --- Curation --------------------------------------------------------------------------------------------------------------------


def test_a_print_needs_finra_and_a_facility_in_either_spelling_of_none() -> None:
    rows = [
        trade(i, trf_id=facility, exchange=exchange)
        for i, (exchange, facility) in enumerate([(4, 201), (4, 202), (4, None), (4, 0), (11, None), (11, 0)])
    ]
    prints, bars, out = curated(*rows)
    assert prints["trf_id"].to_list() == [201, 202]
    assert bars["transactions"].sum() == 2
    assert rules(out) == {"no_facility": 2}


def test_identical_rows_are_all_real() -> None:
    prints, _, out = curated(*[trade(5.0)] * 3)
    assert prints.height == 3
    assert not out.findings
    activity = derived(*[trade(5.0)] * 3)["offexchange_activity"]
    assert activity["off_volume"].to_list() == [300.0]
    assert activity["off_prints"].to_list() == [3]


def test_sizes_and_prices_can_be_decimal() -> None:
    prints, bars, _ = curated(
        trade(1, size=0.000001, price=0.0001), trade(2, size=33.123456, price=114.6247), trade(3, size=0.5, lit=True)
    )
    assert prints["size"].to_list() == [0.000001, 33.123456]
    assert prints["notional_usd"].to_list() == [0.0, 3796.7662]
    assert bars["volume"].to_list() == [0.5]


def test_known_when_the_tape_showed_it() -> None:
    prints, bars, _ = curated(trade(7.25), trade(61, lit=True))
    assert prints["known_at_utc"].to_list() == prints["ts_utc"].to_list()
    assert prints["ts_utc"][0] == datetime.fromtimestamp(OPEN + 7.25, UTC)
    assert bars["known_at_utc"][0] - bars["ts_utc"][0] == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("delay_ns", "conditions", "late"),
    [
        (10 * SECOND, None, False),
        (10 * SECOND + 1, None, True),
        (3600 * SECOND, None, True),
        (1, "32", True),
        (-SECOND, None, False),
        (None, None, False),
        (None, "13", True),
    ],
)
def test_late_reports(delay_ns: int | None, conditions: str | None, late: bool) -> None:
    row = trade(7200, conditions=conditions)
    row["participant_timestamp"] = None if delay_ns is None else row["sip_timestamp"] - delay_ns
    prints, _, _ = curated(row)
    assert prints["is_late"].to_list() == [late]
    assert prints["has_current_price"].to_list() == [not late]
    assert prints["report_delay_ns"].to_list() == [delay_ns]
    assert prints["in_volume"].to_list() == [True]


def test_zero_is_no_time() -> None:
    prints, _, _ = curated(trade(1, participant_timestamp=0, trf_timestamp=0))
    assert prints.select("participant_ts_utc", "trf_ts_utc", "report_delay_ns").row(0) == (None, None, None)


def test_corrections_and_cancels_by_the_vendors_indicator() -> None:
    rows = [
        trade(1, correction="8", size=700),
        trade(9, correction="10", size=700),
        trade(2, correction="07", size=800),
        trade(9, correction="11", size=800),
        trade(3, correction="1", size=900),
        trade(9, correction="12", size=950),
        trade(4, correction=None, size=100),
        trade(5, correction="", size=200),
        trade(6, correction="00", size=300),
    ]
    prints, _, out = curated(*rows)
    assert not out.findings
    standing = prints.filter("in_volume")
    assert standing["size"].to_list() == [900.0, 100.0, 200.0, 300.0]
    assert standing["is_corrected"].to_list() == [True, False, False, False]
    assert prints.filter("is_cancelled")["size"].to_list() == [700.0, 800.0]
    assert not prints.filter("is_cancelled")["has_current_price"].any()


def test_a_message_without_a_marked_trade_cancels_one_earlier_trade() -> None:
    same = {"size": 500, "price": 51.0}
    rows = [
        trade(1, **same),
        trade(2, **same),
        trade(3, **same),
        trade(20, correction="10", **same),
        trade(21, correction="10", **same),
    ]
    prints, _, _ = curated(*rows)
    assert prints["is_cancelled"].to_list() == [False, True, True]


@pytest.mark.parametrize(
    "change", [{"price": 51.01}, {"size": 501}, {"trf_id": 203}, {"ticker": "XYZ"}, {"at": 30.0}, {"at": 20.0}]
)
def test_a_message_that_fits_no_earlier_trade_is_kept_apart(change: dict[str, Any]) -> None:
    same = {"size": 500, "price": 51.0}
    message = trade(20, correction="10", id="7", **same)
    prints, _, out = curated(trade(**({"at": 1.0, "id": "7"} | same | change)), message)
    assert prints["is_cancelled"].to_list() == [False]
    assert rules(out) == {"unmatched_cancel": 1}


def test_messages_prefer_the_trade_that_is_marked() -> None:
    rows = [trade(1, correction="8"), trade(2), trade(9, correction="10")]
    prints, _, out = curated(*rows)
    assert prints["is_cancelled"].to_list() == [True, False]
    assert not out.findings


def test_lit_cancels_leave_the_bars() -> None:
    _, bars, _ = curated(
        trade(1, lit=True, price=50), trade(2, lit=True, price=99, correction="8"), trade(9, lit=True, price=99, correction="10")
    )
    assert bars.select("high", "volume", "transactions").row(0) == (50.0, 100.0, 1)


def test_what_cannot_be_right_is_left_out_and_told() -> None:
    rows = [trade(0), trade(1, price=0.0), trade(2, size=-5), trade(3, correction="99"), trade(86_400), trade(4, conditions="200")]
    prints, _, out = curated(*rows)
    assert prints.height == 2
    assert rules(out) == {
        "price_not_positive": 1,
        "size_not_positive": 1,
        "unknown_correction": 1,
        "outside_session_date": 1,
        "unknown_condition": 1,
    }
    assert prints["in_volume"].to_list() == [True, False]


def test_lit_bars_hold_what_may_set_a_price() -> None:
    rows = [
        trade(1, lit=True, price=50.0, size=10),
        trade(2, lit=True, price=53.0, size=20, conditions="37"),
        trade(3, lit=True, price=49.0, size=30, conditions="14"),
        trade(4, lit=True, price=60.0, size=40, conditions="16"),
        trade(70, lit=True, price=51.0, size=5, conditions="37"),
        trade(-3600, lit=True, price=48.0, conditions="12"),
    ]
    _, bars, _ = curated(*rows)
    figures = bars.select("open", "high", "low", "close", "volume", "transactions", "is_regular").rows()
    assert figures == [
        (None, None, None, None, 100.0, 1, False),
        (50.0, 50.0, 49.0, 49.0, 60.0, 3, True),
        (None, None, None, None, 5.0, 1, True),
    ]
    assert bars["notional_usd"].to_list() == [4800.0, 10 * 50.0 + 20 * 53.0 + 30 * 49.0, 255.0]


def test_the_vendors_sample_has_no_off_exchange_print(real_data: Path) -> None:
    file = real_data / "us_stocks_sip/trades_v1/2023/03/2023-03-28.csv.gz"
    day = date(2023, 3, 28)
    table = massive.stock_trades(str(file), file.read_bytes(), day)
    out = offexchange_prints({"massive_stock_trades": DATASETS["massive_stock_trades"].conform(table, day)}, day)
    assert out.tables["offexchange_prints"].height == 0
    bars = conformed("lit_bars_1m", out.tables["lit_bars_1m"], day)
    assert bars["transactions"].sum() == table.height == 99
    assert not out.findings


def test_a_file_in_either_spelling_gives_the_same() -> None:
    """Older files leave `correction` and `trf_id` empty where newer ones write 0."""
    rows = [(f"ABC,37,{c},{x},1,{t},50.01,1,{t + 500},10,1,{f},{t}") for x, f, c, t in _spelled("0", "0")]
    older = [(f"ABC,37,{c},{x},1,{t},50.01,1,{t + 500},10,1,{f},{t}") for x, f, c, t in _spelled("", "")]
    made = []
    for lines in (rows, older):
        table = massive.stock_trades("k.csv", "\n".join([HEADER, *lines]).encode(), DAY)
        out = offexchange_prints({"massive_stock_trades": DATASETS["massive_stock_trades"].conform(table, DAY)}, DAY)
        made.append({name: conformed(name, frame) for name, frame in out.tables.items()})
    for name in made[0]:
        assert made[0][name].equals(made[1][name])
    assert made[0]["offexchange_prints"].height == 1


def _spelled(no_facility: str, no_correction: str) -> list[tuple[int, str, str, int]]:
    return [(4, "201", no_correction, OPEN * SECOND), (11, no_facility, no_correction, (OPEN + 1) * SECOND)]


# --- Sides -----------------------------------------------------------------------------------------------------------------------


def one_side(price: float, *, current: bool = True, low: float = 49.9, high: float = 50.1, trades: int = 9) -> tuple[int, int]:
    minute = OPEN // 60
    key = lit.key_of(np.array([0]), np.array([minute]))
    bars = lit.Lit(key, np.array([high]), np.array([low]), np.array([50.0]), np.array([trades]), np.array([True]))
    side, rule = lit.sides(np.array([price]), np.array([current]), np.array([0]), np.array([OPEN * SECOND]), bars)
    return int(side[0]), int(rule[0])


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (50.0099, (1, lit.SUBPENNY)),
        (50.006001, (1, lit.SUBPENNY)),
        (50.006, (0, lit.MIDPOINT)),
        (50.005, (0, lit.MIDPOINT)),
        (50.004, (0, lit.MIDPOINT)),
        (50.003999, (-1, lit.SUBPENNY)),
        (50.0001, (-1, lit.SUBPENNY)),
        (50.10, (1, lit.LIT_RANGE)),
        (50.06, (1, lit.LIT_RANGE)),
        (50.05, (0, lit.NONE)),
        (50.00, (0, lit.NONE)),
        (49.94, (-1, lit.LIT_RANGE)),
        (49.85, (-1, lit.LIT_RANGE)),
        (51.00, (0, lit.NONE)),
    ],
)
def test_sides(price: float, expected: tuple[int, int]) -> None:
    assert one_side(price) == expected


def test_sides_abstain() -> None:
    assert one_side(50.0099, current=False) == (0, lit.NONE)
    assert one_side(50.10, current=False) == (0, lit.NONE)
    assert one_side(50.10, trades=4) == (0, lit.NONE)
    assert one_side(50.00, low=50.0, high=50.0) == (0, lit.NONE)
    assert one_side(50.10, low=np.nan, high=np.nan) == (0, lit.NONE)


def test_below_a_dollar_a_fraction_of_a_cent_is_a_tick() -> None:
    assert one_side(0.5001) == (0, lit.NONE)
    assert one_side(0.5001, low=0.5, high=0.5001) == (1, lit.LIT_RANGE)


def test_without_lit_trades_a_whole_cent_has_no_side() -> None:
    prints, bars, _ = curated(trade(1, price=50.0), trade(2, price=50.0099))
    assert bars.height == 0
    activity = derived(trade(1, price=50.0), trade(2, price=50.0099))["offexchange_activity"].row(0, named=True)
    assert prints.height == 2
    assert (activity["buy_volume"], activity["sell_volume"]) == (0.0, 0.0)
    assert activity["pressure"] is None  # each print is half of the session: too large to speak for many


# --- Activity --------------------------------------------------------------------------------------------------------------------


def session_rows() -> list[dict[str, Any]]:
    """A thousand lit trades of 100 shares over the session around 50, and a few prints."""
    quotes = [trade(i * 23.4, lit=True, price=50.0 + 0.01 * (i % 2), ticker="ABC") for i in range(1000)]
    prints = [
        trade(60, price=50.0091, size=100),
        trade(61, price=50.0012, size=50),
        trade(62, price=50.005, size=2_000),
        trade(63, price=50.00, size=9_999, conditions="2,41"),
        trade(64, price=47.00, size=20_000, conditions="53,52,41"),
        trade(65, price=50.00, size=400, conditions="32"),
        trade(66, price=50.00, size=100, correction="8"),
        trade(-3600, price=49.00, size=10, conditions="12,37"),
    ]
    return [*quotes, *prints]


def test_activity_of_a_session() -> None:
    daily = pl.DataFrame({"underlying": ["ABC"], "volume": [265_118.0]})
    row = derived(*session_rows(), daily=daily)["offexchange_activity"].row(0, named=True)
    off = 100 + 50 + 2_000 + 9_999 + 20_000 + 400 + 10
    assert row["off_volume"] == off
    assert row["lit_volume"] == 100_000
    assert row["off_share"] == pytest.approx(off / (off + 100_000), rel=1e-15)
    # The cross of 2,000 shares is more than a hundredth of the session.
    assert row["core_share"] == pytest.approx(160 / 100_160, rel=1e-15)
    assert row["tape_coverage"] == pytest.approx((off + 100_000) / 265_118.0)
    assert (row["off_prints"], row["cancelled_prints"]) == (7, 1)
    assert (row["median_size"], row["largest_size"]) == (400.0, 20_000.0)
    assert [row[f"{name}_volume"] for name in ("odd_lot", "round_lot", "large", "block")] == [60.0, 500.0, 2_000.0, 29_999.0]
    assert row["odd_lot_volume"] + row["round_lot_volume"] + row["large_volume"] + row["block_volume"] == off
    assert (row["block_prints"], row["block_notional_usd"]) == (2, 9_999 * 50.0 + 20_000 * 47.0)
    assert (row["average_price_volume"], row["contingent_volume"], row["late_volume"], row["extended_volume"]) == (
        9_999,
        20_000,
        400,
        10,
    )
    vwap = (100 * 50.0091 + 50 * 50.0012 + 2_000 * 50.005 + 10 * 49.0) / 2_160
    assert row["off_vwap"] == pytest.approx(vwap, rel=1e-9)
    assert row["vwap_gap_bps"] == pytest.approx(1e4 * np.log(vwap / 50.005), abs=1e-4)
    assert row["lit_close"] == 50.01
    assert (row["buy_volume"], row["sell_volume"]) == (100.0, 50.0)
    assert row["pressure"] == pytest.approx(1 / 3)
    assert row["subpenny_share"] == 1.0
    assert row["not_available"] == []


def test_what_is_missing_is_said() -> None:
    row = derived(trade(60, lit=True))["offexchange_activity"].row(0, named=True)
    assert row["off_volume"] == 0.0
    assert row["off_share"] == 0.0
    told = {text.split(": ")[0] for text in row["not_available"]}
    assert told == {name for name, value in row.items() if value is None}
    assert {"pressure", "off_vwap", "tape_coverage", "median_size"} <= told


def test_no_print_at_all_gives_empty_tables() -> None:
    tables = derived()
    assert {name: table.height for name, table in tables.items()} == {
        "offexchange_activity": 0,
        "offexchange_blocks": 0,
        "offexchange_levels": 0,
    }


# --- Blocks ----------------------------------------------------------------------------------------------------------------------


def test_absorbed_probability() -> None:
    move = np.array([0.0, 0.5, 1.0, -1.0, 3.0, 500.0, np.nan])
    expected, noise = np.full(7, 1.0), np.full(7, 0.5)

    def density(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.exp(-np.square(x / 0.5) / 2)

    other = 0.5 * (density(move - 1.0) + density(move + 1.0))
    with np.errstate(invalid="ignore"):
        wanted = density(move) / (density(move) + other)
    got = absorbed_probability(move, expected, noise)
    np.testing.assert_allclose(got[:5], wanted[:5], rtol=1e-12)
    assert got[5] == 0.0
    assert np.isnan(got[6])
    assert absorbed_probability(np.zeros(1), np.zeros(1), np.ones(1)) == 0.5


def walk(move: float = 0.0, at_minute: int = 120) -> list[dict[str, Any]]:
    """A lit trade each minute around 50: steps of 2 basis points to and fro, and a `move` at a minute."""
    prices = [50.0 * np.exp(0.0002 * (i % 2) + (move if i > at_minute else 0.0)) for i in range(390)]
    return [trade(60 * i + 30, lit=True, price=float(p), size=1_000) for i, p in enumerate(prices)]


@pytest.mark.parametrize(("move", "verdict"), [(0.0, "absorbed"), (0.01, "moved"), (-0.01, "moved")])
def test_a_block_is_absorbed_where_the_price_stays(move: float, verdict: str) -> None:
    blocks = derived(*walk(move), trade(60 * 120 + 10, price=50.005, size=50_000))["offexchange_blocks"]
    row = blocks.row(0, named=True)
    assert row["verdict"] == verdict
    assert row["volume_share"] == pytest.approx(50_000 / 440_000)
    sigma = row["noise_bps"] / np.sqrt(declared.ABSORPTION_MINUTES)
    assert row["expected_move_bps"] == pytest.approx(sigma * np.sqrt(390 * 50_000 / 440_000))
    assert row["move_bps"] == pytest.approx(1e4 * move, abs=2.1)
    assert (row["side"], row["side_rule"]) == (None, "midpoint")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"conditions": "2,41"}, "no_current_price"),
        ({"conditions": "53,52,41", "price": 55.0}, "no_current_price"),
        ({"at": 60 * 375.0 + 1}, "near_close"),
        ({"at": 60 * 390.0 - 1}, "near_close"),
        ({"at": -3_600.0}, "before_open"),
        ({"at": -600.0, "conditions": "12"}, "before_open"),
        ({"at": 60 * 390.0 + 1}, "after_close"),
        ({"at": 60 * 450.0, "conditions": "12"}, "after_close"),
        ({"at": 20.0}, "no_lit_prices"),
        ({"ticker": "XYZ"}, "no_lit_prices"),
        ({"size": 10_000}, "unclear"),
    ],
)
def test_blocks_that_are_not_judged(given: dict[str, Any], verdict: str) -> None:
    rows = walk() if verdict != "unclear" else [r | {"size": 1e6} for r in walk()]
    row = derived(*rows, trade(**({"at": 60 * 120 + 10.0, "price": 50.005, "size": 50_000} | given)))["offexchange_blocks"].row(
        0, named=True
    )
    assert row["verdict"] == verdict
    assert (row["absorbed_probability"] is None) == (verdict != "unclear")


def test_a_late_block_is_not_held_against_the_market_of_its_report() -> None:
    late = trade(60 * 120, price=49.0, size=50_000)
    late["participant_timestamp"] = late["sip_timestamp"] - 3_600 * SECOND
    assert derived(*walk(), late)["offexchange_blocks"]["verdict"].to_list() == ["no_current_price"]


@pytest.mark.parametrize(
    ("size", "price", "is_block"),
    [(10_000, 1.5, True), (9_999, 1.5, False), (400, 500.0, True), (399, 500.0, False), (99, 3_000.0, False)],
)
def test_the_size_of_a_block(size: float, price: float, is_block: bool) -> None:
    assert derived(trade(60, size=size, price=price))["offexchange_blocks"].height == int(is_block)


def test_volatility_is_of_a_minute_and_not_of_a_jump() -> None:
    names, count = 60, 390
    returns = 0.0005 * np.random.default_rng(1).standard_normal((names, count))
    close = 50.0 * np.exp(np.cumsum(returns, axis=1))
    key = lit.key_of(np.arange(names)[:, np.newaxis], OPEN // 60 + np.arange(count)[np.newaxis, :])

    def mean(keys: Any, closes: Any) -> float:
        return float(np.mean(lit.minute_volatility(keys.ravel(), closes.ravel(), names)))

    assert mean(key, close) == pytest.approx(0.0005, rel=0.01)
    jumped = close * np.where(np.arange(count) > 200, 1.02, 1.0)
    assert mean(key, jumped) == pytest.approx(0.0005, rel=0.2)
    assert np.std(np.diff(np.log(jumped[0]))) > 2 * 0.0005
    # Every other minute is missing: returns over two minutes count as of one.
    assert mean(key[:, ::2], close[:, ::2]) == pytest.approx(0.0005, rel=0.02)
    assert np.isnan(lit.minute_volatility(key[0, :31], close[0, :31], 1)[0])
    assert np.isfinite(lit.minute_volatility(key[0, :32], close[0, :32], 1)[0])
    assert np.isnan(lit.minute_volatility(key[0], np.full(count, 50.0), 1)[0])


# --- Levels ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "width"),
    [
        (0.05, 0.0001),
        (0.99, 0.001),
        (1.0, 0.01),
        (9.0, 0.01),
        (10.0, 0.01),
        (10.5, 0.02),
        (19.0, 0.02),
        (49.0, 0.05),
        (51.0, 0.1),
        (100.0, 0.1),
        (180.0, 0.2),
        (450.0, 0.5),
        (600.0, 1.0),
        (5_000.0, 5.0),
    ],
)
def test_the_width_of_a_level_is_a_round_number_of_ticks(price: float, width: float) -> None:
    assert level_width(np.array([price]))[0] == round(width * 1_000_000)


def test_levels_are_centred_on_round_prices_and_leave_errors_out() -> None:
    rows = [trade(i, price=price, size=100) for i, price in enumerate([49.98, 50.0249, 50.025, 49.975, 49.9749, 50.0, 80.0])]
    levels = derived(*rows, trade(20, price=50.0, size=1e5, conditions="2"))["offexchange_levels"]
    assert levels["level_price"].to_list() == [49.95, 50.0, 50.05]
    assert levels["volume"].to_list() == [100.0, 400.0, 100.0]
    assert levels["prints"].to_list() == [1, 4, 1]
    assert levels["volume_share"].sum() == pytest.approx(1.0)
    assert levels["largest_print_share"].to_list() == [1.0, 0.25, 1.0]
    assert levels["times_median"].null_count() == 3


# --- Sessions --------------------------------------------------------------------------------------------------------------------


DAYS = sessions.sessions_between(DAY - timedelta(days=140), DAY)[-66:]


def history(share: Any, pressure: Any, close: float | Any = 50.0, days: list[date] | None = None) -> pl.DataFrame:
    chosen = DAYS[-65:] if days is None else days
    return pl.DataFrame(
        {
            "underlying": pl.Series(["ABC"] * len(chosen), dtype=pl.String),
            SESSION: pl.Series(chosen, dtype=pl.Date),
            "core_share": np.broadcast_to(share, len(chosen)),
            "pressure": np.broadcast_to(pressure, len(chosen)),
            "lit_close": np.broadcast_to(close, len(chosen)) * np.ones(len(chosen)),
            "off_volume": np.full(len(chosen), 1000.0),
            "block_volume": np.full(len(chosen), 100.0),
        }
    )


def noise(seed: int, size: float) -> Any:
    return size * np.random.default_rng(seed).standard_normal(65)


@pytest.mark.parametrize(
    ("lift", "lean", "state"),
    [
        (0.1, 0.3, "accumulation"),
        (0.1, -0.3, "distribution"),
        (0.1, 0.0, "none"),
        (0.0, 0.3, "none"),
        (-0.1, 0.3, "none"),
        (0.0, 0.0, "none"),
    ],
)
def test_accumulation_needs_both_share_and_pressure(lift: float, lean: float, state: str) -> None:
    recent = np.arange(65) >= 60
    frame = history(0.4 + noise(1, 0.02) + lift * recent, noise(2, 0.05) + lean * recent, 50.0 * np.exp(np.cumsum(noise(3, 0.01))))
    out = offexchange_history.offexchange_accumulation({"offexchange_activity": frame}, DAY).tables["offexchange_accumulation"]
    row = conformed("offexchange_accumulation", out).row(0, named=True)
    assert row["state"] == state
    assert (row["recent_sessions"], row["base_sessions"]) == (5, 60)
    assert row["is_quiet"] == (abs(row["price_move_z"]) < declared.QUIET_Z)
    assert row["strength"] == min(row["core_share_z"], abs(row["pressure_z"]))


def test_the_score_is_the_one_declared() -> None:
    share = 0.4 + noise(4, 0.02)
    frame = history(share, noise(5, 0.05))
    row = (
        offexchange_history.offexchange_accumulation({"offexchange_activity": frame}, DAY)
        .tables["offexchange_accumulation"]
        .row(0, named=True)
    )
    base = share[:60]
    spread = 1.4826 * np.median(np.abs(base - np.median(base)))
    assert row["core_share_z"] == pytest.approx((share[60:].mean() - np.median(base)) / (spread / np.sqrt(5)))
    assert row["block_share_z"] == 0.0
    assert row["price_move_z"] == 0.0


def test_a_short_history_abstains_and_says_so() -> None:
    frame = history(0.4, 0.0, days=DAYS[-22:])
    row = conformed(
        "offexchange_accumulation",
        offexchange_history.offexchange_accumulation({"offexchange_activity": frame}, DAY).tables["offexchange_accumulation"],
    ).row(0, named=True)
    assert (row["core_share_z"], row["state"], row["base_sessions"]) == (None, None, 17)
    assert "core_share_z: fewer than 3" in " ".join(row["not_available"])


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(8)
    x, y = rng.integers(0, 9, (40, 30)).astype(float), rng.integers(0, 9, (40, 30)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[3], y[4] = 1.0, np.nan
    pairs, got = np.zeros(40, dtype=np.int64), np.zeros(40)
    rank_correlations(x, y, pairs, got)
    for row in range(40):
        both = np.isfinite(x[row]) & np.isfinite(y[row])
        assert pairs[row] == both.sum()
        if row in (3, 4):
            assert np.isnan(got[row])
        else:
            assert got[row] == pytest.approx(spearmanr(x[row][both], y[row][both]).statistic)


def test_fishers_interval() -> None:
    low, high = offexchange_history.fisher_interval(np.array([0.5, 1.0, np.nan, 0.1]), np.array([28, 30, 30, 3]))
    assert low[0] == pytest.approx(np.tanh(np.arctanh(0.5) - 1.959963984540054 * np.sqrt(1.06 / 25)))
    assert high[0] == pytest.approx(np.tanh(np.arctanh(0.5) + 1.959963984540054 * np.sqrt(1.06 / 25)))
    assert (low[1], high[1]) == (1.0, 1.0)
    assert np.isnan([low[2], high[2], low[3], high[3]]).all()


def link(off: pl.DataFrame, options: Any, **more: pl.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    premium = np.full(len(DAYS), 1000.0)
    factors = pl.DataFrame(
        {
            "underlying": ["ABC"] * len(DAYS),
            SESSION: DAYS,
            "premium_usd": premium,
            "call_premium_usd": 500.0 * (1.0 + options),
            "put_premium_usd": 500.0 * (1.0 - options),
        }
    )
    inputs = {"daily_factors": factors, "offexchange_activity": off} | more
    table = offexchange_history.offexchange_options_link(inputs, DAY).tables["offexchange_options_link"]
    rows = conformed("offexchange_options_link", table).iter_rows(named=True)
    return {(row["measure"], row["lag_sessions"]): row for row in rows}


@pytest.mark.parametrize("lag", [-1, 0, 1])
def test_the_link_finds_who_leads(lag: int) -> None:
    driver = np.random.default_rng(5).uniform(-0.9, 0.9, 70)
    off = history(0.4, driver[1:67], days=DAYS)
    # With lag 1 the options of a session are what off-exchange shows on the next one.
    rows = link(off, driver[1 + lag : 67 + lag])
    assert rows[("premium", lag)]["rank_correlation"] == pytest.approx(1.0)
    assert all(abs(rows[("premium", other)]["rank_correlation"]) < 0.5 for other in {-1, 0, 1} - {lag})
    assert rows[("premium", lag)]["pairs"] == 60
    assert rows[("signed_premium", lag)]["reason"] == "no_options"


def test_the_link_takes_the_signed_premium_where_it_is_there() -> None:
    driver = np.random.default_rng(6).uniform(-0.9, 0.9, 66)
    signed = pl.DataFrame({"underlying": ["ABC"] * 66, SESSION: DAYS, "net_call_put_imbalance": -driver})
    rows = link(history(0.4, driver, days=DAYS), 0.5 * driver, flow_factors=signed)
    assert rows[("premium", 0)]["rank_correlation"] == pytest.approx(1.0)
    assert rows[("signed_premium", 0)]["rank_correlation"] == pytest.approx(-1.0)


def test_the_link_says_why_it_abstains() -> None:
    options = np.random.default_rng(7).uniform(-0.9, 0.9, 66)
    assert link(history(0.4, 0.2, days=DAYS), options)[("premium", 0)]["reason"] == "constant"
    assert link(history(0.4, 0.2, days=DAYS[-19:]), options)[("premium", 0)]["reason"] == "few_pairs"
    assert link(history(0.4, 0.2, days=[]), options)[("premium", 0)]["reason"] == "no_pressure"


def test_the_link_counts_sessions_under_an_earlier_ticker() -> None:
    driver = np.random.default_rng(11).uniform(-0.9, 0.9, 66)
    earlier = pl.when(pl.col(SESSION) < DAYS[-3]).then(pl.lit("OLD")).otherwise(pl.lit("ABC")).alias("underlying")
    frames = {
        "offexchange_activity": history(0.4, driver, days=DAYS),
        "daily_factors": history(0.4, driver, days=DAYS).with_columns(
            premium_usd=pl.lit(1_000.0),
            call_premium_usd=500.0 * (1.0 + pl.col("pressure")),
            put_premium_usd=500.0 * (1.0 - pl.col("pressure")),
        ),
        "flow_factors": history(0.4, driver, days=DAYS).with_columns(net_call_put_imbalance=-pl.col("pressure")),
    }
    event = {"underlying": "OLD", "ex_date": DAYS[-3], "kind": "symbol_change", "ratio": None, "new_symbol": "ABC"}
    changes = pl.DataFrame([event], schema_overrides={"ratio": pl.Float64})
    inputs = {}
    for read in by_name()["offexchange_options_link"].reads:
        named = frames[read.dataset].with_columns(earlier)
        inputs[read.dataset] = adjust_for_splits(named, DATASETS[read.dataset], changes) if read.adjust else named
    table = offexchange_history.offexchange_options_link(inputs, DAY).tables["offexchange_options_link"]
    in_step = conformed("offexchange_options_link", table).filter(pl.col("lag_sessions") == 0).sort("measure")
    assert in_step.select("underlying", "measure", "pairs").rows() == [("ABC", "premium", 60), ("ABC", "signed_premium", 60)]
    assert in_step["rank_correlation"].to_list() == pytest.approx([1.0, -1.0])


# --- The market and the plan -----------------------------------------------------------------------------------------------------


SMALL = MarketSpec(
    seed=9, sessions=2, underlyings=3, trades_per_underlying_session=20, include_reference=False, stock_tape_trades=1_500
)


def test_the_tape_of_the_market_adds_up_to_its_bars() -> None:
    market = build(SMALL)
    files = {file.key: file.body for file in market.files()}
    day = market.days[0]
    tables = {}
    for kind, read in (("trades_v1", massive.stock_trades), ("day_aggs_v1", massive.stock_day)):
        key = f"us_stocks_sip/{kind}/{day:%Y/%m/%Y-%m-%d}.csv.gz"
        tables[kind] = read(key, files[key], day)
    out = offexchange_prints({"massive_stock_trades": DATASETS["massive_stock_trades"].conform(tables["trades_v1"], day)}, day)
    assert not out.findings
    given = {name: conformed(name, table, day) for name, table in out.tables.items()}
    daily = tables["day_aggs_v1"].rename({"ticker": "underlying"})
    activity = offexchange_activity(given | {"equity_bars_1d": daily}, day).tables["offexchange_activity"]
    np.testing.assert_allclose(activity["tape_coverage"].to_numpy(), 1.0, rtol=1e-6)
    told = market.truth()["stock_trades"].filter(
        (pl.col(SESSION) == day) & (pl.col("exchange") == 4) & (pl.col("correction") != 10)
    )
    assert given["offexchange_prints"].height == told.filter(pl.col("correction") != 12).height
    assert set(market.truth()) == {"trades", "episodes", "sessions", "stock_trades", "stock_blocks", "stock_stories"}
    trades = tables["trades_v1"]
    key = ["ticker", "exchange", "trf_id", "price", "size", "sip_timestamp", "participant_timestamp", "conditions"]
    stand = trades.filter(pl.col("correction") == "0")
    assert stand.select(pl.struct(key).is_duplicated().sum()).item() > 0, "some prints are there twice because they happened twice"
    assert trades.select(pl.struct("ticker", "id").is_duplicated().sum()).item() > 0, "ids are not unique"


def test_a_longer_tape_begins_with_a_shorter_one() -> None:
    short, longer = build(SMALL), build(replace(SMALL, sessions=3))
    first, then = ({file.key: file.body for file in market.files()} for market in (short, longer))
    assert {key: then[key] for key in first} == first
    blocks = longer.truth()["stock_blocks"].filter(pl.col(SESSION) <= short.days[-1])
    assert blocks.equals(short.truth()["stock_blocks"])


def test_without_a_tape_nothing_of_it_is_told() -> None:
    plain = build(MarketSpec(seed=9, sessions=1, underlyings=2, trades_per_underlying_session=20))
    assert set(plain.truth()) == {"trades", "episodes", "sessions"}


def test_the_steps_need_stock_trades_and_windows_are_vintages() -> None:
    steps = by_name()
    assert [r.dataset for r in steps["curate_offexchange_prints"].reads if r.required] == ["massive_stock_trades"]
    assert steps["offexchange_activity"].writes == ("offexchange_activity", "offexchange_blocks", "offexchange_levels")
    for name in ("offexchange_accumulation", "offexchange_options_link"):
        assert steps[name].vintage
        assert any(r.dataset == "offexchange_activity" and r.required and r.sessions > 1 for r in steps[name].reads)


def test_a_print_after_midnight_utc_is_of_its_new_york_session() -> None:
    at = int(sessions.at_et(DAY, time(20, 30)).timestamp()) - OPEN
    prints, _, out = curated(trade(at, conditions="12"))
    assert prints.height == 1
    assert not out.findings


def test_shares_of_a_whole_do_not_exceed_it() -> None:
    """Sums of decimal sizes differ from their parts in the last bit; ratios must not show it."""
    lit_rows = [trade(i * 23.4, lit=True, price=50.0 + 0.01 * (i % 2)) for i in range(100)]
    sizes = [0.1, 0.2, 0.3, 0.7, 1.1, 2.2, 3.3]
    prints = [trade(30 + i, price=50.0091 if i % 2 else 50.0012, size=size) for i, size in enumerate(sizes)]
    row = derived(*lit_rows, *prints)["offexchange_activity"].row(0, named=True)
    assert row["subpenny_share"] == 1.0
    assert row["signed_share"] == 1.0


def test_dust_has_a_volume_and_no_price() -> None:
    tables = derived(*[trade(i, price=0.0001, size=0.000001) for i in range(3)], trade(9, price=0.0001, size=1e-9))
    row = tables["offexchange_activity"].row(0, named=True)
    assert row["off_volume"] == 0.000003
    assert (row["off_notional_usd"], row["off_vwap"]) == (0.0, None)
    assert tables["offexchange_levels"]["prints"].to_list() == [4]


def test_windows_do_not_see_later_sessions() -> None:
    driver = np.random.default_rng(11).uniform(-0.9, 0.9, 66)
    later = history(0.9, 0.9, days=[sessions.offset(DAY, 1), sessions.offset(DAY, 2)])
    known = history(0.4 + np.random.default_rng(12).normal(0.0, 0.02, 66), driver, days=DAYS)
    made = [
        offexchange_history.offexchange_accumulation({"offexchange_activity": frame}, DAY).tables["offexchange_accumulation"]
        for frame in (known, pl.concat([known, later]))
    ]
    assert made[0].equals(made[1])
    assert link(known, driver) == link(pl.concat([known, later]), driver)
