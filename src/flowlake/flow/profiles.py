"""What later sessions measure theirs against: an underlying's premium by minute, and histograms of its packets."""

from __future__ import annotations

import polars as pl

from flowlake.datasets.flow_factors import BINS_PER_E

CENT = 100
"""Ten-thousandths of a dollar."""
_LISTS = ("minutes", "minute_premium_cents", "premium_bins", "premium_counts", "size_bins", "size_counts")


def flow_profiles(minutes: pl.DataFrame, packets: pl.DataFrame | None) -> pl.DataFrame:
    """The table `flow_profiles`. `minutes` as `minute_sums` gives them; lists are empty where there is nothing."""
    clock = pl.col("ts_utc").dt.convert_time_zone("America/New_York")
    of_day = clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()
    # The evening before a session stands last in the day, where it adds to no minute of the regular hours.
    rows = (
        minutes.with_columns(of_day.alias("minutes"), (pl.col("premium") // CENT).alias("minute_premium_cents"))
        .sort("underlying", "minutes", "ts_utc")
        .group_by("underlying", "minutes", maintain_order=True)
        .agg(pl.col("minute_premium_cents").sum())
        .group_by("underlying", maintain_order=True)
        .agg("minutes", "minute_premium_cents")
    )
    if packets is not None:
        for what, column in (("premium", "premium_usd"), ("size", "size")):
            rows = rows.join(_histogram(packets, what, column), on="underlying", how="left")
    empty = pl.lit([], dtype=pl.List(pl.Int64))
    absent = [empty.alias(name) for name in _LISTS if name not in rows.columns]
    filled = rows.with_columns(*absent, pl.lit(1, dtype=pl.Int64).alias("unit_contracts"))
    return filled.with_columns(pl.col(name).fill_null(empty) for name in _LISTS).sort("underlying")


def log_bin(value: pl.Expr) -> pl.Expr:
    """The bin of a positive number."""
    return (value.log() * BINS_PER_E).floor().cast(pl.Int64)


def _histogram(packets: pl.DataFrame, what: str, column: str) -> pl.DataFrame:
    bins, counts = f"{what}_bins", f"{what}_counts"
    return (
        packets.select("underlying", log_bin(pl.col(column)).alias(bins))
        .group_by("underlying", bins)
        .agg(pl.len().cast(pl.Int64).alias(counts))
        .sort("underlying", bins)
        .group_by("underlying", maintain_order=True)
        .agg(bins, counts)
    )
