"""OCC contract symbols: vendor ticker `O:ROOTyymmddC00123000` to fields and back.

The fixed part is the last 15 characters, so a root may itself end in digits (adjusted contracts).
Source: OCC symbology (21 characters with a padded root); data vendors leave the blanks out.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from flowlake.curate import _symbols
from flowlake.curate.expiries import FIRST_EXPIRY, LAST_EXPIRY

VENDOR_PREFIX = "O:"
MAX_STRIKE_THOUSANDTHS = 99_999_999
CONTRACT_FIELDS = {
    "contract": pl.String(),
    "root": pl.String(),
    "expiry": pl.Date(),
    "right": pl.String(),
    "strike": pl.Float64(),
    "strike_thousandths": pl.Int64(),
}


_RIGHTS = pl.Series(["C", "P"])
_PROBLEMS = (
    None,
    "not of the form O:ROOTyymmddC00123000",
    "the expiry is no date",
    "the expiry lies outside the trading calendar",
    "the strike is 0",
)


def parse_tickers(tickers: pl.Series) -> pl.DataFrame:
    """One row per distinct ticker, in order: `ticker`, the contract's fields, and `problem`.

    Where a ticker names no possible contract `problem` says why and the fields are null.
    """
    return fields_of(tickers.alias("ticker").cast(pl.String).unique().sort())


def fields_of(tickers: pl.Series) -> pl.DataFrame:
    """The same with a row for every ticker, as they come."""
    ends, text = _bytes_of(tickers.fill_null("") if tickers.null_count() else tickers)
    count = tickers.len()
    expiry, is_put, problem = (np.zeros(count, np.int32) for _ in range(3))
    thousandths = np.zeros(count, np.int64)
    roots, contracts = (np.empty(text.size, np.uint8) for _ in range(2))
    root_ends, contract_ends = (np.zeros(count + 1, np.int64) for _ in range(2))
    first, last = ((limit - date(1970, 1, 1)).days for limit in (FIRST_EXPIRY, LAST_EXPIRY))
    numbers = (expiry, is_put, thousandths, problem)
    _symbols.taken_apart(ends, text, first, last, *numbers, roots, root_ends, contracts, contract_ends)
    is_impossible = None if not problem.any() else problem != _symbols.POSSIBLE
    columns = (
        _texts_of(contract_ends, contracts),
        _texts_of(root_ends, roots),
        pl.Series(expiry).cast(pl.Date),
        _RIGHTS[is_put],
        pl.Series(thousandths / 1000),
        pl.Series(thousandths),
    )
    blank = [column if is_impossible is None else column.set(pl.Series(is_impossible), None) for column in columns]
    named = [column.alias(name) for name, column in zip(CONTRACT_FIELDS, blank, strict=True)]
    return pl.DataFrame([tickers.alias("ticker"), *named, pl.Series("problem", _PROBLEMS, pl.String)[problem]])


def _bytes_of(texts: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text ends in the bytes of all, which begin at 0."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, data = array.buffers()
    held = np.frombuffer(ends, np.int64, len(array) + 1, 8 * array.offset)
    return held, np.frombuffer(data or b"", np.uint8)


def _texts_of(ends: NDArray[np.int64], data: NDArray[np.uint8]) -> pl.Series:
    return pl.Series(pa.LargeStringArray.from_buffers(ends.size - 1, pa.py_buffer(ends), pa.py_buffer(data)))


def contract_symbol(root: pl.Expr, expiry: pl.Expr, right: pl.Expr, strike_thousandths: pl.Expr) -> pl.Expr:
    """The OCC symbol without blanks; null where a field is null."""
    return pl.concat_str(
        root,
        expiry.dt.strftime("%y%m%d"),
        right,
        strike_thousandths.cast(pl.String).str.zfill(8),
    )


def contract_of_ticker(ticker: str = "ticker") -> pl.Expr:
    """The contract that a vendor ticker names. It is only valid if the contract master has it."""
    return pl.col(ticker).str.strip_prefix(VENDOR_PREFIX)
