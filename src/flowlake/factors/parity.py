"""What calls and puts that traded in the same minute say about their underlying: its spot, and its forward over its spot.

American options obey parity only nearly, and two trades of one minute can be seconds apart. So only pairs near the money count, and
only the median of many is used.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from flowlake.datasets.model import UTC_NS, Inputs
from flowlake.factors.carry import DAYS_PER_YEAR, rate_at
from flowlake.factors.prices import minute_prices

NEAR_MONEY = 0.05
"""Pairs count whose call and put differ by at most this share of the strike."""
SPOT_MAX_DAYS = 60
"""Expiries further out lean too much on the rate and on unknown dividends to give a spot."""
MIN_TRADED_PAIRS = 10
"""Pairs that an expiry needs for a forward of its own."""

_EXPIRY = ("underlying", "root", "expiry")


def traded_pairs(priced: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """A row per strike and minute in which a call and its put traded: `underlying`, `root`, `expiry`, `strike`, `ts_utc`,
    `discount`, and `level` = strike x discount + call - put, the spot less dividends ahead; with `dividends`.

    `priced` is the contract master with `dividends`.
    """
    schema = {
        "underlying": pl.String(),
        "root": pl.String(),
        "expiry": pl.Date(),
        "strike": pl.Float64(),
        "ts_utc": UTC_NS,
        "dividends": pl.Float64(),
        "discount": pl.Float64(),
        "level": pl.Float64(),
    }
    traded = minute_prices(inputs, session)
    if traded is None:
        return pl.DataFrame(schema=schema)
    key = (*_EXPIRY, "strike", "ts_utc")
    legs = traded.join(priced.filter(~pl.col("is_adjusted")).drop("price", "ts_utc"), on="contract")
    puts = legs.filter(pl.col("right") == "P").select(*key, pl.col("price").alias("put"))
    pairs = (
        legs.filter((pl.col("right") == "C") & (pl.col("expires_utc") > pl.col("ts_utc")))
        .join(puts, on=key)
        .filter((pl.col("price") - pl.col("put")).abs() <= NEAR_MONEY * pl.col("strike"))
        .sort(key)
    )
    years = (pairs["expires_utc"] - pairs["ts_utc"]).dt.total_seconds().to_numpy() / (86_400 * DAYS_PER_YEAR)
    rate, _ = rate_at(years, inputs)
    discounted = pairs.with_columns(pl.Series("discount", np.exp(-rate * years), dtype=pl.Float64()))
    level = pl.col("strike") * pl.col("discount") + pl.col("price") - pl.col("put")
    return discounted.with_columns(level.alias("level")).select(schema.keys())


def implied_spots(pairs: pl.DataFrame, session: date) -> pl.DataFrame:
    """`underlying`, `ts_utc`, `level`: the median spot of each minute's pairs."""
    near = pairs.filter(pl.col("expiry") <= session + timedelta(days=SPOT_MAX_DAYS))
    return near.group_by("underlying", "ts_utc").agg((pl.col("level") + pl.col("dividends")).median().alias("level"))


def implied_carries(pairs: pl.DataFrame, premiums: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `root`, `expiry`, `carry`: the median of forward / spot over at least `MIN_TRADED_PAIRS` pairs.

    `pairs` has `spot`, the underlying in the pair's minute; `premiums` is `early_exercise.exercise_premiums`.
    """
    ratio = (pl.col("level") - pl.col("premium")) / pl.col("discount") / pl.col("spot")
    return (
        with_premiums(pairs, premiums)
        .filter(pl.col("spot").is_not_null())
        .group_by(_EXPIRY)
        .agg(ratio.median().alias("carry"), pl.len().alias("pairs"))
        .filter((pl.col("pairs") >= MIN_TRADED_PAIRS) & (pl.col("carry") > 0))
        .drop("pairs")
    )


def with_premiums(pairs: pl.DataFrame, premiums: pl.DataFrame) -> pl.DataFrame:
    """`pairs` of calls and puts with `premium`, what early exercise makes the call dearer than the put; 0 where it is not known."""
    key = [*_EXPIRY, "strike"]
    return pairs.join(premiums, on=key, how="left", maintain_order="left").with_columns(pl.col("premium").fill_null(0.0))
