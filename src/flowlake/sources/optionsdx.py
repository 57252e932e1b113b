"""OptionsDX end-of-day chains, one file per underlying and month.

Column names stand in brackets with blanks before them. One row holds a call and a put, which become two rows here. The file names
no root: it is the folder that the file lies in. Blanks occur in every figure, and sizes are written `10 x 12`.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

import polars as pl

from flowlake.core.errors import BadInputError
from flowlake.core.sessions import close_utc, is_session
from flowlake.datasets.model import KNOWN_AT, UTC_NS, Column
from flowlake.datasets.raw_vendors import OPTIONSDX_EOD
from flowlake.sources.contracts import ticker, with_dates
from flowlake.sources.table import read_columns
from flowlake.sources.text import plain_text

_FIGURES = ("bid", "ask", "last", "volume", "iv", "delta", "gamma", "theta", "vega", "rho")
_NEEDED = ("bid", "ask", "volume", "iv")
_SIZE = r"^\s*(\d+)\s*x\s*(\d+)\s*$"
_SECOND = 1_000_000_000
_SIDES = ("c", "p")
_MONTH = re.compile(r"\d{6}")
AFTER_CLOSE = timedelta(minutes=15)


def _columns() -> tuple[list[Column], list[str]]:
    """The columns of a row, and the names of those that may be missing."""
    shared = [
        Column("quote_unixtime", pl.Int64(), "Seconds since 1970."),
        Column("quote_date", pl.String(), "Session."),
        Column("underlying_last", pl.Float64(), "Last price of the underlying.", nullable=True),
        Column("expire_date", pl.String(), "Expiration date."),
        Column("strike", pl.Float64(), "Strike."),
    ]
    sides = [Column(f"{s}_{name}", pl.Float64(), "A figure.", nullable=True) for s in _SIDES for name in _FIGURES]
    sizes = [Column(f"{s}_size", pl.String(), "Sizes.", nullable=True) for s in _SIDES]
    optional = [c.name for c in (*sides, *sizes) if c.name[2:] not in _NEEDED]
    return [*shared, *sides, *sizes], optional


def option_eod(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """The whole of `optionsdx_eod` of one file, with `known_at_utc`; the root is the folder that the file lies in.

    Raises BadInputError (see `table.read_columns`), `bad_date`, `bad_number` for a size of another form, and `wrong_date` where a
    row is not of the month in the key, or of no session.
    """
    columns, optional = _columns()
    frame = read_columns(key, _plain_header(plain_text(key, body)), columns, optional=optional)
    for name in ("quote_date", "expire_date"):
        frame = with_dates(key, frame, name, ("%Y-%m-%d",), "a date YYYY-MM-DD")
    _check_month(key, frame)
    root = key.rsplit("/", 2)[-2].upper()
    both = pl.concat(_side(key, frame, side) for side in _SIDES).with_columns(
        pl.col("quote_unixtime") * _SECOND, pl.lit(key).alias("source_file")
    )
    named = both.with_columns(ticker(pl.lit(root), pl.col("expire_date"), pl.col("right"), pl.col("strike")))
    table = named.sort("row", "right").select(OPTIONSDX_EOD.column_names)
    closes = {day: close_utc(day) for day in table["quote_date"].unique().sort()}
    known = pl.col("quote_date").replace_strict(closes, return_dtype=UTC_NS) + AFTER_CLOSE
    return table.with_columns(known.alias(KNOWN_AT))


def _check_month(key: str, frame: pl.DataFrame) -> None:
    month = _MONTH.findall(key)[-1]
    outside = [day for day in frame["quote_date"].unique() if f"{day:%Y%m}" != month or not is_session(day)]
    wrong = frame.filter(pl.col("quote_date").is_in(pl.Series(outside, dtype=pl.Date).implode()))
    if wrong.height:
        row = wrong["row"][0]
        what = f"line {row + 2}: {wrong['quote_date'][0]} is no session of {month[:4]}-{month[4:]}, which the key names"
        raise BadInputError(f"{key}, row {row}", "wrong_date", what, "put the file under the key of its own month")


def _plain_header(text: bytes) -> bytes:
    """The text with `QUOTE_DATE` for ` [QUOTE_DATE]` in its first line, and no blank before a cell."""
    header, _, rows = text.partition(b"\n")
    return header.replace(b"[", b"").replace(b"]", b"").replace(b" ", b"") + b"\n" + rows.replace(b", ", b",")


def _side(key: str, frame: pl.DataFrame, side: str) -> pl.DataFrame:
    """The rows of the calls or of the puts, under the names that both share."""
    size = pl.col(f"{side}_size").str.extract_groups(_SIZE)
    wrong = frame.filter(pl.col(f"{side}_size").str.strip_chars().ne("") & size.struct[0].is_null())
    if wrong.height:
        row = wrong["row"][0]
        what = f"line {row + 2}: column {side}_size holds {wrong[f'{side}_size'][0][:40]!r}, which is not of the form '10 x 12'"
        raise BadInputError(f"{key}, row {row}", "bad_number", what, "correct the value in the file")
    return frame.select(
        "quote_unixtime",
        "quote_date",
        "underlying_last",
        "expire_date",
        "strike",
        pl.lit(side.upper()).alias("right"),
        *(pl.col(f"{side}_{name}").alias(name) for name in _FIGURES),
        size.struct[0].cast(pl.Float64).alias("bid_size"),
        size.struct[1].cast(pl.Float64).alias("ask_size"),
        "row",
        "extra",
    )
