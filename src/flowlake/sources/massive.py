"""Massive (formerly Polygon) flat files: option and stock trades, option quotes, minute and day bars.

Files are read by header name, because the column sets differ by year: only older option trades carry `participant_timestamp`,
and some files spell `Ticker` with a capital. Rows have no unique key, so all are kept, in the file's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time, timedelta
from pathlib import Path

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import at_et
from flowlake.datasets import raw
from flowlake.datasets.batch import Batch
from flowlake.datasets.model import Dataset
from flowlake.sources import tape
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
    """Raw table `massive_option_quotes`; errors as `option_trades`."""
    return _session_table(key, body, file_date, raw.MASSIVE_OPTION_QUOTES, "sip_timestamp")


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
    if file_date is not None:
        _check_date(key, frame.get_column(clock), file_date)
    return as_declared(frame, dataset)


def _check_date(key: str, nanoseconds: pl.Series, file_date: date) -> None:
    """Refuse a file most of whose rows lie on another New York date; a few stray rows are left for curation."""
    first = _nanoseconds(file_date)
    after = _nanoseconds(file_date + timedelta(days=1))
    inside = int(((nanoseconds >= first) & (nanoseconds < after)).sum())
    if 2 * (nanoseconds.len() - inside) > nanoseconds.len():
        middle = int(nanoseconds.sort()[nanoseconds.len() // 2])
        dated = pl.Series([middle]).cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone("America/New_York").dt.date()[0]
        what = (
            f"{nanoseconds.len() - inside:,} of {nanoseconds.len():,} rows are not of {file_date} in New York "
            f"(the middle row is of {dated})"
        )
        raise BadInputError(key, "wrong_date", what, "put the file under the key of its own date, and fetch the right one")


def _nanoseconds(day: date) -> int:
    return int(at_et(day, time(0)).timestamp()) * 1_000_000_000
