"""The underlying at the moment of an option price, from the best source that the session has."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.absent import present
from flowlake.datasets.model import UTC_NS, Inputs

MAX_AGE = timedelta(minutes=15)
"""A spot older than this is no spot: long enough for thinly traded stocks, short against a day's range."""
AT_CLOSE = timedelta(minutes=1)
"""A price this near to the close is at the close."""

_SOURCES = {
    "at_minute": "equity_bars_1m",
    "at_close": "equity_bars_1d",
    "at_quote": "vendor_snapshot",
    "at_parity": "parity_forward",
}


def with_spots(priced: pl.DataFrame, parity: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """`priced` with `spot` and `spot_source`; both null where no source has one.

    Reads `contract`, `underlying`, `ts_utc`, `price_source`, `quote_spot`; `parity` is `underlying`, `ts_utc`, `level`. In order:
    the minute bar that ended last, at most `MAX_AGE` before (of extended hours too, since options on funds trade past the
    close); the day's close, for a price at the close; the spot in the quote file; put-call parity.
    """
    rows = latest(latest(priced, minute_closes(inputs), "at_minute"), parity, "at_parity")
    day = present(inputs, "equity_bars_1d")
    closes = (
        pl.DataFrame(schema={"underlying": pl.String(), "at_close": pl.Float64()})
        if day is None
        else day.select("underlying", pl.col("close").alias("at_close"))
    )
    close = sessions.close_utc(session)
    first, last = (pl.lit(moment, dtype=UTC_NS) for moment in (close - AT_CLOSE, close + AT_CLOSE))
    rows = rows.join(closes, on="underlying", how="left").with_columns(
        pl.when(pl.col("ts_utc").is_between(first, last)).then(pl.col("at_close")).alias("at_close"),
        pl.when(pl.col("price_source") == "quote_mid").then(pl.col("quote_spot")).alias("at_quote"),
    )
    source = pl.coalesce(pl.when(pl.col(name).is_not_null()).then(pl.lit(label)) for name, label in _SOURCES.items())
    spotted = rows.with_columns(pl.coalesce(list(_SOURCES)).alias("spot"), source.alias("spot_source"))
    return spotted.drop(list(_SOURCES)).sort("contract")


def stood_at_close(session: date) -> pl.Expr:
    """Quotes of the last minute: the close is their spot, nearer than the minute bar that ended before them."""
    return pl.col("ts_utc") >= pl.lit(sessions.close_utc(session) - AT_CLOSE, dtype=UTC_NS)


def minute_closes(inputs: Inputs) -> pl.DataFrame:
    """`underlying`, `ts_utc` (the end of the minute), `level`."""
    bars = present(inputs, "equity_bars_1m")
    if bars is None:
        return pl.DataFrame(schema={"underlying": pl.String(), "ts_utc": UTC_NS, "level": pl.Float64()})
    return bars.select("underlying", pl.col("ts_utc").dt.offset_by("1m"), pl.col("close").alias("level"))


def latest(rows: pl.DataFrame, series: pl.DataFrame, name: str) -> pl.DataFrame:
    """`rows` with the last `level` of `series` at or before `ts_utc`, at most `MAX_AGE` old, as `name`; in order of `ts_utc`."""
    return rows.sort("ts_utc", maintain_order=True).join_asof(
        series.sort("ts_utc", "underlying").rename({"level": name}),
        on="ts_utc",
        by="underlying",
        strategy="backward",
        tolerance=MAX_AGE,
        check_sortedness=False,
    )
