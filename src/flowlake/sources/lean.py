"""Lean's factor files, map files and interest rate, turned into dated events.

A factor file has no header: date, price factor, split factor, raw close. The date is the last session *before* an event, and both
factors are cumulative from the end of the file, so every row contains the future. An event is therefore taken from two adjacent
rows, where the future cancels: the ratio of the factors of a row and of the next.
"""

from __future__ import annotations

from datetime import date
from fractions import Fraction

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.datasets.model import KNOWN_AT, Column
from flowlake.datasets.raw import LEAN_EVENTS, LEAN_INTEREST_RATE
from flowlake.sources.knowledge import midnight_et, next_session_after, next_session_at_nine
from flowlake.sources.table import read_bare_columns, read_columns
from flowlake.sources.text import plain_text

_FACTOR_STEP = 2e-7
"""Price factors are printed with seven decimals: a smaller change is rounding."""
_RATIO_STEP = 1e-5
"""A split ratio this close to 1, or to a ratio of small whole numbers, is that."""
_LARGEST_TERM = 100
_CASH_DECIMALS = 4
"""Seven decimals of a price factor carry the cash of a dividend to about a hundredth of a cent."""

_DAY = Column("day", pl.String(), "Date as YYYYMMDD.")
_FACTOR_COLUMNS = (
    _DAY,
    Column("price_factor", pl.Float64(), "Cumulative factor of dividends."),
    Column("split_factor", pl.Float64(), "Cumulative factor of splits."),
    Column("close", pl.Float64(), "Raw close.", unit="USD per share"),
)
_MAP_COLUMNS = (_DAY, Column("ticker", pl.String(), "Ticker up to and including the date."))
_MAP_EXCHANGE = Column("exchange", pl.String(), "Exchange code.", nullable=True)


def factor_events(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Splits and cash dividends of one factor file as rows of `lean_events` with `known_at_utc`.

    The underlying is the file's name in upper case. ex_date = next session after the row's date; split ratio = split factor of
    the next row / of this one; cash = raw close x (1 - price factor of this row / of the next), in dollars per share held before
    the event. Known at the ex-date 00:00 New York. Raises BadInputError (see `table.read_columns`), and `bad_number` for a factor
    that is not positive.
    """
    rows = _dated(key, read_bare_columns(key, body, _FACTOR_COLUMNS))
    wrong = rows.filter((pl.col("price_factor") <= 0) | (pl.col("split_factor") <= 0))
    if wrong.height:
        what = f"line {wrong['row'][0] + 1}: a factor is not above zero"
        raise BadInputError(f"{key}, row {wrong['row'][0]}", "bad_number", what, "take the file from its source again")
    ratio = pl.col("split_factor").shift(-1) / pl.col("split_factor")
    step = pl.col("price_factor").shift(-1) - pl.col("price_factor")
    cash = (pl.col("close") * (1 - pl.col("price_factor") / pl.col("price_factor").shift(-1))).round(_CASH_DECIMALS)
    steps = rows.with_columns(ratio.alias("ratio"), step.alias("step"), cash.alias("cash_amount_usd"))
    splits = steps.filter((pl.col("ratio") - 1).abs() > _RATIO_STEP).select(
        "date",
        pl.lit("split").alias("kind"),
        pl.col("ratio").map_elements(_simple_ratio, return_dtype=pl.Float64()),
        pl.lit(None, dtype=pl.Float64()).alias("cash_amount_usd"),
    )
    dividends = steps.filter((pl.col("step") > _FACTOR_STEP) & (pl.col("cash_amount_usd") > 0)).select(
        "date",
        pl.lit("cash_dividend").alias("kind"),
        pl.lit(None, dtype=pl.Float64()).alias("ratio"),
        "cash_amount_usd",
    )
    events = pl.concat([splits, dividends]).with_columns(
        pl.lit(_stem(key)).alias("underlying"), pl.lit(None, dtype=pl.String()).alias("new_symbol")
    )
    return _events(events)


def map_events(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Changes of ticker of one map file as `symbol_change` rows of `lean_events` with `known_at_utc`.

    A row gives the ticker up to its date; where the next row has another, that one holds from the next session. `underlying` is
    the ticker before. Known at the ex-date 00:00 New York. Raises BadInputError (see `table.read_columns`).
    """
    text = plain_text(key, body)
    columns = (*_MAP_COLUMNS, _MAP_EXCHANGE) if text.split(b"\n", 1)[0].count(b",") > 1 else _MAP_COLUMNS
    rows = _dated(key, read_bare_columns(key, text, columns))
    before = pl.col("ticker").str.strip_chars().str.to_uppercase()
    changes = rows.select("date", before.alias("underlying"), before.shift(-1).alias("new_symbol")).filter(
        pl.col("underlying") != pl.col("new_symbol")
    )
    none = pl.lit(None, dtype=pl.Float64())
    return _events(changes.with_columns(pl.lit("symbol_change").alias("kind"), none.alias("ratio"), none.alias("cash_amount_usd")))


def interest_rate(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `lean_interest_rate` (percent) with `known_at_utc`: 09:00 New York of the session after the change.

    Raises BadInputError (see `table.read_columns`), and `wrong_header` where the file does not have a date and one rate.
    """
    day, rate = LEAN_INTEREST_RATE.columns
    named = Column("pcredit8", rate.dtype, rate.doc, unit=rate.unit)
    frame = read_columns(key, body, (day, named)).rename({"pcredit8": rate.name})
    return next_session_at_nine(frame, "date").select(*LEAN_INTEREST_RATE.column_names, KNOWN_AT)


def _dated(key: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with `date`, in the order of their dates. Raises BadInputError: `bad_date`, `unsorted`."""
    dated = frame.with_columns(pl.col("day").str.strip_chars().str.to_date("%Y%m%d", strict=False).alias("date"))
    wrong = dated.filter(pl.col("date").is_null() | (pl.col("day").str.len_chars() != 8))
    if wrong.height:
        what = f"line {wrong['row'][0] + 1}: the date is {wrong['day'][0][:40]!r}, expected YYYYMMDD"
        raise BadInputError(f"{key}, row {wrong['row'][0]}", "bad_date", what, "take the file from its source again")
    if not dated.get_column("date").is_sorted():
        raise BadInputError(key, "unsorted", "the dates do not ascend", "take the file from its source again")
    return dated


def _simple_ratio(ratio: float) -> float:
    """The ratio of small whole numbers that rounded factors stand for, or `ratio` itself where there is none."""
    simple = Fraction(ratio if ratio > 1 else 1 / ratio).limit_denominator(_LARGEST_TERM)
    exact = float(simple) if ratio > 1 else float(1 / simple)
    return exact if abs(exact / ratio - 1) <= _RATIO_STEP else ratio


def _events(frame: pl.DataFrame) -> pl.DataFrame:
    dated = next_session_after(frame, "date", "ex_date").with_columns(
        pl.lit(None, dtype=LEAN_EVENTS.column("announced_at_utc").dtype).alias("announced_at_utc")
    )
    return dated.select(*LEAN_EVENTS.column_names, midnight_et("ex_date").alias(KNOWN_AT)).sort(LEAN_EVENTS.sort_by)


def _stem(key: str) -> str:
    name = key.rsplit("/", 1)[-1]
    return name.removesuffix(".gz").removesuffix(".csv").upper()
