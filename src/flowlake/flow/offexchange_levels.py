"""Off-exchange volume by price level, with levels as wide as the ticks of the stock allow."""

from __future__ import annotations

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets.offexchange import LEVEL_RANGE, LEVEL_SHARE, MILLIONTHS, TEN_THOUSANDTHS, decimal

MIN_LEVELS = 5


def level_width(price: Float) -> Int:
    """Width of a price level in millionths of a dollar: `LEVEL_SHARE` of the price in ticks, rounded up to 1, 2 or 5 x 10^k."""
    tick = np.where(price >= 1.0, 10_000, 100)
    ticks = np.maximum(price * LEVEL_SHARE * MILLIONTHS / tick, 1.0)
    power = np.power(10.0, np.floor(np.log10(ticks) + 1e-12))
    step = np.select([ticks <= power * (1 + 1e-9), ticks <= 2 * power, ticks <= 5 * power], [1, 2, 5], 10)
    return np.asarray(np.rint(step * power) * tick, dtype=np.int64)


def levels(prints: pl.DataFrame, shares: Int, dollars: Int, side: Int, is_block: Bool) -> pl.DataFrame:
    frame = prints.with_columns(
        pl.Series("shares", shares), pl.Series("dollars", dollars), pl.Series("side", side), pl.Series("block", is_block)
    ).filter("has_current_price")
    middles = frame.group_by("underlying").agg(pl.col("price").median().alias("middle")).sort("underlying")
    middles = middles.with_columns(pl.Series("width", level_width(middles["middle"].to_numpy())))
    millionths = (pl.col("price") * MILLIONTHS).round().cast(pl.Int64)
    placed = (
        frame.join(middles, on="underlying", how="left", maintain_order="left")
        .filter((pl.col("price") / pl.col("middle")).log().abs() <= LEVEL_RANGE)
        .with_columns(level=(millionths + pl.col("width") // 2) // pl.col("width") * pl.col("width"))
    )
    key = ["underlying", "level", "width"]
    total = pl.col("shares")
    found = (
        placed.group_by(key)
        .agg(
            total.sum(),
            pl.col("dollars").sum(),
            pl.len().cast(pl.Int64).alias("prints"),
            total.filter("block").sum().alias("block"),
            total.filter(pl.col("side") > 0).sum().alias("buy"),
            total.filter(pl.col("side") < 0).sum().alias("sell"),
            total.max().alias("largest"),
        )
        .filter((pl.col("level") > 0) & (total > 0))
        .sort(key)
    )
    whole, many = total.sum().over("underlying"), pl.len().over("underlying") >= MIN_LEVELS
    return found.with_columns(
        decimal("level_price", found["level"], MILLIONTHS),
        decimal("level_width", found["width"], MILLIONTHS),
        decimal("volume", found["shares"], MILLIONTHS),
        decimal("notional_usd", found["dollars"], TEN_THOUSANDTHS),
        *(decimal(f"{name}_volume", found[name], MILLIONTHS) for name in ("block", "buy", "sell")),
        (total / whole).alias("volume_share"),
        (pl.col("largest") / total).alias("largest_print_share"),
        pl.when(many).then(total / total.median().over("underlying")).alias("times_median"),
    )
