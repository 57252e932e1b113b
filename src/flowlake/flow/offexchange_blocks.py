"""Off-exchange blocks: what lit prices did after each, and whether it was absorbed.

A block of Q shares on a session of V is expected to move the price by daily volatility x sqrt(Q/V) (the square-root law with a
constant of 1). The probability weighs no move against that move either way, as likely beforehand, both with the noise of a lit
return over the watch. A block that cannot be told from noise comes out near one half, and is `unclear`.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Bool, Float, Int
from flowlake.datasets import offexchange as declared
from flowlake.flow.lit import MINUTE_NS, RULE_NAMES, Lit, last_price

REFERENCE_MINUTES = 10
"""A lit price older than this is no reference for a block."""
FRESH_MINUTES = 5
"""After the watch the lit price must be at most this old."""


def is_block(shares: Int, dollars: Int) -> Bool:
    worth = (dollars >= declared.BLOCK_USD * declared.TEN_THOUSANDTHS) & (shares >= 100 * declared.MILLIONTHS)
    return np.asarray((shares >= declared.BLOCK_SHARES * declared.MILLIONTHS) | worth)


def blocks(
    frame: pl.DataFrame,
    rows: Int,
    group: Int,
    executed: Int,
    side: Int,
    rule: Int,
    traded: Int,
    volatility: Float,
    lit: Lit,
    session: date,
) -> pl.DataFrame:
    chosen = frame[rows].select("underlying", "ts_utc", "price", "size", "notional_usd", "condition_group", "has_current_price")
    name, moment = group[rows], executed[rows]
    minute = moment // MINUTE_NS
    opening, closing = (int(m.timestamp()) // 60 for m in (sessions.open_utc(session), sessions.close_utc(session)))
    share = chosen["size"].to_numpy() * declared.MILLIONTHS / np.maximum(traded[name], 1)
    expected = volatility[name] * np.sqrt(closing - opening) * np.sqrt(share)
    noise = volatility[name] * np.sqrt(declared.ABSORPTION_MINUTES)
    usable = np.flatnonzero(lit.is_regular & np.isfinite(lit.close))
    keys, closes = lit.key[usable], lit.close[usable]
    before = last_price(keys, closes, name, minute - 1, REFERENCE_MINUTES)
    after = last_price(keys, closes, name, minute + declared.ABSORPTION_MINUTES - 1, FRESH_MINUTES)
    price = chosen["price"].to_numpy()
    move = np.log(after / before)
    probability = absorbed_probability(move, expected, noise)

    verdict = np.select(
        [
            ~chosen["has_current_price"].to_numpy(),
            minute < opening,
            minute >= closing,
            minute + declared.ABSORPTION_MINUTES >= closing,
            np.isnan(before) | np.isnan(after),
            np.isnan(noise),
            probability >= declared.ABSORBED_FROM,
            probability <= 1.0 - declared.ABSORBED_FROM,
        ],
        ["no_current_price", "before_open", "after_close", "near_close", "no_lit_prices", "no_volatility", "absorbed", "moved"],
        "unclear",
    )
    judged = np.isin(verdict, ("absorbed", "moved", "unclear"))
    return chosen.with_columns(
        pl.from_epoch(pl.Series("executed_utc", moment), time_unit="ns").dt.replace_time_zone("UTC").alias("executed_utc"),
        pl.Series("side", side[rows]).replace(0, None),
        pl.Series("side_rule", rule[rows]).replace_strict(RULE_NAMES, return_dtype=pl.String),
        pl.Series("volume_share", np.minimum(share, 1.0)),
        pl.Series("lit_before", before),
        pl.Series("price_gap_bps", 1e4 * np.log(price / before)),
        pl.Series("expected_move_bps", 1e4 * expected),
        pl.Series("noise_bps", 1e4 * noise),
        pl.Series("move_bps", np.where(judged, 1e4 * move, np.nan)),
        pl.Series("absorbed_probability", np.where(judged, probability, np.nan)),
        pl.Series("verdict", verdict.astype(str)).cast(pl.String),
    ).drop("has_current_price")


def absorbed_probability(move: Float, expected: Float, noise: Float) -> Float:
    """Posterior of no move against a move of `expected` either way, both as likely beforehand; all in log price, NaN goes through.

    p = 1 / (1 + exp(-e^2 / 2n^2) cosh(x e / n^2)).
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        half = np.square(expected / noise) / 2.0
        tilt = np.abs(move * expected) / np.square(noise)
        log_ratio = tilt + np.log1p(np.exp(-2.0 * tilt)) - np.log(2.0) - half
        return np.asarray(1.0 / (1.0 + np.exp(log_ratio)))
