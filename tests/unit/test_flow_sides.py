"""The step `trade_sides`: a row per print, its quote, its side or why there is none, and nothing from the future."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flowlake.datasets.curated import OPTION_TRADES
from flowlake.datasets.model import Dataset, Inputs
from flowlake.datasets.raw import MASSIVE_OPTION_QUOTES
from flowlake.datasets.registry import DATASETS
from flowlake.datasets.sides import PRINT_COLUMNS, QUOTE_SOURCES, SIDE_REASONS, TRADE_SIDES
from flowlake.flow.direction import AGES_S, CALIBRATION, UNDATED_AGE_S, buy_probability
from flowlake.flow.sides import trade_sides
from flowlake.pipeline.plan import by_name
from flowlake.sources import thetadata

SESSION = date(2024, 3, 13)
OPEN = datetime(2024, 3, 13, 13, 30, tzinfo=UTC)
CALL, PUT = "SPY240315C00500000", "SPY240315P00500000"
FLAGS = [c.name for c in OPTION_TRADES.columns if c.dtype == pl.Boolean()]
SIGNED = {"in_volume", "sets_price", "may_be_signed"}


def at(seconds: float) -> datetime:
    return OPEN + timedelta(seconds=seconds)


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def frame(ds: Dataset, rows: list[dict[str, Any]]) -> pl.DataFrame:
    columns = {c.name: c.dtype for c in ds.columns}
    return ds.conform(pl.DataFrame(rows, schema=columns), SESSION).with_columns(session=pl.lit(SESSION))


def sale(seconds: float, price: float, contract: str = CALL, **more: Any) -> dict[str, Any]:
    flags = {flag: flag in SIGNED for flag in FLAGS}
    fixed = {
        "underlying": "SPY",
        "root": "SPY",
        "expiry": date(2024, 3, 15),
        "strike": 500.0,
        "size": 1,
        "premium_usd": price * 100,
    }
    told = {"exchange": 302, "condition": 209, "conditions": "209", "condition_group": "regular"}
    return {"contract": contract, "right": contract[9], "ts_utc": at(seconds), "price": price, **fixed, **told, **flags, **more}


def quote(seconds: float, bid: float, ask: float, contract: str = CALL, **more: Any) -> dict[str, Any]:
    row = {"ticker": f"O:{contract}", "ask_price": ask, "bid_price": bid, "ask_size": 20.0, "bid_size": 10.0, "row": 0}
    return {**row, "ask_exchange": 302, "bid_exchange": 302, "sequence_number": 1, "sip_timestamp": ns(at(seconds)), **more}


def inputs(prints: list[dict[str, Any]], quotes: list[dict[str, Any]] | None = None) -> dict[str, pl.DataFrame]:
    made = {"option_trades": frame(OPTION_TRADES, prints).select(PRINT_COLUMNS)}
    return made if quotes is None else made | {"massive_option_quotes": frame(MASSIVE_OPTION_QUOTES, quotes)}


def sides(given: Inputs) -> pl.DataFrame:
    out = trade_sides(given, SESSION)
    assert out.findings == ()
    return TRADE_SIDES.conform(out.tables["trade_sides"], SESSION)


def test_the_plan_reads_every_source_and_what_it_reads_is_declared() -> None:
    reads = {read.dataset: read.columns for read in by_name()["trade_sides"].reads}
    assert reads == {"option_trades": PRINT_COLUMNS, **{source.dataset: source.columns for source in QUOTE_SOURCES}}
    for name, columns in reads.items():
        assert set(columns) <= set(DATASETS[name].column_names)


def test_without_quotes_the_side_is_unknown_and_a_weak_fallback_stands_apart() -> None:
    rows = sides(inputs([sale(1, 1.00), sale(2, 1.05), sale(3, 1.05), sale(4, 1.00), sale(5, 1.0, PUT)]))
    assert rows["buy_probability"].null_count() == 5
    assert rows["reason"].to_list() == ["no_quote"] * 5
    assert rows["rule"].to_list() == ["none", "tick_fallback", "tick_fallback", "tick_fallback", "none"]
    assert rows["fallback_side"].to_list() == [None, 1, 1, -1, None]
    tick = CALIBRATION.fallback()[1]
    assert rows["fallback_probability"].to_list() == [None, tick, tick, pytest.approx(1 - tick), None]
    for name in ("bid", "ask", "bid_size", "ask_size", "quote_age_ms", "is_locked_or_crossed"):
        assert rows[name].null_count() == 5
    assert rows["print_no"].to_list() == [0, 1, 2, 3, 4]
    assert rows["known_at_utc"].equals(rows["ts_utc"].alias("known_at_utc"))


def test_with_quotes() -> None:
    quotes = [quote(0.5, 1.0, 1.1), quote(10.0, 1.0, 1.2), quote(0.5, 2.0, 2.1, PUT)]
    rows = sides(inputs([sale(1, 1.1), sale(10.0, 1.0), sale(11, 1.0), sale(1, 2.1, PUT)], quotes))
    assert rows["rule"].to_list() == ["quote"] * 4
    assert rows["ask"].to_list() == [1.1, 1.1, 1.2, 2.1]  # the quote of the print's own moment is not before it
    assert rows["quote_age_ms"].to_list() == [500.0, 9500.0, 1000.0, 500.0]
    assert [p > 0.5 for p in rows["buy_probability"]] == [True, False, False, True]
    assert rows["bid_size"].to_list() == [10.0] * 4
    assert rows["is_locked_or_crossed"].to_list() == [False] * 4
    assert rows["fallback_side"].null_count() == 4
    assert rows["reason"].to_list() == [""] * 4


@pytest.mark.parametrize(
    ("quoted", "print_", "reason", "rule", "fallback"),
    [
        (quote(0.5, 1.0, 1.2), sale(2, 1.1), "at_midpoint", "depth_fallback", 1),
        (quote(0.5, 1.0, 1.2, ask_size=10.0), sale(2, 1.1), "at_midpoint", "tick_fallback", -1),
        (quote(0.5, 1.2, 1.1), sale(2, 1.1), "locked_or_crossed", "tick_fallback", -1),
        (quote(0.5, 1.1, 1.1), sale(2, 1.3), "locked_or_crossed", "tick_fallback", 1),
        (quote(0.5, 0.0, 1.2), sale(2, 1.1), "one_sided_quote", "tick_fallback", -1),
        (quote(-301, 1.0, 1.2), sale(2, 1.1), "stale_quote", "tick_fallback", -1),
        (quote(9.0, 1.0, 1.2), sale(2, 1.1), "no_quote", "tick_fallback", -1),
        (quote(0.5, 1.0, 1.2, PUT), sale(2, 1.1), "no_quote", "tick_fallback", -1),
        (quote(0.5, 1.0, 1.2), sale(2, 1.2, is_multi_leg=True, may_be_signed=False), "not_single_leg", "none", None),
        (quote(0.5, 1.0, 1.2), sale(2, 1.2, is_stock_tied=True, may_be_signed=False), "not_single_leg", "none", None),
        (quote(0.5, 1.0, 1.2), sale(2, 1.2, is_late=True, may_be_signed=False, sets_price=False), "not_signed", "none", None),
    ],
)
def test_why_a_side_is_unknown(
    quoted: dict[str, Any], print_: dict[str, Any], reason: str, rule: str, fallback: int | None
) -> None:
    rows = sides(inputs([sale(1, 1.25, may_be_signed=False), print_], [quoted]))
    row = rows.row(1, named=True)
    assert (row["reason"], row["rule"], row["fallback_side"], row["buy_probability"]) == (reason, rule, fallback, None)
    assert (row["is_locked_or_crossed"] is None) == (reason in ("no_quote", "stale_quote", "one_sided_quote"))
    assert reason in SIDE_REASONS


def test_prints_inside_one_millisecond_do_not_sign_each_other() -> None:
    rows = sides(inputs([sale(1, 1.00), sale(1.0004, 1.05), sale(2, 1.10), sale(3, 1.20)]))
    # Microseconds apart, yet of one millisecond; it had two prices, so the next print has nothing to compare with.
    assert rows["fallback_side"].to_list() == [None, None, None, 1]


def test_packages_and_late_prints_set_no_price() -> None:
    odd = {"is_multi_leg": True, "may_be_signed": False}
    late = {"is_late": True, "may_be_signed": False, "sets_price": False}
    rows = sides(inputs([sale(1, 1.00), sale(2, 9.00, **odd), sale(3, 0.10, **late), sale(4, 1.05)]))
    assert rows["fallback_side"].to_list() == [None, None, None, 1]


@pytest.mark.parametrize(
    "marks",
    [{"condition": 0, "conditions": None, "condition_group": "unreported"}, {"is_late": True, "condition_group": "late"}],
    ids=["blank", "late"],
)
def test_blank_prints_and_late_ones_that_a_policy_counts_set_no_price(marks: dict[str, Any]) -> None:
    between = sale(2, 1.50, may_be_signed=False, **marks)
    rows = sides(inputs([sale(1, 1.00), between, sale(3, 1.20)]))
    assert rows["fallback_side"].to_list() == [None, None, 1]


def test_a_later_cancel_changes_nothing() -> None:
    prints = [sale(1, 1.00), sale(2, 1.05), sale(3, 1.00)]
    cancelled = [prints[0], {**prints[1], "is_cancelled": True, "may_be_signed": False}, prints[2]]
    assert sides(inputs(prints)).equals(sides(inputs(cancelled)))


def test_later_prints_and_quotes_change_no_earlier_row() -> None:
    prints = [sale(s, p, c) for c in (CALL, PUT) for s, p in ((1, 1.0), (2, 1.1), (5, 1.05))]
    quotes = [quote(s, 1.0, 1.1, c) for c in (CALL, PUT) for s in (0.5, 4.0)]
    before = sides(inputs(prints, quotes)).drop("print_no")
    more = [sale(s, 2.0, c) for c in (CALL, PUT) for s in (6, 6, 7)]
    after = sides(inputs([*prints, *more], [*quotes, *(quote(s, 1.9, 2.0, c) for c in (CALL, PUT) for s in (5.5, 6.5))]))
    assert after.filter(pl.col("ts_utc") < at(5.5)).drop("print_no").equals(before)


def test_quotes_of_one_moment_stand_in_the_order_of_their_sequence() -> None:
    quotes = [quote(0.5, 1.0, 1.1, sequence_number=9, row=0), quote(0.5, 2.0, 2.1, sequence_number=8, row=1)]
    assert sides(inputs([sale(1, 1.1)], quotes))["bid"].to_list() == [1.0]


def test_roots_that_sort_differently_as_tickers() -> None:
    names = ["GOOG240315C00100000", "GOOG1240315C00100000"]
    prints = [sale(1, 1.1, name) | {"root": name[:-15], "right": "C"} for name in names]
    rows = sides(inputs(prints, [quote(0.5, 1.0 + i, 1.2 + i, name) for i, name in enumerate(names)]))
    assert dict(zip(rows["contract"], rows["bid"], strict=True)) == {names[0]: 1.0, names[1]: 2.0}


def test_a_quote_beside_the_trade_comes_before_one_of_a_quote_file() -> None:
    theta = DATASETS["thetadata_option_trades"]
    fixed = {"symbol": "SPY", "expiration": date(2024, 3, 15), "strike": 500.0, "right": "CALL", "sequence": 1, "condition": 130}
    more = {"size": 1.0, "exchange": 6, "price": 1.1, "bid_size": 7.0, "ask_size": 8.0, "source_file": "f", "row": 0}
    carried = {"ticker": f"O:{CALL}", "trade_timestamp": ns(at(1)), "quote_timestamp": ns(at(1)), "bid": 0.9, "ask": 1.1}
    given = inputs([sale(1, 1.1)], [quote(0.9, 1.0, 1.2)]) | {"thetadata_option_trades": frame(theta, [fixed | more | carried])}
    row = sides(given).row(0, named=True)
    assert (row["bid"], row["ask"], row["bid_size"], row["quote_age_ms"]) == (0.9, 1.1, 7.0, 0.0)
    assert row["buy_probability"] == CALIBRATION.ceiling
    del given["thetadata_option_trades"]
    assert sides(given).row(0, named=True)["reason"] == "at_midpoint"


def beside_trade(name: str, seconds: float, bid: float, ask: float, **more: Any) -> pl.DataFrame:
    """A row of a vendor that puts a quote beside the trade and gives the trade's time for both."""
    quoted = {
        "datashop_option_trades": {"quote_datetime": ns(at(seconds)), "trade_price": 1.18, "best_bid": bid, "best_ask": ask}
        | {"trade_size": 1.0, "sequence_number": 1},
        "databento_option_trades": {"ts_event": ns(at(seconds)), "price": 1.18, "bid_price": bid, "ask_price": ask}
        | {"size": 1, "sequence": 1, "quote_scope": "consolidated"},
    }
    return frame(DATASETS[name], [{"ticker": f"O:{CALL}", "row": 0} | quoted[name] | more])


@pytest.mark.parametrize("vendor", ["datashop_option_trades", "databento_option_trades"])
def test_a_quote_of_which_nobody_says_when_it_was_made_is_not_a_fresh_one(vendor: str) -> None:
    given = inputs([sale(1, 1.18), sale(41, 1.18), sale(400, 1.18)]) | {vendor: beside_trade(vendor, 1, 1.0, 1.24)}
    rows = sides(given)
    assert rows["quote_age_ms"].null_count() == 3
    assert rows["bid"].to_list() == [1.0, 1.0, None]
    assert rows["reason"].to_list() == ["", "", "stale_quote"]
    # Half way from the midpoint to the offer: as of 10 s beside the trade, and not younger than the trade that it stood beside.
    ages = (UNDATED_AGE_S, 40.0)
    assert rows["buy_probability"].to_list()[:2] == [pytest.approx(buy_probability(1.18, 1.0, 1.24, age)) for age in ages]
    assert rows["buy_probability"][0] < buy_probability(1.18, 1.0, 1.24, 0.0)


def test_a_file_of_quotes_fills_in_for_one_without_a_time_with_its_own_age() -> None:
    name = "datashop_option_trades"
    given = inputs([sale(1, 1.18), sale(400, 1.18)], [quote(399.5, 1.0, 1.2)]) | {name: beside_trade(name, 1, 1.0, 1.24)}
    assert sides(given)["quote_age_ms"].to_list() == [None, 500.0]


def test_fills_of_one_moment_have_each_the_quote_beside_them() -> None:
    """A sweep through a level: the second quote is what the first fill left behind."""
    theta = DATASETS["thetadata_option_trades"]
    fixed = {"symbol": "SPY", "expiration": date(2024, 3, 15), "strike": 500.0, "right": "CALL", "sequence": 1, "condition": 130}
    fixed |= {"size": 1.0, "exchange": 6, "bid_size": 7.0, "ask_size": 8.0, "source_file": "f", "ticker": f"O:{CALL}"}

    def beside(row: int, price: float, bid: float, ask: float, **more: Any) -> dict[str, Any]:
        return fixed | {"row": row, "price": price, "bid": bid, "ask": ask, "trade_timestamp": ns(at(1))} | more

    first = beside(0, 1.1, 1.0, 1.1, quote_timestamp=ns(at(0.5)))
    second = beside(1, 1.2, 1.1, 1.2, quote_timestamp=ns(at(1)))
    given = inputs([sale(1, 1.1), sale(1, 1.2)]) | {"thetadata_option_trades": frame(theta, [first, second])}
    rows = sides(given)
    assert rows["bid"].to_list() == [1.0, 1.1]
    assert rows["quote_age_ms"].to_list() == [500.0, 0.0]
    assert (rows["buy_probability"] > 0.5).all()
    # Equal prints with different quotes: nobody knows whose is whose, so both take the one before.
    equal = beside(1, 1.1, 1.1, 1.2, quote_timestamp=ns(at(1)))
    given = inputs([sale(1, 1.1), sale(1, 1.1)]) | {"thetadata_option_trades": frame(theta, [first, equal])}
    assert sides(given)["bid"].to_list() == [1.0, 1.0]


def test_a_cancel_signs_nothing_that_would_not_be_signed() -> None:
    """Whether a print is cancelled later must not show in its side."""
    blank = {"may_be_signed": False, "conditions": None, "condition": 0, "condition_group": "unreported"}
    for marks in (blank, {"may_be_signed": False, "is_late": True, "condition_group": "late"}):
        stands, gone = (
            sides(inputs([sale(1, 1.1, **marks, is_cancelled=later)], [quote(0.5, 1.0, 1.1)])) for later in (False, True)
        )
        assert stands.equals(gone)
        assert stands["buy_probability"].to_list() == [None]


def test_a_minute_bar_of_quotes_is_in_force_after_its_minute() -> None:
    lean = DATASETS["lean_option_quotes"]
    bar = {"ticker": f"O:{CALL}", "window_start": ns(at(0)), "bid_close": 1.0, "ask_close": 1.1, "member": "m", "row": 0}
    given = inputs([sale(30, 1.1), sale(61, 1.1)]) | {"lean_option_quotes": frame(lean, [bar])}
    assert sides(given)["reason"].to_list() == ["no_quote", ""]
    assert sides(given)["quote_age_ms"].to_list() == [None, 1000.0]


def test_no_prints() -> None:
    assert sides(inputs([])).height == 0
    assert sides(inputs([], [quote(1, 1.0, 1.1)])).height == 0


def test_real_trades_with_the_quote_beside_them(real_data: Path) -> None:
    path = real_data / "thetadata" / "option_history_trade_quote.csv"
    raw = thetadata.option_trades(path.name, path.read_bytes(), None).with_columns(session=pl.lit(date(2024, 6, 14)))
    prints = [
        sale(0, row["price"], row["ticker"][2:], right="C", expiry=date(2024, 6, 21), size=int(row["size"]))
        | {"ts_utc": datetime.fromtimestamp(row["trade_timestamp"] / 1e9, UTC)}
        for row in raw.iter_rows(named=True)
    ]
    rows = sides({"option_trades": frame(OPTION_TRADES, prints), "thetadata_option_trades": raw})
    assert rows.height == raw.height == 98
    # What the file says beside each trade is what the row holds; of equal trades of one moment it may say several things.
    own = raw.filter(pl.len().over("trade_timestamp") == 1).select(
        (pl.col("trade_timestamp").cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")).alias("ts_utc"),
        *(pl.col(name).alias(f"own_{name}") for name in ("bid", "ask")),
        ((pl.col("trade_timestamp") - pl.col("quote_timestamp")) / 1e6).alias("own_age"),
    )
    both = rows.join(own, on="ts_utc").filter(pl.col("own_age") <= AGES_S[-1] * 1e3)
    assert both.height > 40
    assert both["bid"].equals(both["own_bid"].alias("bid"))
    assert both["ask"].equals(both["own_ask"].alias("ask"))
    assert rows["buy_probability"].drop_nulls().is_between(1 - CALIBRATION.ceiling - 1e-9, CALIBRATION.ceiling).all()
    assert rows["buy_probability"].null_count() < 0.5 * rows.height
