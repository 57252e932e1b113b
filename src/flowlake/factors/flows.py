"""Volume and premium per contract, and the shares of prints by kind. Money is summed in ten-thousandths of a dollar."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.datasets.absent import present
from flowlake.datasets.factors import SHORT_DAYS, SWEPT_DAYS
from flowlake.datasets.model import Inputs
from flowlake.datasets.scored import OTM_DISTANCE
from flowlake.factors.prices import contract_volumes, eligible_trades, sweeps

TEN_THOUSANDTHS = 10_000


def contract_flows(contracts: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """`contracts` with `volume`, `premium` (ten-thousandths of a dollar), `trade_count` and `swept` (contracts in sweeps).

    Null where no file gives them; a contract without a row in a file that exists has 0.
    """
    flows = contracts
    for figures in (contract_volumes(inputs), _premiums(contracts, inputs), _trade_counts(inputs), _swept(inputs)):
        if figures is not None:
            name = figures.columns[-1]
            flows = flows.join(figures, on="contract", how="left").with_columns(pl.col(name).fill_null(0))
    missing = [name for name in ("volume", "premium", "trade_count", "swept") if name not in flows.columns]
    return flows.with_columns(pl.lit(None, dtype=pl.Int64()).alias(name) for name in missing).sort("contract")


def flow_factors(flows: pl.DataFrame, session: date) -> pl.DataFrame:
    """One row per underlying: volumes, premiums, the short-dated out-of-the-money part, share equivalents, and volume that lasts.

    `flows` as `contract_flows` gives it, with `spot`. `share_equivalents` is contracts x multiplier; `lasting_volume` that of
    contracts that outlive the session.
    """
    volume, premium = pl.col("volume"), pl.col("premium")
    call, put = pl.col("right") == "C", pl.col("right") == "P"
    is_short = _expires_within(SHORT_DAYS, session)
    otm_call, otm_put = is_short & call & _is_otm(), is_short & put & _is_otm()
    unplaced = _has_unplaced(is_short)

    def total(value: pl.Expr, where: pl.Expr | None = None) -> pl.Expr:
        chosen = value if where is None else value.filter(where)
        return pl.when(value.is_not_null().all()).then(chosen.sum())

    def usd(where: pl.Expr | None = None) -> pl.Expr:
        return total(premium, where) / TEN_THOUSANDTHS

    return (
        flows.group_by("underlying")
        .agg(
            total(volume).alias("option_volume"),
            total(volume, call).alias("call_volume"),
            total(volume, put).alias("put_volume"),
            total(volume, pl.col("expiry") > session).alias("lasting_volume"),
            total(pl.col("trade_count")).alias("option_trade_count"),
            usd().alias("premium_usd"),
            usd(call).alias("call_premium_usd"),
            usd(put).alias("put_premium_usd"),
            pl.when(~unplaced).then(total(volume, otm_call)).alias("otm_short_call_volume"),
            pl.when(~unplaced).then(total(volume, otm_put)).alias("otm_short_put_volume"),
            pl.when(~unplaced).then(usd(otm_call)).alias("otm_short_call_premium_usd"),
            pl.when(~unplaced).then(usd(otm_put)).alias("otm_short_put_premium_usd"),
            total((volume > 0).cast(pl.Int64)).alias("contracts_traded"),
            (total((volume * pl.col("multiplier") * TEN_THOUSANDTHS).round().cast(pl.Int64)) / TEN_THOUSANDTHS).alias(
                "share_equivalents"
            ),
        )
        .with_columns(
            pl.when(pl.col("call_volume") > 0).then(pl.col("put_volume") / pl.col("call_volume")).alias("put_call_volume_ratio"),
        )
    )


def sweep_factors(flows: pl.DataFrame, increases: pl.DataFrame | None, session: date) -> pl.DataFrame:
    """`underlying`, and what sweeps did in out-of-the-money contracts that expire within `SWEPT_DAYS`.

    `flows` as `contract_flows` gives it, with `spot`; `increases` as `open_interest_increases` does, None where there are none.
    """
    is_near = _expires_within(SWEPT_DAYS, session)
    chosen = is_near & _is_otm()
    known = pl.col("swept").is_not_null().all() & ~_has_unplaced(is_near)
    if increases is None:
        flows = flows.with_columns(increase=pl.lit(None, dtype=pl.Int64()), is_reported=pl.lit(False))
    else:
        is_reported = pl.col("underlying").is_in(increases["underlying"].unique().implode())
        flows = flows.join(increases.select("contract", "increase"), on="contract", how="left")
        flows = flows.with_columns(is_reported.alias("is_reported"))
    # Open interest cannot rise by more than was traded: a larger rise is one of the reports, not of the session.
    rise = pl.when(pl.col("increase") <= pl.col("volume")).then(pl.col("increase")).clip(lower_bound=0)
    opened = pl.min_horizontal("swept", rise.fill_null(0))
    sides = (("call", "C"), ("put", "P"))

    def total(value: pl.Expr, right: str) -> pl.Expr:
        return value.filter(chosen & (pl.col("right") == right)).sum()

    return flows.group_by("underlying").agg(
        *(pl.when(known).then(total(pl.col("swept"), right)).alias(f"swept_otm_{side}_volume") for side, right in sides),
        pl.when(known).then(pl.col("swept").filter(chosen).max().fill_null(0)).alias("largest_contract_sweep_volume"),
        *(
            pl.when(known & pl.col("is_reported").all()).then(total(opened, right)).alias(f"swept_opening_{side}_volume")
            for side, right in sides
        ),
    )


def _expires_within(days: int, session: date) -> pl.Expr:
    left = (pl.col("expiry") - pl.lit(session)).dt.total_days()
    return (left >= 0) & (left <= days) & ~pl.col("is_adjusted")


def _is_otm() -> pl.Expr:
    """The strike lies at least `OTM_DISTANCE` beyond spot; not so without a spot."""
    distance = (pl.col("strike") / pl.col("spot")).log()
    outwards = pl.when(pl.col("right") == "C").then(distance).otherwise(-distance)
    return (outwards >= OTM_DISTANCE).fill_null(False)


def _has_unplaced(among: pl.Expr) -> pl.Expr:
    """A contract that traded has no spot, so that nobody knows whether it was out of the money."""
    return (among & (pl.col("volume") > 0) & pl.col("spot").is_null()).any()


def print_factors(inputs: Inputs) -> pl.DataFrame | None:
    """Shares of volume by kind of print, and the largest premium, by underlying; None without a trades file."""
    trades = present(inputs, "option_trades")
    if trades is None:
        return None
    size = pl.col("size")

    is_package = pl.col("is_multi_leg") | pl.col("is_stock_tied")

    def share(kind: pl.Expr) -> pl.Expr:
        return size.filter(kind).sum() / size.sum()

    return (
        eligible_trades(trades)
        .group_by("underlying")
        .agg(
            share(pl.col("is_iso")).alias("iso_share"),
            share(is_package).alias("multi_leg_share"),
            share(pl.col("is_auction") & ~is_package).alias("auction_share"),
            pl.col("premium_usd").max().alias("largest_print_premium_usd"),
        )
    )


def _premiums(contracts: pl.DataFrame, inputs: Inputs) -> pl.DataFrame | None:
    """`contract`, `premium`: of eligible trades, else bar close x volume x multiplier of minute bars, else of day bars."""
    trades = present(inputs, "option_trades")
    if trades is not None:
        premium = (pl.col("premium_usd") * TEN_THOUSANDTHS).round().cast(pl.Int64).sum()
        return eligible_trades(trades).group_by("contract").agg(premium.alias("premium"))
    for name in ("option_bars_1m", "option_bars_1d"):
        bars = present(inputs, name)
        if bars is not None:
            proxy = pl.col("close") * pl.col("volume") * pl.col("multiplier") * TEN_THOUSANDTHS
            sized = bars.select("contract", "close", "volume").join(contracts.select("contract", "multiplier"), on="contract")
            return sized.group_by("contract").agg(proxy.round().cast(pl.Int64).sum().alias("premium"))
    return None


def _swept(inputs: Inputs) -> pl.DataFrame | None:
    trades = present(inputs, "option_trades")
    return None if trades is None else sweeps(trades).group_by("contract").agg(pl.col("size").sum().alias("swept"))


def _trade_counts(inputs: Inputs) -> pl.DataFrame | None:
    trades = present(inputs, "option_trades")
    if trades is not None:
        return eligible_trades(trades).group_by("contract").agg(pl.len().cast(pl.Int64).alias("trade_count"))
    for name in ("option_bars_1d", "option_bars_1m"):
        bars = present(inputs, name)
        if bars is not None and bars["transactions"].null_count() == 0:
            return bars.group_by("contract").agg(pl.col("transactions").sum().alias("trade_count"))
    return None
