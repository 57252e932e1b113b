"""Real files whose traps lie in the text, and an account of every real file: what feeds the lake, and what does not fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from flowlake.datasets.model import Column
from flowlake.sources import feeds
from flowlake.sources.table import read_columns

STOCK_QUOTES = "us_stocks_sip/quotes_v1/2023/03/2023-03-28.csv.gz"

FEEDS = {
    "massive_option_trades": 1, "massive_option_quotes": 1, "massive_option_minute": 16, "massive_option_day": 17,
    "massive_stock_trades": 1, "massive_stock_minute": 18, "massive_stock_day": 2327,
    "cboe_snapshot": 50, "lean_events": 48, "lean_interest_rate": 1, "lean_option_quotes": 16, "lean_open_interest": 10,
    "lean_index_minute": 5, "lean_open_interest_daily": 3,
}  # fmt: skip
"""Raw dataset -> files of the real bucket whose key feeds it."""
NO_KEY = {
    "databento": "fixtures without a date in their name",
    "thetadata": "captures without a date in their name",
    "optionsuite_ivolatility": "a sample of two dates, and a file that must be refused",
    "riskalert": "pairs of call and put without a root",
    "option_volume": "volumes per underlying, adjusted for later splits",
    "lambdaclass_spy_2021": "a chosen subset of a chain, one file for a year",
    "cboe_snapshots": "daily series of two indexes",
    "gex_reference": "a published exposure to compare with",
    "us_stocks_sip": "stock quotes, which nothing reads and which are tens of GB a day",
    "vix-daily.csv": "a daily series of an index",
}
"""First part of a key that feeds nothing -> why."""


def test_every_real_file_feeds_the_lake_or_has_a_reason_not_to(real_data: Path) -> None:
    fed: Counter[str] = Counter()
    for path in real_data.rglob("*"):
        key = path.relative_to(real_data).as_posix()
        found = feeds.match(key)
        if found is not None:
            fed[found.feed.dataset.name] += 1
        elif path.is_file():
            assert key.split("/")[0] in NO_KEY, key
    assert dict(fed) == FEEDS


def test_the_reader_takes_real_stock_quotes_with_a_capital_ticker_zero_sides_and_crossed_rows(real_data: Path) -> None:
    names = ("ask_price", "ask_size", "bid_price", "bid_size")
    columns = [Column("ticker", pl.String(), "Ticker."), *(Column(name, pl.Float64(), "A number.") for name in names)]
    table = read_columns(STOCK_QUOTES, (real_data / STOCK_QUOTES).read_bytes(), columns)
    assert table.height == 99
    assert table["ticker"].unique().to_list() == ["MSFT"]
    assert (table["bid_price"] == 0).sum() == 2
    crossed = table.filter((pl.col("bid_price") > pl.col("ask_price")) & (pl.col("ask_price") > 0))
    assert crossed.height == 2
    assert "participant_timestamp" in table["extra"][0], "undeclared columns are kept"


@pytest.mark.parametrize(
    ("path", "columns", "rows"),
    [
        ("vix-daily.csv", ("open", "high", "low", "close"), 9235),
        ("gex_reference/squeezemetrics_dix_gex.csv", ("price", "dix", "gex"), 2182),
    ],
)
def test_the_reader_takes_real_files_with_carriage_returns(real_data: Path, path: str, columns: tuple[str, ...], rows: int) -> None:
    body = (real_data / path).read_bytes()
    assert b"\r\n" in body
    wanted = [Column("date", pl.String(), "Date."), *(Column(name, pl.Float64(), "A number.") for name in columns)]
    table = read_columns(path, body, wanted)
    assert table.height == rows
    assert not table["date"].str.contains("\r").any()
    for spelled in (body.replace(b"\r\n", b"\n"), body.replace(b"\r\n", b"\r"), b"\xef\xbb\xbf" + body):
        assert read_columns(path, spelled, wanted).equals(table)
