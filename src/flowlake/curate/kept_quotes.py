"""Which quotes of a stream the lake keeps. A day of them is a hundred times the tape; what anybody asks of them is far less.

Three questions are asked: which contracts are quoted, which quote was in force at a print, and which was the last of the session.
So of each contract the first quote is kept, the last before each print, and the last at or before the close. Whoever asks is
answered by these as by the whole stream.

A quote is known to matter when the print comes: `kept_for` is the moment of that print, or just after the close, and that of a
first quote is its own. Before it the row is not to be seen, or its being there would tell of a print to come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import Int
from flowlake.core.sessions import close_utc
from flowlake.curate import _kept_quotes
from flowlake.curate.timestamps import nanoseconds
from flowlake.curate.vendors import PRINTS, first_present
from flowlake.datasets.model import Inputs
from flowlake.datasets.raw_columns import KEPT_FOR
from flowlake.datasets.sides import QUOTE_SOURCES, QuoteSource

_NEVER = np.iinfo(np.int64).max
_MANY_RUNS = 4
"""Rows that come with so many runs per contract are not sorted by it, and are sorted first."""


@dataclass(frozen=True)
class PrintTimes:
    """When the contracts of a session traded: `moments_ns[first : first + count]` of each ticker, ascending and distinct."""

    tickers: pl.DataFrame
    """ticker, first, count."""
    moments_ns: Int


def print_times(inputs: Inputs, session: date) -> PrintTimes:
    """Of the prints that will be curated: those of the first of `vendors.PRINTS` that `inputs` has."""
    source = first_present(inputs, PRINTS)
    schema = {"ticker": pl.String(), "sip_timestamp": pl.Int64()}
    prints = pl.DataFrame(schema=schema) if source is None else PRINTS[source](inputs[source], session).select(*schema)
    if not _is_sorted(prints):
        prints = prints.sort("ticker", "sip_timestamp")
    is_repeated = (pl.col("ticker") == pl.col("ticker").shift()) & (pl.col("sip_timestamp") == pl.col("sip_timestamp").shift())
    distinct = prints.filter(~is_repeated.fill_null(value=False))
    runs = distinct["ticker"].rle().struct.unnest()
    tickers = runs.select(pl.col("value").alias("ticker"), (pl.col("len").cum_sum() - pl.col("len")).alias("first"), count="len")
    return PrintTimes(tickers.cast({"first": pl.Int64(), "count": pl.Int64()}), distinct["sip_timestamp"].to_numpy())


def _is_sorted(prints: pl.DataFrame) -> bool:
    runs = prints["ticker"].rle().struct.field("value")
    descends = (pl.col("sip_timestamp") < pl.col("sip_timestamp").shift()) & (pl.col("ticker") == pl.col("ticker").shift())
    return runs.n_unique() == runs.len() and not prints.select(descends.any()).item()


@dataclass
class KeptQuotes:
    """The quotes worth keeping of those that were taken, in memory that grows with the prints and not with the quotes.

    Quotes may be taken in any order and in pieces of any size: what is kept does not depend on it.
    """

    source: QuoteSource
    prints: PrintTimes
    session: date
    compact_rows: int = 1_000_000
    """Rows that may be kept and are not decided, after which they are."""
    taken: int = 0
    _pieces: list[pl.DataFrame] = field(default_factory=list)
    _pending: int = 0
    _kept: int = 0

    @classmethod
    def of(cls, dataset: str, tapes: Inputs, session: date) -> KeptQuotes:
        """Those of a raw table of quotes, for the prints in the raw tapes."""
        source = next(source for source in QUOTE_SOURCES if source.dataset == dataset)
        return cls(source, print_times(tapes, session), session)

    def take(self, quotes: pl.DataFrame) -> None:
        """Rows of the raw table `source.dataset`, without `kept_for`."""
        self.taken += quotes.height
        found = self._chosen(quotes)
        self._pieces.append(found)
        self._pending += found.height
        if self._pending > max(self.compact_rows, self._kept):
            self._compact()

    def table(self) -> pl.DataFrame:
        """The rows kept so far, with `kept_for`. Raises ValueError where nothing was taken."""
        if not self._pieces:
            raise ValueError("no quotes were taken")
        self._compact()
        kept_for = pl.when(_is_first()).then(self.source.ts).otherwise(KEPT_FOR.name)
        return self._pieces[0].with_columns(kept_for.alias(KEPT_FOR.name))

    def _compact(self) -> None:
        """Of what may be kept, what is kept of all that was taken so far."""
        until, ticker = pl.col(KEPT_FOR.name), pl.col("ticker")
        is_last = (until != until.shift(-1)) | (ticker != ticker.shift(-1))
        rows = pl.concat(self._pieces).sort("ticker", self.source.ts, *self.source.order)
        rows = rows.filter(_is_first() | ((until != _NEVER) & is_last.fill_null(value=True)))
        self._pieces, self._pending, self._kept = [rows], 0, rows.height

    def _chosen(self, quotes: pl.DataFrame) -> pl.DataFrame:
        """The rows that may be kept, those of one time undecided; `kept_for` is the moment that follows, if any does."""
        runs = quotes["ticker"].rle().struct.unnest()
        if runs.height > _MANY_RUNS * max(runs["value"].n_unique(), 1):
            quotes = quotes.sort("ticker", maintain_order=True)
            runs = quotes["ticker"].rle().struct.unnest()
        traded = runs.join(self.prints.tickers, left_on="value", right_on="ticker", how="left", maintain_order="left")
        lengths, first, count = (traded[name].fill_null(0).cast(pl.Int64).to_numpy() for name in ("len", "first", "count"))
        until, is_kept = np.empty(quotes.height, np.int64), np.empty(quotes.height, np.bool_)
        ts_ns = quotes[self.source.ts].to_numpy()
        after_close_ns = nanoseconds(close_utc(self.session)) + 1
        _kept_quotes.keep(lengths, first, count, ts_ns, self.prints.moments_ns, after_close_ns, _NEVER, until, is_kept)
        return quotes.with_columns(pl.Series(KEPT_FOR.name, until)).filter(pl.Series(is_kept))


def _is_first() -> pl.Expr:
    """Of rows sorted by ticker: whether it is the first of its contract."""
    return (pl.col("ticker") != pl.col("ticker").shift()).fill_null(value=True)
