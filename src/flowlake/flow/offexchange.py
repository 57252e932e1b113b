"""Step `offexchange_activity`: what traded off exchange in each underlying, beside what traded on exchanges.

Volumes and money are summed as integers: millionths of a share, ten-thousandths of a dollar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from flowlake.core.arrays import AnyArray, Bool, Float, Int
from flowlake.datasets.absent import not_available
from flowlake.datasets.model import Inputs, Output
from flowlake.datasets.offexchange import LARGE_SHARE, MILLIONTHS, TEN_THOUSANDTHS, decimal
from flowlake.flow._offexchange_kernels import totals_by_mark
from flowlake.flow.lit import SUBPENNY, Lit, lit_of, minute_volatility, numbers, sides
from flowlake.flow.offexchange_blocks import blocks, is_block
from flowlake.flow.offexchange_levels import levels

_MARKS = (
    "off",
    "block",
    "current",
    "core",
    "buy",
    "sell",
    "subpenny",
    "odd_lot",
    "round_lot",
    "large",
    "average_price",
    "derivative",
    "contingent",
    "late",
    "extended",
)
_COUNTED, _PRICED = 2, 3
"""Of so many first marks prints are counted, and dollars added up."""


@dataclass(frozen=True)
class Totals:
    """Per name: exact sums of the lit bars, and the lit session's volatility per minute (NaN without enough returns)."""

    shares: Int
    dollars: Int
    close: Float
    volatility: Float


def offexchange_activity(inputs: Inputs, session: date) -> Output:
    """`offexchange_activity`, `offexchange_blocks`, `offexchange_levels`.

    Required inputs: offexchange_prints, lit_bars_1m. Optional: equity_bars_1d, for the coverage of the tape.
    """
    frame, bars = inputs["offexchange_prints"], inputs["lit_bars_1m"].sort("underlying", "ts_utc")
    names = pl.concat([frame["underlying"].unique(), bars["underlying"].unique()]).unique().sort()
    kind = pl.Enum(names)
    lit = lit_of(bars, numbers(bars["underlying"], kind))
    totals = _totals(bars, lit, names.len())

    group = numbers(frame["underlying"], kind)
    shares = np.rint(frame["size"].to_numpy() * MILLIONTHS).astype(np.int64)
    dollars = np.rint(frame["notional_usd"].to_numpy() * TEN_THOUSANDTHS).astype(np.int64)
    moment = executed(frame)
    side, rule = sides(frame["price"].to_numpy(), frame["has_current_price"].to_numpy(), group, moment, lit)
    in_volume = frame["in_volume"].to_numpy()
    off = totals_by_mark(group, in_volume.astype(np.int64), shares, names.len(), 1)[:, 0]
    traded = off + totals.shares
    in_blocks = in_volume & is_block(shares, dollars)
    is_small = in_volume & (shares < LARGE_SHARE * traded[group])
    marks = _marks(frame, shares, side, rule, in_blocks, is_small)

    volume = totals_by_mark(group, marks, shares, names.len(), len(_MARKS))
    notional = totals_by_mark(group, marks, dollars, names.len(), _PRICED)
    count = totals_by_mark(group, marks, np.ones_like(shares), names.len(), _COUNTED)
    found = blocks(frame, np.flatnonzero(in_blocks), group, moment, side, rule, traded, totals.volatility, lit, session)
    activity = _activity(frame, names, volume, notional, count, totals, found, inputs.get("equity_bars_1d"))
    by_price = levels(frame.select("underlying", "price", "has_current_price"), shares, dollars, side, in_blocks)
    return Output({"offexchange_activity": activity, "offexchange_blocks": found, "offexchange_levels": by_price})


def _totals(bars: pl.DataFrame, lit: Lit, names: int) -> Totals:
    group = lit.key >> 32
    one = np.ones(group.size, dtype=np.int64)
    shares = np.rint(bars["volume"].to_numpy() * MILLIONTHS).astype(np.int64)
    dollars = np.rint(bars["notional_usd"].to_numpy() * TEN_THOUSANDTHS).astype(np.int64)
    chosen = np.flatnonzero(lit.is_regular & np.isfinite(lit.close))
    close = np.full(names, np.nan)
    close[group[chosen]] = lit.close[chosen]  # the last of a name wins: keys ascend
    return Totals(
        totals_by_mark(group, one, shares, names, 1)[:, 0],
        totals_by_mark(group, one, dollars, names, 1)[:, 0],
        close,
        minute_volatility(lit.key[chosen], lit.close[chosen], names),
    )


def executed(frame: pl.DataFrame) -> Int:
    """Moment of each print: as the firm states it where that is in time, else that of the report."""
    on_time = ~pl.col("is_late") & (pl.col("report_delay_ns") >= 0)
    moment = pl.when(on_time.fill_null(False)).then(pl.col("participant_ts_utc")).otherwise(pl.col("ts_utc"))
    return frame.select(moment.cast(pl.Int64)).to_series().to_numpy()


def _marks(frame: pl.DataFrame, shares: Int, side: Int, rule: Int, in_blocks: Bool, is_small: Bool) -> Int:
    in_volume = frame["in_volume"].to_numpy()
    flag = {name: in_volume & frame[f"is_{name}"].to_numpy() for name in ("average_price", "contingent", "late")}
    current = in_volume & frame["has_current_price"].to_numpy()
    conditions: dict[str, AnyArray] = {
        "off": in_volume,
        "current": current,
        "core": current & is_small,
        "buy": is_small & (side > 0),
        "sell": is_small & (side < 0),
        "subpenny": is_small & (rule == SUBPENNY),
        "odd_lot": in_volume & (shares < 100 * MILLIONTHS),
        "round_lot": in_volume & ~in_blocks & (shares >= 100 * MILLIONTHS) & (shares < 2_000 * MILLIONTHS),
        "large": in_volume & ~in_blocks & (shares >= 2_000 * MILLIONTHS),
        "block": in_blocks,
        "derivative": in_volume & frame["is_derivatively_priced"].to_numpy(),
        "extended": in_volume & frame["is_extended_hours"].to_numpy(),
        **flag,
    }
    marks = np.zeros(shares.size, dtype=np.int64)
    for bit, name in enumerate(_MARKS):
        marks |= conditions[name].astype(np.int64) << bit
    return marks


def _activity(
    frame: pl.DataFrame,
    names: pl.Series,
    volume: Int,
    notional: Int,
    count: Int,
    totals: Totals,
    judged_blocks: pl.DataFrame,
    daily: pl.DataFrame | None,
) -> pl.DataFrame:
    of = {name: i for i, name in enumerate(_MARKS)}

    def shares(mark: str) -> Float:
        return np.asarray(volume[:, of[mark]] / MILLIONTHS)

    def usd(mark: str) -> Float:
        return np.asarray(notional[:, of[mark]] / TEN_THOUSANDTHS)

    # Ratios are of the integers: sums of decimals could exceed their parts in the last bit.
    off, core, lit = volume[:, of["off"]], volume[:, of["core"]], totals.shares
    buys, sells = volume[:, of["buy"]], volume[:, of["sell"]]
    off_vwap = _mean_price(usd("current"), shares("current"))
    lit_vwap = _mean_price(totals.dollars / TEN_THOUSANDTHS, lit / MILLIONTHS)
    columns: dict[str, AnyArray] = {
        "off_volume": shares("off"),
        "lit_volume": lit / MILLIONTHS,
        "off_share": _ratio(off, off + lit),
        "core_share": _ratio(core, core + lit),
        "off_notional_usd": usd("off"),
        "off_prints": count[:, of["off"]],
        **{f"{mark}_volume": shares(mark) for mark in ("odd_lot", "round_lot", "large", "block")},
        "block_prints": count[:, of["block"]],
        "block_notional_usd": usd("block"),
        **{f"{mark}_volume": shares(mark) for mark in ("average_price", "derivative", "contingent", "late", "extended")},
        "off_vwap": off_vwap,
        "lit_vwap": lit_vwap,
        "lit_close": totals.close,
        "vwap_gap_bps": 1e4 * np.log(off_vwap / lit_vwap),
        "close_gap_bps": 1e4 * np.log(off_vwap / totals.close),
        "buy_volume": shares("buy"),
        "sell_volume": shares("sell"),
        "signed_share": _ratio(buys + sells, off),
        "subpenny_share": _ratio(volume[:, of["subpenny"]], buys + sells),
        "pressure": _ratio(buys - sells, buys + sells),
    }
    table = pl.DataFrame({"underlying": names, **columns}).with_columns(pl.col(pl.Float64).fill_nan(None))
    counted = (
        frame.filter("in_volume")
        .group_by("underlying")
        .agg(pl.col("size").median().alias("median_size"), pl.col("size").max().alias("largest_size"))
    )
    cancelled = frame.filter("is_cancelled").group_by("underlying").agg(pl.len().cast(pl.Int64).alias("cancelled_prints"))
    is_absorbed = pl.col("verdict") == "absorbed"
    judged = judged_blocks.group_by("underlying").agg(
        is_absorbed.sum().cast(pl.Int64).alias("absorbed_blocks"),
        (pl.col("verdict") == "moved").sum().cast(pl.Int64).alias("moved_blocks"),
        (pl.col("notional_usd") * TEN_THOUSANDTHS).round().cast(pl.Int64).filter(is_absorbed).sum().alias("dollars"),
    )
    judged = judged.with_columns(decimal("absorbed_notional_usd", judged["dollars"], TEN_THOUSANDTHS))
    for part in (counted, cancelled, judged, _daily_volume(daily)):
        table = table.join(part, on="underlying", how="left")
    return (
        table.sort("underlying")
        .with_columns(
            pl.col("cancelled_prints", "absorbed_blocks", "moved_blocks", "absorbed_notional_usd").fill_null(0),
            pl.when(pl.col("day_volume") > 0)
            .then((pl.col("off_volume") + pl.col("lit_volume")) / pl.col("day_volume"))
            .alias("tape_coverage"),
        )
        .with_columns(not_available(_REASONS))
    )


def _daily_volume(daily: pl.DataFrame | None) -> pl.DataFrame:
    if daily is None:
        return pl.DataFrame(schema={"underlying": pl.String(), "day_volume": pl.Float64()})
    return daily.select("underlying", pl.col("volume").alias("day_volume"))


def _mean_price(usd: Float, shares: Float) -> Float:
    """NaN without shares, and where the dollars are too few to be counted."""
    price = _ratio(usd, shares)
    price[price <= 0.0] = np.nan
    return price


def _ratio(part: AnyArray, whole: AnyArray) -> Float:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0.0))


_NO_LIT = "no trade on an exchange in the file of stock trades"
_NO_CURRENT = "no off-exchange print has a current price"
_NO_SIDE = "no off-exchange print has a side"
_REASONS = {
    "off_share": "no trade counts in the volume",
    "core_share": "no trade counts in the volume",
    "tape_coverage": "no daily stock bar",
    "median_size": "no off-exchange print in the volume",
    "largest_size": "no off-exchange print in the volume",
    "off_vwap": _NO_CURRENT,
    "lit_vwap": _NO_LIT,
    "lit_close": "no trade on an exchange set a price in the regular session",
    "vwap_gap_bps": f"{_NO_CURRENT}, or {_NO_LIT}",
    "close_gap_bps": f"{_NO_CURRENT}, or no lit close",
    "signed_share": "no off-exchange print in the volume",
    "subpenny_share": _NO_SIDE,
    "pressure": _NO_SIDE,
}
