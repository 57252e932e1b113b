"""iVolatility end-of-day chains.

Dates are M/D/YYYY or M/D/YY. Line endings are LF, CRLF or a bare CR, and some files begin with a byte order mark.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.datasets.model import Column
from flowlake.datasets.raw_vendors import IVOLATILITY_EOD
from flowlake.sources.contracts import check_days, confirmed_ticker, with_dates
from flowlake.sources.table import as_declared, read_columns

_DATES = ("date", "option_expiration")
_SPELLED = {"call_put": "call/put"}
_MADE = frozenset({"ticker", "source_file"})


def option_eod(key: str, body: bytes, file_date: date | None) -> pl.DataFrame:
    """Raw table `ivolatility_eod` of one file.

    The contract is the file's OCC symbol; a row whose own expiry, right or strike disagree with it is left for curation to reject.
    Raises BadInputError (see `table.read_columns`), `bad_date` and `wrong_date`.
    """
    columns = [
        Column(_SPELLED.get(c.name, c.name), pl.String() if c.name in _DATES else c.dtype, c.doc, nullable=c.nullable)
        for c in IVOLATILITY_EOD.columns
        if c.name not in _MADE
    ]
    frame = read_columns(key, body, columns).rename({theirs: ours for ours, theirs in _SPELLED.items()})
    for name in _DATES:
        frame = with_dates(key, frame, name, ("%m/%d/%Y", "%m/%d/%y"), "a date M/D/YYYY or M/D/YY")
    check_days(key, frame["date"], file_date)
    contract = confirmed_ticker(pl.col("option_symbol"), pl.col("option_expiration"), pl.col("call_put"), pl.col("strike"))
    return as_declared(frame.with_columns(contract, pl.lit(key).alias("source_file")), IVOLATILITY_EOD)
