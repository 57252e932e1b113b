"""One spelling of contracts and dates for vendors that each have their own.

`ticker` makes `O:ROOTyymmddC00123000` of a vendor's fields, as curation expects it. Fields that make no option symbol (a root with
a blank, a strike that is no whole thousandth) become a readable text instead: curation rejects such rows one by one, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time, timedelta

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import at_et

MAX_STRIKE_THOUSANDTHS = 99_999_999
FIRST_DATE, LAST_DATE = date(1970, 1, 1), date(2099, 12, 31)
"""The two digits of the year in an option symbol, and nanoseconds in 64 bits, leave no more."""
MILLISECOND = 1_000_000
_FIXED_PART = 15
"""Characters of an OCC symbol after its root."""
_ROOT = r"^[A-Z0-9.]{1,9}$"
_CURE_VALUE = "correct the value in the file and publish it again under the same key"
_CURE_DATE = "put the file under the key of its own date, and fetch the right one"


def ticker(root: pl.Expr, expiry: pl.Expr, right: pl.Expr, strike: pl.Expr) -> pl.Expr:
    """The ticker of a contract. `expiry` is a Date, `right` starts with C or P in either case, `strike` is in dollars."""
    name = root.str.strip_chars().str.to_uppercase()
    side = right.str.strip_chars().str.to_uppercase()
    thousandths = (strike * 1000).round()
    possible = (
        name.str.contains(_ROOT)
        & side.is_in(["C", "P", "CALL", "PUT"])
        & expiry.is_not_null()
        & thousandths.is_between(1, MAX_STRIKE_THOUSANDTHS)
        & ((strike * 1000 - thousandths).abs() < 1e-6)
    )
    symbol = pl.concat_str(
        pl.lit("O:"),
        name,
        expiry.dt.strftime("%y%m%d"),
        side.str.head(1),
        thousandths.cast(pl.Int64, strict=False).cast(pl.String).str.zfill(8),
    )
    said = pl.concat_str(
        pl.lit("not a contract:"), root, expiry.cast(pl.String), right, strike.cast(pl.String), separator=" ", ignore_nulls=True
    )
    return pl.when(possible.fill_null(False)).then(symbol).otherwise(said).alias("ticker")


def ticker_of_occ(symbol: pl.Expr) -> pl.Expr:
    """The ticker of an OCC symbol, whose root is padded with blanks, to six characters or (in some files) to fewer."""
    return pl.concat_str(pl.lit("O:"), symbol.str.replace_all(" ", "", literal=True)).alias("ticker")


def confirmed_ticker(symbol: pl.Expr, expiry: pl.Expr, right: pl.Expr, strike: pl.Expr) -> pl.Expr:
    """The ticker of an OCC symbol beside which the file states expiry, right and strike; a readable text where they disagree."""
    named = ticker_of_occ(symbol)
    stated = ticker(symbol.str.head(-_FIXED_PART), expiry, right, strike)
    disagrees = pl.concat_str(pl.lit("not a contract:"), symbol, pl.lit("beside"), stated, separator=" ", ignore_nulls=True)
    return pl.when(named == stated).then(named).otherwise(disagrees).alias("ticker")


def with_dates(key: str, frame: pl.DataFrame, column: str, formats: Sequence[str], expected: str) -> pl.DataFrame:
    """`frame` with the text of `column` as dates, in the first of `formats` that gives a date of our age.

    Raises BadInputError `bad_date` for the first cell that fits none; `frame` has `row`, counted from the line after the header.
    """
    text = pl.col(column).str.strip_chars()
    tried = [text.str.to_date(form, strict=False) for form in formats]
    dates = pl.coalesce(pl.when(day.is_between(FIRST_DATE, LAST_DATE)).then(day) for day in tried)
    return _typed(key, frame, column, dates, "bad_date", f"not {expected}")


def with_new_york_moments(key: str, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """`frame` with the New York wall-clock times of `column` (`2024-03-05 09:30:00.123`) as nanoseconds since 1970, UTC.

    A null stays null. Raises BadInputError `bad_time` for the first cell that is no such time, or one that the change of clocks
    skips or repeats.
    """
    text = pl.col(column).str.strip_chars().str.replace("T", " ", literal=True)
    local = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False)
    zoned = local.dt.replace_time_zone("America/New_York", ambiguous="null", non_existent="null")
    sane = pl.when(local.dt.date().is_between(FIRST_DATE, LAST_DATE)).then(zoned.dt.epoch("ns"))
    return _typed(key, frame, column, sane, "bad_time", "no time in New York")


def with_moments(key: str, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """`frame` with the times of `column` as nanoseconds since 1970, UTC: milliseconds since 1970, or New York wall-clock times.

    The first cell tells which of the two the column has. A null stays null. Raises BadInputError `bad_time` for the first cell that
    is neither, or that no date of our age has.
    """
    cells = frame[column].drop_nulls()
    if not cells.len() or not cells.head(1).str.contains(r"^\s*-?\d+\s*$").item():
        return with_new_york_moments(key, frame, column)
    milliseconds = pl.col(column).str.strip_chars().cast(pl.Int64, strict=False)
    last = (LAST_DATE - FIRST_DATE).days * 86_400_000
    sane = pl.when(milliseconds.is_between(0, last)).then(milliseconds * MILLISECOND)
    return _typed(key, frame, column, sane, "bad_time", "no time in milliseconds since 1970")


def _typed(key: str, frame: pl.DataFrame, column: str, values: pl.Expr, rule: str, verdict: str) -> pl.DataFrame:
    """`frame` with `values` for the texts of `column`. BadInputError `rule` for the first text that has none; a null stays null."""
    typed = frame.with_columns(values.alias("_typed"))
    wrong = typed.filter(pl.col("_typed").is_null() & pl.col(column).is_not_null())
    if wrong.height:
        row = wrong["row"][0]
        what = f"line {row + 2}: column {column} holds {str(wrong[column][0])[:40]!r}, which is {verdict}"
        raise BadInputError(f"{key}, row {row}", rule, what, _CURE_VALUE)
    return typed.drop(column).rename({"_typed": column})


def midnight_ns(day: date) -> int:
    """Nanoseconds since 1970, UTC, at 00:00 New York of a date."""
    return int(at_et(day, time(0)).timestamp()) * 1_000_000_000


def rows_of_date(moments: pl.Series, day: date) -> int:
    """How many of `moments` (ns) lie in a date of New York."""
    return int(moments.is_between(midnight_ns(day), midnight_ns(day + timedelta(days=1)), closed="left").sum())


def check_moments(key: str, moments: pl.Series, file_date: date | None) -> None:
    """BadInputError `wrong_date` where most of `moments` (ns) lie outside the New York date of the key; a few strays are let be."""
    if file_date is None:
        return
    inside = rows_of_date(moments, file_date)
    if 2 * inside < moments.len():
        middle = pl.Series([moments.sort()[moments.len() // 2]]).cast(pl.Datetime("ns", "UTC"))
        seen = middle.dt.convert_time_zone("America/New_York").dt.date()[0]
        _refuse(key, moments.len() - inside, moments.len(), f"{file_date} in New York", seen)


def check_days(key: str, days: pl.Series, file_date: date | None) -> None:
    """BadInputError `wrong_date` where most of `days` are not the date of the key."""
    if file_date is None:
        return
    inside = int((days == file_date).sum())
    if 2 * inside < days.len():
        _refuse(key, days.len() - inside, days.len(), str(file_date), days.sort()[days.len() // 2])


def _refuse(key: str, outside: int, rows: int, expected: str, middle: object) -> None:
    what = f"{outside:,} of {rows:,} rows are not of {expected} (the middle row is of {middle})"
    raise BadInputError(key, "wrong_date", what, _CURE_DATE)
