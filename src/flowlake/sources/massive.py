"""Massive (formerly Polygon) flat files: option and stock trades, option quotes, minute and day bars.

Files are read by header name, because the column sets differ by year: only older option trades carry `participant_timestamp`,
and some files spell `Ticker` with a capital. Rows have no unique key, so all are kept, in the file's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.datasets import raw
from flowlake.datasets.batch import Batch, WholeTableNeededError
from flowlake.datasets.model import Dataset
from flowlake.sources import quote_rows, tape
from flowlake.sources.contracts import check_moments
from flowlake.sources.pieces import SHEET_BYTES, Dated, sheets
from flowlake.sources.table import as_declared, read_columns


def option_trades(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_option_trades` of one file; raises BadInputError (see `table.read_columns`) or `wrong_date`."""
    return _session_table(key, body, file_date, raw.MASSIVE_OPTION_TRADES, "sip_timestamp", ("participant_timestamp",))


def option_trade_batches(path: Path, file_date: date) -> Iterator[Batch]:
    """The same from a file on disk, in batches of the dataset's order, without holding it.

    Raises WholeTableNeededError, after batches were given too, where the file is not as plain as such files are: it may be right
    all the same, and `option_trades` tells.
    """
    return tape.option_trades(tape.pieces_of_file(path), file_date)


def option_quotes(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """All rows of the file, with the columns of `massive_option_quotes` but `kept_for`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_OPTION_QUOTES, "sip_timestamp")


def option_quote_pieces(path: Path, file_date: date, sheet_bytes: int = SHEET_BYTES) -> Iterator[pl.DataFrame]:
    """The same from a file on disk, some rows at a time, whatever their order.

    Raises WholeTableNeededError, after pieces were given too, where anything is wrong: `option_quotes` tells what.
    """
    day = Dated("sip_timestamp", file_date)
    rows = 0
    for sheet in sheets(tape.inflated(tape.pieces_of_file(path)), sheet_bytes):
        try:
            piece = quote_rows.read(sheet)
            if piece is None:
                piece = option_quotes(path.name, sheet, None)
        except BadInputError as error:
            raise WholeTableNeededError(f"in what follows row {rows:,}: {error}") from error
        yield day.checked(piece.with_columns(pl.col("row") + rows))
        rows += piece.height
    day.check()


def option_minute(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_option_minute`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_OPTION_MINUTE, "window_start")


def option_day(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_option_day`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_OPTION_DAY, "window_start")


def stock_trades(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_stock_trades`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_STOCK_TRADES, "sip_timestamp")


def stock_minute(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_stock_minute`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_STOCK_MINUTE, "window_start")


def stock_day(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `massive_stock_day`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_STOCK_DAY, "window_start")


def _session_table(
    key: str, body: bytes, file_date: date | None, dataset: Dataset, clock: str, optional: tuple[str, ...] = ()
) -> pl.DataFrame:
    frame = read_columns(key, body, dataset.columns, optional=optional)
    check_moments(key, frame.get_column(clock), file_date)
    return as_declared(frame, dataset)
