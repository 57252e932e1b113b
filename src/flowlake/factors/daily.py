"""Step `daily_factors`: what one session's files say about each underlying."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.absent import present
from flowlake.datasets.factors import DAILY_FACTORS
from flowlake.datasets.model import UTC_NS, Inputs, Output
from flowlake.datasets.volatility import EXPOSURES
from flowlake.factors.exposures import by_strike, exposure_factors, gamma_total, latest_positions, valued
from flowlake.factors.flows import contract_flows, flow_factors, print_factors, sweep_factors
from flowlake.factors.mispricing import mispricing_factors
from flowlake.factors.positions import open_interest_increases, open_interest_totals, open_positions
from flowlake.factors.reasons import daily_reasons
from flowlake.factors.skews import skew_factors, surface_factors
from flowlake.factors.smiles import smiles, volatility_factors

CLOSE_WINDOW = timedelta(minutes=30)
"""A minute bar or an option price may stand for the close if it is at most this much older."""


def daily_factors(inputs: Inputs, session: date) -> Output:
    """One row per underlying of the session's contract master.

    Reads `contracts` and `option_iv`, and whatever exists of `iv_surface`, `option_trades`, `option_bars_1d`, `option_bars_1m`,
    `option_quotes_eod`, `rates`, `equity_bars_1d`, `equity_bars_1m`, `corporate_actions` and `open_interest` (this session and the
    one before).
    """
    contracts = inputs["contracts"].sort("contract")
    terms = contracts.select("contract", "expires_utc", "multiplier", "is_adjusted")
    implied = inputs["option_iv"].join(terms, on="contract").sort("contract")
    underlyings = contracts.select("underlying").unique().sort("underlying")
    spots = _close_spots(underlyings, implied, inputs, session)
    flows = _with_contract_spots(contract_flows(contracts, inputs), implied, spots)
    all_smiles = smiles(implied, session)
    positions = open_positions(inputs, session)
    latest = latest_positions(positions)
    held = valued(latest, spots, contracts, implied, all_smiles, inputs, session).join(
        latest.select("contract", "which"), on="contract", how="left"
    )
    traded = flows.filter((pl.col("volume") > 0) & (pl.col("expiry") > session)).rename({"volume": "quantity"})
    parts = [
        flow_factors(flows, session),
        sweep_factors(flows, open_interest_increases(positions, inputs, session), session),
        print_factors(inputs),
        _stock_volumes(inputs),
        volatility_factors(all_smiles),
        skew_factors(implied, spots, latest, inputs, session),
        surface_factors(inputs),
        mispricing_factors(implied, spots, inputs, session),
        open_interest_totals(positions),
        exposure_factors(held, session),
        gamma_total(valued(traded, spots, contracts, implied, all_smiles, inputs, session), "gamma_traded_usd"),
    ]
    rows = spots
    for part in parts:
        if part is not None:
            rows = rows.join(part, on="underlying", how="left")
    rows = _with_absent_columns(rows).with_columns(
        pl.when(pl.col("stock_volume") > 0)
        .then(pl.col("share_equivalents") / pl.col("stock_volume"))
        .alias("option_to_stock_volume"),
        pl.when(pl.col("open_interest_open") > 0)
        .then(pl.col("lasting_volume") / pl.col("open_interest_open"))
        .alias("volume_to_open_interest"),
        _squeeze_risk().alias("squeeze_risk"),
    )
    factors = rows.with_columns(daily_reasons(inputs)).sort("underlying")
    return Output({DAILY_FACTORS.name: factors, EXPOSURES.name: by_strike(held)})


def _squeeze_risk() -> pl.Expr:
    """What dealers short of gamma must buy per 1 % rise, over a day's dollar volume, times the nearness of short-dated calls."""
    short_gamma_usd = pl.max_horizontal(-pl.col("gamma_exposure_usd"), pl.lit(0.0))
    day_usd = pl.col("stock_volume") * pl.col("spot_close")
    known = pl.col("gamma_exposure_usd").is_not_null() & (day_usd > 0)
    return pl.when(known).then(short_gamma_usd / day_usd * pl.col("near_call_share"))


def _with_absent_columns(rows: pl.DataFrame) -> pl.DataFrame:
    absent = [c for c in DAILY_FACTORS.columns if c.name not in rows.columns and c.name != "not_available"]
    return rows.with_columns(pl.lit(None, dtype=column.dtype).alias(column.name) for column in absent)


def _close_spots(underlyings: pl.DataFrame, implied: pl.DataFrame, inputs: Inputs, session: date) -> pl.DataFrame:
    """`underlying`, `spot_close`, `spot_source`: day bar, else last minute bar, else the option price nearest the close."""
    close = pl.lit(sessions.close_utc(session), dtype=UTC_NS)
    since = pl.lit(sessions.close_utc(session) - CLOSE_WINDOW, dtype=UTC_NS)
    candidates = [
        implied.filter(pl.col("spot").is_not_null() & (pl.col("ts_utc") >= since))
        .with_columns((pl.col("ts_utc") - close).abs().alias("distance"))
        .sort("underlying", "distance", "years", "spot_source", "contract")
        .unique("underlying", keep="first", maintain_order=True)
        .select("underlying", pl.col("spot").alias("spot_close"), "spot_source")
    ]
    minute = present(inputs, "equity_bars_1m")
    if minute is not None:
        near_close = minute.filter(pl.col("is_regular") & (pl.col("ts_utc") >= since))
        last = near_close.filter(pl.col("ts_utc") == pl.col("ts_utc").max().over("underlying"))
        candidates.append(_closes(last, "equity_bars_1m"))
    day = present(inputs, "equity_bars_1d")
    if day is not None:
        candidates.append(_closes(day, "equity_bars_1d"))
    ranked = pl.concat([frame.with_columns(pl.lit(-rank).alias("rank")) for rank, frame in enumerate(candidates)])
    best = ranked.sort("underlying", "rank").unique("underlying", keep="first", maintain_order=True).drop("rank")
    return underlyings.join(best, on="underlying", how="left").sort("underlying")


def _closes(bars: pl.DataFrame, source: str) -> pl.DataFrame:
    return bars.select("underlying", pl.col("close").alias("spot_close"), pl.lit(source).alias("spot_source"))


def _with_contract_spots(flows: pl.DataFrame, implied: pl.DataFrame, spots: pl.DataFrame) -> pl.DataFrame:
    """`flows` with `spot`: of the contract's price, else the close, else the median over the underlying's contracts."""
    median = implied.group_by("underlying").agg(pl.col("spot").median().alias("median_spot"))
    return (
        flows.join(implied.select("contract", "spot"), on="contract", how="left")
        .join(spots.select("underlying", "spot_close"), on="underlying", how="left")
        .join(median, on="underlying", how="left")
        .with_columns(pl.coalesce("spot", "spot_close", "median_spot").alias("spot"))
        .drop("spot_close", "median_spot")
        .sort("contract")
    )


def _stock_volumes(inputs: Inputs) -> pl.DataFrame | None:
    """`underlying`, `stock_volume`: the day bar's, else the sum of regular minute bars, per underlying."""
    found = []
    day = present(inputs, "equity_bars_1d")
    if day is not None:
        found.append(day.select("underlying", pl.col("volume").alias("stock_volume")))
    minute = present(inputs, "equity_bars_1m")
    if minute is not None:
        regular = minute.filter(pl.col("is_regular")).sort("underlying", "ts_utc")
        found.append(regular.group_by("underlying", maintain_order=True).agg(pl.col("volume").sum().alias("stock_volume")))
    if not found:
        return None
    return pl.concat(found).unique("underlying", keep="first", maintain_order=True)
