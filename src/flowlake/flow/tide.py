"""Order flow by minute, and the tide of the whole market. Nothing in a minute comes from a later one.

A print that a later message cancelled counts: at the end of its minute nobody knew.
"""

from __future__ import annotations

import polars as pl

from flowlake.datasets.flow_factors import SECTOR_SCOPE, SPOT_MINUTES
from flowlake.datasets.model import UTC_NS
from flowlake.datasets.roots import VOLATILITY_INDEXES
from flowlake.datasets.scored import OTM_DISTANCE
from flowlake.flow.units import in_units, outwards

_MINUTE_NS = 60_000_000_000
_KEY_MINUTES = 1 << 32
"""Minutes since 1970 are fewer. Underlying and minute are one number because a group-by of two columns is much slower."""
_KINDS = ("premium", "known_premium", "iso_premium", "multi_leg_premium", "retail_premium")


def minute_sums(prints: pl.DataFrame, legs: pl.DataFrame, bars: pl.DataFrame | None) -> pl.DataFrame:
    """One row per underlying and minute with a print, sums as integers in ten-thousandths, in no order.

    `prints` as `signed_prints` gives them, `legs` as `traded_contracts` does; `bars` is `equity_bars_1m`. Columns: `underlying`,
    `ts_utc`, `is_index`, `prints`, `volume`, premium by kind, `net_call`, `net_put`, `net_otm_call` and `net_otm_put` (null
    without a spot), `delta_shares` (null where no print has a side and a delta) and `spot`.
    """
    places = prints["contract_no"]
    minute = prints["ts_utc"].to_physical() // _MINUTE_NS
    named = prints.select(
        (legs["underlying_no"].gather(places) * _KEY_MINUTES + minute).alias("key"),
        "size",
        "net_premium",
        "net_size",
        "known_size",
        *_KINDS,
        (legs["right"] == "C").alias("is_call").gather(places),
        legs["strike"].gather(places),
        legs["is_adjusted"].gather(places),
        (legs["multiplier"] * legs["past_delta"]).alias("shares_each").gather(places),
    )
    minutes = _with_spots(_minutes(named["key"], legs), bars)
    rows = named.join(minutes.select("key", "spot"), on="key", how="left", maintain_order="left")
    is_call = pl.col("is_call")
    is_otm = ((outwards(is_call) >= OTM_DISTANCE) & ~pl.col("is_adjusted")).fill_null(False)
    shares = (pl.col("net_size") * pl.col("shares_each")).round().cast(pl.Int64)
    rows = rows.select(
        "key",
        "size",
        *_KINDS,
        (pl.col("premium") * is_call).alias("call_premium"),
        (pl.col("net_premium") * is_call).alias("net_call"),
        (pl.col("net_premium") * ~is_call).alias("net_put"),
        (pl.col("net_premium") * (is_call & is_otm)).alias("net_otm_call"),
        (pl.col("net_premium") * (~is_call & is_otm)).alias("net_otm_put"),
        shares.fill_null(0).alias("delta_shares"),
        (pl.col("known_size") * shares.is_not_null()).alias("delta_size"),
    )
    return (
        rows.group_by("key")
        .agg(pl.len().cast(pl.Int64).alias("prints"), pl.exclude("key").sum())
        .join(minutes, on="key")
        .with_columns(
            pl.when(pl.col("delta_size") > 0).then("delta_shares").alias("delta_shares"),
            *(pl.when(pl.col("spot").is_not_null()).then(name).alias(name) for name in ("net_otm_call", "net_otm_put")),
        )
        .drop("key", "past_spot", "delta_size")
        .rename({"size": "volume"})
    )


def _minutes(keys: pl.Series, legs: pl.DataFrame) -> pl.DataFrame:
    """Each `key` once, with its `underlying`, `ts_utc`, `is_index` and `past_spot`, sorted by time and underlying."""
    known = legs.group_by("underlying_no").agg(pl.col("underlying", "past_spot").first(), pl.col("is_index").any())
    return (
        pl.DataFrame({"key": keys.unique()})
        .with_columns(
            (pl.col("key") // _KEY_MINUTES).alias("underlying_no"),
            (pl.col("key") % _KEY_MINUTES * _MINUTE_NS).cast(UTC_NS).alias("ts_utc"),
        )
        .join(known, on="underlying_no")
        .drop("underlying_no")
        .sort("ts_utc", "underlying")
    )


def _with_spots(minutes: pl.DataFrame, bars: pl.DataFrame | None) -> pl.DataFrame:
    """With `spot`: the last stock bar that had ended when the minute began, else the session before."""
    if bars is None:
        return minutes.with_columns(pl.col("past_spot").alias("spot"))
    ended = (
        bars.select("underlying", pl.col("ts_utc").dt.offset_by("1m").cast(UTC_NS), "close")
        .join(minutes.select("underlying").unique(), on="underlying", how="semi")
        .sort("ts_utc", "underlying")
    )
    joined = minutes.join_asof(
        ended, on="ts_utc", by="underlying", strategy="backward", tolerance=f"{SPOT_MINUTES}m", check_sortedness=False
    )
    return joined.with_columns(pl.coalesce("close", "past_spot").alias("spot")).drop("close")


def flow_minutes(minutes: pl.DataFrame) -> pl.DataFrame:
    """The table `flow_minutes` of `minute_sums`."""
    scaled = {
        **{f"{kind}_usd": kind for kind in _KINDS},
        "call_premium_usd": "call_premium",
        **{f"{name}_premium_usd": name for name in ("net_call", "net_put", "net_otm_call", "net_otm_put")},
        "net_delta_shares": "delta_shares",
    }
    rows = minutes.select(
        "underlying",
        "ts_utc",
        "prints",
        "volume",
        "spot",
        (pl.col("premium") - pl.col("call_premium")).alias("put_premium_usd"),
        *(pl.col(source).alias(name) for name, source in scaled.items()),
    )
    return in_units(rows, ["put_premium_usd", *scaled])


def market_tide(minutes: pl.DataFrame, sectors: pl.DataFrame | None) -> pl.DataFrame:
    """The table `market_tide`: sums over the underlyings of each scope, and what they add up to since the first minute.

    `minutes` as `minute_sums` gives them; `sectors` is the table of that name, without which no scope is a sector.
    """
    is_volatility, is_index = pl.col("underlying").is_in(VOLATILITY_INDEXES), pl.col("is_index")
    members = {
        "all": ~is_volatility,
        "index": ~is_volatility & is_index,
        "stock": ~is_volatility & ~is_index,
        "volatility_index": is_volatility,
    }
    if sectors is not None:
        for (sector,), rows in sectors.group_by("sector"):
            members[f"{SECTOR_SCOPE}{sector}"] = pl.col("underlying").is_in(rows["underlying"].to_list())
    dollars = (pl.col("delta_shares") * pl.col("spot")).round().cast(pl.Int64)
    names = {
        "premium_usd": pl.col("premium"),
        "known_premium_usd": pl.col("known_premium"),
        "net_call_premium_usd": pl.col("net_call"),
        "net_put_premium_usd": pl.col("net_put"),
        "net_delta_usd": pl.col("delta"),
        "call_tide_usd": pl.col("net_call").cum_sum(),
        "put_tide_usd": pl.col("net_put").cum_sum(),
        "tide_usd": (pl.col("net_call") - pl.col("net_put")).cum_sum(),
    }
    so_far, known = pl.col("premium").cum_sum(), pl.col("known_premium").cum_sum()
    tides = []
    for scope, is_member in members.items():
        inside = minutes.filter(is_member)
        rows = (
            inside.with_columns(dollars.alias("delta"))
            .group_by("ts_utc")
            .agg(
                pl.col("prints", "premium", "known_premium", "net_call", "net_put").sum(),
                pl.len().cast(pl.Int64).alias("underlyings"),
                pl.when(pl.col("delta").is_not_null().any()).then(pl.col("delta").sum()).alias("delta"),
            )
            .sort("ts_utc")
        )
        tides.append(
            rows.select(
                pl.lit(scope).alias("scope"),
                "ts_utc",
                "prints",
                "underlyings",
                *(value.alias(name) for name, value in names.items()),
                pl.when(so_far > 0).then(known / so_far).alias("tide_coverage"),
            )
        )
    return in_units(pl.concat(tides), names).sort("scope", "ts_utc")


def with_tides(rows: pl.DataFrame, tide: pl.DataFrame, sectors: pl.DataFrame | None) -> pl.DataFrame:
    """`rows` (`underlying` among their columns) with `sector` and the last tide of each scope that is theirs; null where no print
    of the scope has a known side: then the tide has not moved, nobody knows whereto.
    """
    last = tide.sort("ts_utc").group_by("scope").agg(pl.col("tide_usd", "tide_coverage").last()).filter(pl.col("tide_coverage") > 0)
    closing = dict(last.select("scope", "tide_usd").iter_rows())
    of_sector = dict(sectors.select("underlying", "sector").iter_rows()) if sectors is not None else {}
    sector = pl.col("underlying").replace_strict(of_sector, default=None, return_dtype=pl.String())
    scope = pl.concat_str(pl.lit(SECTOR_SCOPE), "sector")
    return rows.with_columns(sector.alias("sector")).with_columns(
        pl.lit(closing.get("all"), dtype=pl.Float64()).alias("market_tide_usd"),
        pl.lit(closing.get("index"), dtype=pl.Float64()).alias("index_tide_usd"),
        scope.replace_strict(closing, default=None, return_dtype=pl.Float64()).alias("sector_tide_usd"),
    )
