"""One vendor per session for prints and bars, all of them for quotes and open interest, and who is asked in which order."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from flowlake.curate import vendors
from flowlake.datasets.raw import RAW
from flowlake.datasets.registry import DATASETS
from flowlake.pipeline.plan import producers
from flowlake.quality import gaps
from flowlake.sources import feeds
from flowlake.sources.contracts import midnight_ns
from unit.vendor_files import curated, published, raw_tables

DAY = date(2024, 6, 14)
TEN = midnight_ns(DAY) + 10 * 3_600 * 10**9
MASSIVE = "us_options_opra/trades_v1/2024/06/2024-06-14.csv"
MASSIVE_DAY = "us_options_opra/day_aggs_v1/2024/06/2024-06-14.csv"
THETA = "thetadata/option_history_trade_quote/2024/06/2024-06-14.csv"
THETA_DAY = "thetadata/option_history_eod/2024/06/2024-06-14.csv"
TICKER = "O:SPY240621C00500000"


def massive(size: int) -> bytes:
    return f"ticker,conditions,correction,exchange,price,sip_timestamp,size\n{TICKER},209,0,302,41.5,{TEN},{size}\n".encode()


def theta(size: int) -> bytes:
    header = "symbol,expiration,strike,right,trade_timestamp,quote_timestamp,sequence,condition,size,exchange,price"
    more = ",bid_size,bid_exchange,bid,bid_condition,ask_size,ask_exchange,ask,ask_condition"
    ms = TEN // 10**6
    return f"{header}{more}\nSPY,20240621,500,CALL,{ms},{ms},1,18,{size},5,41.5,1,5,41,50,1,5,42,50\n".encode()


def massive_day(volume: int) -> bytes:
    return f"ticker,volume,open,close,high,low,window_start,transactions\n{TICKER},{volume},1,1,1,1,{midnight_ns(DAY)},1\n".encode()


def theta_day(volume: int) -> bytes:
    header = "symbol,expiration,strike,right,timestamp,open,high,low,close,volume,count"
    quote = "bid_size,bid_exchange,bid,ask_size,ask_exchange,ask"
    return f"{header},{quote}\nSPY,20240621,500,CALL,{TEN // 10**6},2,2,2,2,{volume},3,1,5,1.9,1,5,2.1\n".encode()


def test_prints_come_from_the_first_vendor_that_has_the_session() -> None:
    both = raw_tables(DAY, (MASSIVE, massive(1)), (THETA, theta(2)))
    assert curated("option_trades", DAY, both)[0]["size"].to_list() == [1]
    other = {"thetadata_option_trades": both["thetadata_option_trades"]}
    table, findings = curated("option_trades", DAY, other)
    assert table["size"].to_list() == [2]
    assert findings == ()


def test_day_bars_come_from_the_first_vendor_that_has_the_session() -> None:
    both = raw_tables(DAY, (MASSIVE_DAY, massive_day(1)), (THETA_DAY, theta_day(2)))
    assert curated("option_bars_1d", DAY, both)[0]["volume"].to_list() == [1]
    table, _ = curated("option_bars_1d", DAY, {"thetadata_option_eod": both["thetadata_option_eod"]})
    assert table.select("volume", "transactions").row(0) == (2, 3)


def test_two_vendors_of_one_session_make_the_same_prints(real_data: Path) -> None:
    """The same prints written as another vendor writes them give the same table."""
    body = (real_data / "thetadata/option_history_trade_quote.csv").read_bytes()
    raw = raw_tables(DAY, (THETA, body))
    theirs, _ = curated("option_trades", DAY, raw)
    as_massive = vendors.PRINTS["thetadata_option_trades"](raw["thetadata_option_trades"], DAY)
    schema = DATASETS["massive_option_trades"]
    table = published(schema, as_massive.with_columns(extra=pl.lit(None, dtype=pl.String)), DAY)
    ours, _ = curated("option_trades", DAY, {"massive_option_trades": table})
    assert theirs.equals(ours)


def test_every_source_keeps_its_quotes_and_its_open_interest() -> None:
    header = "symbol,expiration,strike,right,timestamp,open_interest"
    interest = f"{header}\nSPY,20240621,500,CALL,{(midnight_ns(DAY) + 23_400 * 10**9) // 10**6},7\n".encode()
    house = f"ticker,open_interest\n{TICKER},9\n".encode()
    raw = raw_tables(
        DAY,
        ("thetadata/option_history_open_interest/2024/06/2024-06-14.csv", interest),
        ("reference/open_interest/2024/06/2024-06-14.csv", house),
    )
    table, _ = curated("open_interest", DAY, raw)
    assert sorted(table.select("source", "open_interest_close", "oi_session").rows()) == [
        ("open_interest_file", 9, DAY),
        ("thetadata_open_interest", 7, date(2024, 6, 13)),
    ]


@pytest.mark.parametrize(
    ("dataset", "order"),
    [
        ("option_trades", vendors.PRINTS),
        ("option_bars_1m", vendors.MINUTE_BARS),
        ("option_bars_1d", vendors.DAY_BARS),
        ("option_quotes_eod", {**vendors.QUOTE_STREAMS, **vendors.QUOTE_CHAINS}),
        ("open_interest", vendors.MORNING_OPEN_INTEREST),
        ("equity_bars_1m", vendors.INDEX_MINUTE_BARS),
    ],
)
def test_the_plan_and_the_gap_finder_know_every_source(dataset: str, order: dict[str, object]) -> None:
    step = producers()[dataset]
    read = {r.dataset for r in step.reads}
    assert set(order) <= read & set(step.any_of)
    if dataset in gaps.FEEDS:
        assert set(gaps.FEEDS[dataset]) == set(step.any_of)


def test_every_raw_table_of_a_vendor_has_keys_and_a_reader() -> None:
    fed = {feed.dataset.name for feed in feeds.FEEDS}
    assert {dataset.name for dataset in RAW} == fed
    contracts = {r.dataset for r in producers()["contracts"].reads}
    assert set(vendors.TICKER_SOURCES) <= contracts


def test_a_second_file_of_a_session_is_refused_unless_a_vendor_has_many() -> None:
    many = {feed.dataset.name for feed in feeds.FEEDS if feed.many}
    for name in many:
        assert "row" not in DATASETS[name].grain or len(DATASETS[name].grain) > 1, f"{name}: rows of two files would collide"
