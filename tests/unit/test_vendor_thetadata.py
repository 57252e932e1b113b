"""ThetaData responses: the real captures with their traps, translation of ids, overlapping responses, refusals."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlake.curate import conditions
from flowlake.curate.vendor_codes import THETADATA_CONDITIONS, THETADATA_EXCHANGES
from flowlake.sources import thetadata
from flowlake.sources.contracts import midnight_ns
from unit.vendor_files import curated, parsed, raw_tables, refusal, rejected

DAY = date(2024, 6, 14)
TRADES = "thetadata/option_history_trade_quote/2024/06/2024-06-14/SPY-20240621-500-C.csv"
EOD = "thetadata/option_history_greeks_eod/2024/06/2024-06-14.csv"
INTEREST = "thetadata/option_history_open_interest/2024/06/2024-06-14/SPY.csv"
COLUMNS = (
    "symbol,expiration,strike,right,trade_timestamp,quote_timestamp,sequence,ext_condition1,ext_condition2,ext_condition3,"
    "ext_condition4,condition,size,exchange,price,bid_size,bid_exchange,bid,bid_condition,ask_size,ask_exchange,ask,ask_condition"
)
NINE_THIRTY_MS = midnight_ns(DAY) // 10**6 + 9 * 3_600_000 + 30 * 60_000


def trade(
    ms: int = NINE_THIRTY_MS,
    sequence: int = -1986932228,
    condition: int = 18,
    size: int = 1,
    exchange: int = 5,
    price: str = "41.71",
    expiration: str = "2024-06-21",
    further: str = "255,255,255,255",
) -> str:
    first = f"SPY,{expiration},500.0,CALL,{ms},{ms - 5},{sequence},{further}"
    return f"{first},{condition},{size},{exchange},{price},431,5,41.2,50,430,5,42.09,50"


def text(*rows: str, header: str = COLUMNS) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


# Real captures -------------------------------------------------------------------------------------------------------------------


def capture(real_data: Path, name: str) -> bytes:
    return (real_data / "thetadata" / f"option_history_{name}.csv").read_bytes()


def test_the_real_trades_with_quotes(real_data: Path) -> None:
    raw = raw_tables(DAY, (TRADES, capture(real_data, "trade_quote")))
    table, findings = curated("option_trades", DAY, raw)
    assert findings == ()
    assert (table.height, int(table["size"].sum())) == (98, 682)
    assert table["contract"].unique().to_list() == ["SPY240621C00500000"]
    assert raw["thetadata_option_trades"]["sequence"].min() < 0, "sequence numbers are signed"
    first = table.row(0, named=True)
    assert (first["ts_utc"], first["price"]) == (datetime(2024, 6, 14, 13, 55, 3, 122_000, UTC), 41.71)
    assert (first["exchange"], first["condition"], first["condition_group"]) == (308, 232, "multi_leg")
    assert table["condition"].value_counts().sort("condition").rows() == [(209, 15), (219, 1), (227, 5), (232, 70), (233, 7)]
    assert table["exchange"].min() >= 300, "every exchange of the capture is known"


def test_the_real_trades_agree_with_the_real_end_of_day_report(real_data: Path) -> None:
    raw = raw_tables(DAY, (TRADES, capture(real_data, "trade_quote")), (EOD, capture(real_data, "greeks_eod")))
    trades, _ = curated("option_trades", DAY, raw)
    bars, findings = curated("option_bars_1d", DAY, raw)
    assert rejected(findings) == {}
    bar = bars.row(0, named=True)
    # The report counts one print more than the captured trades: the last, of one contract, at the day's highest price.
    assert (bar["transactions"], bar["volume"]) == (trades.height + 1, trades["size"].sum() + 1)
    assert bar["high"] == bar["close"] > trades["price"].max()
    assert bar["low"] == trades["price"].min()
    quotes, findings = curated("option_quotes_eod", DAY, raw)
    assert rejected(findings) == {}
    assert quotes.select("bid", "ask", "bid_size", "ask_size", "spot").row(0) == (42.39, 43.25, 325.0, 418.0, 542.7799)


def test_the_response_without_quotes_is_the_same_trades(real_data: Path) -> None:
    with_quotes = parsed(TRADES, capture(real_data, "trade_quote"))[1]
    without = parsed(TRADES, capture(real_data, "trade"))[1]
    both = ["ticker", "trade_timestamp", "sequence", "condition", "size", "exchange", "price"]
    assert without.select(both).equals(with_quotes.select(both))
    assert without["bid"].null_count() == without["quote_timestamp"].null_count() == 98


@pytest.mark.parametrize("kind", ["all", "first_order", "second_order", "third_order", "implied_volatility"])
def test_the_real_trades_with_greeks_spell_the_expiration_without_dashes(real_data: Path, kind: str) -> None:
    body = capture(real_data, f"trade_greeks_{kind}")
    assert b"20260116" in body
    table = thetadata.option_trades("a.csv", body, date(2025, 5, 2))
    row = table.row(0, named=True)
    assert (row["ticker"], row["expiration"], row["sequence"]) == ("O:SPY260116C00540000", date(2026, 1, 16), 1_846_852_600)
    assert row["price"] == pytest.approx(61.05)


def test_real_responses_of_other_endpoints_are_refused(real_data: Path) -> None:
    """Greeks per interval begin with a bid and an ask of 0, and a snapshot has no prints: neither is a tape."""
    assert refusal(TRADES, capture(real_data, "greeks_all")).rule == "missing_column"
    snapshot = (real_data / "thetadata/option_snapshot_ohlc.csv").read_bytes()
    assert refusal(EOD, snapshot).rule == "missing_column"


# Translation ---------------------------------------------------------------------------------------------------------------------


def test_both_spellings_of_the_expiration_are_one_contract() -> None:
    one, other = (parsed(TRADES, text(trade(expiration=e)))[1] for e in ("2024-06-21", "20240621"))
    assert one.equals(other)


def test_times_may_be_written_in_new_york_time() -> None:
    wanted = parsed(TRADES, text(trade(ms=NINE_THIRTY_MS + 123)))[1]
    written = trade(ms=NINE_THIRTY_MS + 123).replace(str(NINE_THIRTY_MS + 123), "2024-06-14T09:30:00.123")
    body = text(written.replace(str(NINE_THIRTY_MS + 118), "2024-06-14T09:30:00.118"))
    assert parsed(TRADES, body)[1].equals(wanted)
    mixed = refusal(TRADES, text(trade(), trade().replace(str(NINE_THIRTY_MS), "2024-06-14T09:30:00")))
    assert (mixed.rule, mixed.place) == ("bad_time", f"{TRADES}, row 1")


def test_an_end_of_day_report_without_greeks_names_its_times_otherwise() -> None:
    header = (
        "symbol,expiration,strike,right,created,last_trade,open,high,low,close,volume,count,bid_size,bid_exchange,bid,bid_condition"
    )
    row = "SPY,2024-06-21,500.000,CALL,2024-06-14T17:15:00,2024-06-14T15:59:58.1,41,43,40,42,9,3,325,5,42.39,50,418,5,43.25,50"
    body = text(row, header=f"{header},ask_size,ask_exchange,ask,ask_condition")
    table = parsed(EOD.replace("greeks_eod", "eod"), body)[1]
    assert table.select("ticker", "close", "implied_vol").row(0) == ("O:SPY240621C00500000", 42.0, None)
    assert table["timestamp"].to_list() == [midnight_ns(DAY) + 57_598_100 * 10**6]
    assert "created" in table["extra"][0]
    untraded = row.replace("2024-06-14T15:59:58.1,41,43,40,42,9,3", ",0,0,0,0,0,0").replace("500.000", "900.000")
    raw = raw_tables(DAY, (EOD.replace("greeks_eod", "eod"), body + f"{untraded}\n{untraded.replace('900', '901')}\n".encode()))
    assert curated("option_bars_1d", DAY, raw)[0]["contract"].to_list() == ["SPY240621C00500000"]
    assert curated("option_quotes_eod", DAY, raw)[0].height == 3


def test_every_condition_of_the_table_is_one_of_the_policy() -> None:
    ours = {c.id: c for c in conditions.OPRA_MASSIVE.conditions}
    assert set(THETADATA_CONDITIONS.values()) <= set(ours)
    assert [ours[THETADATA_CONDITIONS[125 + i]].letter for i in range(20)] == list("abcdefghijklmnopqrst")
    assert all(ours[THETADATA_CONDITIONS[code]].is_cancel for code in range(40, 45))
    assert ours[THETADATA_CONDITIONS[95]].is_iso
    assert len(set(THETADATA_EXCHANGES.values())) == len(THETADATA_EXCHANGES) == 18


@pytest.mark.parametrize(
    ("further", "conditions", "flags"),
    [
        ("255,255,255,255", "209", {"may_be_signed": True, "is_iso": False, "is_multi_leg": False, "in_volume": True}),
        ("95,255,255,255", "209,219", {"may_be_signed": True, "is_iso": True}),
        ("255,255,130,255", "209,232", {"may_be_signed": False, "is_multi_leg": True, "in_volume": True}),
        ("13,255,255,147", "209,204,247", {"is_late": True, "in_volume": False, "in_baseline": False}),
        ("99,255,255,255", "209,unknown", {"may_be_signed": False, "in_volume": False}),
        (",,,", "209", {"may_be_signed": True}),
    ],
)
def test_further_conditions_count_as_the_first_does(further: str, conditions: str, flags: dict[str, bool]) -> None:
    table, _ = curated("option_trades", DAY, raw_tables(DAY, (TRADES, text(trade(further=further)))))
    assert (table["condition"][0], table["conditions"][0]) == (209, conditions)
    assert table.select(*flags).row(0, named=True) == flags


@pytest.mark.parametrize("told", [{"condition": code} for code in range(40, 45)] + [{"further": "40,255,255,255"}], ids=str)
def test_a_cancel_is_no_print_wherever_it_is_told(told: dict[str, Any]) -> None:
    rows = [trade(), trade(ms=NINE_THIRTY_MS + 9, sequence=5, **told)]
    table, findings = curated("option_trades", DAY, raw_tables(DAY, (TRADES, text(*rows))))
    assert table["is_cancelled"].to_list() == [True]
    assert findings == ()


def test_unknown_ids_stay_unknown() -> None:
    raw = raw_tables(DAY, (TRADES, text(trade(condition=99, exchange=77))))
    table, findings = curated("option_trades", DAY, raw)
    assert table.select("exchange", "condition_group", "in_volume").row(0) == (0, "unknown", False)
    assert [f.rule for f in findings] == ["unknown_condition"]


def test_prints_of_overlapping_responses_count_once_and_equal_prints_of_one_twice() -> None:
    one = TRADES.replace("SPY-20240621-500-C", "morning")
    rows = [trade(), trade(), trade(sequence=5, size=4)]
    raw = raw_tables(DAY, (TRADES, text(*rows)), (one, text(*rows[:2], trade(sequence=6, size=9))))
    table, findings = curated("option_trades", DAY, raw)
    assert rejected(findings) == {}
    assert table["size"].sort().to_list() == [1, 1, 4, 9]


def test_open_interest_is_of_the_session_before() -> None:
    ms = midnight_ns(DAY) // 10**6 + 6 * 3_600_000 + 30 * 60_000
    body = text(f"SPY,20240621,500.0,CALL,{ms},1234", header="symbol,expiration,strike,right,timestamp,open_interest")
    table, findings = curated("open_interest", DAY, raw_tables(DAY, (INTEREST, body)))
    assert findings == ()
    assert table.select("open_interest_close", "oi_session", "source").row(0) == (
        1234, date(2024, 6, 13), "thetadata_open_interest",
    )  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.integers(0, 86_399_999),
            st.integers(-(2**31), 2**31 - 1),
            st.sampled_from(sorted(THETADATA_CONDITIONS)),
            st.integers(1, 10**6),
            st.sampled_from(sorted(THETADATA_EXCHANGES)),
            st.integers(1, 10**7).map(lambda c: c / 100),
        ),
        min_size=1,
        max_size=6,
    ),
    st.permutations(COLUMNS.split(",")),
    st.sampled_from(["2024-06-21", "20240621"]),
)
def test_trades_round_trip(rows: list[tuple[int, int, int, int, int, float]], order: list[str], expiration: str) -> None:
    midnight = midnight_ns(DAY) // 10**6
    lines = [trade(midnight + ms, s, c, z, e, repr(p), expiration) for ms, s, c, z, e, p in rows]
    table = pl.read_csv(io.BytesIO(text(*lines)), infer_schema=False).select(order)
    buffer = io.StringIO()
    csv.writer(buffer).writerows([order, *table.rows()])
    read = parsed(TRADES, buffer.getvalue().encode())[1]
    assert read["trade_timestamp"].to_list() == [(midnight + ms) * 10**6 for ms, *_ in rows]
    assert read["sequence"].to_list() == [s for _, s, *_ in rows]
    assert read["condition"].to_list() == [c for _, _, c, *_ in rows]
    assert read["size"].to_list() == [z for _, _, _, z, *_ in rows]
    assert read["price"].to_list() == [p for *_, p in rows]
    assert read["ticker"].unique().to_list() == ["O:SPY240621C00500000"]


def test_refusals_name_the_row_and_the_cell() -> None:
    bad = refusal(TRADES, text(trade(), trade(expiration="06/21/2024")))
    assert (bad.rule, bad.place) == ("bad_date", f"{TRADES}, row 1")
    assert "06/21/2024" in bad.detail
    assert refusal(TRADES, text(trade(expiration="20240631"))).rule == "bad_date"
    early = refusal(TRADES, text(trade(ms=-1)))
    assert (early.rule, early.place) == ("bad_time", f"{TRADES}, row 0")
    assert refusal(TRADES, text(trade(ms=2**62))).rule == "bad_time"
    assert refusal(TRADES, text(trade(price=""))).rule == "missing_value"
    assert refusal(TRADES, text(trade(), header=COLUMNS.replace("size,exchange", "qty,exchange"))).rule == "missing_column"
    assert refusal(TRADES.replace("2024-06-14/", "2024-06-13/"), text(trade())).rule == "wrong_date"
    assert refusal(TRADES, text(trade())[:-20]).rule in ("ragged_row", "bad_number")
