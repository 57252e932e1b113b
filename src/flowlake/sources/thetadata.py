"""ThetaData responses as CSV: trades (with the quote before each), end-of-day reports, open interest.

A response is about one contract or chain, so a session has many files. Times are milliseconds since 1970, UTC, or New York times
such as `2024-06-14T09:30:00.123`. Dates come as `2024-06-21` or `20240621`. Ids of exchanges and conditions are ThetaData's own and
stay so here; curation translates them.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.datasets.model import Column, Dataset
from flowlake.datasets.raw_vendors import THETADATA_OPEN_INTEREST, THETADATA_OPTION_EOD, THETADATA_OPTION_TRADES
from flowlake.sources.contracts import check_moments, ticker, with_dates, with_moments
from flowlake.sources.table import as_declared, read_columns
from flowlake.sources.text import plain_text

_AS_TEXT = frozenset({"expiration", "trade_timestamp", "quote_timestamp", "timestamp"})
_MADE = frozenset({"ticker", "source_file"})
_QUOTE = ("bid_size", "bid_exchange", "bid", "bid_condition", "ask_size", "ask_exchange", "ask", "ask_condition")
_EXTENDED = ("ext_condition1", "ext_condition2", "ext_condition3", "ext_condition4")
_GREEKS = ("implied_vol", "delta", "gamma", "underlying_price")


def option_trades(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `thetadata_option_trades` of one response: trade_quote, trade or trade_greeks.

    A response without quotes calls the time of the trade `timestamp`. Raises BadInputError (see `table.read_columns`), `bad_date`,
    `bad_time` and `wrong_date`.
    """
    text = plain_text(key, body)
    has_quotes = "trade_timestamp" in _names(text)
    clock = {} if has_quotes else {"trade_timestamp": "timestamp"}
    optional = _EXTENDED if has_quotes else (*_EXTENDED, "quote_timestamp", *_QUOTE)
    frame = _read(key, text, THETADATA_OPTION_TRADES, optional, clock)
    return _finished(key, frame, THETADATA_OPTION_TRADES, file_date, "trade_timestamp", "quote_timestamp")


def option_eod(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `thetadata_option_eod` of one response, with or without greeks; errors as `option_trades`.

    Without greeks the time of the last trade is called `last_trade`.
    """
    text = plain_text(key, body)
    clock = {"timestamp": "last_trade"} if "last_trade" in _names(text) else {}
    frame = _read(key, text, THETADATA_OPTION_EOD, (*_GREEKS, "bid_condition", "ask_condition"), clock)
    return _finished(key, frame, THETADATA_OPTION_EOD, file_date, "timestamp")


def open_interest(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `thetadata_open_interest` of one response; errors as `option_trades`."""
    return _finished(key, _read(key, body, THETADATA_OPEN_INTEREST, (), {}), THETADATA_OPEN_INTEREST, file_date, "timestamp")


def _names(text: bytes) -> set[str]:
    header = text.split(b"\n", 1)[0].decode("utf-8").lower()
    return {name.strip(' "') for name in header.split(",")}


def _read(key: str, body: bytes, dataset: Dataset, optional: tuple[str, ...], spelled: dict[str, str]) -> pl.DataFrame:
    """The file's columns under our names; `spelled` gives the file's name where it differs."""
    columns = [
        Column(spelled.get(c.name, c.name), pl.String() if c.name in _AS_TEXT else c.dtype, c.doc, nullable=c.nullable)
        for c in dataset.columns
        if c.name not in _MADE
    ]
    return read_columns(key, body, columns, optional=optional).rename({theirs: ours for ours, theirs in spelled.items()})


def _finished(key: str, frame: pl.DataFrame, dataset: Dataset, file_date: date | None, *clocks: str) -> pl.DataFrame:
    dated = with_dates(key, frame, "expiration", ("%Y-%m-%d", "%Y%m%d"), "a date YYYY-MM-DD or YYYYMMDD")
    for clock in clocks:
        dated = with_moments(key, dated, clock)
    # A contract that did not trade has no time, or one of another day.
    traded = dated.filter(pl.col("volume") > 0) if "volume" in dated.columns else dated
    check_moments(key, traded[clocks[0]], file_date)
    contract = ticker(pl.col("symbol"), pl.col("expiration"), pl.col("right"), pl.col("strike"))
    return as_declared(dated.with_columns(contract, pl.lit(key).alias("source_file")), dataset)
