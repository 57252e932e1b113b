"""The one price that stands for a contract on a session, the moment it was made, and the contract's volume."""

from __future__ import annotations

from datetime import date

import polars as pl

from flowlake.core import sessions
from flowlake.datasets.absent import present
from flowlake.datasets.model import UTC_NS, Inputs

WIDE_QUOTE_USD = 0.10
WIDE_QUOTE_SHARE = 0.50
"""A quote is too wide to hold a price when ask - bid exceeds 0.10 USD plus half its midpoint."""

_PRICE = ("contract", "price", "ts_utc")


def eligible_trades(trades: pl.DataFrame) -> pl.DataFrame:
    """Prints that count: in the vendor's volume and not cancelled later."""
    return trades.filter(pl.col("in_volume") & ~pl.col("is_cancelled"))


def sweeps(trades: pl.DataFrame) -> pl.DataFrame:
    """Eligible single-leg intermarket sweep prints on time: orders that paid for speed, and are no leg of a package."""
    return eligible_trades(trades).filter(pl.col("is_iso") & pl.col("may_be_signed"))


def contract_volumes(inputs: Inputs) -> pl.DataFrame | None:
    """`contract`, `volume` (contracts): of eligible trades, else day bars, else minute bars; None where there are none of these.

    One source for the whole session, so that contracts can be compared.
    """
    trades = present(inputs, "option_trades")
    if trades is not None:
        return eligible_trades(trades).group_by("contract").agg(pl.col("size").sum().alias("volume"))
    for name in ("option_bars_1d", "option_bars_1m"):
        bars = present(inputs, name)
        if bars is not None:
            return bars.group_by("contract").agg(pl.col("volume").sum())
    return None


def option_prices(inputs: Inputs, session: date) -> pl.DataFrame:
    """One row per contract of the master that has a price or a quote.

    Columns: `contract`, `price` (USD per share), `ts_utc`, `price_source`, `refused` (why the quote holds no price, null where
    another source gave one), `quote_spot` and `vendor_iv` of the quote. Sources in order of trust: midpoint, last trade, last
    minute bar, day bar.
    """
    quotes = _quotes(inputs)
    found = [quotes.filter(pl.col("refused").is_null()).select(*_PRICE, pl.lit("quote_mid").alias("price_source"))]
    trades = present(inputs, "option_trades")
    if trades is not None:
        found.append(_last_trades(trades).with_columns(pl.lit("trade").alias("price_source")))
    minute = present(inputs, "option_bars_1m")
    if minute is not None:
        found.append(_last_bars(minute).with_columns(pl.lit("minute_bar").alias("price_source")))
    day = present(inputs, "option_bars_1d")
    if day is not None:
        close = pl.lit(sessions.close_utc(session), dtype=UTC_NS).alias("ts_utc")
        found.append(day.select("contract", pl.col("close").alias("price"), close, pl.lit("day_bar").alias("price_source")))
    ranked = pl.concat([frame.with_columns(pl.lit(rank).alias("rank")) for rank, frame in enumerate(found)])
    best = ranked.sort("contract", "rank").unique("contract", keep="first", maintain_order=True).drop("rank")
    joined = best.join(quotes.drop("price", "ts_utc"), on="contract", how="full", coalesce=True)
    refused = pl.when(pl.col("price").is_null()).then(pl.col("refused")).alias("refused")
    return joined.with_columns(refused).sort("contract")


def minute_prices(inputs: Inputs, session: date) -> pl.DataFrame | None:
    """`contract`, `price`, `ts_utc` of every minute with a trade (its end), from the finest source; None where there is none.

    Minute bars, else the last eligible trade of each minute, else day bars at the close.
    """
    minute = present(inputs, "option_bars_1m")
    if minute is not None:
        return minute.select("contract", pl.col("close").alias("price"), pl.col("ts_utc").dt.offset_by("1m"))
    trades = present(inputs, "option_trades")
    if trades is not None:
        end = pl.col("ts_utc").dt.truncate("1m").dt.offset_by("1m")
        return _last_trades(trades, end.alias("end")).select("contract", "price", pl.col("end").alias("ts_utc"))
    day = present(inputs, "option_bars_1d")
    if day is not None:
        close = pl.lit(sessions.close_utc(session), dtype=UTC_NS).alias("ts_utc")
        return day.select("contract", pl.col("close").alias("price"), close)
    return None


def _quotes(inputs: Inputs) -> pl.DataFrame:
    quotes = present(inputs, "option_quotes_eod")
    if quotes is None:
        return pl.DataFrame(
            schema={
                "contract": pl.String(),
                "price": pl.Float64(),
                "ts_utc": UTC_NS,
                "refused": pl.String(),
                "quote_spot": pl.Float64(),
                "vendor_iv": pl.Float64(),
            }
        )
    latest = quotes.sort("contract", "ts_utc", "source", descending=[False, True, False]).unique(
        "contract", keep="first", maintain_order=True
    )
    bid, ask = pl.col("bid"), pl.col("ask")
    mid = (bid + ask) / 2
    refused = (
        pl.when((bid > 0).fill_null(False) & (ask > 0).fill_null(False))
        .then(
            pl.when(bid > ask)
            .then(pl.lit("crossed"))
            .when(ask - bid > WIDE_QUOTE_USD + WIDE_QUOTE_SHARE * mid)
            .then(pl.lit("wide_quote"))
        )
        .otherwise(pl.lit("one_sided"))
    )
    return latest.select(
        "contract", mid.alias("price"), "ts_utc", refused.alias("refused"), pl.col("spot").alias("quote_spot"), "vendor_iv"
    )


def _last_trades(trades: pl.DataFrame, *within: pl.Expr) -> pl.DataFrame:
    """The last print that may set a price, per contract and each of `within`.

    Order inside one moment is undefined, so the median price of the last moment stands for it.
    """
    priced = trades.filter(pl.col("sets_price") & ~pl.col("is_cancelled") & ~pl.col("is_late"))
    last = pl.col("ts_utc") == pl.col("ts_utc").max()
    return priced.group_by("contract", *within).agg(pl.col("price").filter(last).median(), pl.col("ts_utc").max())


def _last_bars(bars: pl.DataFrame) -> pl.DataFrame:
    last = bars.filter(pl.col("ts_utc") == pl.col("ts_utc").max().over("contract"))
    return last.select("contract", pl.col("close").alias("price"), pl.col("ts_utc").dt.offset_by("1m"))
