"""What the right to exercise early changes: calls against puts, the volatility of a price, and how a position responds.

Everything here holds the forward fixed: what rate and dividends leave unexplained of it is a residual yield, so that an American
volatility and a European one rest on the same forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from flowlake.core.arrays import Bool, Float
from flowlake.factors.carry import DAYS_PER_YEAR
from flowlake.quant import american, european

CHUNK = 200_000
"""Contracts whose dividends are laid out at once: it bounds memory, and changes no result."""
LEAST_YIELD = 1e-9
NEAR_FORWARD = 0.15
"""Strikes up to this log-distance from the forward have a say in it where exercise may be early."""
NEAR_CONTRACTS = 6
"""Contracts nearest to the forward whose median volatility values early exercise."""
_EXPIRY = ("underlying", "root", "expiry")
# An ex-date begins with the regular session, options expire with its end.
_EX_DATE_TO_CLOSE_YEARS = 6.5 / 24.0 / DAYS_PER_YEAR


class Solution(NamedTuple):
    """Volatility and sensitivities of contracts, and the `ImpliedVolReason` of each."""

    iv: Float
    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    reason: Float


Columns = TypeVar("Columns", Solution, american.ExposureGreeks)


class Dividends(NamedTuple):
    """Ordinary cash dividends ahead of contracts: contracts x dividends, NaN-padded."""

    times: Float
    """Years from the contract's price to the ex-date."""
    amounts: Float
    """Dollars per share."""

    def present_value(self, rate: Float) -> Float:
        """Per contract, discounted at its own continuous rate."""
        # The exponential of NaN, of which most rows are full, is slow.
        ahead = (self.times > 0.0) & np.isfinite(rate)[:, np.newaxis]
        values = np.zeros(self.times.shape)
        np.multiply(-rate[:, np.newaxis], self.times, out=values, where=ahead)
        np.exp(values, out=values, where=ahead)
        np.multiply(self.amounts, values, out=values, where=ahead)
        return np.asarray(values.sum(axis=1))


def dividends_ahead(rows: pl.DataFrame, schedule: pl.DataFrame) -> Dividends:
    """For rows with `underlying`, `expiry` and `years`; `schedule` is `carry.cash_dividends`."""
    groups = rows.select("underlying", "expiry").unique().sort("underlying", "expiry").with_row_index("group")
    paid = (
        groups.join(schedule, on="underlying")
        .filter(pl.col("ex_date") <= pl.col("expiry"))
        .sort("group", "ex_date", "cash_amount_usd")
        .with_columns(pl.int_range(pl.len()).over("group").alias("position"))
    )
    most = int(paid["position"].max() or 0) + 1 if paid.height else 0  # type: ignore[arg-type]
    before_expiry, amounts = (np.full((groups.height, most), np.nan) for _ in range(2))
    place = (paid["group"].to_numpy(), paid["position"].to_numpy())
    days = (paid["expiry"] - paid["ex_date"]).dt.total_days().to_numpy()
    before_expiry[place] = days / DAYS_PER_YEAR + _EX_DATE_TO_CLOSE_YEARS
    amounts[place] = paid["cash_amount_usd"].to_numpy()
    group = rows.join(groups, on=["underlying", "expiry"], how="left", maintain_order="left")["group"].to_numpy()
    times = array(rows, "years")[:, np.newaxis] - before_expiry[group]
    # A row without `years` has no time to any ex-date: to be NaN in both is to be no dividend.
    return Dividends(times, np.where(np.isnan(times), np.nan, amounts[group]))


def exercise_premiums(rows: pl.DataFrame, iv: Float, schedule: pl.DataFrame) -> pl.DataFrame:
    """`underlying`, `root`, `expiry`, `strike`, `premium`: what early exercise adds to the call less what it adds to the put, USD.

    For strikes within `NEAR_FORWARD` of the forward of American contracts, `rows` as they were solved with `iv`, one per row. All
    strikes of an expiry are valued at the median spot and forward of its rows and the median volatility of the contracts nearest
    to the forward. That is near enough: a premium is a few per cent of a price, and an error in it is of the second order.
    """
    distance = (pl.col("strike") / pl.col("forward")).log().abs()
    near = (
        rows.with_columns(pl.Series("vol", iv).fill_nan(None), distance.alias("distance"))
        .filter((pl.col("exercise") == "american") & pl.col("spot").is_not_null() & (pl.col("distance") <= NEAR_FORWARD))
        .sort(*_EXPIRY, "distance", "contract")
    )
    expiries = near.group_by(_EXPIRY, maintain_order=True).agg(
        pl.col("vol").drop_nulls().head(NEAR_CONTRACTS).median(),
        *(pl.col(name).median() for name in ("forward", "spot", "years", "discount")),
    )
    strikes = near.select(*_EXPIRY, "strike").unique().join(expiries, on=list(_EXPIRY)).sort(*_EXPIRY, "strike")
    forward, spot, strike, years, vol, discount = (
        array(strikes, name) for name in ("forward", "spot", "strike", "years", "vol", "discount")
    )
    dividends, rate = dividends_ahead(strikes, schedule), _rates(discount, years)
    yields = residual_yields(forward, spot - dividends.present_value(rate), years, rate)
    call, put = (
        american.price(spot, strike, years, vol, side, rate, yields, *dividends)
        - european.price(forward, strike, years, vol, side, discount)
        for side in (1.0, -1.0)
    )
    premium = np.maximum(call, 0.0) - np.maximum(put, 0.0)
    return strikes.select(*_EXPIRY, "strike", pl.Series("premium", premium).fill_nan(None).fill_null(0.0))


def residual_yields(forward: Float, held: Float, years: Float, rate: Float) -> Float:
    """The q of forward = held exp((rate - q) years), where `held` is spot - PV(dividends); NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where((held > 0.0) & (forward > 0.0) & (years > 0.0), rate - np.log(forward / held) / years, np.nan)
    # A rounding error is no yield: it would make every call one that might be exercised early.
    return np.where(np.abs(found) < LEAST_YIELD, 0.0, found)


def european_vols(rows: pl.DataFrame) -> Float:
    """Every contract's volatility by Black's formula on its forward; NaN where there is none."""
    price, forward, strike, years, discount = (array(rows, name) for name in ("price", "forward", "strike", "years", "discount"))
    return np.asarray(european.implied_vol(price, forward, strike, years, rights(rows), discount))


def european_solution(rows: pl.DataFrame, schedule: pl.DataFrame) -> Solution:
    """Every contract by Black's formula on its forward; sensitivities are to the spot, without one to the discounted forward."""
    price, spot, forward, strike, years, discount = (
        array(rows, name) for name in ("price", "spot", "forward", "strike", "years", "discount")
    )
    right, rate, dividends = rights(rows), _rates(discount, years), dividends_ahead(rows, schedule)
    held = spot - dividends.present_value(rate)
    yields = residual_yields(forward, held, years, rate)
    is_known = np.isfinite(yields)
    base, carried = np.where(is_known, held, forward * discount), np.where(is_known, yields, 0.0)
    found = european.implied_vol_greeks(price, base, strike, years, right, rate, carried)
    reason = european.implied_vol_reason(price, forward, strike, years, right, discount)
    return Solution(found.iv, found.delta, found.gamma, found.vega, found.theta, np.asarray(reason, dtype=np.float64))


def american_solution(rows: pl.DataFrame, schedule: pl.DataFrame) -> Solution:
    """Every contract as one that may be exercised early."""
    return _by_chunks(_american_part, rows, schedule)


def exposure_greeks(rows: pl.DataFrame, schedule: pl.DataFrame) -> american.ExposureGreeks:
    """Of rows with `exercise`, `spot`, `forward`, `strike`, `right`, `years`, `vol` and `rate`; NaN where one is missing."""
    return _by_chunks(_exposure_part, rows, schedule)


def _by_chunks(compute: Callable[[pl.DataFrame, pl.DataFrame], Columns], rows: pl.DataFrame, schedule: pl.DataFrame) -> Columns:
    parts = [compute(rows[start : start + CHUNK], schedule) for start in range(0, max(rows.height, 1), CHUNK)]
    return type(parts[0])(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _exposure_part(rows: pl.DataFrame, schedule: pl.DataFrame) -> american.ExposureGreeks:
    spot, forward, strike, years, vol, rate = (array(rows, name) for name in ("spot", "forward", "strike", "years", "vol", "rate"))
    right, dividends = rights(rows), dividends_ahead(rows, schedule)
    aside = dividends.present_value(rate)
    yields = residual_yields(forward, spot - aside, years, rate)
    early = (rows["exercise"] == "american").fill_null(False).to_numpy()
    terms = (spot, strike, years, vol, right, rate, yields, *dividends)
    plain = european.greeks(*(term[~early] for term in (spot - aside, strike, years, vol, right, rate, yields)))
    # As time passes what is set apart for dividends earns interest, at the cost of the rest of the spot.
    charm = plain.charm - (rate * aside)[~early] * plain.gamma
    return merged(
        early,
        american.exposure_greeks(*(term[early] for term in terms)),
        american.ExposureGreeks(plain.delta, plain.gamma, plain.vanna, charm),
    )


def _american_part(rows: pl.DataFrame, schedule: pl.DataFrame) -> Solution:
    price, spot, forward, strike, years, discount = (
        array(rows, name) for name in ("price", "spot", "forward", "strike", "years", "discount")
    )
    right, rate, dividends = rights(rows), _rates(discount, years), dividends_ahead(rows, schedule)
    yields = residual_yields(forward, spot - dividends.present_value(rate), years, rate)
    terms = (price, spot, strike, years, right, rate, yields, *dividends)
    found = american.implied_vol_greeks(*terms)
    # The reason costs as much as the volatility, so only those without one are asked for it.
    reason, unsolved = np.zeros(rows.height), np.isnan(found.iv)
    reason[unsolved] = american.implied_vol_reason(*(term[unsolved] for term in terms))
    return Solution(found.iv, found.delta, found.gamma, found.vega, found.theta, reason)


def merged(where: Bool, first: Columns, second: Columns) -> Columns:
    """`first` in the rows `where`, `second` in the others, each in its order."""
    columns = []
    for a, b in zip(first, second, strict=True):
        column = np.empty(where.size)
        column[where], column[~where] = a, b
        columns.append(column)
    return type(first)(*columns)


def rights(rows: pl.DataFrame) -> Float:
    return np.where((rows["right"] == "C").to_numpy(), 1.0, -1.0)


def array(rows: pl.DataFrame, name: str) -> Float:
    return rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _rates(discount: Float, years: Float) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(years > 0, -np.log(discount) / years, np.nan)
