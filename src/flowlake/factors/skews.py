"""What calls say against puts and out-of-the-money puts against the money, and what the surface adds.

The volatilities of calls against puts are those on the forward that spot, rate and known dividends give. On the forward that parity
implies, call and put of one strike have one volatility, and nothing is left to compare. Without a rate there is no such forward: a
rate of zero in its place would move calls against puts by several volatility points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl

from flowlake.core import sessions
from flowlake.core.arrays import Float
from flowlake.datasets.absent import present
from flowlake.datasets.factors import (
    AT_FORWARD_CONTRACTS,
    IV_PAIRS,
    MATURITY_DAYS,
    MOVE_DAYS,
    SLOPE_DAYS,
    SMIRK_CALL,
    SMIRK_DAYS,
    SMIRK_PUT,
    TARGET_DAYS,
)
from flowlake.datasets.model import Inputs
from flowlake.factors.carry import DAYS_PER_YEAR, cash_dividends
from flowlake.factors.early_exercise import CHUNK, array, dividends_ahead, rights
from flowlake.factors.smiles import ATM_WINDOW, constant_maturity, in_variance
from flowlake.factors.spots import stood_at_close
from flowlake.quant import american, european

SESSIONS_PER_YEAR = 252.0
_EXPIRY = ("underlying", "root", "expiry")
_SIDES = {"C": "atm_call_iv_30d", "P": "atm_put_iv_30d"}


class AtForward(NamedTuple):
    """Volatility at the forward of one expiry, from calls or from puts."""

    years: float
    vol: float


def skew_factors(
    implied: pl.DataFrame, spots: pl.DataFrame, positions: pl.DataFrame, inputs: Inputs, session: date
) -> pl.DataFrame:
    """`underlying`, `call_put_iv_spread`, `smirk`, `atm_call_iv_30d`, `atm_put_iv_30d`.

    `implied` is `option_iv` with `expires_utc`, `spots` has `underlying`, `spot_close` and `spot_source`, `positions` is
    `exposures.latest_positions`.
    """
    close = sessions.close_utc(session)
    ahead = (pl.col("quality") == "ok") & pl.col("spot").is_not_null() & (pl.col("expires_utc") > close)
    years = (pl.col("expires_utc") - close).dt.total_microseconds() / 1e6 / (86_400 * DAYS_PER_YEAR)
    rows = (
        implied.filter(ahead)
        .with_columns(years.alias("years_from_close"), (pl.col("expiry") - session).dt.total_days().alias("days"))
        .sort(*_EXPIRY, "strike", "right", "contract")
    )
    carried = _with_close_spots(rows.filter(pl.col("rate_source") == "rates"), spots, session)
    pairs = _pairs(carried, positions)
    solved = _on_carry(carried, pairs, cash_dividends(inputs, session))
    found = rows.select("underlying").unique()
    for part in (_spreads(solved, pairs), _smirks(rows), _at_forwards(solved)):
        found = found.join(part, on="underlying", how="left")
    return found.sort("underlying")


def surface_factors(inputs: Inputs) -> pl.DataFrame | None:
    """What `iv_surface` says of an underlying at one tenor; None where the session has no surface."""
    nodes = present(inputs, "iv_surface")
    if nodes is None:
        return None

    def at(days: int, column: str) -> pl.Expr:
        return pl.col(column).filter(pl.col("tenor_days") == days).first()

    shortest = pl.col("atm_iv").filter(pl.col("tenor_days").is_in(MOVE_DAYS)).drop_nulls().first()
    near, far = SLOPE_DAYS
    return (
        nodes.sort("underlying", "tenor_days")
        .group_by("underlying", maintain_order=True)
        .agg(
            (at(far, "atm_iv") - at(near, "atm_iv")).alias("term_slope"),
            at(TARGET_DAYS, "butterfly_25d").alias("butterfly_25d_30d"),
            at(TARGET_DAYS, "skew_10d").alias("skew_10d_30d"),
            (shortest * math.sqrt(2.0 / math.pi / SESSIONS_PER_YEAR)).alias("implied_move_1d"),
            at(TARGET_DAYS, "fit_rmse").alias("surface_residual"),
        )
    )


def _with_close_spots(rows: pl.DataFrame, spots: pl.DataFrame, session: date) -> pl.DataFrame:
    """`rows` with the close as the spot of quotes of the last minute: on a spot a minute old calls and puts drift apart."""
    closes = spots.filter(pl.col("spot_source").is_in(["equity_bars_1d", "equity_bars_1m"])).select("underlying", "spot_close")
    of_minute_bar = (pl.col("price_source") == "quote_mid") & (pl.col("spot_source") == "equity_bars_1m")
    at_close = pl.when(of_minute_bar & stood_at_close(session)).then("spot_close")
    joined = rows.join(closes, on="underlying", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce(at_close, "spot").alias("spot")).drop("spot_close")


def _pairs(rows: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `call`, `put` (contracts of one root, expiry and strike), `weight` (their mean open interest, above 0).

    A contract that the report of its underlying leaves out has no open interest. Pairs whose spot parity gave are left out: there
    the two forwards are one.
    """
    # With the strike: the text of a contract from before a split names another contract now.
    open_ = positions.select("contract", "strike", "quantity")
    sound = rows.filter(pl.col("spot_source").ne_missing("parity_forward")).join(open_, on=["contract", "strike"], how="left")
    key = [*_EXPIRY, "strike"]
    call, put = (
        sound.filter(pl.col("right") == side[0].upper()).select(
            *key, pl.col("contract").alias(side), pl.col("quantity").alias(f"open_{side}")
        )
        for side in ("call", "put")
    )
    weight = (pl.col("open_call").fill_null(0) + pl.col("open_put").fill_null(0)) / 2
    weighted = call.join(put, on=key).with_columns(weight.alias("weight")).filter(pl.col("weight") > 0)
    return weighted.sort(*key, "call").select("underlying", "call", "put", "weight")


def _on_carry(rows: pl.DataFrame, pairs: pl.DataFrame, schedule: pl.DataFrame) -> pl.DataFrame:
    """Rows of `pairs` and rows near the forward, with `k`, log-strike over the carry forward, and `carry_iv`; without a null."""
    paired = pl.Series("contract", [*pairs["call"], *pairs["put"]], dtype=pl.String())
    placed = rows.with_columns(_by_parts(_carry_forwards, rows, schedule).alias("carry_forward")).with_columns(
        (pl.col("strike") / pl.col("carry_forward")).log().alias("k")
    )
    # To solve a contract takes microseconds, and there are a million: only those that a factor looks at.
    looked_at = placed.filter((pl.col("contract").is_in(paired.implode()) | _near_forward()).fill_null(False))
    solved = looked_at.with_columns(_by_parts(_volatilities, looked_at, schedule).alias("carry_iv"))
    return solved.filter(pl.col("carry_iv").is_not_null())


def _by_parts(compute: Callable[[pl.DataFrame, pl.DataFrame], Float], rows: pl.DataFrame, schedule: pl.DataFrame) -> pl.Series:
    """`compute` of the rows, a part at a time: the dividends of each row are laid out. Null instead of NaN."""
    parts = [compute(rows[start : start + CHUNK], schedule) for start in range(0, rows.height, CHUNK)]
    return pl.Series(np.concatenate([np.empty(0), *parts]), dtype=pl.Float64()).fill_nan(None)


def _carry_forwards(rows: pl.DataFrame, schedule: pl.DataFrame) -> Float:
    spot, discount = array(rows, "spot"), array(rows, "discount")
    held = spot - dividends_ahead(rows, schedule).present_value(_rates(rows))
    return np.where(held > 0.0, held / discount, np.nan)


def _volatilities(rows: pl.DataFrame, schedule: pl.DataFrame) -> Float:
    """Of `price` on `carry_forward`, with early exercise where the contract has it."""
    price, spot, strike, years = (array(rows, name) for name in ("price", "spot", "strike", "years"))
    right = rights(rows)
    vol = np.array(european.implied_vol(price, array(rows, "carry_forward"), strike, years, right, array(rows, "discount")))
    early = (rows["exercise"] == "american").to_numpy()
    if early.any():
        terms = (price, spot, strike, years, right, _rates(rows), np.zeros(rows.height), *dividends_ahead(rows, schedule))
        vol[early] = american.implied_vol(*(term[early] for term in terms))
    return vol


def _rates(rows: pl.DataFrame) -> Float:
    """The continuous rate behind each contract's discount; contracts that expire have years above 0."""
    return np.asarray(-np.log(array(rows, "discount")) / array(rows, "years"))


def _near_forward() -> pl.Expr:
    low, high = (days / DAYS_PER_YEAR for days in MATURITY_DAYS)
    return pl.col("years_from_close").is_between(low, high) & (pl.col("k").abs() <= ATM_WINDOW)


def _spreads(rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `call_put_iv_spread`."""
    call, put = (rows.select(pl.col("contract").alias(name), pl.col("carry_iv").alias(f"{name}_iv")) for name in ("call", "put"))
    known = pairs.join(call, on="call").join(put, on="put").sort("underlying", "call")
    weight = pl.col("weight")
    spread = (weight * (pl.col("call_iv") - pl.col("put_iv"))).sum() / weight.sum()
    return known.group_by("underlying", maintain_order=True).agg(
        pl.when(pl.len() >= IV_PAIRS).then(spread).alias("call_put_iv_spread")
    )


def _smirks(rows: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `smirk`."""
    moneyness = pl.col("strike") / pl.col("spot")
    put, call = (
        rows.filter((pl.col("right") == right) & pl.col("days").is_between(*SMIRK_DAYS) & moneyness.is_between(*reach))
        .with_columns((moneyness - target).abs().alias("distance"))
        .sort(*_EXPIRY, "distance", "contract")
        .unique(list(_EXPIRY), keep="first", maintain_order=True)
        .select(*_EXPIRY, "days", pl.col("iv").alias(right))
        for right, reach, target in (("P", SMIRK_PUT, SMIRK_PUT[1]), ("C", SMIRK_CALL, 1.0))
    )
    both = put.join(call.drop("days"), on=list(_EXPIRY)).with_columns((pl.col("days") - TARGET_DAYS).abs().alias("distance"))
    return (
        both.sort("underlying", "distance", "expiry", "root")
        .unique("underlying", keep="first", maintain_order=True)
        .select("underlying", (pl.col("P") - pl.col("C")).alias("smirk"))
    )


def _at_forwards(rows: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `atm_call_iv_30d`, `atm_put_iv_30d`."""
    key = ("underlying", "right", "years_from_close")
    points = rows.filter(_near_forward()).group_by(*key, "k").agg(pl.col("carry_iv").median().alias("iv")).sort(*key, "k")
    k, iv = pl.col("k"), pl.col("iv")
    lower, upper = (value.filter(k <= 0).last() for value in (k, iv)), (value.filter(k >= 0).first() for value in (k, iv))
    ends = (*zip(("k0", "iv0"), lower, strict=True), *zip(("k1", "iv1"), upper, strict=True))
    apart = pl.col("k1") - pl.col("k0")
    between = pl.col("iv0") - pl.when(apart > 0).then(pl.col("k0") / apart * (pl.col("iv1") - pl.col("iv0"))).otherwise(0.0)
    expiries = (
        points.group_by(key, maintain_order=True)
        .agg(pl.len().alias("count"), *(value.alias(name) for name, value in ends))
        .filter(pl.col("count") >= AT_FORWARD_CONTRACTS)
        .select(*key, between.alias("vol"))
        .drop_nulls()
    )
    found: dict[str, dict[str, float | None]] = {}
    for (underlying, right), group in expiries.group_by("underlying", "right", maintain_order=True):
        line = [AtForward(*pair) for pair in group.select("years_from_close", "vol").iter_rows()]
        found.setdefault(str(underlying), {})[_SIDES[str(right)]] = constant_maturity(line, _vol, in_variance)
    rows_ = [(underlying, *(vols.get(name) for name in _SIDES.values())) for underlying, vols in found.items()]
    schema = {"underlying": pl.String(), **dict.fromkeys(_SIDES.values(), pl.Float64())}
    return pl.DataFrame(rows_, schema=schema, orient="row")


def _vol(expiry: AtForward) -> float:
    return expiry.vol
