"""Option bars from option prints, under the vendor's table of sale conditions.

Cancels (201, 203, 205, 207) and late prints (202, 204, 206) count for nothing; proprietary prints (246 to 248) count into
volume and transactions but not into prices; everything else counts. A cancel is a later message: the vendor does not
correct its bars, so the print that it cancels stays in them. A bar exists only where a print sets a price.
"""

from __future__ import annotations

import polars as pl

from flowlake.market.clock import NS_PER_MINUTE

NO_VOLUME_CONDITIONS = (201, 202, 203, 204, 205, 206, 207)
VOLUME_ONLY_CONDITIONS = (246, 247, 248)
BAR_COLUMNS = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")


def minute_bars(prints: pl.DataFrame) -> pl.DataFrame:
    """One-minute bars of prints (`ticker`, `condition`, `price_cents`, `size`, `sip_timestamp`), which are in time order."""
    minute = pl.col("sip_timestamp") // NS_PER_MINUTE * NS_PER_MINUTE
    return _bars(prints.with_columns(minute.alias("window_start")))


def day_bars(prints: pl.DataFrame, midnight_ns: int) -> pl.DataFrame:
    """Day bars of the same prints; `midnight_ns` is 00:00 New York."""
    return _bars(prints.with_columns(pl.lit(midnight_ns, dtype=pl.Int64).alias("window_start")))


def dollars(cents: pl.Series) -> pl.Series:
    """Cents as dollars, each the float nearest to the decimal: Polars multiplies by 0.01 here, which can miss it."""
    return pl.Series(cents.name, cents.to_numpy() / 100.0)


def _bars(prints: pl.DataFrame) -> pl.DataFrame:
    key = ["ticker", "window_start"]
    counted = prints.filter(~pl.col("condition").is_in(NO_VOLUME_CONDITIONS))
    priced = counted.filter(~pl.col("condition").is_in(VOLUME_ONLY_CONDITIONS))
    cents = pl.col("price_cents")
    prices = priced.group_by(key, maintain_order=True).agg(
        cents.first().alias("open"),
        cents.last().alias("close"),
        cents.max().alias("high"),
        cents.min().alias("low"),
    )
    volumes = counted.group_by(key, maintain_order=True).agg(
        pl.col("size").sum().alias("volume"), pl.len().cast(pl.Int64).alias("transactions")
    )
    bars = prices.join(volumes, on=key, how="left").sort(key)
    prices_usd = [dollars(bars[name]) for name in ("open", "close", "high", "low")]
    return bars.with_columns(prices_usd).select(BAR_COLUMNS)
