"""End-of-day quotes and open interest."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flowlake.curate.contracts import contracts
from flowlake.curate.open_interest import open_interest
from flowlake.curate.quotes import option_quotes_eod
from flowlake.datasets.curated import CONTRACTS, OPEN_INTEREST, OPTION_QUOTES_EOD
from flowlake.datasets.model import Dataset, Inputs, Output
from flowlake.datasets.raw import CBOE_SNAPSHOT, MASSIVE_OPTION_QUOTES, OPEN_INTEREST_FILE

SESSION = date(2026, 6, 22)  # the Monday after the holiday of 19 June
CLOSE = datetime(2026, 6, 22, 20, tzinfo=UTC)
SPY = "O:SPY260717C00600000"


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def raw(dataset: Dataset, *rows: dict[str, Any]) -> pl.DataFrame:
    numbered = [{"row": i, **row} for i, row in enumerate(rows)]
    return pl.DataFrame(numbered, schema=dataset.polars_schema()).with_columns(session=pl.lit(SESSION))


def with_master(**inputs: pl.DataFrame) -> Inputs:
    return inputs | {"contracts": CONTRACTS.conform(contracts(inputs, SESSION).tables["contracts"], SESSION)}


def quotes(**inputs: pl.DataFrame) -> tuple[pl.DataFrame, Output]:
    output = option_quotes_eod(with_master(**inputs), SESSION)
    return OPTION_QUOTES_EOD.conform(output.tables["option_quotes_eod"], SESSION), output


def interest(**inputs: pl.DataFrame) -> tuple[pl.DataFrame, Output]:
    output = open_interest(with_master(**inputs), SESSION)
    return OPEN_INTEREST.conform(output.tables["open_interest"], SESSION), output


def rules(output: Output) -> dict[str, int]:
    return {finding.rule: finding.row_count for finding in output.findings}


def snapshot_row(strike: float = 7500.0, dte: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "underlying": "SPX",
        "strike": strike,
        "dte": dte,
        "cp": "C",
        "oi": 10,
        "gamma": 0.001,
        "delta": 0.5,
        "iv": 0.15,
        "bid": 12.0,
        "ask": 13.0,
        "spot": 7472.79,
        "captured_at": "2026-06-22 23:15:47",
        **more,
    }


def snapshot(*rows: dict[str, Any]) -> dict[str, pl.DataFrame]:
    return {"cboe_snapshot": raw(CBOE_SNAPSHOT, *rows)}


def quote_row(moment: datetime = CLOSE, **more: Any) -> dict[str, Any]:
    figures = {"ask_price": 1.2, "ask_size": 20.0, "bid_price": 1.1, "bid_size": 10.0}
    return {"ticker": SPY, "sip_timestamp": ns(moment), **figures, **more}


def feed(*rows: dict[str, Any]) -> dict[str, pl.DataFrame]:
    return {"massive_option_quotes": raw(MASSIVE_OPTION_QUOTES, *rows)}


def test_a_snapshot_row() -> None:
    table, output = quotes(**snapshot(snapshot_row()))
    assert output.findings == ()
    row = table.row(0, named=True)
    assert (row["contract"], row["underlying"], row["ts_utc"]) == ("SPXW260623C07500000", "SPX", CLOSE)
    assert (row["bid"], row["ask"], row["bid_size"], row["ask_size"]) == (12.0, 13.0, None, None)
    assert (row["spot"], row["vendor_iv"], row["vendor_delta"], row["vendor_gamma"]) == (7472.79, 0.15, 0.5, 0.001)
    assert (row["root_is_inferred"], row["source"]) == (False, "cboe_snapshot")
    assert row["known_at_utc"] == CLOSE + timedelta(minutes=15)


def test_an_absent_side_is_null_and_so_is_an_absent_volatility() -> None:
    rows = [
        snapshot_row(7400.0, bid=0.0, iv=0.0, spot=0.0),
        snapshot_row(7500.0, ask=0.0),
        snapshot_row(7600.0, bid=0.0, ask=0.0),
    ]
    table, output = quotes(**snapshot(*rows))
    assert table.select("bid", "ask").rows() == [(None, 13.0), (12.0, None), (None, None)]
    assert table["vendor_iv"].to_list() == [None, 0.15, 0.15]
    assert table["spot"][0] is None
    assert output.findings == ()


def test_crossed_and_negative_quotes_are_rejected() -> None:
    rows = [snapshot_row(7400.0, bid=14.0), snapshot_row(7500.0, bid=-1.0), snapshot_row(7600.0, bid=13.0)]
    table, output = quotes(**snapshot(*rows))
    assert table["strike"].to_list() == [7600.0]
    assert rules(output) == {"price_negative": 1, "crossed_quote": 1}
    assert all(finding.kind == "rejected" for finding in output.findings)


def test_both_roots_of_a_shared_date_are_kept_and_marked() -> None:
    rows = [snapshot_row(dte=25, bid=99.0, ask=100.0), snapshot_row(dte=1), snapshot_row(dte=25, bid=101.0, ask=102.0)]
    table, output = quotes(**snapshot(*rows))
    assert table.select("contract", "bid", "root_is_inferred").rows() == [
        ("SPX260717C07500000", 99.0, True),
        ("SPXW260623C07500000", 12.0, False),
        ("SPXW260717C07500000", 101.0, True),
    ]
    assert rules(output) == {"root_inferred": 2}


def test_vix_roots_follow_from_the_calendar() -> None:
    rows = [snapshot_row(20.0, dte, underlying="VIX") for dte in (30, 2)]
    table, _ = quotes(**snapshot(*rows))
    assert table.select("contract", "root_is_inferred").rows() == [
        ("VIX260722C00020000", False),
        ("VIXW260624C00020000", False),
    ]


def test_a_capture_before_the_close_keeps_its_time_and_is_noted() -> None:
    table, output = quotes(**snapshot(snapshot_row(captured_at="2026-06-22 12:50:21")))
    assert table["ts_utc"].item() == datetime(2026, 6, 22, 12, 50, 21, tzinfo=UTC)
    assert rules(output) == {"captured_before_close": 1}


def test_the_last_quote_at_or_before_the_close_counts() -> None:
    rows = [
        quote_row(CLOSE - timedelta(seconds=2), bid_price=1.0),
        quote_row(CLOSE, bid_price=0.0),
        quote_row(CLOSE + timedelta(seconds=1), bid_price=1.15),
    ]
    table, output = quotes(**feed(*rows))
    assert output.findings == ()
    row = table.row(0, named=True)
    assert (row["contract"], row["ts_utc"]) == ("SPY260717C00600000", CLOSE)
    assert (row["bid"], row["bid_size"], row["ask"], row["ask_size"]) == (None, None, 1.2, 20.0)
    assert row["source"] == "massive_option_quotes"


def test_the_sequence_number_orders_quotes_of_one_moment() -> None:
    rows = [quote_row(sequence_number=7, bid_price=1.05), quote_row(sequence_number=6, bid_price=1.15)]
    assert quotes(**feed(*rows))[0]["bid"].item() == 1.05


def test_quotes_of_another_day_crossed_or_impossible_are_rejected() -> None:
    rows = [
        quote_row(CLOSE - timedelta(days=1)),
        quote_row(ticker="O:SPY260717C00610000", bid_price=1.3),
        quote_row(ticker="junk"),
    ]
    table, output = quotes(**feed(*rows))
    assert table.height == 0
    assert rules(output) == {"impossible_contract": 1, "outside_session_date": 1, "crossed_quote": 1}


def test_sources_stand_side_by_side_and_none_gives_an_empty_table() -> None:
    table, _ = quotes(**snapshot(snapshot_row()), **feed(quote_row()))
    assert table["source"].to_list() == ["cboe_snapshot", "massive_option_quotes"]
    assert quotes()[0].height == 0


def test_open_interest_of_the_house_file_holds_at_this_close() -> None:
    table, output = interest(open_interest_file=raw(OPEN_INTEREST_FILE, {"ticker": SPY, "open_interest": 120.0}))
    row = table.row(0, named=True)
    assert output.findings == ()
    assert (row["oi_session"], row["open_interest_close"]) == (SESSION, 120)
    assert row["known_at_utc"] == datetime(2026, 6, 23, 10, 30, tzinfo=UTC)
    assert (row["root_is_inferred"], row["source"]) == (False, "open_interest_file")


def test_open_interest_of_a_snapshot_holds_at_the_close_before_over_holidays() -> None:
    table, output = interest(**snapshot(snapshot_row(oi=33, bid=14.0)))
    row = table.row(0, named=True)
    assert output.findings == ()  # a crossed quote says nothing about the open interest
    assert (row["oi_session"], row["open_interest_close"]) == (date(2026, 6, 18), 33)
    assert row["known_at_utc"] == datetime(2026, 6, 22, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize("count", [-1.0, 0.5, float("nan")])
def test_open_interest_that_is_no_count_is_rejected(count: float) -> None:
    table, output = interest(open_interest_file=raw(OPEN_INTEREST_FILE, {"ticker": SPY, "open_interest": count}))
    assert table.height == 0
    assert rules(output) == {"open_interest_no_count": 1}


def test_repeated_open_interest() -> None:
    rows = [{"ticker": SPY, "open_interest": 1.0}] * 2 + [
        {"ticker": "O:SPY260717P00600000", "open_interest": n} for n in (1.0, 2.0)
    ]
    table, output = interest(open_interest_file=raw(OPEN_INTEREST_FILE, *rows))
    assert table["contract"].to_list() == ["SPY260717C00600000"]
    assert rules(output) == {"repeated_row": 2, "contradictory_rows": 2}


def test_without_any_source_there_is_no_open_interest() -> None:
    assert interest()[0].height == 0
