"""Cboe DataShop: option trades with the quote beside them, and end-of-day summaries.

Times are New York time. Trade files from before June 2022 go on with the quote of every exchange, a varying number of cells that
the header names once in braces; nothing reads them, so each line is cut before them.
"""

from __future__ import annotations

import re
from datetime import date

import polars as pl

from flowlake.datasets.model import Column, Dataset
from flowlake.datasets.raw_vendors import DATASHOP_OPTION_EOD, DATASHOP_OPTION_TRADES
from flowlake.sources.archive import single_file
from flowlake.sources.contracts import check_days, check_moments, ticker, with_new_york_moments
from flowlake.sources.table import as_declared, read_columns
from flowlake.sources.text import plain_text

_REGIONAL = b"number_of_exchanges"
_CALCS_OF_TRADES = ("trade_iv", "trade_delta", "canceled_trade_condition_id", "underlying_bid", "underlying_ask")
_CALCS_OF_EOD = ("implied_volatility_1545", "delta_1545", "gamma_1545")


def option_trades(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `datashop_option_trades` of one file, plain, gzipped or in a zip archive.

    Raises BadInputError (see `table.read_columns`, `archive.single_file`), `bad_time` and `wrong_date`.
    """
    text = _without_regional_quotes(plain_text(key, single_file(key, body)))
    columns = _as_text(DATASHOP_OPTION_TRADES, "quote_datetime")
    frame = with_new_york_moments(key, read_columns(key, text, columns, optional=_CALCS_OF_TRADES), "quote_datetime")
    check_moments(key, frame["quote_datetime"], file_date)
    return as_declared(_with_ticker(frame), DATASHOP_OPTION_TRADES)


def option_eod(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `datashop_option_eod` of one file, with or without the calculated columns; errors as `option_trades`."""
    columns = _as_text(DATASHOP_OPTION_EOD)
    frame = read_columns(key, single_file(key, body), columns, optional=_CALCS_OF_EOD)
    check_days(key, frame["quote_date"], file_date)
    return as_declared(_with_ticker(frame), DATASHOP_OPTION_EOD)


def _as_text(dataset: Dataset, *names: str) -> tuple[Column, ...]:
    """The columns that the file has; those in `names` are read as text."""
    return tuple(Column(c.name, pl.String(), c.doc) if c.name in names else c for c in dataset.columns if c.name != "ticker")


def _with_ticker(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(ticker(pl.col("root"), pl.col("expiration"), pl.col("option_type"), pl.col("strike")))


def _without_regional_quotes(text: bytes) -> bytes:
    header = text.split(b"\n", 1)[0].lower().split(b",")
    at = next((i for i, name in enumerate(header) if name.strip().startswith(_REGIONAL)), None)
    if at is None:
        return text
    kept = rb"^((?:[^,\n]*,){%d}[^,\n]*),[^\n]*$" % (at - 1)
    return re.sub(kept, rb"\1", text, flags=re.MULTILINE)
